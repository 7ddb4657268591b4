"""What is said on stream 1 of a tunnel, in yamux.

The client writes ``gotunnelHandshakeRequest``, the server answers ``gotunnelHandshakeOk``. From there on the server
writes lines: ``{"Type":1,"Action":5}`` for each visitor, for whom the client is to open a stream, with type 3 for a
WebSocket. To a client that takes data connections ours may also write ``{"want":N}``: dial N more; and
``{"leave":"reason"}`` before it ends the session. Such a client may write ``{"healthy":false}``, and ``true`` later: it
should be given no visitors, because its service does not work.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.lines import LineReader

#: What the client writes on stream 1, and the server's answer.
GREETING = b"gotunnelHandshakeRequest"
GREETING_ANSWER = b"gotunnelHandshakeOk"
#: Bytes in a line, with its LF: ten times the longest that is defined.
MAX_LINE = 1024
#: Data connections that one line may ask for: a burst of visitors, not more than a client may open at once.
MAX_WANTED = 256

#: Characters of a reason: they fit into a line also where each takes twelve bytes of JSON.
MAX_CAUSE = 80

_TYPE_HTTP, _TYPE_WEBSOCKET, _ACTION_VISITOR = 1, 3, 5


class Greeting:
    """Reads the other end's greeting on stream 1.

    :param expected: :data:`GREETING` at the server, :data:`GREETING_ANSWER` at the client.
    """

    __slots__ = ("_expected", "leftover")

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        #: What came behind it: the first lines.
        self.leftover = b""

    def receive_data(self, data: bytes) -> bool:
        """Take bytes, split anywhere; return whether the greeting is complete.

        :raises ProtocolError: it is another.
        """
        expected, length = self._expected, len(self._expected)
        if data[:length] != expected[: len(data)]:
            raise ProtocolError("the other end does not greet as a tunnel does")
        self._expected = expected[len(data) :]
        self.leftover += data[length:]
        return not self._expected


@dataclass(frozen=True, slots=True)
class VisitorComing:
    """The client is to open a stream for a visitor."""

    websocket: bool = False


@dataclass(frozen=True, slots=True)
class Want:
    """The client is to dial ``count`` more data connections, 1 to :data:`MAX_WANTED`."""

    count: int


@dataclass(frozen=True, slots=True)
class Leave:
    """The session ends now, and why: at most :data:`MAX_CAUSE` characters."""

    reason: str


Message = VisitorComing | Want | Leave


def encode_message(message: Message) -> bytes:
    """Return the line for ``message``, with its LF."""
    match message:
        case VisitorComing(websocket):
            kind = _TYPE_WEBSOCKET if websocket else _TYPE_HTTP
            return b'{"Type":%d,"Action":%d}\n' % (kind, _ACTION_VISITOR)
        case Want(count):
            return b'{"want":%d}\n' % count
        case Leave(reason):
            return b'{"leave":%b}\n' % json.dumps(reason[:MAX_CAUSE]).encode()


def parse_message(line: bytes) -> Message:
    """Return what ``line`` says; keys that are not known are ignored, so that more can be added.

    :raises ProtocolError: it is none of the lines that this module describes.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("a line of the tunnel protocol is not JSON") from None
    if isinstance(fields, dict):
        kind, action, want, leave = (fields.get(key) for key in ("Type", "Action", "want", "leave"))
        if isinstance(leave, str):
            return Leave(leave[:MAX_CAUSE])
        if type(want) is int and 1 <= want <= MAX_WANTED:
            return Want(want)
        numbers = type(kind) is int and type(action) is int
        if numbers and action == _ACTION_VISITOR and kind in (_TYPE_HTTP, _TYPE_WEBSOCKET):
            return VisitorComing(websocket=kind == _TYPE_WEBSOCKET)
    raise ProtocolError("a line of the tunnel protocol has none of its meanings")


def encode_health(*, healthy: bool) -> bytes:
    """Return the line, with its LF, by which a client says whether it should be given visitors."""
    return b'{"healthy":true}\n' if healthy else b'{"healthy":false}\n'


def parse_health(line: bytes) -> bool | None:
    """Return what a client's line says of its health; None when it is about something else.

    :raises ProtocolError: it is no line of a client.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("a line of the tunnel protocol is not JSON") from None
    healthy = fields.get("healthy") if isinstance(fields, dict) else None
    return healthy if isinstance(healthy, bool) else None


def message_reader() -> LineReader:
    """Return what cuts the lines for :func:`parse_message` or :func:`parse_health` out of stream 1."""
    return LineReader(MAX_LINE, "the tunnel protocol")
