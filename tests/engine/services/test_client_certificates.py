"""Client certificates as credentials: who gets in by one, as whom, and what keeps others out."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from client_certificates import Authority, Owned, asking, coming, identity_at, self_signed, showing
from jump_peers import SECRET, ask, home
from loopback import hears, told
from relay_peers import edge, shop_at
from tunnelconsole.engine.events import BackendAttached, CertificateRenewed, PeerRefused, SessionOpened
from tunnelconsole.engine.services.server_dialer import ServerDialer
from tunnelconsole.engine.settings import FilePath, Fingerprint, HostPort, Secret, TLSSettings
from tunnelconsole.engine.transport.client_trust import first_certificate
from tunnelconsole.engine.transport.ends import receive
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.errors import ConnectFailed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "ours")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    return Authority(folder, "theirs")


@pytest.fixture(scope="module")
def laptop(authority: Authority) -> Owned:
    return authority.sign("/O=Example/CN=laptop")


async def test_who_has_a_certificate_of_the_authority_is_its_common_name(authority: Authority, laptop: Owned) -> None:
    assert await identity_at(asking(authority), laptop) == "laptop"


async def test_who_has_a_listed_key_is_who_the_list_says_whoever_signed(folder: Path) -> None:
    own = self_signed(folder, "/CN=whatever")
    assert await identity_at(asking(desk=own.pin), own) == "desk"


async def test_a_listed_key_survives_a_new_certificate_for_it(folder: Path) -> None:
    own = self_signed(folder, "/CN=first", file="renewed")
    pin = own.pin
    assert await identity_at(asking(desk=pin), self_signed(folder, "/CN=second", own.key, "second")) == "desk"


async def test_with_both_either_lets_in(authority: Authority, laptop: Owned, folder: Path) -> None:
    own = self_signed(folder, "/CN=whatever", file="either")
    both = asking(authority, desk=own.pin)
    assert await identity_at(both, own) == "desk"
    assert await identity_at(both, laptop) == "laptop"


async def test_without_a_certificate_nobody_gets_in(authority: Authority) -> None:
    found = await identity_at(asking(authority), None)
    assert found == "not_allowed: it brought no client certificate, which is needed here"


@pytest.mark.parametrize("listed", [False, True])
async def test_a_certificate_of_another_authority_is_a_wrong_credential(
    authority: Authority, stranger: Authority, folder: Path, listed: bool
) -> None:
    keys = {"desk": self_signed(folder, "/CN=desk", file="other").pin} if listed else {}
    found = await identity_at(asking(authority, **keys), stranger.sign("/CN=laptop"))
    assert found.startswith("credentials: its client certificate is not taken: unable to get local issuer")


async def test_a_certificate_that_has_ended_is_not_taken(authority: Authority) -> None:
    found = await identity_at(asking(authority), authority.sign("/CN=laptop", days=-1, file="ended"))
    assert found == "credentials: its client certificate is not taken: certificate has expired"


@pytest.mark.parametrize("listed", [False, True])
async def test_a_servers_certificate_is_none_for_a_client(authority: Authority, listed: bool) -> None:
    owned = authority.sign("/CN=laptop", extensions="extendedKeyUsage=serverAuth", file="server")
    found = await identity_at(asking(desk=owned.pin) if listed else asking(authority), owned)
    assert found.startswith("credentials: its client certificate is not taken: un")  # unsupported or unsuitable


async def test_cve_2024_45337_a_listed_key_that_is_shown_but_not_held_gives_no_identity(
    folder: Path, authority: Authority, laptop: Owned
) -> None:
    async with home(tls=asking(authority, desk=laptop.pin)) as at:
        host, _, port = at.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = showing(laptop).wrap_bio(incoming, outgoing)
        while True:  # until the flight that holds the certificate and, at its end, the proof
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        flight = outgoing.read()
        writer.write(flight[:-90])  # the proof and what follows it never come
        writer.write_eof()
        await hears(at.engine, PeerRefused)
        assert not told(at.engine, SessionOpened)
        writer.close()


async def test_cve_2026_40910_a_name_that_could_be_read_in_two_ways_is_none(authority: Authority) -> None:
    found = await identity_at(asking(authority), authority.sign("/CN=laptop/CN=admin", file="two"))
    assert found == "credentials: its client certificate is of no use: its subject has several common names"


@pytest.mark.parametrize("name", ["lap\ntop", "lаptop", "lap\u202etop", " laptop", "anonymous", "Anonymous"])
async def test_a_name_that_looks_like_another_is_no_identity(authority: Authority, name: str) -> None:
    found = await identity_at(asking(authority), authority.sign(f"/CN={name}", file="odd"))
    assert found.startswith("credentials: its client certificate is of no use: its common name ")
    assert found.isprintable()
    assert found.isascii()


async def test_without_a_common_name_the_one_alternative_name_counts(authority: Authority) -> None:
    owned = authority.sign("/O=Example", extensions="subjectAltName=URI:spiffe://example/laptop", file="uri")
    assert await identity_at(asking(authority), owned) == "spiffe://example/laptop"
    two = authority.sign("/O=Example", extensions="subjectAltName=DNS:a.example,DNS:b.example", file="names")
    assert "2 alternative names" in await identity_at(asking(authority), two)


async def test_a_secret_with_a_name_says_who_it_is_and_needs_the_certificate_too(
    authority: Authority, laptop: Owned
) -> None:
    named = {"secret": None, "secrets": {"ana": Secret(SECRET)}}
    assert await identity_at(asking(authority), laptop, **named) == "ana"
    assert (await identity_at(asking(authority), None, **named)).startswith("not_allowed")


async def test_tls_before_1_3_is_not_spoken_and_no_session_is_taken_up_again(
    authority: Authority, laptop: Owned
) -> None:
    async with home(tls=asking(authority)) as at:
        old = showing(laptop)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match="VERSION"):
            async with coming(at.address, old):
                pass
        async with coming(at.address, showing(laptop)) as caller:
            assert not await ask(caller, at.far.address)
            connection = caller._writer.get_extra_info("ssl_object")
            assert connection.version() == "TLSv1.3"
            assert not connection.session.has_ticket


async def test_an_authority_that_was_replaced_lets_nobody_in_any_more(
    tmp_path: Path, authority: Authority, stranger: Authority, laptop: Owned
) -> None:
    file = tmp_path / "clients.pem"
    shutil.copy(authority.own.certificate, file)
    async with home(tls=TLSSettings(client_ca=FilePath(str(file)))) as at:
        async with coming(at.address, showing(laptop)) as caller:
            assert not await ask(caller, at.far.address)
        shutil.copy(stranger.own.certificate, file)
        assert (await hears(at.engine, CertificateRenewed)).certificate == str(file)
        async with coming(at.address, showing(laptop)) as caller:
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await ask(caller, at.far.address)
        assert (await hears(at.engine, PeerRefused)).kind == "credentials"


async def test_our_client_shows_its_certificate_and_hears_why_it_is_not_taken(
    authority: Authority, stranger: Authority, laptop: Owned
) -> None:
    async with home(tls=asking(authority)) as at:
        where = HostPort.parse(at.address)
        pin = at.service.notes["fingerprint"]
        end = await ServerDialer(where, None, laptop.settings(pin), 5.0).dial()
        assert await receive(end, 100)
        assert isinstance(end, TLSEnd)
        assert end.peer_identity == ""  # it is the server that was asked, and servers are known by their names
        end.close()
        for tls, words in (
            (stranger.sign("/CN=laptop").settings(pin), "does not take our client certificate"),
            (TLSSettings(fingerprint=Fingerprint(pin)), "wants a client certificate"),
        ):
            end = await ServerDialer(where, None, tls, 5.0).dial()
            with pytest.raises(ConnectionResetError, match=words):
                await receive(end, 100)
            end.abort()


async def test_a_relay_client_is_who_its_certificate_says(authority: Authority, laptop: Owned) -> None:
    async with edge(tls=asking(authority)) as at:
        pin = at.service.notes["fingerprint"]
        async with shop_at(at, tls=laptop.settings(pin)) as shop:
            await shop.serves()
            assert (await hears(at.engine, BackendAttached)).identity == "laptop"
            assert {session.identity for session in at.service.attached} == {"laptop"}


async def test_a_private_key_that_others_can_read_is_not_used(authority: Authority) -> None:
    owned = authority.sign("/CN=laptop", file="open")
    owned.key.chmod(0o644)
    with pytest.raises(ConnectFailed, match="others can read"):
        ServerDialer(HostPort("127.0.0.1", 1), None, owned.settings("0" * 64), 5.0)


@pytest.mark.parametrize("message", [b"", b"\x0b\0\0\0", b"\x0b\0\0\x04\xff\0\0\0", b"\x0b\0\0\x05\0\0\0\x09\0\0\x08a"])
def test_a_message_that_is_cut_short_holds_no_certificate(message: bytes) -> None:
    assert first_certificate(message) == b""
