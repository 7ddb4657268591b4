"""What both ends of the channel protocol share: its limits, its lines, and what is in them."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from tunnelconsole.engine.wire.errors import ProtocolError, WrongCredentials

#: Bytes of a chid in UTF-8: as long as a host name in practice, short enough for a table.
MAX_CHID = 128
#: Receivers that one client may name; who has more sends to all.
MAX_RECEIVERS = 1024
#: Seconds that a client may ask for as its timeout: 30 days, beyond which nobody means it.
MAX_TIMEOUT = 30 * 24 * 3600
#: Bytes in the first line: a chid with every character escaped, and whatever else a client may add.
MAX_FIRST_LINE = 4096
#: Bytes in any later line: as many receivers as there may be, each as long as it may be, in quotes and in base64.
MAX_LINE = 192 * 1024
#: Bytes with which a server begins that encrypts its handshake: a salt and a nonce, which travel in base64.
GREETING_LENGTH = 32
#: Characters of a reason told to the other end, or taken from it: a sentence or two.
MAX_REASON = 512

encode = msgspec.json.Encoder().encode
"""Return a line's JSON, without LF."""


def check_chid(chid: str) -> None:
    """Accept a chid: 1 to :data:`MAX_CHID` bytes of UTF-8, printable, without spaces and commas, and not ``*``.

    :raises ValueError: it is not one; the text says why.
    """
    if not chid:
        raise ValueError("a chid is not empty")
    if not chid.isprintable() or " " in chid:
        raise ValueError("a chid is made of printable characters without spaces")
    if "," in chid or chid == "*":  # which is how several are written in one, and all
        raise ValueError("a chid has no comma and is not *, which stands for all")
    if len(chid.encode("utf-8")) > MAX_CHID:
        raise ValueError(f"a chid has at most {MAX_CHID} bytes")


def check_receivers(receivers: Sequence[str]) -> tuple[str, ...]:
    """Return the receivers, each once, in their order.

    :raises ValueError: one of them is no chid, or there are more than :data:`MAX_RECEIVERS`.
    """
    if len(receivers) > MAX_RECEIVERS:
        raise ValueError(f"there are more than {MAX_RECEIVERS} receivers; name none to send to all")
    for receiver in receivers:
        check_chid(receiver)
    return tuple(dict.fromkeys(receivers))


def check_timeout(seconds: float) -> None:
    """Accept a timeout: 0, for none, to :data:`MAX_TIMEOUT` seconds.

    :raises ValueError: it is none.
    """
    if not 0 <= seconds <= MAX_TIMEOUT:
        raise ValueError(f"a timeout is 0 to {MAX_TIMEOUT} seconds")


class WrongPassword(WrongCredentials):
    """The first sealed line was sealed with no password that is known here."""


class Sealing(Protocol):
    """Seals and opens the lines of one end."""

    def seal(self, text: bytes) -> bytes:
        """Return what travels in place of ``text``, without LF."""

    def open(self, line: bytes) -> bytes:
        """Return the text that ``line`` carries.

        :raises WrongPassword: it is the first, and sealed with an unknown password.
        :raises ProtocolError: it was changed, or is no sealed line.
        """


class ServerSealing(Sealing, Protocol):
    """The server's end of a sealed handshake, fresh for each connection."""

    @property
    def greeting(self) -> bytes:
        """The line with which the server begins, without LF."""

    @property
    def identity(self) -> str | None:
        """Whose password sealed the first line; None before it has come."""


class ClientSealing(Sealing, Protocol):
    """The client's end of a sealed handshake, fresh for each connection."""

    def receive_greeting(self, line: bytes) -> bytes:
        """Return the salt that ``line`` tells.

        :raises ProtocolError: it is no greeting.
        """

    def use_key(self, key: bytes) -> None:
        """Take the key that password and salt make."""


def is_greeting(line: bytes) -> bool:
    """Whether a line may be the one with which a server begins that encrypts its handshake."""
    try:
        return len(binascii.a2b_base64(line.removesuffix(b"\r"), strict_mode=True)) == GREETING_LENGTH
    except ValueError:
        return False


class Lines:
    """Cuts the lines of a handshake out of its bytes; each is taken when whoever reads is ready for it."""

    __slots__ = ("_buffer", "_searched", "who")

    def __init__(self, who: str) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self.who = who

    def __len__(self) -> int:
        return len(self._buffer)

    def add(self, data: bytes) -> None:
        """Take bytes, split anywhere."""
        self._buffer += data

    def take(self, limit: int) -> bytes | None:
        """Remove the next line and return it without its LF; None while it is incomplete.

        :raises ProtocolError: it is longer than ``limit`` bytes.
        """
        end = self._buffer.find(b"\n", self._searched)
        if end >= limit or (end < 0 and len(self._buffer) >= limit):
            raise ProtocolError(f"the {self.who} sent a line of more than {limit} bytes; is it a channel {self.who}?")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def take_rest(self) -> bytes:
        """Remove and return what is left: the payload behind the last line."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


class Request(msgspec.Struct):
    """A line of the client's."""

    req: str
    chid: str | None = None
    recvers: list[str] | None = None
    timeout: int | float | None = None
    token: str | None = None
    nonce: str | None = None
    proof: str | None = None


class Response(msgspec.Struct):
    """A line of the server's."""

    rsp: str
    chid: str | None = None
    result: str | None = None
    desc: str | None = None
    nonce: str | None = None


_decode_request = msgspec.json.Decoder(Request).decode
_decode_response = msgspec.json.Decoder(Response).decode


def read_request(line: bytes, due: str) -> Request:
    """Return what a client's line says.

    :raises ProtocolError: it is not JSON, or not the request that is ``due``, ``hs1`` or ``hs3``.
    """
    try:
        request = _decode_request(line)
    except (ValueError, RecursionError):  # msgspec's errors, and UnicodeDecodeError, are ValueErrors
        raise ProtocolError(f"the {due} line is not the JSON that a channel client sends") from None
    if request.req != due:
        raise ProtocolError(f'the {due} line is something else; its "req" must be "{due}"')
    return request


def read_response(line: bytes) -> Response:
    """Return what a server's line says.

    :raises ProtocolError: it is not the JSON of one.
    """
    try:
        response = _decode_response(line)
    except (ValueError, RecursionError):
        raise ProtocolError("the channel server's line is not the JSON that one sends; is it one?") from None
    return response


def from_hex(text: str | None, length: int) -> bytes:
    """Return the bytes of a token's id, nonce or proof, in hex.

    :raises ProtocolError: it is missing, or is not that of ``length`` bytes.
    """
    try:
        data = bytes.fromhex(text or "")
    except ValueError:
        data = b""
    if len(data) != length:
        raise ProtocolError(f"a part of the token's proof is not {length} bytes in hex")
    return data


_Given = TypeVar("_Given")
_Checked = TypeVar("_Checked")


def checked(check: Callable[[_Given], _Checked], given: _Given) -> _Checked:
    """Turn a mistake of the client's into the error that is told to it."""
    try:
        return check(given)
    except ValueError as error:
        raise ProtocolError(str(error)) from None
