"""The jump protocol, both ends.

A frame is one length byte and that many bytes.

1. server: a frame of 32 challenge bytes, letters and digits
2. client: a frame of 20 bytes, SHA-1(challenge + secret)
3. server: byte 0; or byte 1 and a frame with the reason, then it closes
4. client: a frame ``host:port``
5. server: byte 0; or byte 1 and a frame with the reason, then it closes
6. raw bytes both ways
"""

from __future__ import annotations

import hmac
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1
from typing import Any

from tunnelconsole.engine.wire.early_data import EarlyData
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.frame import MAX_FRAME, encode_frame, encode_text_frame, take_frame
from tunnelconsole.engine.wire.hostport import format_host_port, parse_host_port

#: Bytes in the challenge that the server draws.
CHALLENGE_LENGTH = 32
#: Bytes in the client's answer: a SHA-1 digest.
DIGEST_LENGTH = 20
#: What the original tells a client with a wrong secret; its users search for this text.
CHALLENGE_FAILED = "challenge failed, check secret"
#: In place of a reason that did not come: the original closes without one where it would not fit a frame.
NO_REASON = "the jump server would not dial the target, and gave no reason"

_ALPHABET = (string.ascii_letters + string.digits).encode("ascii")
# Each byte below this maps to a character with the same chance; the others are left out.
_UNBIASED = 256 - 256 % len(_ALPHABET)
_CHARACTER_OF = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))
_LEFT_OUT = bytes(range(_UNBIASED, 256))
_YES = 0
_NO = 1
_YES_BYTE = b"\x00"
_NO_BYTE = b"\x01"


def make_challenge(random_bytes: Callable[[int], bytes]) -> bytes:
    """Return :data:`CHALLENGE_LENGTH` letters and digits, each as likely as any other.

    :param random_bytes: returns that many random bytes; give it ``secrets.token_bytes``.
    """
    drawn = b""
    while len(drawn) < CHALLENGE_LENGTH:
        drawn += random_bytes(2 * CHALLENGE_LENGTH).translate(_CHARACTER_OF, _LEFT_OUT)
    return drawn[:CHALLENGE_LENGTH]


def answer(challenge: bytes, secret: bytes) -> bytes:
    """Return what proves, to whoever drew ``challenge``, that we know ``secret``: SHA-1 of both, 20 bytes."""
    return sha1(challenge + secret, usedforsecurity=False).digest()


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client proved one of the secrets: the one that belongs to ``identity``."""

    identity: Any


@dataclass(frozen=True, slots=True)
class TargetAsked:
    """The client wants to be connected there. Answer with ``accept`` or ``refuse``."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class BadSecret:
    """The client knows none of the secrets. Its refusal is queued; send it and close."""


@dataclass(frozen=True, slots=True)
class BadTarget:
    """The client asked for ``text``, which is not ``host:port``. Its refusal is queued; send it and close."""

    text: str


ServerEvent = Authenticated | TargetAsked | BadSecret | BadTarget


class _ServerStep(Enum):
    DIGEST = "before answering the challenge"
    TARGET = "before naming its target"
    DIALLING = "while its target was dialled"
    OPEN = "after the handshake"
    CLOSED = "after it was refused"


class JumpServerHandshake:
    """The server's end: one for each connection.

    After :class:`TargetAsked`, whoever feeds it should stop reading until the dial is done: what arrives earlier is
    kept as :attr:`leftover`, up to ``MAX_EARLY_DATA`` bytes.

    :param challenge: 1 to 255 bytes, fresh for each connection: :func:`make_challenge`.
    :param secrets: the secret of each identity, which is whatever stands for one. With two equal secrets the first
        identity is the one seen.
    """

    __slots__ = ("_buffer", "_challenge", "_early", "_output", "_secrets", "_step")

    def __init__(self, challenge: bytes, secrets: Mapping[Any, bytes]) -> None:
        self._challenge = challenge
        self._secrets = secrets
        self._output = bytearray(encode_frame(challenge))
        self._buffer = bytearray()
        self._early = EarlyData()
        self._step = _ServerStep.DIGEST

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the target's frame; it goes to the target before anything else."""
        return bytes(self._early)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive_data(self, data: bytes) -> list[ServerEvent]:
        """Take bytes from the client, split anywhere, and return what they caused.

        :raises ProtocolError: too much payload came before the target was dialled.
        """
        events: list[ServerEvent] = []
        if self._step in (_ServerStep.DIALLING, _ServerStep.OPEN):
            self._early.add(data)
            return events
        if self._step is _ServerStep.CLOSED:
            return events
        self._buffer += data
        if self._step is _ServerStep.DIGEST and (digest := take_frame(self._buffer)) is not None:
            events.append(self._check(digest))
        if self._step is _ServerStep.TARGET and (target := take_frame(self._buffer)) is not None:
            events.append(self._read_target(target))
        return events

    def receive_eof(self) -> None:
        """Take the end of the client's bytes.

        :raises ProtocolError: it came before the handshake was done; the message says at which step.
        """
        if self._step in (_ServerStep.DIGEST, _ServerStep.TARGET):
            raise ProtocolError(f"the client closed {self._step.value}")

    def accept(self) -> None:
        """Say that the target is connected; raw bytes follow.

        :raises RuntimeError: no target was asked for.
        """
        if self._step is not _ServerStep.DIALLING:
            raise RuntimeError("accept() without a target that was asked for")
        self._output += _YES_BYTE
        self._step = _ServerStep.OPEN

    def refuse(self, reason: str) -> None:
        """Say no, with the reason; send it and close. Possible at each step until :meth:`accept`.

        :param reason: for the client's user; cut to 255 bytes of UTF-8.
        :raises RuntimeError: the handshake is over.
        """
        if self._step in (_ServerStep.OPEN, _ServerStep.CLOSED):
            raise RuntimeError("refuse() after the handshake was over")
        self._output += _NO_BYTE + encode_text_frame(reason)
        self._buffer.clear()
        self._step = _ServerStep.CLOSED

    def _check(self, digest: bytes) -> ServerEvent:
        identity = None
        # Every secret is compared, in constant time, so that the time taken tells nothing.
        for name, secret in self._secrets.items():
            if hmac.compare_digest(answer(self._challenge, secret), digest) and identity is None:
                identity = name
        if identity is None:
            self.refuse(CHALLENGE_FAILED)
            return BadSecret()
        self._output += _YES_BYTE
        self._step = _ServerStep.TARGET
        return Authenticated(identity)

    def _read_target(self, target: bytes) -> ServerEvent:
        try:
            host, port = parse_host_port(target.decode("utf-8"))
        except ValueError:
            self.refuse("target must be host:port")
            return BadTarget(target.decode("utf-8", "backslashreplace"))
        self._step = _ServerStep.DIALLING
        self._early.add(self._buffer)
        self._buffer.clear()
        return TargetAsked(host, port)


