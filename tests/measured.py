"""An engine whose metrics are read, and what there is to read them with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from prometheus_client.parser import text_string_to_metric_families

from loopback import FREE
from tunnelconsole.engine.engine import Engine
from tunnelconsole.metrics import server
from tunnelconsole.metrics.server import MetricsServer

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


@asynccontextmanager
async def measured(engine: Engine) -> AsyncIterator[MetricsServer]:
    """The metrics of a started engine on a free port of loopback, read anew each time."""
    made = MetricsServer(engine, "1.2.3")
    await made.bind(FREE)
    made.serve()
    before, server.AGE = server.AGE, 0.0  # type: ignore[misc]
    try:
        yield made
    finally:
        server.AGE = before  # type: ignore[misc]
        await made.close()


def parsed(text: str) -> Samples:
    """What a text says, by name and labels, once it is sure that each family is there once."""
    families = list(text_string_to_metric_families(text))
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names))
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples), "a sample is there twice"
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """A sample, or None."""
    return samples.get((name, frozenset(labels.items())))


def exported(text: str) -> set[str]:
    """The names of all that a text exports, as queries have them: a histogram has three."""
    names = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


async def say(address: str, *pieces: bytes) -> bytes:
    """What the listener answers to these bytes, until it closes."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def get(address: str, path: str, *fields: str, method: str = "GET") -> tuple[int, str]:
    """The status and the body of an answer."""
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""])
    status, body = split(await say(address, head.encode()))
    return status, body


def split(answer: bytes) -> tuple[int, str]:
    """The status and the body of an answer as bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def scraped(server_: MetricsServer) -> Samples:
    """All metrics, as a scraper gets them."""
    return parsed((await server_.text()).decode())


def names(samples: Iterable[tuple[str, Labels]]) -> set[str]:
    """The names of samples."""
    return {name for name, _ in samples}
