"""What each role may ask over the control socket; the engine holds consoles to it, whatever they show."""

from __future__ import annotations

from tunnelconsole.control import messages
from tunnelconsole.control.attempts import GetAttempts
from tunnelconsole.control.audit import GetAudit
from tunnelconsole.control.bans import GetBans
from tunnelconsole.control.messages import Refused
from tunnelconsole.control.steering import PreviewReload
from tunnelconsole.control.tokens import GetTokens
from tunnelconsole.engine.node import Role

READING = (
    messages.GetStatus,
    messages.GetServices,
    messages.GetSessions,
    messages.GetChannels,
    messages.GetChids,
    messages.GetEvents,
    messages.GetExchanges,
    messages.GetExchange,
    GetAttempts,
    GetAudit,
    PreviewReload,
    GetTokens,
    GetBans,
    messages.Watch,
)
"""Requests that change nothing. Whatever is not named here is for operators."""

VIEW_ONLY = "this may only look: its role is view, and nothing was changed"
"""Why something was not done."""

FOR_OPERATORS = "the role operate can do it"
"""What to do about it."""


def refusal(role: Role, request: messages.Request) -> Refused | None:
    """Why somebody of this role may not ask for that; None where they may."""
    if role == "operate":
        return None
    if not isinstance(request, READING):
        return Refused(VIEW_ONLY, FOR_OPERATORS)
    if isinstance(request, messages.GetExchange) and request.reveal:
        return Refused("this may only look, and secrets stay hidden: its role is view", FOR_OPERATORS)
    return None
