"""What clients and the rendezvous of the punch system say to each other.

Each connection's first line says what it is for; a line is one JSON document of at most :data:`MAX_LINE` bytes, ended
by LF, with its meaning in ``op``. Fields that are not known are ignored, so that more can be added.

1. A **seat** is a client's place in a room: :class:`Join` is answered with :class:`Joined` or :class:`Refused`; where
   it names a token, with :class:`Challenge` first, and :class:`Prove` is answered with :class:`Joined`. The
   server then says :class:`Peer` when the other seat is taken and :class:`Left` when it is empty again. What one seat
   says (:class:`Say`) the other is told (:class:`Said`), sealed, so that the server learns none of it. When both have
   said :class:`Ready` for the same step, both get :class:`Go`, so timed that it reaches them at the same moment.
2. An **observation** comes from the port that is to be punched, on a connection of its own: :class:`Observe` is
   answered with :class:`Observed`. On the same connection, :class:`Probe` has the server dial the connection's own
   source from elsewhere, which shows what that NAT does with strangers: :class:`Probed`.
3. A **relay** connection begins with :class:`Relay` and carries raw bytes from there on, to the other seat's.

A seat's number is drawn by its client, known to it and the server alone, and ties the three together. The originals of
this system have no rendezvous; this protocol is ours.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from tunnelconsole.engine.wire import lines
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.token_proof import NONCE_LENGTH, PROOF_LENGTH

#: The version of what this module describes.
VERSION = 1
#: Bytes of a line, with its LF: the longest sealed offer, in base64, and its envelope.
MAX_LINE = 16 * 1024
#: Bytes of a sealed text, in base64: 16 candidates take less than 3 KiB.
MAX_SEALED = 8 * 1024
#: Characters of a room's name.
MAX_ROOM = 64
#: Characters of the name of a step.
MAX_STEP = 32
#: Characters of a reason; what is longer was not said by our server.
MAX_REASON = 500
#: Endpoints at which a client may be observed: two addresses of each family with two ports each.
MAX_ENDPOINTS = 8
#: Addresses that one seat may have been seen from: two of each family leave room for NATs with a pool.
MAX_SEEN = 8
#: Bytes of a seat's number, and of a tag; each has twice as many hex digits.
SEAT_LENGTH = 16

Number = Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{2 * SEAT_LENGTH}}}\Z")]
"""A seat's number, or a tag, in hex."""

TokenPart = Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{2 * NONCE_LENGTH}}}\Z")]
"""The id of a token, or a nonce, in hex."""

_SHOWN = r"\A[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*\Z"

Text = Annotated[str, Meta(max_length=MAX_REASON, pattern=_SHOWN)]
"""A sentence for people: on their terminals it must not move the cursor, nor turn the direction of writing round."""
AddressText = Annotated[str, Meta(max_length=64, pattern=r"\A[!-~]*\Z")]
"""``host:port`` with a numeric host, or a numeric host alone."""


class Message(msgspec.Struct, frozen=True, tag_field="op"):
    """One line."""


class Join(Message, frozen=True, tag="join", kw_only=True):
    """A client takes a seat."""

    room: Annotated[str, Meta(min_length=1, max_length=MAX_ROOM, pattern=_SHOWN)]
    #: Which secret it has, as :attr:`~tunnelconsole.engine.wire.punch_room.RoomKey.tag` shows without telling it.
    tag: Number
    seat: Number
    version: int = VERSION
    #: The id of the token that it will prove, and a nonce; both or none.
    token: TokenPart | None = None
    nonce: TokenPart | None = None


class Prove(Message, frozen=True, tag="prove"):
    """A client that has named a token answers :class:`Challenge`; see :mod:`tunnelconsole.engine.wire.token_proof`."""

    proof: Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{2 * PROOF_LENGTH}}}\Z")]


class Say(Message, frozen=True, tag="say"):
    """A client says something to the other seat."""

    #: Sealed with the room's key, in base64.
    sealed: Annotated[str, Meta(max_length=MAX_SEALED)]


class Ready(Message, frozen=True, tag="ready"):
    """A client waits for the other to be ready for the same step."""

    step: Annotated[str, Meta(min_length=1, max_length=MAX_STEP)]


class Pong(Message, frozen=True, tag="pong"):
    """A client answers :class:`Ping`, at once."""

    id: Annotated[int, Meta(ge=0, lt=2**32)]


class Observe(Message, frozen=True, tag="observe"):
    """A client asks where this connection comes from, for a seat of its own; without one the server only tells."""

    seat: Number | None = None


class Probe(Message, frozen=True, tag="probe"):
    """A client asks to be dialled, where this connection comes from, by those it has not dialled itself."""


class Relay(Message, frozen=True, tag="relay"):
    """A client's connection to the other seat through the server; raw bytes follow."""

    seat: Number


class Joined(Message, frozen=True, tag="joined", kw_only=True):
    """A seat is taken."""

    #: Whether nobody else was there.
    first: bool
    #: Where the connection comes from.
    address: AddressText
    #: Where the client may be observed, the main one first: two ports of its address, then those of the alternate one.
    #: An empty host, as in ``:7900``, is the one that the client dialled.
    endpoints: Annotated[list[AddressText], Meta(max_length=MAX_ENDPOINTS)]


