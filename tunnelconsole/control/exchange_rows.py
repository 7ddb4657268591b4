"""Requests through tunnels, as they travel over the control socket; see :mod:`tunnelconsole.control.messages`."""

from __future__ import annotations

import msgspec


class ExchangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One request that came through a tunnel, and what became of it."""

    id: str
    service: str
    host: str
    """The tunnel's public hostname."""
    peer: str
    """The visitor's ``host:port``, or its address alone where no more is known."""
    method: str
    target: str
    """A path with its query; what looks like a secret in it is hidden."""
    status: int
    """0 while there is no answer, and where there was none."""
    error: str
    """Why the answer is not the service's, or not complete; empty when all is well."""
    started: float
    seconds: float | None
    """From the request's head to the end of it all; None while it is under way."""
    seconds_to_answer: float | None
    """From the request's head to that of the service's answer; None where there is none."""
    request_bytes: int
    """Of the body, without its chunks, as the next."""
    response_bytes: int
    content_type: str
    """Of the answer."""
    replay_of: str
    """The id of the request that this one repeats; empty when a visitor has come."""


class HttpMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A request or an answer."""

    first_line: str
    fields: list[tuple[str, str]]
    """Names and values, each character one byte (ISO 8859-1)."""
    body: bytes
    """The first 64 KiB at most; in JSON as base64."""
    cut: bool
    """Whether there was more of it."""
    decoded: str = ""
    """The content coding that was undone, such as ``gzip``; empty: the body is as it came."""

    def value(self, name: str) -> str:
        """Of a field; those of a repeated one joined by commas; empty where there is none."""
        return ", ".join(value for key, value in self.fields if key.lower() == name.lower())
