"""TLS as an end: it half-closes while data arrives, takes no silence for an end, and trusts nobody unasked."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tcp import PATIENCE, Program, connected
from tls_programs import NAME, SecureProgram, certificate, ends_of, serving, shake_hands, trusting
from tunnelconsole.engine.transport.certificates import certificate_fingerprint, make_self_signed
from tunnelconsole.engine.transport.ends import READ_SIZE
from tunnelconsole.engine.transport.tls import (
    NotTLS,
    TLSEnd,
    check_fingerprint,
    client_context,
    complete_handshake,
    explain,
    fingerprint_of,
    plain_fingerprint,
    server_context,
)
from tunnelconsole.engine.wire.first_bytes import TLS, spoken_by
from tunnelconsole.errors import CertificateRejected, ConnectFailed, CredentialsRefused
from yamux_frames import SYN, WINDOW, frame

T = TypeVar("T")

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(params=list(VERSIONS))
def trusted(request: pytest.FixtureRequest) -> ssl.SSLContext:
    """A client's context for one version of TLS."""
    context = client_context(certificate()[0], "")
    context.minimum_version = context.maximum_version = VERSIONS[request.param]
    return context


@asynccontextmanager
async def pair(
    context: ssl.SSLContext, buffer: int | None = None
) -> AsyncIterator[tuple[SecureProgram, SecureProgram]]:
    """A client and a server whose handshake is done."""
    near, far = connected(buffer)
    client = TLSEnd(near, context, server_side=False, server_name=NAME)
    server = TLSEnd(far, serving(), server_side=True)
    await shake_hands(client, server)
    try:
        yield SecureProgram(client), SecureProgram(server)
    finally:
        client.abort()
        server.abort()


class Other:
    """A client or server made of the standard library's blocking TLS, which runs in a thread."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        sock.setblocking(True)
        sock.settimeout(PATIENCE)
        self._plain = sock
        self._wrap: Callable[[], ssl.SSLSocket] = lambda: context.wrap_socket(
            sock,
            server_side=server_side,
            server_hostname=None if server_side else NAME,
            suppress_ragged_eofs=False,
        )
        self.tls: ssl.SSLSocket

    async def shake_hands(self) -> None:
        self.tls = await asyncio.to_thread(self._wrap)

    async def does(self, work: Callable[[ssl.SSLSocket], T]) -> T:
        return await asyncio.to_thread(work, self.tls)

    def close(self) -> None:
        self._plain.close()
        if hasattr(self, "tls"):
            self.tls.close()


@asynccontextmanager
async def ours_and_other(context: ssl.SSLContext) -> AsyncIterator[tuple[SecureProgram, Other]]:
    """A client's end of ours and a server of the standard library's, joined."""
    near, far = connected()
    end = TLSEnd(near, context, server_side=False, server_name=NAME)
    other = Other(far, serving(), server_side=True)
    try:
        await asyncio.gather(complete_handshake(end), other.shake_hands())
        yield SecureProgram(end), other
    finally:
        end.abort()
        other.close()


async def carry(source: socket.socket, destination: socket.socket, chance: random.Random) -> None:
    """Moves bytes from one socket to another, in pieces of odd sizes, until the source ends."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, chance.choice((1, 5, 100, 3000, 70_000))):
        await loop.sock_sendall(destination, data)
    destination.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("seed", range(3))
async def test_bytes_cut_anywhere_on_the_way_arrive_the_same(trusted: ssl.SSLContext, seed: int) -> None:
    chance = random.Random(seed)
    (near, near_middle), (far_middle, far) = connected(), connected()
    client = TLSEnd(near, trusted, server_side=False, server_name=NAME)
    server = TLSEnd(far, serving(), server_side=True)
    moving = [
        asyncio.ensure_future(carry(near_middle, far_middle, chance)),
        asyncio.ensure_future(carry(far_middle, near_middle, chance)),
    ]
    await shake_hands(client, server)
    asking, serving_it = SecureProgram(client), SecureProgram(server)
    question, answer = (chance.randbytes(chance.randrange(300_000)) for _ in range(2))

    async def say(program: SecureProgram, words: bytes) -> None:
        await program.send(words)
        await program.half_close()

    heard, answered, *_ = await asyncio.gather(
        serving_it.read_to_end(), asking.read_to_end(), say(asking, question), say(serving_it, answer)
    )
    assert heard == question
    assert answered == answer
    client.close()
    server.close()
    await asyncio.gather(*moving, return_exceptions=True)
    near_middle.close()
    far_middle.close()


