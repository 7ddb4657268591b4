"""``tunnelconsole.jump`` in a program."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tunnelconsole
from jump_peers import SECRET, YES, Home, framed, home, scripted_server
from loopback import (
    BULK,
    Handler,
    blackhole,
    digest_at_end,
    echo,
    listen_only,
    nobody,
    open_descriptors,
    sha256,
    speak_and_close,
)
from tunnelconsole import jump
from tunnelconsole.engine.settings import FilePath, Fingerprint, TLSSettings
from tunnelconsole.errors import CertificateRejected, ConnectFailed, CredentialsRefused, TargetRefused
from waiting import until

CHALLENGE = framed(b"a" * 32)


@dataclass
class Jumping:
    """A jump server with a target, and how to connect to that target."""

    at: Home

    def connect(self, **options: Any) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        fingerprint = self.at.service.notes.get("fingerprint")
        tls = TLSSettings(fingerprint=Fingerprint(fingerprint)) if fingerprint else None
        return jump.connect(self.at.address, SECRET, str(self.at.far.address), tls=tls, **options)


Jumps = Callable[..., AbstractAsyncContextManager[Jumping]]


@pytest.fixture(params=[None, TLSSettings()], ids=["plain", "tls"])
def jumping(request: pytest.FixtureRequest) -> Jumps:
    """Each promise holds with TLS and without."""

    @asynccontextmanager
    async def running(handler: Handler = echo) -> AsyncIterator[Jumping]:
        async with home(handler, tls=request.param) as at:
            yield Jumping(at)

    return running


async def test_bulk_goes_both_ways(jumping: Jumps) -> None:
    async with jumping() as it, it.connect() as (reader, writer):

        async def send() -> None:
            writer.write(BULK)
            await writer.drain()
            writer.write_eof()

        received, _ = await asyncio.gather(reader.read(), send())
        assert received == BULK


async def test_a_half_close_is_passed_on(jumping: Jumps) -> None:
    async with jumping(digest_at_end) as it, it.connect() as (reader, writer):
        writer.write(b"all there is")
        writer.write_eof()
        assert await reader.read() == sha256(b"all there is")


async def test_after_the_targets_half_close_the_program_can_still_speak(jumping: Jumps) -> None:
    async with jumping(speak_and_close) as it:
        async with it.connect() as (reader, writer):
            assert await reader.read() == b"hello"
            writer.write(b"still here")
            await writer.drain()
            assert it.at.far.open == 1
        await until(lambda: not it.at.far.open)


async def test_what_was_written_last_is_delivered_when_the_block_ends(jumping: Jumps) -> None:
    received = asyncio.get_running_loop().create_future()

    async def take_all(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())

    async with jumping(take_all) as it:
        async with it.connect() as (_, writer):
            writer.write(BULK)
        assert await received == BULK


async def test_what_the_target_says_in_the_same_read_as_the_servers_answer_comes_first() -> None:
    async with (
        scripted_server(CHALLENGE, YES, YES + b"early ", b"and late") as server,
        jump.connect(str(server.address), SECRET, "a.example:80") as (reader, writer),
    ):
        assert await reader.readexactly(6) == b"early "
        writer.write(b"go on")
        assert await reader.read() == b"and late"


async def test_the_targets_reset_is_an_error_and_not_an_end(jumping: Jumps) -> None:
    async with jumping(listen_only) as it, it.connect() as (reader, _):
        await until(lambda: it.at.far.open)
        it.at.far.reset_all()
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_block_that_fails_breaks_the_connection_off(jumping: Jumps) -> None:
    ends: list[str] = []

    async def note_the_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            ends.append("reset")
        else:
            ends.append("orderly")

    async with jumping(note_the_end) as it:
        with suppress(ZeroDivisionError):
            async with it.connect() as (_, writer):
                writer.write(b"half a mess")
                await writer.drain()
                raise ZeroDivisionError
        await until(lambda: ends)
        assert ends == ["reset"]


async def test_a_cancelled_block_leaves_nothing_behind(jumping: Jumps) -> None:
    async with jumping(listen_only) as it:
        before = open_descriptors()

        async def use_it() -> None:
            async with it.connect() as (reader, _):
                await reader.read()

        async with asyncio.TaskGroup() as group:
            using = group.create_task(use_it())
            await until(lambda: it.at.far.open)
            using.cancel()
        await until(lambda: not it.at.far.open and open_descriptors() == before)


async def test_the_end_of_the_block_waits_for_a_target_that_does_not_read_only_so_long(jumping: Jumps) -> None:
    async def never_read(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await released.wait()

    released = asyncio.Event()
    async with jumping(never_read) as it:
        connecting = it.connect(timeout=0.5)
        async with connecting as (_, writer):
            writer.write(BULK * 4)
        released.set()


@pytest.mark.parametrize("stage", ["connecting", "handshake"])
async def test_a_connect_that_is_cancelled_leaves_nothing_behind(stage: str) -> None:
    async with scripted_server(CHALLENGE, close=False) as silent:
        with blackhole() as hole:
            where = str(hole if stage == "connecting" else silent.address)
            before = open_descriptors()

            async def use_it() -> None:
                async with jump.connect(where, SECRET, "a.example:80"):
                    raise AssertionError("connected")

            async with asyncio.TaskGroup() as group:
                using = group.create_task(use_it())
                await until(lambda: open_descriptors() > before)
                using.cancel()
            await until(lambda: open_descriptors() == before)


async def test_a_wrong_secret_raises() -> None:
    async with home() as at:
        with pytest.raises(CredentialsRefused, match="challenge failed, check secret") as caught:
            async with jump.connect(at.address, "wr0ng", str(at.far.address)):
                pass
        assert "wr0ng" not in str(caught.value)


async def test_a_target_that_cannot_be_dialled_raises_with_the_servers_reason() -> None:
    async with home() as at:
        with pytest.raises(TargetRefused, match="connection refused"):
            async with jump.connect(at.address, SECRET, str(nobody())):
                pass
        with pytest.raises(TargetRefused, match="not allowed here"):
            async with jump.connect(at.address, SECRET, "10.0.0.1:80"):
                pass


async def test_a_server_that_cannot_be_reached_raises() -> None:
    with pytest.raises(ConnectFailed, match="connection refused"):
        async with jump.connect(str(nobody()), SECRET, "a.example:80"):
            pass


async def test_a_server_that_does_not_answer_in_time_raises() -> None:
    async with scripted_server(CHALLENGE, close=False) as server:
        with pytest.raises(ConnectFailed, match=r"did not finish its handshake within 0\.1 s"):
            async with jump.connect(str(server.address), SECRET, "a.example:80", timeout=0.1):
                pass
        await until(lambda: not server.open)


async def test_a_server_that_is_none_raises_with_a_hint() -> None:
    async with scripted_server(b"\x00") as server:
        with pytest.raises(ConnectFailed, match="is there a jump server at "):
            async with jump.connect(str(server.address), SECRET, "a.example:80"):
                pass


@pytest.mark.parametrize(("server", "target"), [("nonsense", "a:1"), ("a:1", "nonsense"), ("a:1", "a:99999")])
async def test_an_address_that_is_none_raises_before_anything_is_dialled(server: str, target: str) -> None:
    with pytest.raises(ValueError, match=r"expected host:port|not between 1 and 65535"):
        async with jump.connect(server, SECRET, target):
            pass


async def test_a_certificate_that_nobody_vouches_for_raises(tmp_path: Path) -> None:
    async with home(tls=TLSSettings()) as at:
        with pytest.raises(CertificateRejected, match="pin a self-signed certificate"):
            async with jump.connect(at.address, SECRET, str(at.far.address), tls=TLSSettings()):
                pass
        other = TLSSettings(fingerprint=Fingerprint("ab" * 32))
        with pytest.raises(CredentialsRefused, match="not the pinned one"):
            async with jump.connect(at.address, SECRET, str(at.far.address), tls=other):
                pass
        missing = TLSSettings(ca=FilePath(str(tmp_path / "missing.pem")))
        with pytest.raises(ConnectFailed, match="authorities in"):
            async with jump.connect(at.address, SECRET, str(at.far.address), tls=missing):
                pass


async def test_the_server_can_be_dialled_at_another_address() -> None:
    async with (
        home() as at,
        jump.connect("no-such-host.invalid:1", SECRET, str(at.far.address), connect_to=at.address) as (reader, writer),
    ):
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"


async def test_the_example_in_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")

    _, _, example = (inspect.getdoc(jump) or "").partition("::\n")
    assignment, _, block = textwrap.dedent(example).strip().partition("\n")
    assert assignment.startswith("server, secret, target = ")
    scope: dict[str, Any] = {"tunnelconsole": tunnelconsole}
    exec(f"async def example(server, secret, target):\n{textwrap.indent(block, '    ')}", scope)
    async with home(answer) as at:
        await scope["example"](at.address, SECRET, str(at.far.address))
    assert "hello" in capsys.readouterr().out
