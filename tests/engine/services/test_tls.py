"""TLS between our clients and servers: pinned, by authority, or not trusted at all."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jump_peers import home, jump_client, jump_server, office_at, socks
from loopback import BULK, address_of, calling, hears, running, target, told
from relay_peers import edge, relay_client
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    ChannelClosed,
    PeerRefused,
    ServiceFailed,
    ServiceRetrying,
    TargetFailed,
)
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import FilePath, Fingerprint, HostPort, TLSSettings
from tunnelconsole.engine.transport.certificates import certificate_fingerprint, make_self_signed
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.socks5 import Reply
from waiting import until

SELF_SIGNED = TLSSettings()
NOWHERE = HostPort("127.0.0.1", 1)
OTHER_FINGERPRINT = Fingerprint("ab" * 32)


def pinned(engine: Engine, service: str) -> TLSSettings:
    """What a client sets to trust this server and no other."""
    return TLSSettings(fingerprint=Fingerprint(engine.services[service].notes["fingerprint"]))


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """The files of a new certificate for ``name`` and its key."""
    files = folder / f"{name}.crt", folder / f"{name}.key"
    make_self_signed(*files, name)
    return files


def given(files: tuple[Path, Path]) -> TLSSettings:
    """What a server sets to use these files."""
    return TLSSettings(certificate=FilePath(str(files[0])), key=FilePath(str(files[1])))


def replace(files: tuple[Path, Path], others: tuple[Path, Path]) -> None:
    """Puts the content of other files into these."""
    for file, other in zip(files, others, strict=True):
        shutil.copy(other, file)


async def replies(address: str, where: HostPort) -> int:
    """What a SOCKS5 proxy says to a program that wants to go there."""
    async with calling(address) as caller:
        return await socks(caller, where.host, where.port)


async def test_a_pinned_server_is_trusted_and_carries_bulk_both_ways() -> None:
    async with home(tls=SELF_SIGNED) as at:
        async with office_at(at.address, tls=pinned(at.engine, "home")) as (engine, address):
            async with calling(address) as caller:
                assert await socks(caller, at.far.address.host, at.far.address.port) == Reply.SUCCEEDED
                assert await caller.exchange(BULK) == BULK
            closed = await hears(engine, ChannelClosed)
            assert (closed.bytes_in, closed.bytes_out) == (len(BULK), len(BULK))
        closed = await hears(at.engine, ChannelClosed)
        assert (closed.bytes_in, closed.bytes_out, closed.cause) == (len(BULK), len(BULK), "")


async def test_another_certificate_than_the_pinned_one_is_final() -> None:
    settings = TLSSettings(fingerprint=OTHER_FINGERPRINT)
    async with home(tls=SELF_SIGNED) as at, office_at(at.address, tls=settings) as (engine, address):
        assert await replies(address, at.far.address) == Reply.GENERAL_FAILURE
        event = await hears(engine, ServiceFailed, "not the pinned one")
        assert at.engine.services["home"].notes["fingerprint"] in event.text()
        assert engine.services["office"].state == "failed"
        assert not at.far.served


async def test_a_certificate_that_nobody_vouches_for_is_refused_with_what_to_do() -> None:
    async with home(tls=SELF_SIGNED) as at, office_at(at.address, tls=TLSSettings()) as (engine, address):
        assert await replies(address, at.far.address) == Reply.GENERAL_FAILURE
        await hears(engine, TargetFailed, "pin a self-signed certificate with tls.fingerprint")
        assert engine.services["office"].state == "listening"
        await hears(at.engine, PeerRefused, "the TLS handshake failed: the other side does not trust the certificate")


async def test_an_authority_of_ones_own_is_asked_and_the_name_is_checked(tmp_path: Path) -> None:
    files = certificate(tmp_path, "home.test")
    trusting = TLSSettings(ca=FilePath(str(files[0])))
    async with home(tls=given(files)) as at:
        where = HostPort.parse(at.address)
        async with office_at(HostPort("home.test", 1), connect=where, tls=trusting) as (_, address):
            assert await replies(address, at.far.address) == Reply.SUCCEEDED
        async with office_at(HostPort("other.test", 1), connect=where, tls=trusting) as (engine, address):
            assert await replies(address, at.far.address) == Reply.GENERAL_FAILURE
            await hears(engine, TargetFailed, "is for another name")


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["missing", "empty", "garbage"])
async def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    async with running(office=jump_client("127.0.0.1:1", tls=TLSSettings(ca=FilePath(str(file))))) as engine:
        await hears(engine, ServiceRetrying, str(file))


def missing_certificate(files: tuple[Path, Path], _other: tuple[Path, Path]) -> None:
    files[0].unlink()


def missing_key(files: tuple[Path, Path], _other: tuple[Path, Path]) -> None:
    files[1].unlink()


def key_of_another(files: tuple[Path, Path], other: tuple[Path, Path]) -> None:
    shutil.copy(other[1], files[1])


def certificate_without_content(files: tuple[Path, Path], _other: tuple[Path, Path]) -> None:
    files[0].write_text("")


@pytest.mark.parametrize("spoil", [missing_certificate, missing_key, key_of_another, certificate_without_content])
async def test_a_certificate_that_cannot_be_used_is_named(
    tmp_path: Path, spoil: Callable[[tuple[Path, Path], tuple[Path, Path]], None]
) -> None:
    files = certificate(tmp_path, "home")
    spoil(files, certificate(tmp_path, "other"))
    async with running(home=jump_server(tls=given(files))) as engine:
        event = await hears(engine, ServiceRetrying, str(files[0]))
        assert str(files[1]) in event.text()


@pytest.mark.parametrize(
    ("said", "spoke"),
    [(b"GET / HTTP/1.1\r\n\r\n", "plain HTTP"), (b"SSH-2.0-x\r\n", "plain SSH"), (b"hello", "no TLS")],
)
async def test_who_comes_without_tls_to_a_server_with_it_is_told_of_with_what_to_do(said: bytes, spoke: str) -> None:
    async with home(tls=SELF_SIGNED) as at:
        async with calling(at.address) as caller:
            await caller.send(said)
            await caller.broken()
        await hears(at.engine, PeerRefused, f"it spoke {spoke} to a TLS listener; set [service.NAME.tls] on the client")


@pytest.mark.parametrize("patient", ["the server", "the client"])
async def test_a_jump_client_without_tls_at_a_server_with_it_says_nothing_and_both_sides_hear_what_to_do(
    patient: str,
) -> None:
    hasty, calm = (LimitSettings(handshake_timeout=Duration(seconds)) for seconds in (0.2, 10.0))
    mine, theirs = (calm, hasty) if patient == "the client" else (hasty, calm)
    async with home(tls=SELF_SIGNED, limits=theirs) as at, office_at(at.address, limits=mine) as (engine, address):
        assert await replies(address, at.far.address) in (Reply.GENERAL_FAILURE, Reply.HOST_UNREACHABLE)
        await hears(engine, TargetFailed, "if its listener is a TLS one, set [service.NAME.tls] on this client")
        if patient == "the client":
            await hears(at.engine, PeerRefused, "not a byte, which is how a client without TLS waits")


async def test_a_relay_client_without_tls_at_a_server_with_it_is_told_on_both_sides_what_to_do() -> None:
    async with edge(tls=SELF_SIGNED) as at, running(shop=relay_client(at.address, NOWHERE)) as engine:
        await hears(engine, ServiceRetrying, "the server speaks TLS: set [service.NAME.tls] on this client")
        await hears(at.engine, PeerRefused, "it spoke plain yamux to a TLS listener")


async def test_a_jump_client_with_tls_at_a_server_without_it_is_told_on_both_sides_what_to_do() -> None:
    async with home() as at, office_at(at.address, tls=TLSSettings(fingerprint=OTHER_FINGERPRINT)) as (engine, address):
        assert await replies(address, at.far.address) == Reply.GENERAL_FAILURE
        await hears(engine, TargetFailed, "the server does not speak TLS; it began like plain jump; leave tls out")
        await hears(at.engine, PeerRefused, "it spoke TLS to a listener without it; set [service.home.tls]")


async def test_a_relay_client_with_tls_at_a_server_without_it_is_told_on_both_sides_what_to_do() -> None:
    tls = TLSSettings(fingerprint=OTHER_FINGERPRINT)
    async with edge() as at, running(shop=relay_client(at.address, NOWHERE, tls=tls)) as engine:
        await hears(engine, ServiceRetrying, "the server does not speak TLS; it began like plain yamux; leave tls out")
        await hears(at.engine, PeerRefused, "it spoke TLS to a listener without it; set [service.edge.tls]")


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00"], ids=["nothing", "half a hello"])
async def test_a_tls_handshake_that_takes_too_long_or_is_cut_is_an_event(said: bytes) -> None:
    async with home(tls=SELF_SIGNED, limits=LimitSettings(handshake_timeout=Duration(0.1))) as at:
        async with calling(at.address) as slow:
            await slow.send(said)
            await slow.broken()
        await hears(at.engine, PeerRefused, "no handshake within 0.1 s")
        async with calling(at.address) as cut:
            await cut.send(said)
            cut.half_close()
            await cut.broken()
        await hears(at.engine, PeerRefused, "the TLS handshake failed")
        await until(lambda: not at.service.admissions)


@asynccontextmanager
async def tls_client(address: str, server: Engine) -> AsyncIterator[None]:
    """Proves that a client which pins this server's certificate gets through."""
    async with office_at(address, tls=pinned(server, "home")) as (_, office), target() as far:
        assert await replies(office, far.address) == Reply.SUCCEEDED
        yield


