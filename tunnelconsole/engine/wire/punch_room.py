"""What the secret of a room is made into: a key that proves to the other seat, and to it alone, who we are.

The key is scrypt's (RFC 7914) of the secret, with SHA-256 of :data:`SALT` and the room's name as salt, cut to
16 bytes. Everything else is made of it by HKDF's second half (RFC 5869: HMAC-SHA256 of what it is for, and a byte 1):

- the **tag**, 16 bytes, by which the rendezvous brings together those with the same secret,
- the key of AES-256-GCM that seals **offers**: 12 random bytes of nonce, then the ciphertext and its tag of 16 bytes,
  in base64; the room's name is the associated data,
- the key of the **hello** that both say on a direct connection before anything else: the role's letter and HMAC-SHA256
  of that letter, of both offers' nonces, ``a``'s first, and of the round as four bytes, big-endian,
- the seed of the certificate that both show inside TLS.

Whoever runs the rendezvous can try guesses, each at scrypt's price, against a tag: a secret should be long and random.
"""

from __future__ import annotations

import binascii
import enum
import hashlib
import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.passphrase import SALT_LENGTH, derive_key
from tunnelconsole.engine.wire.punch import SEAT_LENGTH

#: What the salt is made of, before the room's name.
SALT = b"tunnelconsole punch room: "
#: Bytes of the nonce in an offer, and of a link's number.
NONCE_LENGTH = 16
#: Bytes of a hello: the role's letter and a SHA-256.
HELLO_LENGTH = 33

_SEAL_NONCE_LENGTH = 12


class Role(enum.Enum):
    """Which of the two an end is: ``a`` has the smaller nonce in its offer, and decides where there is a choice."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Role:
        """The other end's."""
        return Role.B if self is Role.A else Role.A


def role_of(ours: bytes, theirs: bytes) -> Role:
    """Return our role.

    :param ours: the nonce of our offer.
    :param theirs: that of the other end's.
    :raises ProtocolError: they are the same: what we said came back to us.
    """
    if ours == theirs:
        raise ProtocolError("the other seat of the room says what we said: the rendezvous sends it back to us")
    return Role.A if ours < theirs else Role.B


class RoomKey:
    """The key of a room; see :func:`room_key`.

    :param key: scrypt's, 32 bytes.
    """

    __slots__ = ("_cipher", "_hello", "_room", "certificate_seed", "tag")

    def __init__(self, room: str, key: bytes) -> None:
        self._room = room.encode()
        self.tag = _expand(key, b"tag")[:SEAT_LENGTH].hex()
        """Which secret it is, without telling it; hex."""
        self.certificate_seed = _expand(key, b"tls")
        """The private Ed25519 key (RFC 8032) of both ends' certificate, 32 bytes."""
        self._cipher = AESGCM(_expand(key, b"offer"))
        self._hello = _expand(key, b"hello")

    def seal(self, text: bytes, random_bytes: Callable[[int], bytes]) -> str:
        """Return a sealed offer.

        :param random_bytes: returns that many random bytes; give it ``secrets.token_bytes``.
        """
        nonce = random_bytes(_SEAL_NONCE_LENGTH)
        return binascii.b2a_base64(nonce + self._cipher.encrypt(nonce, text, self._room), newline=False).decode("ascii")

    def open(self, sealed: str) -> bytes:
        """Return what was sealed.

        :raises ProtocolError: it was not sealed with this key, or was changed on its way.
        """
        try:
            data = binascii.a2b_base64(sealed, strict_mode=True)
            return self._cipher.decrypt(data[:_SEAL_NONCE_LENGTH], data[_SEAL_NONCE_LENGTH:], self._room)
        except (ValueError, InvalidTag):
            raise ProtocolError("an offer was not sealed with the secret of this room, or was changed") from None

    def hello(self, role: Role, nonces: tuple[bytes, bytes], round_: int) -> bytes:
        """Return what the end with this role says first on a direct connection, :data:`HELLO_LENGTH` bytes.

        :param nonces: of both offers, that of ``a`` first.
        :param round_: which race it is of this pair's, so that no connection of another one is taken for it.
        """
        letter = role.value.encode("ascii")
        text = letter + b"".join(nonces) + round_.to_bytes(4, "big")
        return letter + hmac.digest(self._hello, text, hashlib.sha256)


def room_key(room: str, secret: str) -> RoomKey:
    """Return the key of a room; slow on purpose: see :mod:`~tunnelconsole.engine.wire.passphrase`."""
    salt = hashlib.sha256(SALT + room.encode()).digest()[:SALT_LENGTH]
    return RoomKey(room, derive_key(secret.encode(), salt))


def _expand(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"tunnelconsole punch " + purpose + b"\x01", hashlib.sha256)
