"""Durations, sizes, rates and frequencies as people write them: ``"30s"``, ``"64KiB"``, ``"10MB/s"``, ``"20/10s"``."""

from __future__ import annotations

import math
from typing import Self

import msgspec

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}

LONGEST_COUNT = 9
"""Digits of a number of times: nobody counts on."""


class Duration(float):
    """Seconds, 0 or more; written as ``"500ms"``, ``"30s"``, ``"5m"``, ``"2h"``, ``"7d"``."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a duration.

        :raises ValueError: it is not one; the text says how one is written.
        """
        number, unit = _split(text)
        if number is None or unit not in _SECONDS:
            raise ValueError(f'"{text}" is not a duration; write one as "500ms", "30s" or "5m"')
        return cls(_counted(number, _SECONDS[unit], text))


class Size(int):
    """Bytes, 0 or more; written as ``"64KiB"`` (1024) or ``"64kB"`` (1000), ``"1MiB"``, ``"512B"``."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a size.

        :raises ValueError: it is not one; the text says how one is written.
        """
        number, unit = _split(text)
        if number is None or unit.lower() not in _BYTES:
            raise ValueError(f'"{text}" is not a size; write one as "64KiB" or "1MB"')
        return cls(_counted(number, _BYTES[unit.lower()], text))


class Rate(float):
    """Bytes per second, above 0; written as ``"10MB/s"`` or ``"512KiB/s"``."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a rate.

        :raises ValueError: it is not one, or is zero; the text says how one is written.
        """
        amount, slash, second = text.partition("/")
        number, unit = _split(amount)
        if number is None or unit.lower() not in _BYTES or not slash or second.strip() != "s":
            raise ValueError(f'"{text}" is not a rate; write one as "10MB/s"')
        if number <= 0:
            raise ValueError(f'"{text}" lets nothing through; leave the rate out for no limit')
        return cls(_counted(number, _BYTES[unit.lower()], text))


class Frequency(msgspec.Struct, frozen=True):
    """So many in so many seconds, both above 0; written as ``"20/10s"``, ``"300/m"``."""

    times: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a frequency.

        :raises ValueError: it is not one, or is zero; the text says how one is written.
        """
        how_often, slash, time = (part.strip() for part in text.partition("/"))
        try:
            if not slash or not how_often.isascii() or not how_often.isdecimal() or len(how_often) > LONGEST_COUNT:
                raise ValueError
            seconds = Duration.parse(time if time[:1].isdecimal() else f"1{time}")
        except ValueError:
            raise ValueError(f'"{text}" is not so many in a time; write it as "20/10s" or "300/m"') from None
        if not int(how_often) or not seconds:
            raise ValueError(f'"{text}" lets nobody through; leave it out for no limit')
        return cls(int(how_often), float(seconds))


def _counted(number: float, unit: float, text: str) -> float:
    if not math.isfinite(number * unit):
        raise ValueError(f'"{text}" is more than can be counted')
    return number * unit


def _split(text: str) -> tuple[float | None, str]:
    stripped = text.strip()
    digits = len(stripped) - len(stripped.lstrip("0123456789."))
    try:
        return float(stripped[:digits]), stripped[digits:].strip()
    except ValueError:
        return None, stripped