async def test_a_replaced_certificate_is_used_after_a_reload_and_channels_go_on(tmp_path: Path) -> None:
    files, fresh = certificate(tmp_path, "home"), certificate(tmp_path, "fresh")
    async with (
        home(tls=given(files)) as at,
        office_at(at.address, tls=pinned(at.engine, "home")) as (_, address),
        calling(address) as caller,
    ):
        assert await socks(caller, at.far.address.host, at.far.address.port) == Reply.SUCCEEDED
        replace(files, fresh)
        at.service.refresh()
        assert at.service.notes["fingerprint"] == certificate_fingerprint(fresh[0])
        async with tls_client(at.address, at.engine):
            assert await caller.exchange(b"still here") == b"still here"


async def test_files_that_do_not_fit_together_are_refused_and_the_old_certificate_stays(tmp_path: Path) -> None:
    files, fresh = certificate(tmp_path, "home"), certificate(tmp_path, "fresh")
    async with home(tls=given(files)) as at:
        shutil.copy(fresh[0], files[0])
        with pytest.raises(OSError, match=r"home\.crt with key .*home\.key cannot be used: KEY_VALUES_MISMATCH"):
            at.service.refresh()
        async with tls_client(at.address, at.engine):
            pass
        assert not told(at.engine, PeerRefused)


async def test_a_self_signed_certificate_is_made_once(tmp_path: Path) -> None:
    fingerprints = set()
    for _ in range(2):
        async with Engine({"home": jump_server(tls=SELF_SIGNED)}, state_dir=tmp_path) as engine:
            await engine.settled()
            fingerprints.add(engine.services["home"].notes["fingerprint"])
            assert address_of(engine, "home")
    assert len(fingerprints) == 1
    assert (tmp_path / "tls" / "home.key").stat().st_mode & 0o777 == 0o600


async def test_versions_before_tls_1_2_are_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with home(tls=SELF_SIGNED) as at:
        where = HostPort.parse(at.address)
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(where.host, where.port, ssl=context)
        await hears(at.engine, PeerRefused, "the TLS handshake failed")
