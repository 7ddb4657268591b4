"""What our relay server and client add to the relay protocol, so that visitors need not go through yamux.

The relay protocol itself is yamux with the address of the public port as the only message on stream 1. It stays as it
is; an original at either end never meets what follows.

1. The server acknowledges stream 1 with a window update of :data:`NATIVE_WINDOW` bytes instead of 0. This is legal
   yamux: an original client just may send a little more. Our client takes it as the sign of our server.
2. That client opens stream 3 and writes the line ``{"native":1,"spare":N}``: it keeps N data connections waiting. The
   server closes those beyond them that it has no use for.
3. The server answers there with the line ``{"native":1,"key":"<64 hex digits>"}``. The key belongs to this backend
   only and to this session only. From then on the server may write ``{"want":N}``: dial N more data connections.
   Each line is ended by LF and has at most :data:`MAX_LINE` bytes.
4. For each one wanted the client dials the server's address again and sends :data:`DATA_MAGIC` and the 32 raw bytes of
   the key. The first byte, ``T``, differs from yamux's version, which is 0, so both kinds share a port.
5. The data connection waits until the server gives it a visitor: a length byte and the visitor's ``host:port`` as text.
   The client then dials its target. From there on there are raw bytes both ways; each half-close is passed on.
6. With ``"visitors":true`` in its hello the client asks who comes through yamux too: before the server opens a stream
   for a visitor it writes ``{"stream":N,"visitor":"host:port"}``. With ``"data":false`` the client makes no data
   connections, and gets no key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tunnelconsole.engine.wire import lines
from tunnelconsole.engine.wire.early_data import EarlyData
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.frame import encode_frame, take_frame
from tunnelconsole.engine.wire.hostport import parse_host_port, parse_peer

#: Bytes of window by which our server acknowledges stream 1: its sign. "TC" in ASCII, which nobody sends by chance.
NATIVE_WINDOW = 0x5443
#: The version of what this module describes; the number in ``{"native":1}``.
NATIVE_VERSION = 1
#: Bytes in the key of a backend: 256 bits cannot be guessed.
KEY_LENGTH = 32
#: Bytes with which a data connection begins, before the key.
DATA_MAGIC = b"TCRELAY1"
#: Bytes in a line on stream 3, with its LF: ten times the longest that is defined.
MAX_LINE = 1024
#: Data connections that one line may ask for: a burst of visitors, not more than a client may open at once.
MAX_WANTED = 256
#: Bytes of the public address on stream 1: the original reads no more than this.
MAX_PUBLIC_ADDRESS = 128


def is_native(first_byte: int) -> bool:
    """Say whether a connection that begins with this byte is a data connection of ours, and not yamux."""
    return first_byte == DATA_MAGIC[0]


def parse_public_address(data: bytes) -> str:
    """Return the ``host:port`` that the relay wrote on stream 1, all of it up to its end.

    :raises ProtocolError: it is longer than :data:`MAX_PUBLIC_ADDRESS` bytes, or no ``host:port``.
    """
    if len(data) > MAX_PUBLIC_ADDRESS:
        raise ProtocolError(f"the relay's public address is longer than {MAX_PUBLIC_ADDRESS} bytes")
    try:
        address = data.decode("utf-8")
        parse_host_port(address)
    except ValueError as error:
        raise ProtocolError(f"the relay's public address is unusable: {error}") from None
    return address


class LineReader(lines.LineReader):
    """Cuts a byte stream into the lines of stream 3."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_LINE, "the relay's native protocol")


@dataclass(frozen=True, slots=True)
class NativeHello:
    """The client speaks native data connections."""

    #: How many it keeps waiting for a visitor, 0 to :data:`MAX_WANTED`; None when it does not say.
    spare: int | None = None
    #: Whether it is to be told who comes through yamux.
    visitors: bool = False
    #: Whether it makes data connections at all.
    data: bool = True


@dataclass(frozen=True, slots=True)
class NativeKey:
    """The server agrees; data connections begin with this key."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Want:
    """The server wants ``count`` more data connections, 1 to :data:`MAX_WANTED`."""

    count: int


@dataclass(frozen=True, slots=True)
class VisitorStream:
    """The stream that the server opens next is for this visitor."""

    stream_id: int
    #: Its ``host:port``; the port is 0 where nobody knows it.
    visitor: str


NativeMessage = NativeHello | NativeKey | Want | VisitorStream


def encode_message(message: NativeMessage) -> bytes:
    """Return the line for ``message``, with its LF."""
    match message:
        case NativeHello(spare, visitors, data):
            fields: dict[str, object] = {"native": NATIVE_VERSION}
            if spare is not None:
                fields["spare"] = spare
            if visitors:
                fields["visitors"] = True
            if not data:
                fields["data"] = False
            return _line(fields)
        case NativeKey(key):
            return b'{"native":%d,"key":"%s"}\n' % (NATIVE_VERSION, key.hex().encode("ascii"))
        case Want(count):
            return b'{"want":%d}\n' % count
        case VisitorStream(stream_id, visitor):
            return _line({"stream": stream_id, "visitor": visitor})


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def parse_message(line: bytes) -> NativeMessage:
    """Return what ``line`` says; keys that are not known are ignored, so that more can be added.

    :raises ProtocolError: it is none of the lines that this module describes.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("a line of the relay's native protocol is not JSON") from None
    if isinstance(fields, dict):
        native, key, want, stream = (fields.get(name) for name in ("native", "key", "want", "stream"))
        if type(want) is int and 1 <= want <= MAX_WANTED:
            return Want(want)
        if type(native) is int and native == NATIVE_VERSION:
            return _parse_hello(fields) if key is None else NativeKey(_parse_key(key))
        if type(stream) is int and stream > 0:
            return VisitorStream(stream, _parse_visitor(fields.get("visitor")))
    raise ProtocolError("a line of the relay's native protocol has none of its meanings")


