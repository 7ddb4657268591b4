"""What is asked over the control socket, as entries of the audit trail: each change once, with what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tunnelconsole.control import messages
from tunnelconsole.control.messages import Ask, Done, Exchange, Refused, ReloadConfig, Request
from tunnelconsole.control.origins import Origin
from tunnelconsole.control.roles import READING
from tunnelconsole.control.tokens import TokenMade
from tunnelconsole.engine.audit import Outcome, accounted_for, difference
from tunnelconsole.engine.engine import Engine


def is_change(request: Request) -> bool:
    """Whether it belongs into the audit trail: whatever does more than read, and showing secrets."""
    if isinstance(request, messages.GetExchange):
        return request.reveal
    return not isinstance(request, READING)


def action_of(request: Request) -> str:
    """What is asked for: the request's name on the wire."""
    if isinstance(request, messages.GetExchange):
        return "reveal-secrets"
    return str(type(request).__struct_config__.tag)


def object_of(request: Request) -> str:
    """What it is to be done to: the first of the request's fields, where that is a text, as it is of all of them."""
    for field in msgspec.structs.fields(request)[:1]:
        value = getattr(request, field.name)
        return value if isinstance(value, str) else ""
    return ""


async def audited(
    engine: Engine, origin: Origin, ask: Ask, carry_out: Callable[[Request], Awaitable[object]]
) -> object:
    """Carries out what is asked, and gives the answer; who asked, and what came of it, becomes an entry.

    :param carry_out: gives the answer, which is :class:`~.messages.Refused` where it was not done.
    """
    request = ask.request
    actor = origin.actor(ask.means)
    before: dict[str, object] = dict(engine.supervised)
    outcome: Outcome = "broken off"
    text = ""
    try:
        with accounted_for():
            reply = await carry_out(request)
        outcome, text = _came_of(reply)
        if isinstance(request, ReloadConfig) and (changed := difference(before, engine.supervised)):
            text = f"{text}; {changed}"
        return reply
    except asyncio.CancelledError:
        text = "the engine ended before it was done"
        raise
    finally:
        engine.audit.record(actor, action_of(request), object_of(request), outcome, text)


def _came_of(reply: Any) -> tuple[Outcome, str]:
    """What an answer says; of an answer that shows something, no more than what it is of."""
    match reply:
        case Refused(message):
            return "refused", message
        case Done(text) | TokenMade(text=text):
            return "done", text
        case Exchange(row=row):
            return "done", f"{row.method} {row.host}, request {row.id}"
        case TokenMade(text=text):
            return "done", text
        case _:
            return "done", ""
