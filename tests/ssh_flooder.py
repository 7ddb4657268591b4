"""An SSH client that says one thing without end, as a process of its own; see :func:`flooding`.

Run as ``python ssh_flooder.py HOST PORT WHAT [KEY]``; it ends when it is killed or its connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.packet import Boolean, String, UInt32

IGNORED = 2
AUTH, REQUEST, CHANNEL_REQUEST = 50, 80, 98
"""Numbers of messages (RFC 4250, section 4.1.2)."""

AT_ONCE = 200
"""Messages between two looks whether they were taken."""

BEFORE_KEYS = "before keys"
"""Packets before any key exchange."""

LARGE = b"x" * 30_000


def _say(connection: Any, channel: Any, what: str, number: int) -> None:
    match what:
        case "logins":
            connection.send_packet(AUTH, String("ops"), String("ssh-connection"), String("none"))
        case "nothing":
            connection.send_packet(IGNORED, String(b""))
        case "forwards":
            connection.send_packet(REQUEST, String("tcpip-forward"), Boolean(False), String(LARGE), UInt32(80))
        case "variables":
            channel.send_packet(CHANNEL_REQUEST, String("env"), Boolean(False), String(str(number)), String(LARGE))


async def _flood(connection: Any, channel: Any, what: str) -> None:
    number = 0
    while (transport := connection._transport) is not None:
        for _ in range(AT_ONCE):
            number += 1
            _say(connection, channel, what, number)
        while transport.get_write_buffer_size() > len(LARGE) * AT_ONCE and connection._transport is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # noqa: TID251 - a flooder's pause, not a test's
        await asyncio.sleep(0)  # noqa: TID251 - as above


class _Stranger(asyncssh.SSHClient):
    """Floods in place of showing a key."""

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    async def public_key_auth_requested(self) -> None:
        await _flood(self._connection, None, "logins")


async def _log_in_and_flood(host: str, port: int, what: str, key: str) -> None:
    options: dict[str, Any] = {"config": None, "known_hosts": None, "username": "ops", "agent_path": None}
    if what == "logins":
        await asyncssh.connect(host, port, client_factory=_Stranger, client_keys=None, **options)
        return
    connection = await asyncssh.connect(host, port, client_keys=[key], **options)
    channel = None
    if what == "variables":
        channel = (await connection.create_process("events --follow --json")).channel
    await _flood(connection, channel, what)


def _flood_before_keys(host: str, port: int) -> None:
    padding = 4
    payload = bytes([IGNORED]) + bytes(6)
    packet = (1 + len(payload) + padding).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)
    with socket.create_connection((host, port)) as sock:
        sock.sendall(b"SSH-2.0-x\r\n")
        while True:
            sock.sendall(packet * 5000)


@asynccontextmanager
async def flooding(address: str, what: str, key: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A flooder, for as long as the block runs or the server lets it."""
    host, _, port = address.rpartition(":")
    command = [sys.executable, __file__, host, port, what, *([str(key)] if key else [])]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    _, its_host, its_port, its_words, *its_key = sys.argv
    try:
        if its_words == BEFORE_KEYS:
            _flood_before_keys(its_host, int(its_port))
        else:
            asyncio.run(_log_in_and_flood(its_host, int(its_port), its_words, *(its_key or [""])))
    except (OSError, asyncssh.Error):
        sys.exit(1)
