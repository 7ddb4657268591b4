"""Whether an engine is ready for those who want to use it, as ``/readyz`` says."""

from __future__ import annotations

from tunnelconsole.engine.engine import Engine


def unready(engine: Engine) -> list[str]:
    """What keeps the engine from being ready, in one line each; nothing when it is.

    A service that has been stopped by hand, or is not enabled, keeps nobody waiting; nor does a client that has lost
    the server it had reached, because that is there or not whoever asks us.
    """
    if engine.draining:
        return ["the engine is stopping"]
    found = []
    for service in engine.services.values():
        if service.state == "stopped":
            continue
        if not service.reached:
            found.append(f"service {service.name}: {service.state}, and has never listened or connected")
        elif service.reached == "listening" and service.state not in ("listening", "connected"):
            found.append(f"service {service.name}: {service.state}, and does not listen any more")
    return found
