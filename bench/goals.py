"""What TunnelConsole must reach, as ratios to direct in the same run, and whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.consoles import AT_ONCE, BESIDE, UPDATES, Churn, Consoles, Crowd
from bench.contenders import OUR_SSH, SSHD
from bench.limits import WINDOW
from bench.measures import (
    BULK_DOWN,
    BULK_UP,
    CONNECTIONS,
    LARGE,
    PING_P50,
    REQUEST_P99,
    REQUESTS,
    Figure,
    Idle,
)
from bench.ours import FAN
from bench.results import Results


@dataclass(frozen=True)
class Goal:
    """One bound.

    :param reached: gives what was measured, or None where it was not.
    :param at_least: True for a lower bound, False for an upper one.
    """

    what: str
    reached: Callable[[Results], float | None]
    bound: float
    at_least: bool
    shape: str
    """How a value is written, as :meth:`str.format` takes it."""

    def verdict(self, value: float | None) -> str:
        """``met``, ``missed`` or ``not measured``."""
        if value is None:
            return "not measured"
        return "met" if (value >= self.bound if self.at_least else value <= self.bound) else "**missed**"


def _ratio(contender: str, figure: Figure) -> Callable[[Results], float | None]:
    return lambda results: results.ratio(contender, figure)


def _idle(read: Callable[[Idle], float]) -> Callable[[Results], float | None]:
    return lambda results: read(results.idle["jump"]) if "jump" in results.idle else None


def _middle(contender: str, figure: Figure) -> Callable[[Results], float | None]:
    def reached(results: Results) -> float | None:
        values = results.values(contender, figure)
        return median(values) if values else None

    return reached


def _large_ratio(results: Results) -> float | None:
    large, bulk = results.values("tunnel, native", LARGE), results.values(results.reference, BULK_DOWN)
    return median(large) / median(bulk) if large and bulk else None


def _ssh(read: Callable[[Consoles], float | None]) -> Callable[[Results], float | None]:
    return lambda results: None if results.consoles is None else read(results.consoles)


def _crowd(read: Callable[[Crowd], float]) -> Callable[[Results], float | None]:
    return _ssh(lambda consoles: None if consoles.crowd is None else read(consoles.crowd))


def _churn(read: Callable[[Churn], float]) -> Callable[[Results], float | None]:
    return _ssh(lambda consoles: None if consoles.churn is None else read(consoles.churn))


def _of_sshd(figure: Figure) -> Callable[[Results], float | None]:
    """The ratio of ``ssh -R`` to our server to that to OpenSSH's own."""
    return lambda results: results.ratio(OUR_SSH, figure, SSHD)


def _milliseconds(values: list[float]) -> float | None:
    return 1000 * median(values) if values else None


def _farthest(results: Results) -> float | None:
    if results.limits is None or not results.limits.kept:
        return None
    return 100 * max(kept.farthest for kept in results.limits.kept)


def _revoked(results: Results) -> float | None:
    return None if results.limits is None else _milliseconds(results.limits.revoked_seconds)


SHARE = "{:.2f} of direct"

