"""Secrets of tokens that must be kept themselves, sealed with a key that is not in the store.

A jump client proves its secret by SHA-1 of a challenge and the secret: only who has the secret can check that. So it is
kept, encrypted by AES-256-GCM with the key in :data:`KEY_FILE` beside the store: who gets at a copy of the database,
a backup for one, has no secret. Other systems need the verifier only.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from typing import Final

from tunnelconsole.engine.private_files import open_private, private_folder

KEY_FILE: Final = "tokens.key"
"""The file with the key, in the state folder, for this user alone."""

KEY_LENGTH: Final = 32
"""Bytes of the key: AES-256."""

NONCE_LENGTH: Final = 12
"""Bytes of the nonce before what is sealed (NIST SP 800-38D); drawn each time."""


class SealBroken(Exception):
    """What is sealed does not open: it was changed, or sealed with another key."""


class TokenSeal:
    """Seals secrets, and opens them again. Its first use loads the ciphers: a tenth of a second, in a thread.

    :param state_dir: the folder of the key, which is drawn when it is first needed.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / KEY_FILE
        self._key: bytes | None = None
        self._reading = threading.Lock()  # or two of the first would each draw a key, of which the file keeps one

    def seal(self, secret: str, secret_id: bytes) -> bytes:
        """What is to be kept of a secret.

        :param secret_id: what names it: what is kept for one cannot be put in the place of another.
        :raises OSError: there is no key, and none can be made.
        :raises NotPrivate: others could change what is in the folder.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 10 MiB that most engines spare

        nonce = secrets.token_bytes(NONCE_LENGTH)
        return nonce + AESGCM(self._read_key()).encrypt(nonce, secret.encode(), secret_id)

    def open(self, sealed: bytes, secret_id: bytes) -> str:
        """The secret.

        :raises SealBroken: it does not open.
        :raises OSError: there is no key, and none can be made.
        :raises NotPrivate: others could change what is in the folder.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

        try:
            text = AESGCM(self._read_key()).decrypt(sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:], secret_id)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"{self.path} is not the key that the token was sealed with") from error
        return text.decode()

    def _read_key(self) -> bytes:
        with self._reading:
            return self._key_in_file()

    def _key_in_file(self) -> bytes:
        if self._key is None:
            private_folder(self.path.parent)
            descriptor = open_private(self.path, os.O_RDWR)
            with os.fdopen(descriptor, "r+b") as file:
                key = file.read(KEY_LENGTH + 1)
                if not key:
                    key = secrets.token_bytes(KEY_LENGTH)
                    file.write(key)
                    file.flush()
                    os.fsync(descriptor)
            if len(key) != KEY_LENGTH:
                raise OSError(f"{self.path} holds no key: it has {len(key)} bytes and not {KEY_LENGTH}")
            self._key = key
        return self._key
