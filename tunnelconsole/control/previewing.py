"""What is answered to whoever plans before anything is cut: a drain, and what a reload would do and to whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from tunnelconsole.control.messages import Done, Request
from tunnelconsole.control.steering import DrainService, PreviewReload, ReloadPreview, ServiceChange, SetLimits
from tunnelconsole.engine.changes import changed_keys
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.live_limits import LimitChange
from tunnelconsole.engine.services.kinds import kind_of
from tunnelconsole.engine.services.service import ServiceSettings
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.units import Rate
from tunnelconsole.errors import RequestRefused

NAMED = 5
"""Sessions of a service that are named: enough to see whose they are, and few enough to be read before an answer."""


async def answer_about_plans(
    engine: Engine, look_ahead: Callable[[], Awaitable[ReloadPreview]] | None, request: Request
) -> object:
    """The answer to a request of this kind; None to any other.

    :param look_ahead: reads the configuration and says what a reload would do; None where there is nothing to be read.
    :raises RequestRefused: it cannot be done.
    """
    match request:
        case DrainService(name, seconds):
            return Done(await engine.drain_service(name, seconds))
        case SetLimits():
            change = LimitChange(
                rate=_rate(request.rate),
                sessions=request.sessions,
                channels=request.channels,
                lifted=request.lifted,
            )
            return Done(engine.set_limits(request.target, change))
        case PreviewReload():
            if look_ahead is None:
                raise RequestRefused("this engine has no configuration that could be read again")
            return await look_ahead()
        case _:
            return None


def _rate(text: str) -> float | None:
    try:
        return float(Rate.parse(text)) if text else None
    except ValueError as error:
        raise RequestRefused(str(error)) from error


def preview(engine: Engine, wanted: Mapping[str, ServiceSettings]) -> ReloadPreview:
    """What applying these services would do now."""
    planned = engine.plan(wanted)
    changes = []
    for name in (*planned.replaced, *planned.removed, *planned.in_place):
        service = engine.services[name]
        cut = name not in planned.in_place
        attached = sorted(service.attached if cut else service.cut_by(wanted[name]), key=_first)
        changes.append(
            ServiceChange(
                name=name,
                kind=service.kind,
                how="changed in place" if not cut else "replaced" if name in wanted else "removed",
                keys=changed_keys(service.settings, wanted[name]) if name in wanted else [],
                sessions=len(attached),
                channels=service.channels if cut else sum(session.channels for session in attached),
                who=[f"{session.identity} from {session.peer}" for session in attached[:NAMED]],
                more=max(0, len(attached) - NAMED),
            )
        )
    changes += [_added(name, kind_of(wanted[name])) for name in planned.added]
    return ReloadPreview(problems=[], changes=changes, kept=len(planned.kept), drain=float(engine.drain))


def _first(session: Session) -> tuple[bool, float]:
    """Those who have something under way come first, and of them who has been there the longest."""
    return not session.channels, session.since


def _added(name: str, kind: str) -> ServiceChange:
    return ServiceChange(name=name, kind=kind, how="added", keys=[], sessions=0, channels=0, who=[])
