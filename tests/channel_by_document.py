"""A channel client as somebody else would write it from docs/protocols.md alone; it imports nothing of ours.

It is plain and blocking, and knows one way through each protocol. What it gets wrong, the document told wrong.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from typing import Any, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

TIMEOUT = 30.0
"""Seconds for anything that is waited for."""


class RefusedByServer(Exception):
    """The server said FAIL."""

    def __init__(self, answer: dict[str, Any], *, sealed: bool) -> None:
        super().__init__(answer["desc"])
        self.sealed = sealed


def stretched(passphrase: str, salt: bytes) -> bytes:
    """The key that a passphrase makes."""
    return Scrypt(salt, length=32, n=32768, r=8, p=1).derive(passphrase.encode())


class Direction:
    """The texts of an encrypted handshake that go one way."""

    def __init__(self, secret: bytes, nonces: bytes, way: str) -> None:
        info = f"tunnelconsole channel handshake: {way}".encode()
        self._cipher = AESGCM(HKDF(SHA256(), 32, nonces, info).derive(secret))
        self._count = 0

    def _nonce(self) -> bytes:
        self._count += 1
        return (self._count - 1).to_bytes(12, "big")

    def seal(self, **fields: object) -> bytes:
        return self._cipher.encrypt(self._nonce(), json.dumps(fields).encode(), None)

    def open(self, sealed: bytes) -> Any:
        return json.loads(self._cipher.decrypt(self._nonce(), sealed, None))


class EncryptedHandshake:
    """A connection to a channel server with a ``handshake_password``; :attr:`socket` is the raw stream once joined.

    :raises RefusedByServer: it does not let us in.
    """

    def __init__(self, port: int, password: str, chid: str, receivers: list[str]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._lines = self.socket.makefile("rb", buffering=0)
        try:
            self._join(password, chid, receivers)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _join(self, password: str, chid: str, receivers: list[str]) -> None:
        greeting = base64.b64decode(self._line(), validate=True)
        if len(greeting) != 32:
            raise ValueError(f"a greeting of {len(greeting)} bytes")
        secret, nonce = stretched(password, greeting[:16]), os.urandom(16)
        self._to_server = Direction(secret, greeting[16:] + nonce, "client to server")
        self._from_server = Direction(secret, greeting[16:] + nonce, "server to client")
        self.said: list[bytes] = []
        """The lines that we said: what an eavesdropper could play again."""
        self._say(nonce + self._to_server.seal(req="hs1", chid=chid))
        self.chid = self._answer()["chid"]
        self._say(self._to_server.seal(req="hs3", recvers=receivers))
        self._answer()

    def _line(self) -> bytes:
        return self._lines.readline().removesuffix(b"\n")

    def _say(self, sealed: bytes) -> None:
        self.said.append(base64.b64encode(sealed) + b"\n")
        self.socket.sendall(self.said[-1])

    def _answer(self) -> Any:
        line = self._line()
        in_clear = line.startswith(b"{")
        answer = json.loads(line) if in_clear else self._from_server.open(base64.b64decode(line, validate=True))
        if answer.get("result") == "FAIL":
            raise RefusedByServer(answer, sealed=not in_clear)
        return answer
