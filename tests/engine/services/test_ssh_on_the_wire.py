"""The SSH server as bytes: strict key exchange, and what a client may ask of a channel and is not given."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from asyncssh.packet import Boolean, NameList, SSHPacket, String, UInt32

from loopback import Caller, calling, target
from ssh_peers import ssh_desk
from tunnelconsole.engine.services.server_dialer import dialer_of
from tunnelconsole.engine.settings import ServerAddress
from tunnelconsole.errors import ConnectFailed
from waiting import PATIENCE

DISCONNECT, IGNORE, KEXINIT, ECDH_INIT, ECDH_REPLY = 1, 2, 20, 30, 31
"""Numbers of messages (RFC 4253, section 12; RFC 5656, section 7.1)."""

STRICT_SERVER, STRICT_CLIENT = b"kex-strict-s-v00@openssh.com", b"kex-strict-c-v00@openssh.com"
"""How each side says that it holds to strict key exchange (OpenSSH's PROTOCOL, 1.10), against CVE-2023-48795."""

POINT = bytes([9]) + bytes(31)
"""A public key on Curve25519: its base point."""


def packet(*parts: bytes) -> bytes:
    """A packet before there are keys."""
    payload = b"".join(parts)
    padding = 16 - (5 + len(payload)) % 8
    return UInt32(1 + len(payload) + padding) + bytes([padding]) + payload + bytes(padding)


async def heard(reader: asyncio.StreamReader) -> bytes:
    """The next packet before there are keys, without what is around it; b"" at the end."""
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        whole = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""
    return whole[1 : length - whole[0]]


def kexinit(*extensions: bytes) -> bytes:
    """What a client offers that knows one algorithm of each kind."""
    cipher, mac = [b"aes256-gcm@openssh.com"], [b"hmac-sha2-256-etm@openssh.com"]
    kinds = [[b"curve25519-sha256", *extensions], [b"ssh-ed25519"], cipher, cipher, mac, mac, [b"none"], [b"none"]]
    lists = [NameList(names) for names in (*kinds, [], [])]
    return packet(bytes([KEXINIT]), bytes(16), *lists, Boolean(False), UInt32(0))


def exchanges(offer: bytes) -> list[bytes]:
    """The key exchanges in what the other side offers."""
    assert offer[0] == KEXINIT
    return list(SSHPacket(offer[17:]).get_namelist())


async def answer(caller: Caller, *packets: bytes) -> int:
    """The number of what the server says to these packets: the reply to a key exchange, or that it has had enough."""
    assert (await caller._reader.readline()).startswith(b"SSH-2.0-")
    caller._writer.write(b"SSH-2.0-Test\r\n" + b"".join(packets))
    async with asyncio.timeout(PATIENCE):
        while (said := await heard(caller._reader)) and said[0] not in (ECDH_REPLY, DISCONNECT):
            pass
    return said[0] if said else 0


async def test_our_server_offers_strict_key_exchange(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, calling(desk.server.address) as caller:
        await caller._reader.readline()
        caller._writer.write(b"SSH-2.0-Test\r\n")
        assert STRICT_SERVER in exchanges(await heard(caller._reader))


async def test_who_asks_for_strict_key_exchange_is_protected_from_what_somebody_puts_in_between(tmp_path: Path) -> None:
    smuggled = packet(bytes([IGNORE]), String("x"))
    begin = packet(bytes([ECDH_INIT]), String(POINT))
    async with ssh_desk(tmp_path) as desk:
        for extensions, between, said in (
            ((STRICT_CLIENT,), b"", ECDH_REPLY),
            ((STRICT_CLIENT,), smuggled, DISCONNECT),
            ((), smuggled, ECDH_REPLY),  # nothing says that this client could bear it
        ):
            async with calling(desk.server.address) as caller:
                assert await answer(caller, kexinit(*extensions), between, begin) == said


async def test_asyncssh_as_client_and_our_server_agree_on_it(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        assert cast(Any, connection)._strict_kex
        assert (await connection.run("status")).exit_status == 0
        (session,) = desk.server.attached
        assert cast(Any, session.end).__self__.connection._strict_kex


async def test_our_client_asks_for_strict_key_exchange_and_holds_to_it() -> None:
    offered: list[bytes] = []

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-Test\r\n" + kexinit(STRICT_SERVER) + packet(bytes([IGNORE]), String("x")))
        await reader.readline()
        offered.extend(exchanges(await heard(reader)))
        while await heard(reader):
            pass

    async with target(server) as host:
        where = ServerAddress.parse(f"ssh://ops@{host.address}/127.0.0.1:1")
        async with dialer_of(where, None, None, None, PATIENCE) as dialer:
            with pytest.raises(ConnectFailed, match="trict"):
                await dialer.dial()
    assert STRICT_CLIENT in offered


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        (b"auth-agent-req@openssh.com", ()),
        (b"x11-req", (Boolean(False), String("MIT-MAGIC-COOKIE-1"), String("00" * 16), UInt32(0))),
    ],
)
async def test_an_agent_and_x11_are_refused(tmp_path: Path, wanted: bytes, fields: tuple[bytes, ...]) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        process = await connection.create_process("events --follow --json")
        channel = cast(Any, process.channel)
        async with asyncio.timeout(PATIENCE):
            assert await channel._make_request(wanted, *fields) is False
            assert await channel._make_request(b"env", String("LANG"), String("C")) is True  # others are heard
        assert process.exit_status is None
