"""How a channel client bridges one local end after another sealed. Importing this loads the ciphers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnelconsole.engine.services.channel.bridge import SILENCE, Ended
from tunnelconsole.engine.services.channel.sealed_bridge import SealedBridge
from tunnelconsole.engine.services.channel.sealed_key import SharedKey
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.wire.sealed_beginnings import NOTHING, find_caller, last_caller
from tunnelconsole.engine.wire.sealed_records import Sealer


class SealedBridging:
    """Local ends are bridged sealed, as :class:`~tunnelconsole.engine.services.channel.uplink.Bridging`.

    :param key: the passphrase.
    """

    search = staticmethod(find_caller)
    nothing = NOTHING

    def __init__(self, key: str) -> None:
        self._key = SharedKey(key)

    def start(
        self, local: End, hub: End, ended: Ended, early: bytes, pace: Pace | None, others: Callable[[], bool] | None
    ) -> SealedBridge:
        loop = asyncio.get_running_loop()
        return SealedBridge(loop, local, hub, self._key, ended, early=early, pace=pace, patience=SILENCE)

    def prepare(self) -> None:
        self._key.prepare()

    async def refusal(self, early: bytes) -> bytes:
        caller = last_caller(early)
        if caller is None:
            return b""
        salt, key = self._key.own()
        return Sealer(await key, salt, caller).break_off()
