"""What a yamux session reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The remote opened a stream. Answer with ``accept`` or ``reject``; data may come before."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The remote acknowledged our stream, with ``extra_window`` bytes beyond the initial window."""

    stream_id: int
    extra_window: int


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A piece of the stream, at least one byte. Say so with ``consumed`` once it is passed on."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """The remote granted more window: ``send_window`` grew."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class HalfClosed:
    """The remote sends no more on this stream; ours to it stays open until ``send_eof``."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The remote ended the stream both ways; it is forgotten."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """The remote sent a ping; the answer is queued."""


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The remote answered the ping of this value."""

    value: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The remote opens no more streams and accepts none; with a code other than 0 the session is closed."""

    code: int


Event = (
    StreamOpened
    | StreamAccepted
    | DataReceived
    | WindowOpened
    | HalfClosed
    | StreamReset
    | Pinged
    | PongReceived
    | GoneAway
)