@dataclass(frozen=True, slots=True)
class SecretRefused:
    """The server does not accept our secret. It closes."""

    reason: str


@dataclass(frozen=True, slots=True)
class DialRefused:
    """The server accepted the secret, but would not or could not dial the target. It closes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The server is connected to the target; raw bytes follow, beginning with ``leftover``."""


ClientEvent = SecretRefused | DialRefused | Connected


class _ClientStep(Enum):
    CHALLENGE = "before its challenge"
    PROOF_STATUS = "before saying whether it accepts the secret"
    PROOF_REASON = "after refusing the secret, before its reason was complete"
    DIAL_STATUS = "before saying whether the target is connected"
    DIAL_REASON = "after refusing the target, before its reason was complete"
    OPEN = "after the handshake"
    CLOSED = "after it refused"


class JumpClientHandshake:
    """The client's end: one for each connection.

    :param secret: what proves who we are.
    :param target_host: a name or an IP address without brackets.
    :param target_port: 1 to 65535.
    :raises ValueError: the target does not fit a frame of 255 bytes.
    """

    __slots__ = ("_buffer", "_early", "_output", "_secret", "_step", "_target")

    def __init__(self, secret: bytes, target_host: str, target_port: int) -> None:
        self._secret = secret
        target = format_host_port(target_host, target_port).encode("utf-8")
        if len(target) > MAX_FRAME:
            raise ValueError(f"the target has {len(target)} bytes; the jump protocol carries at most {MAX_FRAME}")
        self._target = encode_frame(target)
        self._output = bytearray()
        self._buffer = bytearray()
        self._early = EarlyData()
        self._step = _ClientStep.CHALLENGE

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the server's last answer; empty until :class:`Connected`."""
        return bytes(self._early)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the server, split anywhere, and return what they caused.

        After :class:`Connected`, take ``leftover`` and read from the connection itself.

        :raises ProtocolError: the challenge is empty, a status is neither 0 nor 1, or too much payload came at once.
        """
        events: list[ClientEvent] = []
        if self._step is _ClientStep.OPEN:
            self._early.add(data)
            return events
        if self._step is _ClientStep.CLOSED:
            return events
        self._buffer += data
        while self._step not in (_ClientStep.OPEN, _ClientStep.CLOSED):
            before = self._step
            self._advance(events)
            if self._step is before:
                break
        return events

    def receive_eof(self) -> list[ClientEvent]:
        """Take the end of the server's bytes, and return what it caused: a refusal that has no reason is one too.

        :raises ProtocolError: it came before the handshake was done; the message says at which step.
        """
        if self._step is _ClientStep.DIAL_REASON and not self._buffer:
            self._step = _ClientStep.CLOSED
            return [DialRefused(NO_REASON)]
        if self._step not in (_ClientStep.OPEN, _ClientStep.CLOSED):
            raise ProtocolError(f"the jump server closed {self._step.value}")
        return []

    def _advance(self, events: list[ClientEvent]) -> None:
        """Take one step if the bytes for it are there."""
        match self._step:
            case _ClientStep.CHALLENGE:
                if (challenge := take_frame(self._buffer)) is not None:
                    if not challenge:
                        raise ProtocolError("the jump server sent an empty challenge")
                    self._output += encode_frame(answer(challenge, self._secret))
                    self._step = _ClientStep.PROOF_STATUS
            case _ClientStep.PROOF_STATUS:
                if (accepted := self._take_status()) is not None:
                    if accepted:
                        self._output += self._target
                    self._step = _ClientStep.DIAL_STATUS if accepted else _ClientStep.PROOF_REASON
            case _ClientStep.DIAL_STATUS:
                if (accepted := self._take_status()) is not None:
                    if accepted:
                        self._early.add(self._buffer)
                        self._buffer.clear()
                        events.append(Connected())
                    self._step = _ClientStep.OPEN if accepted else _ClientStep.DIAL_REASON
            case _ClientStep.PROOF_REASON | _ClientStep.DIAL_REASON:
                if (frame := take_frame(self._buffer)) is not None:
                    reason = frame.decode("utf-8", "replace")
                    refused_secret = self._step is _ClientStep.PROOF_REASON
                    events.append(SecretRefused(reason) if refused_secret else DialRefused(reason))
                    self._buffer.clear()
                    self._step = _ClientStep.CLOSED

    def _take_status(self) -> bool | None:
        """Remove a status byte: True for yes, False for no, None while it has not come."""
        if not self._buffer:
            return None
        status = self._buffer.pop(0)
        if status not in (_YES, _NO):
            raise ProtocolError(f"the jump server sent status {status}; expected 0 or 1")
        return status == _YES