class Challenge(Message, frozen=True, tag="challenge"):
    """The token that a client has named is to be proved before it gets its seat."""

    nonce: TokenPart


class Peer(Message, frozen=True, tag="peer"):
    """The other seat is taken, perhaps by another than before."""


class Left(Message, frozen=True, tag="left"):
    """The other seat is empty."""


class Said(Message, frozen=True, tag="said", kw_only=True):
    """The other seat said something."""

    sealed: Annotated[str, Meta(max_length=MAX_SEALED)]
    #: Hosts from which the server has seen the other seat: what keeps it from naming somebody else's.
    seen: Annotated[list[AddressText], Meta(max_length=MAX_SEEN)]


class Go(Message, frozen=True, tag="go", kw_only=True):
    """Both are ready."""

    step: Annotated[str, Meta(max_length=MAX_STEP)]
    #: Seconds of a round trip between this client and the server.
    rtt: Annotated[float, Meta(ge=0)]


class Ping(Message, frozen=True, tag="ping"):
    """The server asks for a :class:`Pong`."""

    id: Annotated[int, Meta(ge=0, lt=2**32)]


class Notice(Message, frozen=True, tag="notice"):
    """Something that the client's user should know."""

    reason: Text


class Refused(Message, frozen=True, tag="refused"):
    """The server turns the client away and closes the connection."""

    reason: Text


class Observed(Message, frozen=True, tag="observed"):
    """Where the connection comes from."""

    address: AddressText


class Reached(enum.Enum):
    """What became of the server's dial to a client."""

    #: It was answered.
    OPEN = "open"
    #: It was refused.
    REFUSED = "refused"
    #: Nothing came back.
    SILENT = "silent"
    #: The server has nothing to dial from.
    UNTRIED = "untried"


class Probed(Message, frozen=True, tag="probed", kw_only=True):
    """What became of the dials that :class:`Probe` asked for."""

    #: From an address of the server that the client has not dialled.
    other_address: Reached
    #: From another port of the address that it has dialled.
    other_port: Reached


FirstLine = Join | Observe | Relay
"""What a client's connection may begin with."""

SeatLine = Say | Ready | Pong
"""What a seat may say from then on."""

ServerLine = Challenge | Joined | Peer | Left | Said | Go | Ping | Notice | Refused | Observed | Probed
"""What the server says."""

M = TypeVar("M", bound=Message)

_FIRST: msgspec.json.Decoder[FirstLine] = msgspec.json.Decoder(FirstLine)
_SEAT: msgspec.json.Decoder[SeatLine] = msgspec.json.Decoder(SeatLine)
_PROVING: msgspec.json.Decoder[Prove | Observe] = msgspec.json.Decoder(Prove | Observe)
_OBSERVING: msgspec.json.Decoder[Probe | Observe] = msgspec.json.Decoder(Probe | Observe)
_SERVER: msgspec.json.Decoder[ServerLine] = msgspec.json.Decoder(ServerLine)
_ENCODER = msgspec.json.Encoder()

_FIELD = re.compile(r"(?:missing required field `(\w+)`|at `\$\.(\w+))")
"""What a line's field is called where the decoder says what is wrong: the name is ours, the value theirs."""


class LineReader(lines.LineReader):
    """Cuts a byte stream into lines."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_LINE, "the punch protocol")


def encode(message: Message) -> bytes:
    """Return the line for ``message``, with its LF."""
    return _ENCODER.encode(message) + b"\n"


def parse_first(line: bytes) -> FirstLine:
    """Return what a client's connection is for.

    :raises ProtocolError: it is none of these, or of another version.
    """
    message = _parse(_FIRST, line)
    if isinstance(message, Join) and message.version != VERSION:
        raise ProtocolError(f"it speaks version {message.version} of the punch protocol, not {VERSION}")
    return message


def parse_seat(line: bytes) -> SeatLine:
    """Return what a seat says behind its first line.

    :raises ProtocolError: it is nothing that a seat says.
    """
    return _parse(_SEAT, line)


def parse_observing(line: bytes) -> Probe:
    """Return what a client says behind :class:`Observe`.

    :raises ProtocolError: it is something else.
    """
    message = _parse(_OBSERVING, line)  # of two: a decoder of one takes a line without "op" too
    if not isinstance(message, Probe):
        raise ProtocolError("it asks to be observed again on one connection")
    return message


def parse_proving(line: bytes) -> Prove:
    """Return what a client says behind a :class:`Join` that names a token.

    :raises ProtocolError: it is something else.
    """
    message = _parse(_PROVING, line)  # as above
    if not isinstance(message, Prove):
        raise ProtocolError("it asks to be observed where its token is to be proved")
    return message


def parse_server(line: bytes) -> ServerLine:
    """Return what the server says.

    :raises ProtocolError: it is nothing that a server says.
    """
    return _parse(_SERVER, line)


def _parse(decoder: msgspec.json.Decoder[M], line: bytes) -> M:
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        field = _FIELD.search(str(error))
        about = f": its {field[1] or field[2]} is missing or wrong" if field is not None else ""
        raise ProtocolError(f"a line of the punch protocol has none of its meanings{about}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProtocolError("a line of the punch protocol has none of its meanings") from None
