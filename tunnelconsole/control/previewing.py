"""What a reload would do, as an answer: who would be cut, and which settings are others."""

from __future__ import annotations

from collections.abc import Mapping

from tunnelconsole.control.steering import ReloadPreview, ServiceChange
from tunnelconsole.engine.changes import changed_keys
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.kinds import kind_of
from tunnelconsole.engine.services.service import ServiceSettings
from tunnelconsole.engine.sessions import Session

NAMED = 5
"""Sessions of a service that are named: enough to see whose they are, and few enough to be read before an answer."""


def preview(engine: Engine, wanted: Mapping[str, ServiceSettings]) -> ReloadPreview:
    """What applying these services would do now."""
    planned = engine.plan(wanted)
    changes = []
    for name in (*planned.replaced, *planned.removed, *planned.in_place):
        service = engine.services[name]
        cut = name not in planned.in_place
        attached = sorted(service.attached, key=_first) if cut else []
        changes.append(
            ServiceChange(
                name=name,
                kind=service.kind,
                how="changed in place" if not cut else "replaced" if name in wanted else "removed",
                keys=changed_keys(service.settings, wanted[name]) if name in wanted else [],
                sessions=len(attached),
                channels=service.channels if cut else 0,
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
