"""The recordings in tests/data: what the originals' own clients and servers said to each other.

One JSON object a line for each read: ``conn`` (number of the connection), ``dir`` (who sent it), ``hex`` or ``eof``.
Where one read ends and the next begins is chance.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_FOLDER = Path(__file__).parent / "data"

Sender = Literal["client", "server"]

#: The secret with which the jump recordings were made, but for the wrong one in ``jump-bad-secret``.
JUMP_SECRET = b"superBigSecret"
WRONG_JUMP_SECRET = b"wrong"


@dataclass(frozen=True, slots=True)
class Read:
    """One read of a recording: some bytes, or the end of them (``eof``, with no bytes)."""

    conn: int
    sender: Sender
    data: bytes
    eof: bool


def load(name: str) -> list[Read]:
    """Return the reads of ``tests/data/NAME.jsonl`` in their order."""
    reads = []
    for line in (_FOLDER / f"{name}.jsonl").read_text(encoding="ascii").splitlines():
        fields = json.loads(line)
        sender: Sender = "client" if fields["dir"] == "client" else "server"
        reads.append(Read(fields["conn"], sender, bytes.fromhex(fields.get("hex", "")), bool(fields.get("eof"))))
    return reads


def sent_by(name: str, sender: Sender, conn: int = 1) -> bytes:
    """Return all that one end of one connection sent."""
    return b"".join(read.data for read in load(name) if read.sender == sender and read.conn == conn)


def every_split(data: bytes) -> Iterator[list[bytes]]:
    """Yield ``data`` as one piece, as two pieces cut at each offset, and byte by byte."""
    yield [data]
    for offset in range(1, len(data)):
        yield [data[:offset], data[offset:]]
    yield [data[offset : offset + 1] for offset in range(len(data))]


def cut(data: bytes, offsets: Sequence[int]) -> list[bytes]:
    """Return ``data`` cut at ``offsets``, each taken modulo its length."""
    edges = sorted({0, len(data), *(offset % (len(data) + 1) for offset in offsets)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]
