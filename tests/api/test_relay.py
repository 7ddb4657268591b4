"""``tunnelconsole.relay`` in a program."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from typing import Any

import pytest

import tunnelconsole
from loopback import BULK, calling, listen_only, nobody, refuses, steady, target
from relay_peers import edge, one_port, relay_host
from tunnelconsole import relay
from tunnelconsole.engine.settings import Fingerprint, TLSSettings
from tunnelconsole.errors import ConnectFailed, CredentialsRefused
from waiting import until


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
@pytest.mark.parametrize("tls", [None, TLSSettings()], ids=["plain", "tls"])
async def test_a_target_is_exposed_until_the_block_ends(native: bool, tls: TLSSettings | None) -> None:
    async with edge(tls=tls, ports=one_port()) as at, target() as far:
        pinned = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"])) if tls else None
        async with relay.expose(at.address, str(far.address), tls=pinned, native=native) as exposed:
            address = exposed.address
            async with calling(address) as visitor:
                assert await visitor.exchange(BULK) == BULK
        await refuses(address)
        await until(lambda: not at.engine.node.sessions.sessions)


async def test_a_target_is_told_who_comes() -> None:
    async with (
        edge() as at,
        target() as far,
        relay.expose(at.address, str(far.address), send_proxy="v1") as exposed,
    ):
        await until(lambda: any(backend._spare for backend in at.service.backends.values()))
        async with calling(exposed.address) as visitor:
            host, _, port = visitor.name.rpartition(":")
            public = exposed.address.rpartition(":")[2]
            header = f"PROXY TCP4 {host} 127.0.0.1 {port} {public}\r\n".encode()
            assert await visitor.exchange(b"ping") == header + b"ping"


async def test_the_visitors_are_counted() -> None:
    async with edge() as at, target(listen_only) as far, relay.expose(at.address, str(far.address)) as exposed:
        assert exposed.visitors == 0
        async with calling(exposed.address), calling(exposed.address):
            await until(lambda: exposed.visitors == 2)
        await until(lambda: exposed.visitors == 0)


async def test_a_visitor_is_cut_when_the_block_ends_or_is_cancelled() -> None:
    async with edge() as at, target(listen_only) as far:
        addresses: list[str] = []

        async def expose() -> None:
            async with relay.expose(at.address, str(far.address)) as exposed:
                addresses.append(exposed.address)
                await asyncio.get_running_loop().create_future()

        async with asyncio.TaskGroup() as group:
            exposing = group.create_task(expose())
            await until(lambda: addresses)
            async with calling(addresses[0]) as visitor:
                await until(lambda: far.open)
                exposing.cancel()
                assert await visitor.broken()
        await until(lambda: not far.open and not at.engine.node.sessions.sessions)


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    async with edge() as at:
        with pytest.raises(ZeroDivisionError):
            async with relay.expose(at.address, "127.0.0.1:1"):
                raise ZeroDivisionError
        await until(lambda: not at.engine.node.sessions.sessions)


async def test_it_connects_again_by_itself_and_says_where_it_is_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)
    listen = steady()
    async with edge(listen=listen) as at, target() as far, relay.expose(at.address, str(far.address)) as exposed:
        assert exposed.address
        await at.engine.stop_service("edge")
        await until(lambda: not exposed.address)
        await at.engine.start_service("edge")
        await until(lambda: exposed.address)
        async with calling(exposed.address) as visitor:
            assert await visitor.exchange(b"ping") == b"ping"


async def test_a_server_that_cannot_be_reached_raises() -> None:
    with pytest.raises(ConnectFailed, match="connection refused"):
        async with relay.expose(str(nobody()), "127.0.0.1:1"):
            pass


async def test_a_server_that_has_no_port_to_give_raises_with_its_reason() -> None:
    async with edge(ports=one_port()) as at, at.backend():
        with pytest.raises(ConnectFailed, match="no public port of"):
            async with relay.expose(at.address, "127.0.0.1:1"):
                pass


async def test_a_server_that_is_none_raises() -> None:
    async with relay_host(b"HTTP/1.1 400 Bad Request\r\n\r\n") as host:
        with pytest.raises(ConnectFailed, match="protocol error"):
            async with relay.expose(str(host.address), "127.0.0.1:1"):
                pass


async def test_another_certificate_than_the_pinned_one_raises() -> None:
    async with edge(tls=TLSSettings()) as at:
        other = TLSSettings(fingerprint=Fingerprint("ab" * 32))
        with pytest.raises(CredentialsRefused, match="not the pinned one"):
            async with relay.expose(at.address, "127.0.0.1:1", tls=other):
                pass
        with pytest.raises(ConnectFailed, match="pin a self-signed certificate"):
            async with relay.expose(at.address, "127.0.0.1:1", tls=TLSSettings()):
                pass


@pytest.mark.parametrize(("server", "where"), [("nonsense", "a:1"), ("a:1", "nonsense"), ("a:1", "a:99999")])
async def test_an_address_that_is_none_raises_before_anything_is_dialled(server: str, where: str) -> None:
    with pytest.raises(ValueError, match=r"expected host:port|not between 1 and 65535"):
        async with relay.expose(server, where):
            pass


async def test_an_expose_that_is_cancelled_while_it_connects_leaves_nothing_behind() -> None:
    async with relay_host(b"") as host:

        async def expose() -> None:
            async with relay.expose(str(host.address), "127.0.0.1:1"):
                raise AssertionError("connected")

        async with asyncio.TaskGroup() as group:
            exposing = group.create_task(expose())
            peer = await host.backend()
            exposing.cancel()
        await peer.rest()


async def test_the_example_in_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, example = (inspect.getdoc(relay) or "").partition("::\n")
    async with edge() as at:
        code = textwrap.dedent(example).replace("edge.example.net:7000", at.address)
        scope: dict[str, Any] = {"tunnelconsole": tunnelconsole}
        exec(f"async def example():\n{textwrap.indent(code, '    ')}", scope)
        await scope["example"]()
    assert capsys.readouterr().out.startswith("127.0.0.1:")
