"""Streams of the demonstration: bytes that rise and fall, and what becomes of them."""

from __future__ import annotations

import asyncio
import math
import secrets

TICK = 0.1
"""Seconds between two portions of a stream: smooth on a chart that moves twice a second."""

SWING = 0.8
"""How far a stream's rate swings around its mean, as a share of it."""

READ_SIZE = 256 * 1024
"""Bytes read at once by those who throw them away."""

PAYLOAD = bytes(1024 * 1024)
"""What is sent, as much of it as is wanted."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

UPLOAD_SHARE = 0.15
"""What a visitor of the desk sends, as a share of what it gets."""

_dice = secrets.SystemRandom()


async def use_desk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mean: float, period: float) -> None:
    """Asks the desk for a long stream, and sends one too."""
    length = _dice.uniform(60, 180)
    writer.write(f"{mean} {period} {length}\n".encode())
    await asyncio.gather(pour(writer, mean * UPLOAD_SHARE, period, length), drink(reader))


async def pour(writer: asyncio.StreamWriter, mean: float, period: float, length: float) -> None:
    """Sends ``mean`` bytes per second, swinging with ``period`` seconds, for ``length`` seconds, and then an end."""
    start = _dice.uniform(0, math.tau)
    for tick in range(int(length / TICK)):
        rate = mean * (1 + SWING * math.sin(start + math.tau * tick * TICK / period))
        writer.write(PAYLOAD[: int(rate * TICK)])
        await writer.drain()
        await asyncio.sleep(TICK)
    writer.write_eof()


async def drink(reader: asyncio.StreamReader) -> None:
    """Reads to the end."""
    while await reader.read(READ_SIZE):
        pass
