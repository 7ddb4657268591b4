"""The passphrase of a sealed exchange, and the keys that are made of it."""

from __future__ import annotations

import asyncio
import secrets

from tunnelconsole.engine.wire.passphrase import SALT_LENGTH, derive_key


class SharedKey:
    """The passphrase that two clients share, and what it makes with the salt of a stream."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._spare: tuple[bytes, asyncio.Future[bytes]] | None = None

    def derive(self, salt: bytes) -> asyncio.Future[bytes]:
        """The key of the stream with ``salt``, made in a thread."""
        return asyncio.get_running_loop().run_in_executor(None, derive_key, self._text, salt)

    def own(self) -> tuple[bytes, asyncio.Future[bytes]]:
        """The salt and the key of a stream of ours."""
        self.prepare()
        own, self._spare = self._spare, None
        if own is None:
            raise RuntimeError("nothing was prepared")
        return own

    def prepare(self) -> None:
        """Makes the key of our next stream beforehand: it takes a tenth of a second."""
        if self._spare is None:
            salt = secrets.token_bytes(SALT_LENGTH)
            self._spare = salt, self.derive(salt)
