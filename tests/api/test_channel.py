"""``tunnelconsole.channel`` in a program."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

import tunnelconsole
from channel_client_peers import Kind, hand_made_hub, meddler
from channel_peers import At, hub
from loopback import BULK, blackhole, echo, listen_only, nobody, open_descriptors, sha256, target
from tunnelconsole import channel
from tunnelconsole.engine.services.channel import sealed_bridge, sealed_halves, sealed_key
from tunnelconsole.engine.settings import Fingerprint, Secret, TLSSettings
from tunnelconsole.engine.transport.streams import Streams
from tunnelconsole.errors import CertificateRejected, ConnectFailed, CredentialsRefused
from waiting import until

KEY = "only the two of us know"

Connecting = AbstractAsyncContextManager[Streams]


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost no tenth of a second."""
    monkeypatch.setattr(sealed_key, "derive_key", lambda key, salt: sha256(key + salt))
    monkeypatch.setattr(sealed_bridge, "GARBAGE_TIME", 0.3)
    monkeypatch.setattr(sealed_halves, "FIRST_HELLO", 0.02)


@dataclass
class Hubbub:
    """A channel server, and how two programs connect to it."""

    at: At
    key: str

    def connect(self, chid: str, *receivers: str, **options: Any) -> Connecting:
        options = {"key": self.key} | options
        return channel.connect(self.at.address, chid, receivers=receivers, tls=self._tls(), **options)

    def broadcast(self) -> Connecting:
        return channel.broadcast(self.at.address, key=self.key, tls=self._tls())

    def _tls(self) -> TLSSettings | None:
        fingerprint = self.at.service.notes.get("fingerprint")
        return TLSSettings(fingerprint=Fingerprint(fingerprint)) if fingerprint else None

    @asynccontextmanager
    async def pair(self, **options: Any) -> AsyncIterator[tuple[Streams, Streams]]:
        async with self.connect("a", "b", **options) as one, self.connect("b", "a", **options) as other:
            yield one, other


Hubs = Callable[..., AbstractAsyncContextManager[Hubbub]]


@pytest.fixture(params=["plain", "tls", "key", "key and tls"])
def hubs(request: pytest.FixtureRequest) -> Hubs:
    """Each promise holds with TLS and without, with a key and without."""

    @asynccontextmanager
    async def running(**changes: Any) -> AsyncIterator[Hubbub]:
        async with hub(tls=TLSSettings() if "tls" in request.param else None, **changes) as at:
            yield Hubbub(at, KEY if "key" in request.param else "")

    return running


async def test_bulk_goes_both_ways_at_once(hubs: Hubs) -> None:
    async with hubs() as it, it.pair() as (one, other):

        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(BULK)
            await writer.drain()

        async def receive(reader: asyncio.StreamReader) -> bool:
            return await reader.readexactly(len(BULK)) == BULK

        at_one, at_other, *_ = await asyncio.gather(receive(one[0]), receive(other[0]), send(one[1]), send(other[1]))
        assert at_one
        assert at_other


async def test_a_pair_that_has_said_all_ends_in_order(hubs: Hubs) -> None:
    async with hubs() as it, it.pair() as (one, other):
        for _, writer in (one, other):
            writer.write(b"all there is")
            writer.write_eof()
        assert await one[0].read() == await other[0].read() == b"all there is"


async def test_what_was_written_last_is_delivered_when_the_block_ends(hubs: Hubs) -> None:
    async with hubs() as it, it.connect("b", "a") as (reader, _):

        async def write_and_leave() -> None:
            async with it.connect("a", "b") as (_, writer):
                writer.write(BULK)

        received, _ = await asyncio.gather(reader.readexactly(len(BULK)), write_and_leave())
        assert received == BULK


async def test_a_cancelled_block_leaves_nothing_behind(hubs: Hubs) -> None:
    async with hubs() as it:
        before = open_descriptors()

        async def use_it() -> None:
            async with it.connect("a", "b") as (reader, _):
                await reader.read()

        async with asyncio.TaskGroup() as group:
            using = group.create_task(use_it())
            await until(lambda: it.at.chids == ["a"])
            using.cancel()
        await until(lambda: not it.at.chids and open_descriptors() == before)