def _parse_hello(fields: dict[str, object]) -> NativeHello:
    return NativeHello(
        _parse_spare(fields.get("spare")), fields.get("visitors") is True, fields.get("data") is not False
    )


def _parse_visitor(text: object) -> str:
    try:
        if isinstance(text, str):
            parse_peer(text)
            return text
    except ValueError:
        pass
    raise ProtocolError("a line of the relay's native protocol has a visitor that is no host:port")


def _parse_spare(count: object) -> int | None:
    if count is None or (type(count) is int and 0 <= count <= MAX_WANTED):
        return count
    raise ProtocolError(f"a line of the relay's native protocol has a spare that is no number from 0 to {MAX_WANTED}")


def _parse_key(text: object) -> bytes:
    try:
        key = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != KEY_LENGTH:
        raise ProtocolError(f"the relay's key for data connections is not {2 * KEY_LENGTH} hex digits")
    return key


def encode_data_hello(key: bytes) -> bytes:
    """Return the first bytes of a data connection.

    :raises ValueError: the key is not :data:`KEY_LENGTH` bytes.
    """
    if len(key) != KEY_LENGTH:
        raise ValueError(f"a key has {KEY_LENGTH} bytes, not {len(key)}")
    return DATA_MAGIC + key


class DataHello:
    """Reads the first bytes of a data connection, at the server."""

    __slots__ = ("_buffer", "_early", "key")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._early = EarlyData()
        #: The key, once it is complete. Compare it with ``hmac.compare_digest``.
        self.key: bytes | None = None

    @property
    def leftover(self) -> bytes:
        """What came behind the key. The client says nothing before its target does, so this is usually empty."""
        return bytes(self._early)

    def receive_data(self, data: bytes) -> bytes | None:
        """Take bytes, split anywhere; return the key once it is complete, None before.

        :raises ProtocolError: a byte differs from :data:`DATA_MAGIC`, or too much came behind the key.
        """
        if self.key is not None:
            self._early.add(data)
            return self.key
        self._buffer += data
        if not DATA_MAGIC.startswith(self._buffer[: len(DATA_MAGIC)]):
            raise ProtocolError("the connection begins neither like yamux nor like a data connection of the relay")
        end = len(DATA_MAGIC) + KEY_LENGTH
        if len(self._buffer) >= end:
            self.key = bytes(self._buffer[len(DATA_MAGIC) : end])
            self._early.add(self._buffer[end:])
            self._buffer.clear()
        return self.key

    def receive_eof(self) -> None:
        """Take the end of the client's bytes.

        :raises ProtocolError: it came before the key was complete.
        """
        if self.key is None:
            raise ProtocolError("the client closed a data connection before its key was complete")


def encode_visitor(text: str) -> bytes:
    """Return what gives a data connection its visitor.

    :param text: the visitor's ``host:port``.
    :raises ValueError: it is longer than 255 bytes.
    """
    return encode_frame(text.encode("utf-8"))


class VisitorFrame:
    """Reads on a data connection who its visitor is, at the client."""

    __slots__ = ("_buffer", "_early", "visitor")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._early = EarlyData()
        #: The visitor's ``host:port``, once it is complete; the port is 0 where nobody knows it.
        self.visitor: str | None = None

    @property
    def leftover(self) -> bytes:
        """The visitor's first bytes; they go to the target before anything else."""
        return bytes(self._early)

    def receive_data(self, data: bytes) -> str | None:
        """Take bytes, split anywhere; return the visitor once it is complete, None before.

        :raises ProtocolError: the visitor is no ``host:port``, or too much payload came at once.
        """
        if self.visitor is not None:
            self._early.add(data)
            return self.visitor
        self._buffer += data
        if (frame := take_frame(self._buffer)) is not None:
            try:
                text = frame.decode("utf-8")
                parse_peer(text)
            except ValueError as error:
                raise ProtocolError(f"the relay named an unusable visitor: {error}") from None
            self.visitor = text
            self._early.add(self._buffer)
            self._buffer.clear()
        return self.visitor

    def receive_eof(self) -> None:
        """Take the end of the server's bytes.

        :raises ProtocolError: it came in the middle of the frame. Before its first byte the connection was just idle.
        """
        if self._buffer:
            raise ProtocolError("the relay closed a data connection in the middle of its visitor's address")
