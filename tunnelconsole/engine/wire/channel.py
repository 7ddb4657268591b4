"""The channel protocol, both ends: lines of JSON until the handshake is done, then raw bytes.

1. client: ``{"req":"hs1","chid":"ch0"}``; ``chid`` may be missing or empty, the server makes one then
2. server: ``{"rsp":"hs2","chid":"ch0"}``
3. client: ``{"req":"hs3","recvers":["ch1"],"timeout":3600}``; no ``recvers``, or an empty list: to all others;
   ``timeout``, optional: seconds without a byte either way after which the server closes
   Who proves a token adds ``"token"``, its id, and ``"nonce"`` to hs1, is told another ``"nonce"`` in hs2, and adds
   ``"proof"`` to hs3, each in hex: see :mod:`tunnelconsole.engine.wire.token_proof`
4. server: ``{"rsp":"hs4","result":"OK"}``; or ``{"rsp":"hs4","result":"FAIL","desc":"..."}`` instead of any answer,
   then it closes
5. raw bytes: what the client sends goes to its receivers, what it gets came from those whose receiver it is

Each line is ended by LF; keys that are not known are ignored, and null is the same as nothing. With a handshake
password the lines travel sealed: see :mod:`tunnelconsole.engine.wire.sealed_handshake`, which is not imported here, so
that only who has a password pays for the ciphers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tunnelconsole.engine.wire.channel_lines import (
    MAX_FIRST_LINE,
    MAX_LINE,
    MAX_REASON,
    ClientSealing,
    Lines,
    ServerSealing,
    check_chid,
    check_receivers,
    check_timeout,
    checked,
    encode,
    from_hex,
    is_greeting,
    read_request,
    read_response,
)
from tunnelconsole.engine.wire.early_data import EarlyData
from tunnelconsole.engine.wire.errors import NotAllowed, ProtocolError
from tunnelconsole.engine.wire.token_proof import (
    ID_LENGTH,
    NONCE_LENGTH,
    PROOF_LENGTH,
    Proof,
    make_proof,
    secret_id,
)

_OK = b'{"result":"OK","rsp":"hs4"}'


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client sealed its first line with the password that belongs to ``identity``."""

    identity: str


@dataclass(frozen=True, slots=True)
class JoinAsked:
    """The client wants to be ``chid`` and to send to ``receivers``, or to all when there are none.

    Answer with ``accept`` or ``refuse``. ``timeout`` is in seconds, 0 for none.
    """

    chid: str
    receivers: tuple[str, ...]
    timeout: float
    proof: Proof | None = None
    """Of a token, not judged yet; None where the client brings none."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client broke the protocol or knows no password. Its refusal is queued; send it and close."""

    reason: str
    error: ProtocolError | None = field(default=None, compare=False)
    """The same, of the sort that it is."""


ServerEvent = Authenticated | JoinAsked | Rejected


class _ServerStep(Enum):
    NAME = "before it said which chid it wants to be"
    RECEIVERS = "before it named its receivers"
    JOINING = "while it was let in"
    OPEN = "after the handshake"
    CLOSED = "after it was refused"