@pytest.mark.parametrize("size", [1, 1000, READ_SIZE, 200_000])
async def test_a_half_close_loses_nothing_of_what_arrives_meanwhile(trusted: ssl.SSLContext, size: int) -> None:
    said = random.Random(size).randbytes(size)
    async with pair(trusted) as (client, server):
        await server.send(said)
        first = await client.read(1)  # so that some of it has been read from the socket already
        await client.half_close()
        assert await server.read_to_end() == b""
        await server.send(said)
        await server.half_close()
        assert first + await client.read_to_end() == said + said


async def test_a_half_close_is_one_for_other_implementations_too(trusted: ssl.SSLContext) -> None:
    async with ours_and_other(trusted) as (client, other):
        await client.send(b"that is all")
        await client.half_close()
        assert await other.does(lambda tls: tls.recv(100) + tls.recv(100)) == b"that is all"
        await other.does(lambda tls: tls.sendall(b"x" * 500_000))
        closing = asyncio.ensure_future(other.does(lambda tls: tls.unwrap()))
        assert await client.read_to_end() == b"x" * 500_000
        await closing


async def test_a_close_is_an_orderly_end_for_the_far_side(trusted: ssl.SSLContext) -> None:
    async with ours_and_other(trusted) as (client, other):
        await client.send(b"bye")
        client.close()
        client.close()
        assert await other.does(lambda tls: tls.recv(100) + tls.recv(100)) == b"bye"


@pytest.mark.parametrize("said", [b"", b"cut short"])
async def test_an_end_without_close_notify_is_an_error_after_what_came(trusted: ssl.SSLContext, said: bytes) -> None:
    async with pair(trusted) as (client, server):
        await server.send(said)
        server.socket.shutdown(socket.SHUT_WR)
        assert await client.read_exactly(len(said)) == said
        for _ in range(2):
            with pytest.raises(ConnectionResetError, match="without TLS close_notify"):
                await client.read()


async def test_an_abort_is_a_reset_for_the_far_side(trusted: ssl.SSLContext) -> None:
    async with pair(trusted) as (client, server):
        server.end.abort()
        server.end.abort()
        with pytest.raises(ConnectionResetError):
            await client.read()


async def test_garbage_on_the_way_is_an_error(trusted: ssl.SSLContext) -> None:
    async with pair(trusted) as (client, server):
        server.socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            await client.read()


async def test_no_more_is_received_than_asked_for_and_the_rest_is_known_to_be_there(trusted: ssl.SSLContext) -> None:
    async with pair(trusted) as (client, server):
        await server.send(bytes(range(100)))
        assert await client.read(30) == bytes(range(30))
        assert client.end.holds_input()
        assert client.end.receive(70) == bytes(range(30, 100))
        assert not client.end.holds_input()
        with pytest.raises(BlockingIOError):
            client.end.receive(1)


async def test_what_was_decrypted_for_a_half_close_counts_as_held(trusted: ssl.SSLContext) -> None:
    async with pair(trusted) as (client, server):
        await server.send(bytes(range(100)))
        await server.half_close()
        assert await client.read(10) == bytes(range(10))
        client.end.send_eof()
        assert client.end.holds_input()
        assert client.end.receive(20) == bytes(range(10, 30))
        assert client.end.receive(200) == bytes(range(30, 100))
        assert client.end.holds_input()
        assert client.end.receive(200) == b""


