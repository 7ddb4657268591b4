"""What stands around every screen: the header, the tabs, the banner and the footer, as lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tunnelconsole.control import figures
from tunnelconsole.screens import keys
from tunnelconsole.screens.feed import Link
from tunnelconsole.screens.pane import Scene
from tunnelconsole.screens.spans import Line, Span, apart, width_of

STALE_AFTER = 5.0
"""Seconds without an update after which a living connection is called silent: ten updates missed."""

BRAND = "TunnelConsole"

SHORTEST = 3
"""Letters of a screen's name below which its digit alone says more."""


def header(scene: Scene, now: float, frozen_at: float | None, width: int, *, demo: bool) -> Line:
    """The first line: whose console this is, how the engine is, what moves, and the time."""
    left: list[Span] = [Span(f" {BRAND if width >= 60 else 'TC'}  ", "brand", "app.show('overview')")]
    if demo:
        left.append(Span("demo  ", "notice"))
    left.append(_engine(scene))
    right: list[Span] = []
    status = scene.picture.status
    if status is not None and width >= 50:
        role_in, role_out = ("faint", "faint") if scene.link.state == "lost" else ("in", "out")
        right += [
            Span(f"↓ {figures.rate(status.rate_in)}", role_in),
            Span(f"  ↑ {figures.rate(status.rate_out)}", role_out),
        ]
    if frozen_at is not None:
        right.append(Span("  "))
        right.append(Span(f" FROZEN {figures.clock(frozen_at, scene.zone)} ", "frozen", "app.key('p')"))
        right.append(Span(" "))
    else:
        right.append(Span(f"  {figures.clock(now, scene.zone)} ", "dim"))
    if status is not None and width >= 110:
        left.append(Span(f"   {status.version}  pid {status.pid}  up {figures.duration(status.uptime)}", "faint"))
    line = apart(tuple(left), tuple(right), width)
    return line if width_of(line) <= width and len(line) > len(left) else apart((left[0],), tuple(right[-2:]), width)


def _engine(scene: Scene) -> Span:
    link, status = scene.link, scene.picture.status
    if link.state == "waiting":
        return Span("◌ waiting for the engine", "busy")
    if link.state == "lost":
        return Span("▲ engine away", "warning")
    if status is None:
        return Span("◌ reading", "busy")
    if status.draining:
        return Span("▲ engine is draining", "warning")
    if status.faults:
        return Span(f"✖ {figures.counted(status.faults, 'fault')}", "error", "app.show('services')")
    return Span("● running", "ok")


def tabs(scene: Scene, width: int) -> Line:
    """The second line: the screens with their digits, how much there is on each, and which is shown."""
    status = scene.picture.status
    services = scene.picture.services or ()
    counts = {} if status is None else {
        "services": status.services, "sessions": status.sessions, "channels": status.channels,
        "chids": sum(row.sessions for row in services if row.kind in keys.ABOUT["chids"]),
    }  # fmt: skip
    offered = keys.offered({row.kind for row in services}, scene.place.screen)
    return _tabs(tuple((name, counts.get(name, 0)) for name in offered), scene.place.screen, width)


@lru_cache(maxsize=16)
def _tabs(offered: Sequence[tuple[keys.Screen, int]], shown: keys.Screen, width: int) -> Line:
    line: list[Span] = []
    longest = max(len(name) for name, _ in offered)
    for letters in (longest + 1, *range(longest, SHORTEST - 1, -1), 0):  # first with how much there is on each
        line = []
        for name, count in offered:
            active = name == keys.INSIDE.get(shown, shown)
            role, action = ("tab-active" if active else "tab"), f"app.show('{name}')"
            line.append(Span(f" {keys.tab_key(name)}", role + "-key", action))
            if letters or active:
                line.append(Span(f" {name if active else name[:letters]}", role, action))
            if letters > longest and count:
                line.append(Span(f" {figures.count(count)}", role + "-key", action))
            line.append(Span(" ", role, action))
        if width_of(line) <= width:
            break
    return tuple(line)


def banner(link: Link, now: float, updated: float, config_error: str = "") -> list[Line]:
    """What has to be said about the engine before anything else; nothing while all is well."""
    if link.state == "lost":
        away = figures.duration(now - link.since)
        again = f"in {figures.duration(link.retry_at - now)}" if link.retry_at - now >= 1 else "now"
        return [(
            Span(" ▲ The engine went away ", "alarm"),
            Span(f" {away} ago; trying again {again}… ", "error", "app.try_now"),
            Span("what is shown is old", "dim"),
        )]  # fmt: skip
    if link.state == "live" and updated and now - updated > STALE_AFTER:
        return [(
            Span(" ▲ The engine is silent ", "caution"),
            Span(f" for {figures.duration(now - updated)}; what is shown is old", "warning"),
        )]  # fmt: skip
    return []


@lru_cache(maxsize=16)
def footer(screen: keys.Screen, width: int, *, deeper: bool) -> Line:
    """The last line: the keys that matter most here, as many as fit; each can be clicked."""
    line: list[Span] = []
    entries: Sequence[keys.Key] = [row for row in keys.footer(screen) if deeper or row.action != "go_back"]
    must = [row for row in entries if row.footer >= 90]
    room = width - sum(_entry_width(row) for row in must)
    for row in entries:
        if row not in must:
            if _entry_width(row) > room:
                continue
            room -= _entry_width(row)
        action = f"app.key({row.keys[0]!r})"
        line += [Span(f" {row.shown}", "key", action), Span(f" {row.label} ", "label", action)]
    return tuple(line)


def _entry_width(row: keys.Key) -> int:
    return len(row.shown) + len(row.label) + 3
