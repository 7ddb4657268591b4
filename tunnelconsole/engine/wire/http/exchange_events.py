"""What the exchanges of a visitor report, and where they stand."""

from __future__ import annotations

from enum import Enum

import msgspec

from tunnelconsole.engine.wire.http.head import RequestHead, ResponseHead


class RequestReady(msgspec.Struct, frozen=True):
    """The visitor asks for something. Choose a service and call ``forward``, or ``answer`` with an error.

    ``host`` is whom it is for: in lower case, without its port; empty if an HTTP/1.0 visitor did not say. ``target`` is
    what the service will be asked for: a path with its query, or ``*``. Judge access by these, since ``head`` is as the
    visitor sent it: with a URL in its request line, its ``Host`` means nothing. ``upgrade`` says whether it asks for a
    WebSocket.
    """

    head: RequestHead
    host: str
    target: str
    upgrade: bool


class RequestRefused(msgspec.Struct, frozen=True):
    """The visitor broke the rules. Its answer is queued, unless one was under way; then ``broken`` is set."""

    status: int
    reason: str


class ResponseStarted(msgspec.Struct, frozen=True):
    """The service's final answer has begun to pass; ``head`` is as the service sent it."""

    head: ResponseHead


class ExchangeDone(msgspec.Struct, frozen=True):
    """The exchange is over, and nothing more of it is wanted from its upstream.

    ``reusable`` says whether that can take another request, once what was to be sent to it has left; otherwise cut it.
    ``error`` is empty when the response was complete, and else says what went wrong.
    """

    reusable: bool
    error: str = ""


class UpstreamFailed(msgspec.Struct, frozen=True):
    """The upstream is lost, or made no sense, before its final answer began. Cut it.

    Then call ``forward`` with another one if ``retryable``, or ``answer``, usually with 502. A request is retryable
    when it does not matter whether the service has seen it already, and nothing of its body is gone.
    """

    reason: str
    retryable: bool


class Upgraded(msgspec.Struct, frozen=True):
    """From here on there are raw bytes both ways, beginning with what is queued for each side."""

    head: ResponseHead


Event = RequestReady | RequestRefused | ResponseStarted | ExchangeDone | UpstreamFailed | Upgraded


class Phase(Enum):
    """Where a visitor's connection stands."""

    IDLE = "between requests"
    HEAD = "in the middle of a request's head"
    DECIDING = "a request waits for forward() or answer()"
    EXCHANGE = "an upstream has the request"
    RAW = "upgraded: raw bytes pass both ways"
    OVER = "nothing more is taken from the visitor"
