"""The lines of the channel protocol, sealed with a password that both ends know. Importing this loads the ciphers.

1. The server speaks first: base64 of :data:`SALT_LENGTH` bytes of salt, which it draws once a run, and of
   :data:`NONCE_LENGTH` bytes of nonce, fresh for each connection.
2. The client's first line is base64 of :data:`NONCE_LENGTH` bytes of nonce, fresh too, and of its sealed ``hs1``.
   Every line after that, of either end, is base64 of one sealed text.

Base64 is the standard alphabet with padding, and each line ends with LF. A text (the JSON, without LF) is sealed by
AES-256-GCM without associated data; the nonce of 96 bits is the number of the text in its direction, from 0 on,
big-endian. The key of each direction is HKDF-SHA256 of scrypt's key, with the server's nonce and the client's nonce
together as salt, and :data:`TO_SERVER` or :data:`TO_CLIENT` as info. A handshake that is replayed meets another nonce,
and so another key.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnelconsole.engine.wire.channel_lines import WrongPassword
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.passphrase import KEY_LENGTH, SALT_LENGTH

#: Bytes of the nonce that each end draws for a connection.
NONCE_LENGTH = 16
#: What HKDF is told for what the client seals, and for what the server seals.
TO_SERVER = b"tunnelconsole channel handshake: client to server"
TO_CLIENT = b"tunnelconsole channel handshake: server to client"

_COUNTER_LENGTH = 12


def direction_key(key: bytes, nonces: bytes, info: bytes) -> bytes:
    """Return the key of one direction: HKDF-SHA256 (RFC 5869) with one block of output, which is all that is needed."""
    extracted = hmac.digest(nonces, key, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)[:KEY_LENGTH]


class _Direction:
    """Seals, or opens, the texts of one direction in their order."""

    __slots__ = ("_cipher", "_count")

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._count = 0

    def seal(self, text: bytes) -> bytes:
        return self._cipher.encrypt(self._next(), text, None)

    def open(self, sealed: bytes) -> bytes:
        """Return the text.

        :raises InvalidTag: it is not what was sealed, or not at this place, or with another key.
        """
        return self._cipher.decrypt(self._next(), sealed, None)

    def _next(self) -> bytes:
        nonce = self._count.to_bytes(_COUNTER_LENGTH, "big")
        self._count += 1
        return nonce


class ServerSealedLines:
    """The server's end, as :class:`~tunnelconsole.engine.wire.channel_lines.ServerSealing`.

    :param keys: scrypt's key of each identity's password, ``MAX_PASSWORDS`` at most. Of two that are equal the
        first identity is the one seen.
    :param salt: with which they were made.
    :param random_bytes: returns that many random bytes; give it ``secrets.token_bytes``.
    """

    __slots__ = ("_incoming", "_keys", "_nonce", "_outgoing", "greeting", "identity")

    def __init__(self, keys: Mapping[str, bytes], salt: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._keys = keys
        self._nonce = random_bytes(NONCE_LENGTH)
        self._incoming: _Direction | None = None
        self._outgoing: _Direction | None = None
        self.greeting = _encode(salt + self._nonce)
        self.identity: str | None = None

    def seal(self, text: bytes) -> bytes:
        if self._outgoing is None:
            raise RuntimeError("seal() before the client's first line")
        return _encode(self._outgoing.seal(text))

    def open(self, line: bytes) -> bytes:
        sealed = _decode(line)
        if self._incoming is None:
            return self._open_first(sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:])
        return _open(self._incoming, sealed)

    def _open_first(self, nonce: bytes, sealed: bytes) -> bytes:
        nonces = self._nonce + nonce
        for identity, key in self._keys.items():
            incoming = _Direction(direction_key(key, nonces, TO_SERVER))
            try:
                text = incoming.open(sealed)
            except InvalidTag:
                continue
            self._incoming = incoming
            self._outgoing = _Direction(direction_key(key, nonces, TO_CLIENT))
            self.identity = identity
            return text
        raise WrongPassword("wrong handshake password")


class ClientSealedLines:
    """The client's end, as :class:`~tunnelconsole.engine.wire.channel_lines.ClientSealing`.

    :param random_bytes: returns that many random bytes; give it ``secrets.token_bytes``.
    """

    __slots__ = ("_incoming", "_nonce", "_outgoing", "_server_nonce", "_unsaid")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._nonce = random_bytes(NONCE_LENGTH)
        self._unsaid = self._nonce
        self._server_nonce = b""
        self._incoming: _Direction | None = None
        self._outgoing: _Direction | None = None

    def receive_greeting(self, line: bytes) -> bytes:
        greeting = _decode(line)
        if len(greeting) != SALT_LENGTH + NONCE_LENGTH:
            raise ProtocolError("the channel server began with something else than its salt and nonce; is it one?")
        self._server_nonce = greeting[SALT_LENGTH:]
        return greeting[:SALT_LENGTH]

    def use_key(self, key: bytes) -> None:
        nonces = self._server_nonce + self._nonce
        self._outgoing = _Direction(direction_key(key, nonces, TO_SERVER))
        self._incoming = _Direction(direction_key(key, nonces, TO_CLIENT))

    def seal(self, text: bytes) -> bytes:
        if self._outgoing is None:
            raise RuntimeError("seal() before there is a key")
        before, self._unsaid = self._unsaid, b""
        return _encode(before + self._outgoing.seal(text))

    def open(self, line: bytes) -> bytes:
        if self._incoming is None:
            raise RuntimeError("open() before there is a key")
        return _open(self._incoming, _decode(line))


def _open(direction: _Direction, sealed: bytes) -> bytes:
    try:
        return direction.open(sealed)
    except InvalidTag:
        raise ProtocolError("a sealed line was changed on its way, or is not the one that was due") from None


def _encode(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def _decode(line: bytes) -> bytes:
    line = line.removesuffix(b"\r")
    try:
        data = binascii.a2b_base64(line, strict_mode=True)
    except ValueError:
        raise ProtocolError("a line of an encrypted handshake is not base64") from None
    if _encode(data) != line:  # the last character may have bits that nothing decodes
        raise ProtocolError("a line of an encrypted handshake is not base64 as it is made")
    return data