async def test_a_far_side_that_does_not_read_blocks_and_loses_nothing(trusted: ssl.SSLContext) -> None:
    async with pair(trusted, 4096) as (client, server):
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += client.end.send(bytes(READ_SIZE))
        assert not client.end.flush()
        heard, _ = await asyncio.gather(server.read_exactly(taken), client.send(b"more"))
        assert len(heard) == taken
        assert await server.read_exactly(4) == b"more"


async def test_an_end_that_cannot_be_said_at_once_is_said_when_it_is_flushed(trusted: ssl.SSLContext) -> None:
    async with pair(trusted, 4096) as (client, server):
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += client.end.send(bytes(READ_SIZE))
        client.end.send_eof()
        heard, _ = await asyncio.gather(server.read_to_end(), client.send(b""))
        assert len(heard) == taken


async def refused(handshake: Awaitable[None]) -> ConnectFailed:
    """The explanation of a handshake that fails."""
    with pytest.raises((ssl.SSLError, NotTLS)) as failure:
        async with asyncio.timeout(PATIENCE):
            await handshake
    assert isinstance(failure.value, ssl.SSLError | NotTLS)
    return explain(failure.value, "leave tls out")


@pytest.mark.parametrize(
    ("context", "name", "why"),
    [
        pytest.param(lambda: client_context(None, ""), NAME, "self-signed certificate", id="nobody vouches for it"),
        pytest.param(trusting, "other.example", "Hostname mismatch", id="another name"),
    ],
)
async def test_a_certificate_that_is_not_trusted_is_refused_and_both_sides_know(
    context: Callable[[], ssl.SSLContext], name: str, why: str
) -> None:
    near, far = connected()
    client = TLSEnd(near, context(), server_side=False, server_name=name)
    server = TLSEnd(far, serving(), server_side=True)
    at_server = asyncio.ensure_future(complete_handshake(server))
    error = await refused(complete_handshake(client))
    assert isinstance(error, CertificateRejected)
    assert why in str(error)
    assert "tls.fingerprint" in error.hint
    assert ("by a name that is in it" in error.hint) == (context is trusting)
    client.close()
    if not at_server.done():
        await asyncio.wait({at_server})
    with contextlib.suppress(ssl.SSLError):  # a server of TLS 1.3 may have thought itself done
        at_server.result()
        server.receive(1)
    server.close()


async def test_a_pinned_fingerprint_is_all_that_is_asked() -> None:
    pinned = certificate_fingerprint(certificate()[0])
    near, far = connected()
    client = TLSEnd(near, client_context(None, pinned), server_side=False, server_name="any.example")
    server = TLSEnd(far, serving(), server_side=True)
    await shake_hands(client, server)
    check_fingerprint(client, pinned)
    with pytest.raises(CredentialsRefused, match="not the pinned one"):
        check_fingerprint(client, "0" * 64)
    with pytest.raises(CredentialsRefused, match="none"):
        check_fingerprint(server, pinned)  # a client shows no certificate
    client.close()
    server.close()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the server does not speak TLS; it began like plain HTTP"),
        (bytes(100), "the server does not speak TLS; it began like plain yamux"),
        (b"hello", "the server does not speak TLS"),
        (b"\x16\x03\x01\x00\x05garbage", "the TLS handshake failed: "),
    ],
)
async def test_a_peer_that_does_not_speak_tls_is_an_error_on_either_side(said: bytes, message: str) -> None:
    near, far = connected()
    server = TLSEnd(far, serving(), server_side=True)
    plain = Program(near)
    await plain.send(said)
    await plain.half_close()
    await refused(complete_handshake(server))
    server.close()
    plain.close()

    near, far = connected()
    client = TLSEnd(near, trusting(), server_side=False, server_name=NAME)
    plain = Program(far)
    await plain.send(said)
    await plain.half_close()
    error = await refused(complete_handshake(client))
    assert error.message.startswith(message)
    assert error.hint
    client.close()
    plain.close()


