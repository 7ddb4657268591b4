"""Tokens on the wire: their secrets, and how one is proved without being shown.

A secret is ``tc_`` and 256 random bits. Nobody needs to keep it: a server keeps its *verifier*, from which nobody can
make a proof. As in SCRAM (RFC 5802), of which the slow hash is left out, because nobody guesses 256 bits:

- id = the first 16 bytes of SHA-256("tunnelconsole token id" + secret): names the secret, and says nothing of it
- key = HMAC-SHA256(secret, "tunnelconsole token key")
- verifier = SHA-256(key)
- proof = key XOR HMAC-SHA256(verifier, "tunnelconsole token proof" + id + client's nonce + server's nonce)

The server takes the key out of the proof and looks whether it makes the verifier. Who listens learns neither secret nor
key, and a proof that is played again meets another nonce.

Where a protocol has no place for this it goes before its first byte (relay, and a channel server in broadcast mode):

1. client: :data:`MAGIC`, the id and a nonce of 16 bytes
2. server: a nonce of 16 bytes
3. client: the proof, 32 bytes
4. server: byte 0, and the protocol begins; or byte 1 and a frame with the reason, then it closes
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.frame import encode_text_frame, take_frame

#: What every secret begins with, so that people and scanners know what they have found.
PREFIX = "tc_"
#: Bytes of a secret that are drawn: 256 bits.
SECRET_BYTES = 32
#: Bytes of an id.
ID_LENGTH = 16
#: Bytes of each side's nonce: 128 random bits never come twice.
NONCE_LENGTH = 16
#: Bytes of a verifier, of a key, and of a proof.
PROOF_LENGTH = 32
#: Bytes with which a client begins that proves a token before the protocol. The first differs from yamux's version, 0.
MAGIC = b"TCTOKEN1"
#: What a client is told whose token is not known, whatever the reason: a stranger shall not learn which names exist.
NOT_KNOWN = "the token is not known here"
#: A verifier that nothing makes, for an id that nobody has: the answer takes as long as for one that is known.
NOBODYS = bytes(PROOF_LENGTH)

_SECRET = re.compile(r"tc_[A-Za-z0-9_-]{43}")
_YES = b"\x00"
_NO = b"\x01"


def make_secret(random_bytes: Callable[[int], bytes]) -> str:
    """Return a new secret, 46 characters.

    :param random_bytes: returns that many random bytes; give it ``secrets.token_bytes``.
    """
    return PREFIX + base64.urlsafe_b64encode(random_bytes(SECRET_BYTES)).rstrip(b"=").decode()


def is_secret(text: str) -> bool:
    """Say whether ``text`` has the form of a secret."""
    return _SECRET.fullmatch(text) is not None


def secret_id(secret: str) -> bytes:
    """Return what names a secret, :data:`ID_LENGTH` bytes."""
    return sha256(b"tunnelconsole token id" + secret.encode()).digest()[:ID_LENGTH]


def secret_key(secret: str) -> bytes:
    """Return what only who has the secret can make, :data:`PROOF_LENGTH` bytes."""
    return hmac.digest(secret.encode(), b"tunnelconsole token key", "sha256")


def make_verifier(secret: str) -> bytes:
    """Return what a server keeps, :data:`PROOF_LENGTH` bytes."""
    return sha256(secret_key(secret)).digest()


def is_key(verifier: bytes, key: bytes) -> bool:
    """Say, in constant time, whether ``key`` is the one that a verifier was made of."""
    return hmac.compare_digest(sha256(key).digest(), verifier)


def make_proof(secret: str, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """Return what proves to whoever drew ``server_nonce`` that we have the secret."""
    key = secret_key(secret)
    return _xor(key, _mask(sha256(key).digest(), secret_id(secret), client_nonce, server_nonce))


def is_proof(verifier: bytes, token_id: bytes, client_nonce: bytes, server_nonce: bytes, proof: bytes) -> bool:
    """Say, in constant time, whether ``proof`` proves the secret of that id and verifier."""
    if len(proof) != PROOF_LENGTH:
        return False
    return is_key(verifier, _xor(proof, _mask(verifier, token_id, client_nonce, server_nonce)))


def _mask(verifier: bytes, token_id: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    text = b"tunnelconsole token proof" + token_id + client_nonce + server_nonce
    return hmac.digest(verifier, text, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True, slots=True)
class Proof:
    """Who a client says that it is, and what shall prove it; not judged yet."""

    id: bytes
    client_nonce: bytes
    server_nonce: bytes
    proof: bytes

    def holds(self, verifier: bytes) -> bool:
        """Whether it proves the secret with this verifier, in constant time."""
        return is_proof(verifier, self.id, self.client_nonce, self.server_nonce, self.proof)


class ProofServer:
    """The server's end, before the protocol.

    :param nonce: of :data:`NONCE_LENGTH` random bytes, fresh for each connection.
    """

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self._buffer = bytearray()
        self._claim = b""
        self._output = b""
        self._done = False

    @property
    def leftover(self) -> bytes:
        """What came behind the proof: the beginning of the protocol."""
        return bytes(self._buffer) if self._done else b""

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output, self._output = self._output, b""
        return output

    def receive_data(self, data: bytes) -> Proof | None:
        """Take bytes from the client, split anywhere; return its proof once it is there, to be judged.

        :raises ProtocolError: it does not begin with :data:`MAGIC`.
        """
        self._buffer += data
        if not self._claim:
            if bytes(self._buffer[: len(MAGIC)]) != MAGIC[: len(self._buffer)]:
                raise ProtocolError("it does not begin with a token")
            end = len(MAGIC) + ID_LENGTH + NONCE_LENGTH
            if len(self._buffer) < end:
                return None
            self._claim = bytes(self._buffer[len(MAGIC) : end])
            del self._buffer[:end]
            self._output = self._nonce
        if self._done or len(self._buffer) < PROOF_LENGTH:
            return None
        proof = bytes(self._buffer[:PROOF_LENGTH])
        del self._buffer[:PROOF_LENGTH]
        self._done = True
        return Proof(self._claim[:ID_LENGTH], self._claim[ID_LENGTH:], self._nonce, proof)

    def receive_eof(self) -> None:
        """Take the end of the client's bytes, which comes too soon.

        :raises ProtocolError: always.
        """
        raise ProtocolError("it closed before it had proved its token")

    def accept(self) -> None:
        """Say that the client may go on; the protocol follows."""
        self._output += _YES

    def refuse(self, reason: str) -> None:
        """Say no; send it and close."""
        self._output += _NO + encode_text_frame(reason)


class ProofClient:
    """The client's end, before the protocol.

    :param secret: of the token.
    :param nonce: of :data:`NONCE_LENGTH` random bytes, fresh for each connection.
    """

    def __init__(self, secret: str, nonce: bytes) -> None:
        self._secret = secret
        self._nonce = nonce
        self._buffer = bytearray()
        self._output = MAGIC + secret_id(secret) + nonce
        self._proved = False
        self.accepted = False
        """Whether the server has said yes."""
        self.refusal: str | None = None
        """Why it has said no; None while it has not."""

    @property
    def leftover(self) -> bytes:
        """What came behind its yes: the beginning of the protocol."""
        return bytes(self._buffer) if self.accepted else b""

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output, self._output = self._output, b""
        return output

    def receive_data(self, data: bytes) -> bool:
        """Take bytes from the server, split anywhere; return whether it has decided.

        :raises ProtocolError: it answers something else.
        """
        self._buffer += data
        if not self._proved:
            if len(self._buffer) < NONCE_LENGTH:
                return False
            self._output = make_proof(self._secret, self._nonce, bytes(self._buffer[:NONCE_LENGTH]))
            del self._buffer[:NONCE_LENGTH]
            self._proved = True
        if self.accepted or self.refusal is not None:
            return True
        if not self._buffer:
            return False
        if self._buffer.startswith(_YES):
            del self._buffer[:1]
            self.accepted = True
            return True
        if not self._buffer.startswith(_NO):
            raise ProtocolError("the server does not answer a token as ours does; is it an original?")
        reason = bytearray(self._buffer[1:])
        text = take_frame(reason)
        if text is None:
            return False
        self.refusal = text.decode("utf-8", "replace")
        return True

    def receive_eof(self) -> None:
        """Take the end of the server's bytes, which comes too soon.

        :raises ProtocolError: always.
        """
        raise ProtocolError("the server closed instead of answering a token; does it take tokens?")