async def test_the_servers_reset_is_an_error_and_not_an_end(hubs: Hubs) -> None:
    async with hubs() as it, it.connect("a", "b") as (reader, _):
        it.at.party("a").finish("kicked")
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_what_comes_in_the_same_read_as_the_servers_answer_comes_first() -> None:
    async with hub(hold=1024) as at:
        async with channel.connect(at.address, "a", receivers=["b"]) as (_, writer):
            writer.write(b"early")
            await writer.drain()
            await until(lambda: at.party("a").bytes_in == 5)
        async with channel.connect(at.address, "b") as (reader, _):
            assert await reader.readexactly(5) == b"early"


@pytest.mark.parametrize("hubs", ["plain", "tls", "key"], indirect=True)
async def test_in_a_broadcast_all_others_hear_what_one_writes(hubs: Hubs) -> None:
    async with hubs(mode="broadcast") as it, it.broadcast() as (_, writer), it.broadcast() as (reader, _):
        await until(lambda: len(it.at.chids) == 2)
        writer.write(b"to all of you")
        assert await reader.readexactly(13) == b"to all of you"


async def test_a_broadcast_that_cannot_be_reached_raises() -> None:
    with pytest.raises(ConnectFailed, match=r"cannot reach the channel server 127.*connection refused"):
        async with channel.broadcast(str(nobody())):
            pass
    with pytest.raises(ValueError, match="expected host:port"):
        async with channel.broadcast("nonsense"):
            pass


# With a key


async def test_with_a_key_it_does_not_matter_who_comes_first_and_nothing_is_lost() -> None:
    async with hub() as at, AsyncExitStack() as stack:
        one = await stack.enter_async_context(channel.connect(at.address, "a", key=KEY))
        one[1].write(b"early")
        one[1].write_eof()
        await until(lambda: at.party("a").bytes_in)
        other = await stack.enter_async_context(channel.connect(at.address, "b", key=KEY))
        other[1].write_eof()
        assert await other[0].read() == b"early"
        assert await one[0].read() == b""


async def test_with_a_key_a_half_close_reaches_the_other_end_who_can_still_speak() -> None:
    async with hub() as at, Hubbub(at, KEY).pair() as (one, other):
        one[1].write_eof()
        assert await other[0].read() == b""
        other[1].write(b"still here")
        assert await one[0].readexactly(10) == b"still here"


async def test_with_a_key_a_block_that_fails_is_an_error_at_the_other_end() -> None:
    async with hub() as at, Hubbub(at, KEY).connect("b", "a") as (reader, _):
        with suppress(ZeroDivisionError):
            async with Hubbub(at, KEY).connect("a", "b") as (_, writer):
                writer.write(b"half a mess")
                await until(lambda: at.party("b").bytes_out > 100)
                raise ZeroDivisionError
        with pytest.raises(ConnectionResetError, match="the other end broke off"):
            await reader.read()


async def test_with_a_key_what_was_tampered_with_is_an_error() -> None:
    def change(sender: str, kind: Kind, count: int, data: bytes) -> list[bytes]:
        return [data[:-1] + bytes([data[-1] ^ 1])] if (sender, kind, count) == ("a", "record", 0) else [data]

    async with meddler(change) as server:
        address = str(server.address)
        async with channel.connect(address, "b", receivers=["a"], key=KEY) as other:
            with pytest.raises(ConnectionResetError, match="what came to it was not what had been sealed"):
                async with channel.connect(address, "a", receivers=["b"], key=KEY) as one:
                    one[1].write(b"pay 10")
            with pytest.raises(ConnectionResetError, match="its first record was changed"):
                await other[0].read()


async def test_with_a_key_an_end_without_one_is_an_error() -> None:
    async with hub() as at, Hubbub(at, KEY).connect("a", "b") as (reader, _), at.client("b", ["a"]) as other:
        await other.send(b"in the clear")
        with pytest.raises(ConnectionResetError, match="has its sender a key"):
            await reader.read()


async def test_with_a_key_the_end_of_the_block_waits_for_the_other_end_only_so_long() -> None:
    async with hub() as at:
        with pytest.raises(ConnectionResetError, match="has not confirmed that it has all"):
            async with Hubbub(at, KEY).connect("a", "b", timeout=0.5) as (_, writer):
                writer.write(b"nobody will read this")
        async with Hubbub(at, KEY).connect("a", "b", timeout=0.5):
            pass  # nothing was written, and so nothing is lost