async def test_who_does_not_speak_tls_is_told_by_an_alert_that_the_server_does() -> None:
    near, far = connected()
    server, plain = TLSEnd(far, serving(), server_side=True), Program(near)
    await plain.send(frame(WINDOW, SYN, 1))
    with pytest.raises(NotTLS) as caught:
        await complete_handshake(server)
    assert caught.value.spoken == "yamux"
    server.close()
    assert spoken_by(await plain.read_to_end()) == TLS
    plain.close()


async def test_a_handshake_cut_at_any_byte_is_an_error_and_not_a_wait() -> None:
    hello = await _hello()
    for length in range(0, len(hello), 7):
        near, far = connected()
        server = TLSEnd(far, serving(), server_side=True)
        near.send(hello[:length])
        near.close()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with asyncio.timeout(PATIENCE):
                await complete_handshake(server)
        assert not server.established
        server.close()


async def _hello() -> bytes:
    """What a client says first."""
    near, far = connected()
    client = TLSEnd(near, trusting(), server_side=False, server_name=NAME)
    with pytest.raises(BlockingIOError):
        client.handshake()
    hello = await Program(far).read()
    client.close()
    far.close()
    return hello


async def test_a_reset_during_the_handshake_is_an_error() -> None:
    near, far = connected()
    server = TLSEnd(far, serving(), server_side=True)
    Program(near).reset()
    with pytest.raises(ConnectionError):
        await complete_handshake(server)
    server.close()


async def test_a_handshake_that_is_given_up_leaves_the_loop_alone() -> None:
    near, far = connected()
    server = TLSEnd(far, serving(), server_side=True)
    waiting = asyncio.ensure_future(complete_handshake(server))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.shield(waiting)
    waiting.cancel()
    await asyncio.wait({waiting})
    server.abort()
    near.close()
    (again_near, again_far) = connected()  # most likely with the same descriptors
    ends = ends_of(again_near, again_far)
    await shake_hands(*ends)
    for end in ends:
        end.close()


@pytest.mark.parametrize("written", ["{}", "sha256:{}", "SHA256:{}"])
@pytest.mark.parametrize("colons", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_a_fingerprint_is_read_as_people_write_it(written: str, colons: bool, upper: bool) -> None:
    digits = fingerprint_of(b"some certificate")
    text = ":".join(digits[at : at + 2] for at in range(0, 64, 2)) if colons else digits
    assert plain_fingerprint(written.format(text.upper() if upper else text)) == digits


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "0" * 63, "0" * 65, "sha1:" + "0" * 40])
def test_anything_else_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        plain_fingerprint(text)


def test_a_self_signed_certificate_is_made_once_and_its_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    crt, key = tmp_path / "tls" / "home.crt", tmp_path / "tls" / "home.key"
    make_self_signed(crt, key, "home")
    first = certificate_fingerprint(crt)
    assert key.stat().st_mode & 0o777 == 0o600
    assert crt.parent.stat().st_mode & 0o777 == 0o700
    make_self_signed(crt, key, "home")
    assert certificate_fingerprint(crt) == first
    server_context(crt, key)
    assert sorted(path.name for path in crt.parent.iterdir()) == ["home.crt", "home.key"]


def test_half_of_a_pair_is_made_anew(tmp_path: Path) -> None:
    crt, key = tmp_path / "home.crt", tmp_path / "home.key"
    make_self_signed(crt, key, "home")
    crt.unlink()
    key.chmod(0o644)
    make_self_signed(crt, key, "home")
    server_context(crt, key)
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    crt, key = certificate()
    make_self_signed(tmp_path / "other.crt", tmp_path / "other.key", "other")
    with pytest.raises(OSError, match="KEY_VALUES_MISMATCH"):
        server_context(crt, tmp_path / "other.key")
    with pytest.raises(FileNotFoundError):
        server_context(crt, tmp_path / "missing")
    with pytest.raises(ValueError, match="PEM"):
        certificate_fingerprint(key)