class ChannelServerHandshake:
    """The server's end: one for each connection.

    :param make_chid: returns a chid that is free, for a client that brings none.
    :param sealing: when the handshake is encrypted.
    :param random_bytes: returns that many random bytes, for the nonce of who proves a token; None where none is taken.
    """

    __slots__ = (
        "_chid",
        "_claim",
        "_early",
        "_lines",
        "_make_chid",
        "_nonce",
        "_output",
        "_random_bytes",
        "_sealing",
        "_step",
    )

    def __init__(
        self,
        make_chid: Callable[[], str],
        sealing: ServerSealing | None = None,
        random_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        self._make_chid = make_chid
        self._random_bytes = random_bytes
        self._sealing = sealing
        self._claim: tuple[bytes, bytes] | None = None
        self._nonce = b""
        self._chid = ""
        self._lines = Lines("client")
        self._early = EarlyData()
        self._output = bytearray(b"" if sealing is None else sealing.greeting + b"\n")
        self._step = _ServerStep.NAME

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the last line; it goes to the receivers before anything else."""
        return bytes(self._early)

    @property
    def held(self) -> int:
        """Bytes of a line that is not complete yet."""
        return len(self._lines)

    @property
    def answered(self) -> bool:
        """Whether the client has been let in or refused."""
        return self._step in (_ServerStep.OPEN, _ServerStep.CLOSED)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive_data(self, data: bytes) -> list[ServerEvent]:
        """Take bytes from the client, split anywhere, and return what they caused.

        :raises ProtocolError: too much payload came before the client was let in.
        """
        events: list[ServerEvent] = []
        if self._step in (_ServerStep.JOINING, _ServerStep.OPEN):
            self._early.add(data)
            return events
        if self._step is _ServerStep.CLOSED:
            return events
        self._lines.add(data)
        try:
            if self._step is _ServerStep.NAME and (line := self._lines.take(MAX_FIRST_LINE)) is not None:
                self._read_name(line, events)
            if self._step is _ServerStep.RECEIVERS and (line := self._lines.take(MAX_LINE)) is not None:
                events.append(self._read_receivers(line))
        except ProtocolError as error:
            self.refuse(str(error))
            events.append(Rejected(str(error), error))
            return events
        if events and isinstance(events[-1], JoinAsked):
            self._early.add(self._lines.take_rest())
        return events

    def receive_eof(self) -> None:
        """Take the end of the client's bytes.

        :raises ProtocolError: it came before the handshake was done; the message says at which step.
        """
        if self._step in (_ServerStep.NAME, _ServerStep.RECEIVERS):
            raise ProtocolError(f"the client closed {self._step.value}")

    def accept(self) -> None:
        """Say that the client is in; raw bytes follow.

        :raises RuntimeError: it has not asked, or was answered already.
        """
        if self._step is not _ServerStep.JOINING:
            raise RuntimeError("accept() without a client that asked to be let in")
        self._say(_OK)
        self._step = _ServerStep.OPEN

    def refuse(self, reason: str) -> None:
        """Say no, with the reason; send it and close. Possible at each step until :meth:`accept`.

        :param reason: for the client's user; cut to :data:`MAX_REASON` characters.
        :raises RuntimeError: the handshake is over.
        """
        if self._step in (_ServerStep.OPEN, _ServerStep.CLOSED):
            raise RuntimeError("refuse() after the handshake was over")
        self._say(encode({"desc": reason[:MAX_REASON], "result": "FAIL", "rsp": "hs4"}))
        self._lines.take_rest()
        self._step = _ServerStep.CLOSED

    def _say(self, text: bytes) -> None:
        """Queue a line: sealed once the client has proved that it can open it."""
        if self._sealing is not None and self._sealing.identity is not None:
            text = self._sealing.seal(text)
        self._output += text + b"\n"

    def _read_name(self, line: bytes, events: list[ServerEvent]) -> None:
        if self._sealing is not None:
            if line.startswith(b"{"):
                raise NotAllowed("this channel server encrypts its handshake: a handshake password is needed")
            line = self._sealing.open(line)
            events.append(Authenticated(self._sealing.identity or ""))
        request = read_request(line, "hs1")
        if request.chid:
            checked(check_chid, request.chid)
        self._chid = request.chid or self._make_chid()
        answer = {"chid": self._chid, "rsp": "hs2"}
        if request.token is not None:
            if self._random_bytes is None:
                raise ProtocolError("no token is taken here")
            self._claim = (from_hex(request.token, ID_LENGTH), from_hex(request.nonce, NONCE_LENGTH))
            self._nonce = self._random_bytes(NONCE_LENGTH)
            answer["nonce"] = self._nonce.hex()
        self._say(encode(answer))
        self._step = _ServerStep.RECEIVERS

    def _read_receivers(self, line: bytes) -> JoinAsked:
        if self._sealing is not None:
            line = self._sealing.open(line)
        request = read_request(line, "hs3")
        receivers = checked(check_receivers, request.recvers or ())
        timeout = request.timeout or 0
        checked(check_timeout, timeout)
        proof = None
        if self._claim is not None:
            proof = Proof(*self._claim, self._nonce, from_hex(request.proof, PROOF_LENGTH))
        self._step = _ServerStep.JOINING
        return JoinAsked(self._chid, receivers, float(timeout), proof)


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """The server told the salt; make the key of password and salt, in a thread, and call ``use_key``."""

    salt: bytes


@dataclass(frozen=True, slots=True)
class PasswordRefused:
    """The server does not know our password, or wants one and we have none. It closes."""

    reason: str


@dataclass(frozen=True, slots=True)
class JoinRefused:
    """The server did not let us in. It closes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """We are in, as ``chid``; raw bytes follow, beginning with ``leftover``."""

    chid: str


ClientEvent = KeyWanted | PasswordRefused | JoinRefused | Joined


class _ClientStep(Enum):
    GREETING = "before it said how its handshake is encrypted; does it have a handshake password?"
    KEY = "while the key was made"
    NAME = "before it answered the chid"
    RESULT = "before it said whether we are in"
    OPEN = "after the handshake"
    CLOSED = "after it refused"


class ChannelClientHandshake:
    """The client's end: one for each connection.

    :param chid: who we want to be; empty leaves it to the server.
    :param receivers: who gets what we send; empty for all others.
    :param timeout: seconds without a byte either way after which the server shall close; 0 for none.
    :param sealing: when there is a handshake password.
    :param spare_chid: who we want to be when ``chid`` is empty and the server makes none, as the original's does; "" to
        stay without one, and share what is sent with all others who have none.
    :param token: the secret of a token that we prove; "" for none.
    :param nonce: of 16 random bytes, fresh for each connection, where there is a token.
    :raises ValueError: one of these is not possible.
    """

    __slots__ = (
        "_chid",
        "_early",
        "_lines",
        "_nonce",
        "_output",
        "_receivers",
        "_sealing",
        "_spare_chid",
        "_step",
        "_timeout",
        "_token",
    )

    def __init__(
        self,
        chid: str = "",
        receivers: Sequence[str] = (),
        timeout: float = 0.0,
        sealing: ClientSealing | None = None,
        spare_chid: str = "",
        token: str = "",
        nonce: bytes = b"",
    ) -> None:
        if token and len(nonce) != NONCE_LENGTH:
            raise ValueError(f"the nonce has {len(nonce)} bytes, not {NONCE_LENGTH}")
        self._token = token
        self._nonce = nonce
        for name in filter(None, (chid, spare_chid)):
            check_chid(name)
        check_timeout(timeout)
        self._chid = chid
        self._spare_chid = spare_chid
        self._receivers = check_receivers(receivers)
        self._timeout = math.ceil(timeout)
        self._sealing = sealing
        self._lines = Lines("server")
        self._early = EarlyData()
        self._output = bytearray()
        self._step = _ClientStep.GREETING
        if sealing is None:
            self._ask_for_name()

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the server's last line; empty until :class:`Joined`."""
        return bytes(self._early)

    @property
    def awaits_greeting(self) -> bool:
        """True while a server that encrypts would have to speak; one that stays silent has no password."""
        return self._step is _ClientStep.GREETING

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the server, split anywhere, and return what they caused.

        After :class:`Joined`, take ``leftover`` and read from the connection itself.

        :raises ProtocolError: the server speaks something else, or too much payload came at once.
        """
        events: list[ClientEvent] = []
        if self._step is _ClientStep.OPEN:
            self._early.add(data)
            return events
        if self._step is _ClientStep.CLOSED:
            return events
        self._lines.add(data)
        waiting = (_ClientStep.GREETING, _ClientStep.NAME, _ClientStep.RESULT)
        while self._step in waiting and (line := self._lines.take(MAX_LINE)) is not None:
            self._read(line, events)
        if events and isinstance(events[-1], Joined):
            self._early.add(self._lines.take_rest())
        elif self._step is _ClientStep.KEY and len(self._lines) > MAX_LINE:
            raise ProtocolError("the channel server sent more before we could answer its greeting")
        return events

    def use_key(self, key: bytes) -> None:
        """Go on with the key that the password and the salt of :class:`KeyWanted` make.

        :raises RuntimeError: none was wanted.
        """
        if self._step is not _ClientStep.KEY or self._sealing is None:
            raise RuntimeError("use_key() without a key that was wanted")
        self._sealing.use_key(key)
        self._ask_for_name()

    def receive_eof(self) -> None:
        """Take the end of the server's bytes.

        :raises ProtocolError: it came before the handshake was done; the message says at which step.
        """
        if self._step not in (_ClientStep.OPEN, _ClientStep.CLOSED):
            raise ProtocolError(f"the channel server closed {self._step.value}")

    def _ask_for_name(self) -> None:
        claim = {"token": secret_id(self._token).hex(), "nonce": self._nonce.hex()} if self._token else {}
        self._say({"req": "hs1", "chid": self._chid, **claim})
        self._step = _ClientStep.NAME

    def _say(self, fields: dict[str, object]) -> None:
        text = encode(fields)
        self._output += (text if self._sealing is None else self._sealing.seal(text)) + b"\n"

    def _read(self, line: bytes, events: list[ClientEvent]) -> None:
        sealed = not line.startswith(b"{")
        if sealed and self._sealing is None and is_greeting(line):
            self._close(events, PasswordRefused("the channel server encrypts its handshake: a password is needed"))
            return
        if sealed and self._sealing is not None:
            if self._step is _ClientStep.GREETING:
                events.append(KeyWanted(self._sealing.receive_greeting(line)))
                self._step = _ClientStep.KEY
                return
            line = self._sealing.open(line)
        response = read_response(line)
        if response.rsp == "hs4" and response.result == "FAIL":
            reason = (response.desc or "the channel server gave no reason")[:MAX_REASON]
            # In the clear it answers what it could not open; anybody could have said it, and no more than close.
            plain = self._sealing is not None and not sealed and self._step is _ClientStep.NAME
            self._close(events, PasswordRefused(reason) if plain else JoinRefused(reason))
        elif sealed is (self._sealing is None):
            raise ProtocolError("the channel server answered a sealed handshake in the clear")
        elif self._step is _ClientStep.NAME and response.rsp == "hs2":
            self._chid = response.chid or self._chid
            if not self._chid and self._spare_chid:
                self._chid = self._spare_chid
                self._ask_for_name()
                return
            fields: dict[str, object] = {"req": "hs3", "recvers": self._receivers}
            if self._token:
                if response.nonce is None:
                    raise ProtocolError("the channel server takes no tokens; is it an original?")
                server_nonce = from_hex(response.nonce, NONCE_LENGTH)
                fields["proof"] = make_proof(self._token, self._nonce, server_nonce).hex()
            self._say(fields | ({"timeout": self._timeout} if self._timeout else {}))
            self._step = _ClientStep.RESULT
        elif self._step is _ClientStep.RESULT and response.rsp == "hs4" and response.result == "OK":
            self._step = _ClientStep.OPEN
            events.append(Joined(self._chid))
        else:
            raise ProtocolError("the channel server sent another answer than the one that was due")

    def _close(self, events: list[ClientEvent], event: ClientEvent) -> None:
        self._lines.take_rest()
        self._step = _ClientStep.CLOSED
        events.append(event)
