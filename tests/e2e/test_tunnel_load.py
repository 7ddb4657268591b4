"""Thousands of requests through a tunnel, pipelined, in every framing; every body is checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from installed import Daemon, Program
from ports import steady_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

HOST = "app.example.net"
VISITORS = 16
BATCH = 25
"""Requests that a visitor sends at once, before it reads the answers."""
LAST = 100
"""Requests after which the service closes a connection, as services do: some hundred times in a test."""
PATIENCE = 120.0
"""Seconds for all of them."""

CONFIG = """
[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:{public}"

[service.app]
kind = "tunnel-client"
server = "http://{host}:{public}"
connect = "127.0.0.1:{public}"
target = "127.0.0.1:{port}"
native = {native}
"""


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks of at most ``size`` bytes."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A message's head, in lower case, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return head, body
    _, _, length = head.partition(b"\r\ncontent-length: ")
    return head, await reader.readexactly(int(length.partition(b"\r\n")[0] or b"0"))


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request with its path and its body, some in chunks; closes now and then, as services do."""
    count = 0
    try:
        while True:
            head, body = await read_message(reader)
            count += 1
            answer = head.split(b" ", 2)[1] + b"\n" + body
            last = b"connection: close\r\n" if count % LAST == 0 else b""
            if len(body) % 2:
                writer.write(b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n" % last + chunked(answer, 700))
            else:
                writer.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (last, len(answer), answer))
            await writer.drain()
            if last:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def service() -> AsyncIterator[int]:
    """The port of a service that mirrors."""
    server = await asyncio.start_server(mirror, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def visit(port: int, name: int, count: int) -> int:
    """Sends so many requests on one connection, and checks each answer; returns how many were right."""
    chance = random.Random(name)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    right = 0
    while right < count:
        sent = []
        for number in range(right, min(count, right + BATCH)):
            path, body = b"/%d/%d" % (name, number), chance.randbytes(chance.choice((0, 1, 2, 100, 1001, 5000)))
            framed = b"content-length: %d\r\n\r\n%b" % (len(body), body)
            if chance.random() < 0.3:
                framed = b"transfer-encoding: chunked\r\n\r\n" + chunked(body, 900)
            writer.write(b"PUT %b HTTP/1.1\r\nhost: %b\r\n%b" % (path, HOST.encode(), framed))
            sent.append((path, body))
        await writer.drain()
        for path, body in sent:
            head, answer = await read_message(reader)
            assert head.startswith(b"http/1.1 200 "), head
            assert answer == path + b"\n" + body
            right += 1
    writer.close()
    return right


COUNTS = [("true", 4000), ("false", 2000)]
"""Requests: five batches of each visitor at least, on connections that the service closes again and again; ten times as
many went through the same states more often."""


@pytest.mark.parametrize(("native", "count"), COUNTS)
async def test_every_answer_is_the_one_to_its_request(program: Program, native: str, count: int) -> None:
    public = steady_port()
    async with service() as port:
        node: Daemon = program.daemon(CONFIG.format(host=HOST, public=public, port=port, native=native))
        await asyncio.to_thread(node.reaches, "app", "connected")
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*(visit(public, name, count // VISITORS) for name in range(VISITORS)))
        assert sum(found) == count
