"""The identity of a room: both ends make the same one, and accept no other."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from loopback import open_descriptors
from tcp import PATIENCE, connected
from tunnelconsole.engine.services.punch import identity
from tunnelconsole.engine.services.punch.identity import RoomIdentity
from tunnelconsole.engine.transport.ends import receive, send_all
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


async def meet(client: RoomIdentity, server: RoomIdentity) -> tuple[TLSEnd, TLSEnd, Sequence[BaseException | None]]:
    """Two ends shake hands; what each of them made of it."""
    near, far = connected()
    ends = client.end(near, server_side=False), server.end(far, server_side=True)

    async def complete(who: RoomIdentity, end: TLSEnd) -> None:
        try:
            await who.complete(end)
        except BaseException:
            end.close()
            raise

    async with asyncio.timeout(PATIENCE):
        results = await asyncio.gather(complete(client, ends[0]), complete(server, ends[1]), return_exceptions=True)
    return *ends, results


def test_two_processes_make_the_same_certificate_of_one_key() -> None:
    program = f"""
import sys
from tunnelconsole.engine.services.punch.identity import RoomIdentity
sys.stdout.write(RoomIdentity({KEY!r}).certificate.hex())
"""
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert bytes.fromhex(other) == RoomIdentity(KEY).certificate
    assert RoomIdentity(OTHER_KEY).certificate != RoomIdentity(KEY).certificate


async def test_two_ends_of_one_room_accept_each_other_by_tls_1_3_and_remember_nothing() -> None:
    client, server, results = await meet(RoomIdentity(KEY), RoomIdentity(KEY))
    assert all(result is None for result in results)
    await send_all(client, b"hello")
    assert await receive(server) == b"hello"
    await send_all(server, b"hello yourself")
    assert await receive(client) == b"hello yourself"
    assert client._tls.version() == server._tls.version() == "TLSv1.3"
    assert client._tls.session is None or not client._tls.session.has_ticket
    client.close()
    server.close()


async def test_another_secret_fails_at_both_ends_and_both_are_told_why() -> None:
    _, _, results = await meet(RoomIdentity(KEY), RoomIdentity(OTHER_KEY))
    for error in results:
        assert isinstance(error, CredentialsRefused)
        assert "does not have this room's secret" in str(error)
        assert "the same secret at both ends" in str(error)


@pytest.mark.parametrize("stranger_serves", [False, True])
async def test_a_stranger_without_the_certificate_is_not_accepted(stranger_serves: bool) -> None:
    """Someone who shows nothing, or who would accept everybody."""
    room, stranger = RoomIdentity(KEY), RoomIdentity(OTHER_KEY)
    stranger.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (stranger.client_context, stranger.server_context):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    pair = (room, stranger) if stranger_serves else (stranger, room)
    *_, results = await meet(*pair)
    assert isinstance(results[pair.index(room)], CredentialsRefused)


async def test_a_far_side_that_does_not_speak_tls_is_said_to_be_one() -> None:
    near, far = connected()
    end = RoomIdentity(KEY).end(near, server_side=False)
    far.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConnectFailed, match="does not speak TLS"):
        await RoomIdentity(KEY).complete(end)
    end.close()
    far.close()


async def test_a_connection_that_breaks_in_the_handshake_is_not_taken_for_another_secret() -> None:
    near, far = connected()
    end = RoomIdentity(KEY).end(near, server_side=False)
    far.close()
    with pytest.raises(ConnectFailed) as failed:
        await RoomIdentity(KEY).complete(end)
    assert not isinstance(failed.value, CredentialsRefused)
    end.close()


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_private_key_is_in_no_file_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = open_descriptors()
    made = RoomIdentity(KEY)
    assert made.certificate == RoomIdentity(KEY).certificate
    assert not list(tmp_path.iterdir())
    assert open_descriptors() == before


def test_the_file_that_passes_the_key_is_private_while_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with identity._passing_file(b"secret") as file:
        assert file.read_bytes() == b"secret"
        assert file.stat().st_mode & 0o777 == 0o600
    assert not file.exists()
