"""Figures as people read them: sizes, rates, durations and counts, the same in the console and in the commands.

The convention, chosen once: **sizes** are binary (``1.2 MiB``), because that is how memory and files are counted;
**rates** are decimal (``4.2 MB/s``), because that is how lines are sold. Both are spelled so that nobody has to guess,
and both are what the configuration accepts (``64KiB``, ``10MB/s``).
"""

from __future__ import annotations

import math
from datetime import datetime, tzinfo

SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
"""Steps of 1024 (IEC 80000-13)."""

RATE_UNITS = ("B/s", "kB/s", "MB/s", "GB/s", "TB/s")
"""Steps of 1000 (SI)."""

MINUTE, HOUR, DAY = 60, 3600, 86400
"""Seconds in each."""


def size(count: float) -> str:
    """A number of bytes: ``0 B``, ``512 B``, ``1.2 MiB``, ``340 GiB``."""
    return _scaled(count, 1024, SIZE_UNITS)


def rate(per_second: float) -> str:
    """Bytes per second: ``0 B/s``, ``980 B/s``, ``4.2 MB/s``."""
    return _scaled(per_second, 1000, RATE_UNITS)


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    """Three digits at most, and a decimal below ten only: more cannot be read while it moves."""
    if not math.isfinite(value) or value < 0:
        value = 0
    unit = 0
    while round(value) >= 1000 and unit < len(units) - 1:
        value /= step
        unit += 1
    number = f"{value:.1f}" if unit and round(value, 1) < 10 else f"{value:.0f}"
    return f"{number} {units[unit]}"


def duration(seconds: float) -> str:
    """A length of time in its two largest units: ``0s``, ``12s``, ``3m12s``, ``5h07m``, ``3d04h``, ``123d``."""
    whole = int(seconds) if math.isfinite(seconds) and seconds > 0 else 0
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02d}s"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE:02d}m"
    if whole < 100 * DAY:
        return f"{whole // DAY}d{whole % DAY // HOUR:02d}h"
    return f"{whole // DAY}d"


def brief(seconds: float) -> str:
    """A short length of time: ``0.4 ms``, ``12 ms``, ``1.2 s``; from a minute on as :func:`duration` has it."""
    if not math.isfinite(seconds) or seconds < 0:
        seconds = 0.0
    milliseconds = seconds * 1000
    if round(milliseconds, 1) < 10:
        return f"{milliseconds:.1f} ms"
    if round(milliseconds) < 1000:
        return f"{milliseconds:.0f} ms"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if round(seconds) < MINUTE else duration(seconds)


def count(number: int) -> str:
    """A count with its thousands set apart: ``5,000``."""
    return f"{number:,}"


def counted(number: int, one: str, many: str = "") -> str:
    """A count with its noun: ``1 session``, ``5,000 sessions``; ``many`` is for plurals that are not made with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(value: float) -> str:
    """A share in percent: ``0.4%``, ``12%``."""
    return f"{value:.1f}%" if value < 10 else f"{value:.0f}%"


def clock(time: float, zone: tzinfo | None = None) -> str:
    """The time of day of a Unix time: ``14:03:22``, in ``zone`` or else where this machine is."""
    return datetime.fromtimestamp(time, zone).strftime("%H:%M:%S")


def date_and_time(time: float, zone: tzinfo | None = None) -> str:
    """Date and time of day of a Unix time: ``2025-11-20 14:03:22``, in ``zone`` or else where this machine is."""
    return datetime.fromtimestamp(time, zone).strftime("%Y-%m-%d %H:%M:%S")


def moment(time: float, now: float, zone: tzinfo | None = None) -> str:
    """The time of day, with the date before it where that is not the day of ``now``: ``11-20 23:59:59``."""
    then, today = datetime.fromtimestamp(time, zone), datetime.fromtimestamp(now, zone)
    return then.strftime("%H:%M:%S" if then.date() == today.date() else "%m-%d %H:%M:%S")