GOALS = (
    Goal("jump, bulk to the target", _ratio("jump", BULK_UP), 0.45, True, SHARE),
    Goal("jump, bulk from the target", _ratio("jump", BULK_DOWN), 0.45, True, SHARE),
    Goal("jump, round trip p50", _ratio("jump", PING_P50), 3, False, "{:.2f} times direct"),
    Goal("jump, new connections", _ratio("jump", CONNECTIONS), 0.25, True, SHARE),
    Goal("relay native, bulk to the target", _ratio("relay, native", BULK_UP), 0.35, True, SHARE),
    Goal("relay native, bulk from the target", _ratio("relay, native", BULK_DOWN), 0.35, True, SHARE),
    # 1.5 Gbit/s on a machine where direct gives 20
    Goal("relay yamux, bulk to the target", _ratio("relay, yamux", BULK_UP), 0.075, True, "{:.3f} of direct"),
    Goal("relay yamux, bulk from the target", _ratio("relay, yamux", BULK_DOWN), 0.075, True, "{:.3f} of direct"),
    Goal("channel, one to one, bulk", _ratio("channel, one to one", BULK_UP), 0.40, True, SHARE),
    Goal(f"channel, one to {FAN}, bulk to all together", _ratio(f"channel, one to {FAN}", BULK_UP), 0.60, True, SHARE),
    Goal("tunnel, small HTTP requests", _ratio("tunnel, native", REQUESTS), 0.08, True, SHARE),
    Goal("tunnel, small HTTP request, p99", _middle("tunnel, native", REQUEST_P99), 15, False, "{:.1f} ms"),
    # 5 Gbit/s on a machine where one direct stream gives 20
    Goal("tunnel, HTTP answers of 1 MB", _large_ratio, 0.25, True, "{:.2f} of direct bulk"),
    Goal(
        "tunnel, memory of the server for each tunnel",
        lambda results: None if results.tunnel_bytes is None else results.tunnel_bytes / 1024,
        40,
        False,
        "{:.1f} KiB",
    ),
    # no slower, as far as two runs of the same differ here
    Goal(
        "tunnel, the last of a million requests",
        lambda results: None if results.wear is None else results.wear.last / results.wear.first,
        0.9,
        True,
        "{:.2f} of the first",
    ),
    Goal("jump, memory of an idle channel", _idle(lambda idle: idle.bytes_each / 1024), 12, False, "{:.1f} KiB"),
    Goal("jump, processor while all idle", _idle(lambda idle: idle.cpu_percent), 1, False, "{:.2f} %"),
    Goal("jump, idle channels lost", _idle(lambda idle: idle.lost), 0, False, "{:.0f}"),
    Goal(
        "`tunnelconsole status` with all channels held",
        lambda results: _milliseconds(results.status_seconds),
        300,
        False,
        "{:.0f} ms",
    ),
    Goal(
        "the console's first frame with all channels held",
        lambda results: _milliseconds(results.first_paint_seconds),
        1000,
        False,
        "{:.0f} ms",
    ),
    Goal(
        "a console over SSH, first frame",
        _ssh(lambda consoles: _milliseconds(consoles.first_paint_seconds)),
        1500,
        False,
        "{:.0f} ms",
    ),
    Goal(
        f"{AT_ONCE} consoles over SSH, memory of each",
        _crowd(lambda crowd: crowd.resident / 1e6),
        60,
        False,
        "{:.1f} MB",
    ),
    Goal(
        f"{AT_ONCE} consoles over SSH with {UPDATES} updates a second, processor of each",
        _crowd(lambda crowd: crowd.cpu_percent),
        2,
        False,
        "{:.2f} %",
    ),
    Goal(
        f"round trip p99 with {BESIDE} consoles over SSH",
        _ssh(lambda consoles: consoles.ratio),
        1.2,
        False,
        "{:.2f} times without",
    ),
    Goal(
        "consoles over SSH that are closed, processes left", _churn(lambda churn: churn.processes), 0, False, "{:.0f}"
    ),
    Goal("consoles over SSH that are closed, sessions left", _churn(lambda churn: churn.sessions), 0, False, "{:.0f}"),
    Goal(
        "consoles over SSH that are closed, descriptors left",
        _churn(lambda churn: churn.descriptors),
        0,
        False,
        "{:.0f}",
    ),
    # the last events are kept, and an allocator keeps some; one session that is left has 100 KiB
    Goal(
        "consoles over SSH that are closed, memory left of each",
        _churn(lambda churn: churn.grown / churn.opened / 1024),
        16,
        False,
        "{:.1f} KiB",
    ),
    Goal(f"a rate, farthest off over {WINDOW:g} s", _farthest, 5, False, "{:.1f} %"),
    Goal("a token is revoked, its visitors are cut", _revoked, 1000, False, "{:.0f} ms"),
    Goal("ssh -R to ours, bulk to the target", _of_sshd(BULK_UP), 0.3, True, "{:.2f} of sshd"),
    Goal("ssh -R to ours, bulk from the target", _of_sshd(BULK_DOWN), 0.3, True, "{:.2f} of sshd"),
)
"""All goals; a bulk goal holds for each way."""
