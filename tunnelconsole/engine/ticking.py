"""What is looked at once a second: rates, channels that are idle, tokens that are over, bans, and what was counted."""

from __future__ import annotations

import asyncio
import time

from tunnelconsole.engine.meters import TICK
from tunnelconsole.engine.node import Node


async def keep_ticking(node: Node) -> None:
    """Looks at the node's registers every :data:`~tunnelconsole.engine.meters.TICK` until it is cancelled."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(TICK)
        now = time.monotonic()
        for _ in node.sessions.tick(now - last):
            await asyncio.sleep(0)
        last = now
        with node.contain("looking at the tokens"):
            node.tokens.tick()
        node.bus.tell_repeated()
        node.audit.tell_refused()
        node.bans.tick()
