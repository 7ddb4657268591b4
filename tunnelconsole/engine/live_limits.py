"""Limits that are changed while a service or a session runs, without cutting anybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from tunnelconsole.engine.services.service import Service
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.steering_events import LimitsChanged
from tunnelconsole.engine.tokens.grants import Token
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.errors import RequestRefused

NAMES: Final = ("rate", "sessions", "channels")
"""The limits that can be changed so; a session has a rate alone."""

HIGHEST: Final = 2**53
"""The highest limit that can be set: JSON has no whole numbers beyond it, and nobody has so many of anything."""


class LimitChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be changed; the others stay as they are."""

    rate: float | None = None
    """Bytes per second, both ways together, above 0."""
    sessions: int | None = None
    """At once, above 0."""
    channels: int | None = None
    """At once, above 0."""
    lifted: Collection[str] = ()
    """Names of limits that shall not be any more."""

    def check(self) -> None:
        """Accepts it.

        :raises RequestRefused: it changes nothing, or something to what cannot be.
        """
        unknown = [name for name in self.lifted if name not in NAMES]
        if unknown:
            raise RequestRefused(f"there is no limit {unknown[0][:64]}", f"limits are: {', '.join(NAMES)}")
        for name in NAMES:
            value = getattr(self, name)
            if value is not None and not 0 < value <= HIGHEST:
                raise RequestRefused(f"a limit of {value:g} for {name} is not possible", "give more than 0, or lift it")
            if value is not None and name in self.lifted:
                raise RequestRefused(f"{name} cannot be set and lifted at once", "leave one of them out")
        if not self.lifted and self.rate is None and self.sessions is None and self.channels is None:
            raise RequestRefused("no limit is named", f"limits are: {', '.join(NAMES)}")

    def about(self, name: str) -> bool:
        """Whether it changes this limit."""
        return name in self.lifted or getattr(self, name) is not None


def change_limits(
    target: str, change: LimitChange, services: Mapping[str, Service[Any]], running: Iterable[Service[Any]]
) -> str:
    """Changes the limits of a service by its name, or of a session by its id; returns what is in force.

    :param running: the services, and those that still carry something.
    :raises RequestRefused: there is neither, or it cannot be.
    """
    if target in services:
        return limit_service(services[target], change)
    for service in running:
        for session in service.attached:
            if session.id == target:
                return limit_session(service, session, change)
    raise RequestRefused(f"there is no service and no session {target[:64]}", "list them again")


def limit_service(service: Service[Any], change: LimitChange) -> str:
    """Changes a service's limits, for open channels too; returns what is in force, in one sentence.

    It holds until a reload changes that service's settings, or it is started anew.

    :raises RequestRefused: it cannot be.
    """
    change.check()
    gate = service.gate
    counts = {name: getattr(change, name) or 0 for name in ("sessions", "channels") if change.about(name)}
    gate.settings = msgspec.structs.replace(gate.settings, **counts)
    if change.about("rate"):
        gate.set_rate(change.rate)
        service.repace()
    text = f"{in_words(limits_of(service))}, until it is started anew or a reload changes its settings"
    service.node.bus.publish(LimitsChanged(service=service.name, limits=in_words(limits_of(service))))
    return f"service {service.name} has {text}"


def limit_session(service: Service[Any], session: Session, change: LimitChange) -> str:
    """Changes a session's own rate, for open channels too; returns what is in force, in one sentence.

    It holds until the session ends, besides what its service and its identity have to keep to.

    :raises RequestRefused: it cannot be.
    """
    change.check()
    if change.about("sessions") or change.about("channels"):
        raise RequestRefused("a session has no limits but a rate", f"name its service, {service.name}")
    session.pace = None if change.rate is None else Pace(change.rate)
    service.repace(session)
    words = in_words({} if change.rate is None else {"rate": change.rate})
    service.node.bus.publish(LimitsChanged(service=service.name, session=session.id, limits=words))
    return f"session {session.id} of {session.peer} has {words} of its own, until it ends"


def repace_token(token: Token, running: Iterable[Service[Any]]) -> None:
    """Has every open channel of whoever came with a token keep to the rate that it has now."""
    for service in running:
        for session in list(service.attached):
            if session.grant is not None and session.grant.token is token:
                service.repace(session)
        for channel in list(service.node.sessions.channels.values()):
            if channel.other is not None and channel.other.token is token and channel.session in service.attached:
                service.repace_channel(channel)


def limits_of(service: Service[Any]) -> dict[str, float]:
    """A service's limits that are in force, by name."""
    settings = service.gate.settings
    values = {"rate": service.gate.rate or 0, "sessions": settings.sessions, "channels": settings.channels}
    return {name: value for name, value in values.items() if value}


def by_hand(service: Service[Any]) -> bool:
    """Whether they are others than the configuration has."""
    own, settings = service.gate.settings, service.settings.limits
    return service.gate.rate != settings.rate or (own.sessions, own.channels) != (settings.sessions, settings.channels)


def in_words(limits: dict[str, float]) -> str:
    """Limits in a few words: ``at most 1,000,000 B/s, 10 sessions``."""
    if not limits:
        return "no limit"
    units = {"rate": "B/s", "sessions": "sessions", "channels": "channels"}
    return f"at most {', '.join(f'{value:,.0f} {units[name]}' for name, value in limits.items())}"
