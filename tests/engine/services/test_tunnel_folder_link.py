"""A folder that cannot be read after all: its visitor is told, and never left waiting."""

from __future__ import annotations

import errno
from io import BytesIO
from pathlib import Path

import pytest

from loopback import running
from tunnel_peers import tunnel_client, visiting, web
from tunnelconsole.engine.services.tunnel.folder import Answer, Folder

FIRST = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


class BrokenFile(BytesIO):
    """On a disk that fails."""

    def read(self, _: int | None = None) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


async def test_a_file_that_cannot_be_read_to_its_end_cuts_its_visitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "answer", lambda *_: Answer(FIRST, BrokenFile(), 5))
    async with web() as at, running(app=tunnel_client(at.address, str(tmp_path))), visiting(at.address) as visitor:
        await visitor.send(b"GET /big HTTP/1.1\r\nHost: app.example.net\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await visitor.ends()


async def test_a_fault_behind_the_folder_is_answered_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Answer:
        raise RuntimeError("as no code of ours should")

    monkeypatch.setattr(Folder, "answer", fails)
    async with web() as at, running(app=tunnel_client(at.address, str(tmp_path))), visiting(at.address) as visitor:
        assert (await visitor.get("/page.html")).status == 502
