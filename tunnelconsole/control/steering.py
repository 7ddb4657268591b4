"""What an operator plans before anything is cut, as it travels over the control socket; see :mod:`.messages`."""

from __future__ import annotations

from typing import Literal

import msgspec


class DrainService(msgspec.Struct, frozen=True, tag="drain-service"):
    """Has a service take nothing new and stop once what it carries is over, or is cut for taking too long."""

    name: str
    seconds: float | None = None
    """How long it may take; None for as long as the configuration's ``drain``."""


class SetLimits(msgspec.Struct, frozen=True, kw_only=True, tag="set-limits"):
    """Changes limits of a service, or the rate of a session, while it runs; those that are not named stay."""

    target: str
    """A service's name, or a session's id."""
    rate: str = ""
    """As a configuration has it, such as ``10MB/s``; empty to leave it."""
    sessions: int | None = None
    channels: int | None = None
    lifted: list[str] = []
    """``rate``, ``sessions``, ``channels``: what shall have no limit any more."""


class ServiceChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload would do to one service."""

    name: str
    kind: str
    how: Literal["added", "removed", "replaced", "changed in place"]
    """``removed`` and ``replaced`` end sessions without channels at once, and channels after ``drain``; in place only
    sessions end of those who would not be let in any more, at once."""
    keys: list[str]
    """Which settings are others, by their path within the service, without their values."""
    sessions: int
    """Sessions that would have to come again."""
    channels: int
    """Channels that may finish, and are cut when they do not in time."""
    who: list[str]
    """Whose sessions they are, the first few: ``alice from 192.0.2.7:40001``."""
    more: int = 0
    """How many more sessions there are, who are not named."""


class ReloadPreview(msgspec.Struct, frozen=True, kw_only=True, tag="reload-preview"):
    """What a reload would do now; nothing has been done."""

    problems: list[str]
    """Mistakes in the configuration, for which it would be refused; all else is empty then."""
    changes: list[ServiceChange] = []
    kept: int = 0
    """Services that would not be touched."""
    drain: float = 0.0
    """Seconds that channels of services which are removed or replaced may take to finish."""
    engine: list[str] = []
    """Keys of ``[engine]`` that would be in force at once."""
    restart: list[str] = []
    """Keys of ``[engine]`` that need a new start of the engine."""
    warnings: list[str] = []
    """What should be known of the configuration besides."""


class PreviewReload(msgspec.Struct, frozen=True, tag="preview-reload"):
    """Reads the configuration and changes nothing; answered with :class:`ReloadPreview`."""