# What goes wrong


@pytest.mark.parametrize(("password", "hint"), [("wr0ng", "check the handshake password"), ("", "give the handshake")])
async def test_a_wrong_or_missing_password_raises(password: str, hint: str) -> None:
    async with hub(handshake_password=Secret("sesame")) as at:
        with pytest.raises(CredentialsRefused, match=hint) as caught:
            async with channel.connect(at.address, "a", password=password):
                pass
        assert not password or password not in str(caught.value)
        async with channel.connect(at.address, "a", password="sesame"):
            assert at.chids == ["a"]


async def test_a_refusal_raises_with_the_servers_reason() -> None:
    async with hand_made_hub(refusal="chid a is taken") as server:
        with pytest.raises(ConnectFailed, match="did not let us in: chid a is taken"):
            async with channel.connect(str(server.address), "a"):
                pass


async def test_a_server_that_cannot_be_reached_is_silent_or_none_raises() -> None:
    with pytest.raises(ConnectFailed, match="connection refused"):
        async with channel.connect(str(nobody()), "a"):
            pass
    async with target(listen_only) as silent:
        with pytest.raises(ConnectFailed, match=r"did not finish its handshake within 0\.1 s"):
            async with channel.connect(str(silent.address), "a", timeout=0.1):
                pass
        await until(lambda: not silent.open)
    async with target(echo) as other:
        with pytest.raises(ConnectFailed, match="is there a channel server at 127"):
            async with channel.connect(str(other.address), "a"):
                pass


@pytest.mark.parametrize("stage", ["connecting", "handshake"])
async def test_a_connect_that_is_cancelled_leaves_nothing_behind(stage: str) -> None:
    async with target(listen_only) as silent:
        with blackhole() as hole:
            where = str(hole if stage == "connecting" else silent.address)
            before = open_descriptors()

            async def use_it() -> None:
                async with channel.connect(where, "a"):
                    raise AssertionError("connected")

            async with asyncio.TaskGroup() as group:
                using = group.create_task(use_it())
                await until(lambda: open_descriptors() > before)
                using.cancel()
            await until(lambda: open_descriptors() == before)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("nonsense", "a"), {}),
        (("a:1", "two words"), {}),
        (("a:1", "a"), {"receivers": "b"}),
        (("a:1", "a"), {"receivers": ["b", ""]}),
    ],
)
async def test_what_cannot_be_raises_before_anything_is_dialled(
    arguments: tuple[str, str], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"expected host:port|a chid is|a list of chids"):
        async with channel.connect(*arguments, **options):
            pass


async def test_a_certificate_that_nobody_vouches_for_raises() -> None:
    async with hub(tls=TLSSettings()) as at:
        with pytest.raises(CertificateRejected, match="pin a self-signed certificate"):
            async with channel.connect(at.address, "a", tls=TLSSettings()):
                pass
        other = TLSSettings(fingerprint=Fingerprint("ab" * 32))
        with pytest.raises(CredentialsRefused, match="not the pinned one"):
            async with channel.connect(at.address, "a", tls=other):
                pass


async def test_the_server_can_be_dialled_at_another_address() -> None:
    async with hub() as at, channel.connect("no-such-host.invalid:1", "a", connect_to=at.address):
        assert at.chids == ["a"]


async def test_the_example_in_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, example = (inspect.getdoc(channel) or "").partition("::\n")
    assignment, _, block = textwrap.dedent(example).strip().partition("\n")
    assert assignment.startswith("server, mine, theirs = ")
    scope: dict[str, Any] = {"tunnelconsole": tunnelconsole}
    exec(f"async def example(server, mine, theirs):\n{textwrap.indent(block, '    ')}", scope)

    async def answer() -> None:
        async with Hubbub(at, "only we know").connect("desk", "laptop") as (reader, writer):
            assert await reader.readline() == b"are you there?\n"
            writer.write(b"yes\n")

    async with hub() as at:
        await asyncio.gather(scope["example"](at.address, "laptop", "desk"), answer())
    assert "yes" in capsys.readouterr().out
