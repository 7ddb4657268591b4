"""Client certificates under attack: forged proofs, names of others, strange certificates, long chains, alerts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from channel_peers import hub
from client_certificates import Authority, Owned, asking, coming, identity_at, new_key, self_signed, showing
from jump_peers import SECRET, ask, home, jump_client
from loopback import address_of, calling, hears, running, told
from punch_peers import rendezvous
from relay_peers import edge, relay_client
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import BackendAttached, PeerRefused, ServiceRetrying, SessionOpened
from tunnelconsole.engine.services.channel import connection as channel
from tunnelconsole.engine.services.jump import connection as jump
from tunnelconsole.engine.services.tunnel.server import TunnelServerSettings
from tunnelconsole.engine.settings import FilePath, Fingerprint, HostPort, ListenAddress, Secret, TLSSettings
from tunnelconsole.engine.transport.client_trust import subject_of
from tunnelconsole.engine.transport.streams import Streams
from tunnelconsole.errors import CertificateRefused, ConnectFailed
from tunnelconsole.tunnel import TunnelServer
from waiting import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "ours")


@pytest.fixture(scope="module")
def laptop(authority: Authority) -> Owned:
    return authority.sign("/CN=laptop")


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Owned:
    return authority.sign("/CN=alice", file="alice")


def forged(victim: Owned, folder: Path) -> Owned:
    """The victim's certificate, with a key of our own that says to be its: OpenSSL compares no more than that."""
    own = load_pem_private_key(new_key(folder / "forged.key").read_bytes(), None)
    theirs = x509.load_pem_x509_certificate(victim.certificate.read_bytes()).public_key()
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    plain = own.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    point, wanted = own.public_key().public_numbers(), theirs.public_numbers()
    for ours, of_theirs in ((point.x, wanted.x), (point.y, wanted.y)):
        assert plain.count(ours.to_bytes(32, "big")) == 1
        plain = plain.replace(ours.to_bytes(32, "big"), of_theirs.to_bytes(32, "big"))
    key = folder / "forged.key"
    key.write_text(ssl.DER_cert_to_PEM_cert(plain).replace("CERTIFICATE", "EC PRIVATE KEY"))
    return Owned(victim.certificate, key)


@pytest.mark.parametrize("listed", [False, True])
async def test_cve_2024_45337_a_proof_signed_with_another_key_gives_no_identity(
    authority: Authority, laptop: Owned, tmp_path: Path, listed: bool
) -> None:
    asked = asking(desk=laptop.pin) if listed else asking(authority)
    assert await identity_at(asked, laptop) == ("desk" if listed else "laptop")
    found = await identity_at(asked, forged(laptop, tmp_path))
    assert found == "credentials: it does not have the key of the client certificate that it showed"


async def test_cve_2026_40910_a_password_and_a_certificate_of_one_name_do_not_take_each_others_chid(
    authority: Authority, alice: Owned
) -> None:
    passwords = {"alice": Secret("alice's")}
    async with hub(tls=asking(authority), passwords=passwords, handshake_password=Secret("ours")) as at:

        def coming_back(chid: str, password: str) -> AbstractAsyncContextManager[Streams]:
            tls = alice.settings(at.service.notes["fingerprint"])
            return channel.connect(at.address, chid, password=password, tls=tls)

        async with coming_back("of-password", "alice's"), coming_back("of-certificate", "ours"):
            assert {at.party(chid).identity for chid in at.chids} == {"alice"}
            for chid, password in (("of-password", "ours"), ("of-certificate", "alice's")):
                with pytest.raises(ConnectFailed, match=f"chid {chid} is taken"):
                    async with coming_back(chid, password):
                        pass
            async with coming_back("of-password", "alice's"), coming_back("of-certificate", "ours"):
                assert at.chids == ["of-password", "of-certificate"]


def chained(owned: Owned, others: Sequence[Path], file: Path) -> Owned:
    """A certificate with others behind it, as its holder sends it."""
    file.write_bytes(b"".join(path.read_bytes() for path in (owned.certificate, *others)))
    return Owned(file, owned.key)


async def test_a_chain_of_several_records_is_read_and_one_beyond_all_measure_is_not(
    authority: Authority, laptop: Owned, tmp_path: Path
) -> None:
    own = authority.own.certificate
    long = chained(laptop, [own] * 50, tmp_path / "long.pem")  # 20 KiB; a record has 16
    assert await identity_at(asking(desk=laptop.pin), long) == "desk"
    longer = chained(laptop, [own] * 400, tmp_path / "longer.pem")
    assert "EXCESSIVE_MESSAGE_SIZE" in await identity_at(asking(desk=laptop.pin), longer)


async def test_a_listed_certificate_in_front_of_another_that_is_held_is_not_the_others(
    authority: Authority, laptop: Owned, tmp_path: Path
) -> None:
    stranger = self_signed(tmp_path, "/CN=laptop", file="stranger")
    behind = chained(stranger, [laptop.certificate], tmp_path / "behind.pem")  # the first one counts
    found = await identity_at(asking(authority, desk=laptop.pin), behind)
    assert found.startswith("credentials: its client certificate is not taken")


async def test_a_listed_certificate_that_has_ended_is_not_taken(authority: Authority) -> None:
    ended = authority.sign("/CN=laptop", days=-1, file="ended")
    found = await identity_at(asking(desk=ended.pin), ended)
    assert found == "credentials: its client certificate is not taken: certificate has expired"


@pytest.mark.parametrize(
    "extensions",
    [
        "subjectAltName=dirName:who\n[who]\nCN=laptop",
        "subjectAltName=otherName:1.2.3.4;UTF8:laptop",
        "subjectAltName=RID:1.2.3.4",
        "subjectAltName=IP:192.0.2.1",
    ],
)
async def test_a_certificate_without_a_name_that_counts_is_refused(authority: Authority, extensions: str) -> None:
    owned = authority.sign("/O=Example", extensions=extensions, file="strange")
    found = await identity_at(asking(authority), owned)
    assert found.startswith("credentials: its client certificate is of no use: it has no common name and no alter")


async def test_a_name_that_cannot_even_be_read_is_refused_and_ends_nothing_else(
    authority: Authority, laptop: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(certificate: x509.Certificate) -> str:
        if (name := subject_of(certificate)) == "laptop":
            raise x509.DuplicateExtension("twice", x509.ObjectIdentifier("1.2.3"))
        return name

    monkeypatch.setattr("tunnelconsole.engine.transport.client_trust.subject_of", unreadable)
    found = await identity_at(asking(authority), laptop)
    assert found == "credentials: its client certificate is of no use: twice"


class TestSeveralAuthorities:
    @pytest.fixture(scope="class")
    def second(self, folder: Path) -> Authority:
        return Authority(folder, "second")

    @pytest.fixture(scope="class")
    def between(self, authority: Authority, folder: Path) -> Authority:
        """One that ours has signed for."""
        made = authority.sign(
            "/CN=between", extensions="basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign", file="between"
        )
        found = Authority(folder, "between")
        found.own = made
        return found

    async def test_each_of_two_in_the_file_signs_for_clients(
        self, authority: Authority, second: Authority, laptop: Owned, tmp_path: Path
    ) -> None:
        file = tmp_path / "two.pem"
        file.write_bytes(authority.own.certificate.read_bytes() + second.own.certificate.read_bytes())
        tls = TLSSettings(client_ca=FilePath(str(file)))
        assert await identity_at(tls, laptop) == "laptop"
        assert await identity_at(tls, second.sign("/CN=tablet")) == "tablet"

    async def test_one_in_between_is_brought_by_the_client(
        self, authority: Authority, between: Authority, tmp_path: Path
    ) -> None:
        owned = between.sign("/CN=tablet")
        assert "unable to get local issuer" in await identity_at(asking(authority), owned)
        chain = chained(owned, [between.own.certificate], tmp_path / "chain.pem")
        assert await identity_at(asking(authority), chain) == "tablet"

    @pytest.mark.parametrize("listed", [False, True])
    async def test_one_in_between_is_an_authority_by_itself_where_the_file_has_it(
        self, between: Authority, laptop: Owned, listed: bool
    ) -> None:
        keys = {"other": Fingerprint("0" * 64)} if listed else {}
        assert await identity_at(asking(between, **keys), between.sign("/CN=tablet")) == "tablet"
        assert (await identity_at(asking(between, **keys), laptop)).startswith("credentials")

    async def test_a_client_signs_for_nobody(self, authority: Authority, laptop: Owned, folder: Path) -> None:
        pretender = Authority(folder, "pretender")
        pretender.own = laptop
        chain = chained(pretender.sign("/CN=admin"), [laptop.certificate], folder / "pretended.pem")
        for tls in (asking(authority), asking(authority, desk=laptop.pin), asking(desk=laptop.pin)):
            assert (await identity_at(tls, chain)).startswith("credentials: its client certificate is not taken")


class TestWhoIsNotTakenAnyMore:
    async def test_a_key_taken_from_the_list_ends_its_sessions_and_no_others(self, laptop: Owned, alice: Owned) -> None:
        both = asking(laptop=laptop.pin, alice=alice.pin)
        async with home(tls=both) as at, coming(at.address, showing(laptop)) as gone:
            assert not await ask(gone, at.far.address)
            async with coming(at.address, showing(alice)) as stays:
                assert not await ask(stays, at.far.address)
                less = msgspec.structs.replace(at.service.settings, tls=asking(alice=alice.pin))
                planned = at.engine.plan({"home": less})
                assert planned.in_place == ("home",)
                assert [session.identity for session in at.service.cut_by(less)] == ["laptop"]
                await at.engine.apply({"home": less})
                assert await gone.broken()
                await stays.send(b"still here")
                assert await stays.read(10) == b"still here"
            async with coming(at.address, showing(laptop)) as again:
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await ask(again, at.far.address)

    async def test_an_authority_taken_from_the_file_ends_the_sessions_of_those_it_signed_for(
        self, authority: Authority, laptop: Owned, folder: Path, tmp_path: Path
    ) -> None:
        second = Authority(folder, "leaving")
        file = tmp_path / "clients.pem"
        file.write_bytes(authority.own.certificate.read_bytes() + second.own.certificate.read_bytes())
        async with (
            home(tls=TLSSettings(client_ca=FilePath(str(file)))) as at,
            coming(at.address, showing(second.sign("/CN=tablet"))) as gone,
            coming(at.address, showing(laptop)) as stays,
        ):
            for caller in (gone, stays):
                assert not await ask(caller, at.far.address)
            file.write_bytes(authority.own.certificate.read_bytes())
            at.service.refresh()
            assert await gone.broken()
            await stays.send(b"still here")
            assert await stays.read(10) == b"still here"

    async def test_who_waits_with_the_rest_of_its_handshake_until_its_key_is_gone_does_not_get_in(
        self, laptop: Owned, alice: Owned
    ) -> None:
        both = asking(laptop=laptop.pin, alice=alice.pin)
        async with home(tls=both) as at, coming(at.address, showing(laptop)) as waits:
            await waits.read(1)  # its certificate was taken: the server speaks first
            less = msgspec.structs.replace(at.service.settings, tls=asking(alice=alice.pin))
            await at.engine.apply({"home": less})
            assert await waits.broken()
            assert not told(at.engine, SessionOpened)
            assert not at.service.gate.handshakes

    async def test_who_waits_until_its_authority_is_gone_does_not_get_in(
        self, authority: Authority, laptop: Owned, folder: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "clients.pem"
        file.write_bytes(authority.own.certificate.read_bytes())
        async with (
            edge(tls=TLSSettings(client_ca=FilePath(str(file)))) as at,
            coming(at.address, showing(laptop)) as waits,
        ):
            await until(lambda: at.service.gate.handshakes)
            file.write_bytes(Authority(folder, "other").own.certificate.read_bytes())
            at.service.refresh()
            assert await waits.broken()
            assert not told(at.engine, BackendAttached)

    async def test_a_service_that_is_replaced_leaves_those_to_finish_who_are_still_taken(
        self, laptop: Owned, alice: Owned
    ) -> None:
        both = asking(laptop=laptop.pin, alice=alice.pin)
        async with home(tls=both) as at, coming(at.address, showing(laptop)) as gone:
            assert not await ask(gone, at.far.address)
            async with coming(at.address, showing(alice)) as stays:
                assert not await ask(stays, at.far.address)
                changes = {"tls": asking(alice=alice.pin), "secret": Secret("another")}
                less = msgspec.structs.replace(at.service.settings, **changes)
                assert at.engine.plan({"home": less}).replaced == ("home",)
                await at.engine.apply({"home": less})
                assert await gone.broken()
                await stays.send(b"still here")
                assert await stays.read(10) == b"still here"


class TestOurClient:
    @pytest.fixture(scope="class")
    def stranger(self, folder: Path) -> Owned:
        return self_signed(folder, "/CN=stranger", file="nobody")

    async def test_a_relay_client_whose_certificate_is_refused_does_not_try_again(
        self, authority: Authority, stranger: Owned
    ) -> None:
        async with edge(tls=asking(authority)) as at:
            tls = stranger.settings(at.service.notes["fingerprint"])
            async with running(shop=relay_client(at.address, HostPort("127.0.0.1", 1), tls=tls)) as engine:
                await has_failed(engine, "shop", "does not take our client certificate")
                assert len(told(at.engine, PeerRefused)) == 1

    async def test_one_without_a_certificate_hears_that_one_is_wanted(self, authority: Authority) -> None:
        async with edge(tls=asking(authority)) as at:
            tls = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"]))
            async with running(shop=relay_client(at.address, HostPort("127.0.0.1", 1), tls=tls)) as engine:
                await has_failed(engine, "shop", "the server wants a client certificate")

    async def test_a_jump_client_says_so_when_somebody_comes(self, authority: Authority, stranger: Owned) -> None:
        async with home(tls=asking(authority)) as at:
            tls = stranger.settings(at.service.notes["fingerprint"])
            with pytest.raises(CertificateRefused, match="does not take our client certificate"):
                async with jump.connect(at.address, SECRET, str(at.far.address), tls=tls):
                    pass
            async with running(via=jump_client(at.address, tls=tls, target=at.far.address)) as engine:
                async with calling(address_of(engine, "via")) as caller:
                    assert await caller.broken()
                await has_failed(engine, "via", "does not take our client certificate")

    async def test_at_a_channel_server_and_a_rendezvous_it_is_final_too(
        self, authority: Authority, stranger: Owned, laptop: Owned
    ) -> None:
        async with hub(tls=asking(authority)) as at:
            tls = stranger.settings(at.service.notes["fingerprint"])
            with pytest.raises(CertificateRefused):
                async with channel.connect(at.address, "desk", tls=tls):
                    pass
        async with rendezvous(tls=asking(authority)) as meet:
            tls, good = stranger.settings(meet.fingerprint), laptop.settings(meet.fingerprint)
            async with running(bad=meet.client(tls=tls, target=HostPort("127.0.0.1", 1))) as engine:
                await has_failed(engine, "bad", "does not take our client certificate")
            async with running(good=meet.client(tls=good, target=HostPort("127.0.0.1", 1))):
                assert (await hears(meet.engine, SessionOpened)).identity == "laptop"

    async def test_an_alert_that_anybody_could_have_sent_is_not_final(self, laptop: Owned) -> None:
        async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(65536)
            writer.write(bytes.fromhex("15 0303 0002 02 2a"))  # bad_certificate, in plain text
            writer.close()

        between = await asyncio.start_server(alert, "127.0.0.1", 0)
        async with between:
            where = HostPort(*between.sockets[0].getsockname()[:2])
            client = relay_client(where, HostPort("127.0.0.1", 1), tls=laptop.settings("0" * 64))
            async with running(shop=client) as engine:
                await hears(engine, ServiceRetrying, "does not take our client certificate")
                assert engine.services["shop"].state == "backoff"

    async def test_files_that_were_renewed_are_shown_at_the_next_connection(
        self, authority: Authority, laptop: Owned, alice: Owned, tmp_path: Path
    ) -> None:
        async with home(tls=asking(authority)) as at:
            own = Owned(tmp_path / "own.pem", tmp_path / "own.key")
            tls = own_after(laptop, own, at.service.notes)
            async with running(via=jump_client(at.address, tls=tls, target=at.far.address)) as engine:
                for who in (laptop, alice):
                    own_after(who, own, at.service.notes)
                    async with calling(address_of(engine, "via")) as caller:
                        assert await caller.exchange(b"ping") == b"ping"
                opened = [event.identity for event in told(at.engine, SessionOpened)]
                assert opened == ["laptop", "alice"]


def own_after(owned: Owned, files: Owned, notes: dict[str, str]) -> TLSSettings:
    """Settings with files that hold another's certificate and key from now on."""
    for source, file in zip(owned, files, strict=True):
        file.write_bytes(source.read_bytes())
        file.chmod(0o600)
    return files.settings(notes["fingerprint"])


async def has_failed(engine: Engine, service: str, words: str) -> None:
    """Waits until a service has given up, and looks why."""
    await until(lambda: engine.services[service].state == "failed")
    error = engine.services[service].error or ""
    assert words in error
    assert "[service.NAME.tls]" in error


class TestATunnelServer:
    TLS = TLSSettings(client_keys={"desk": Fingerprint("0" * 64)})
    SENTENCE = "tls visitors come to the same port, and have no client certificates; use tokens for its clients"

    def test_asks_nobody_for_a_certificate_by_the_python_api(self) -> None:
        with pytest.raises(ValueError, match=self.SENTENCE):
            TunnelServer(tls=self.TLS)

    async def test_nor_by_the_engines(self) -> None:
        settings = TunnelServerSettings(listen=ListenAddress("127.0.0.1", 0), tls=self.TLS)
        with pytest.raises(ValueError, match=self.SENTENCE):
            async with Engine({"web": settings}):
                pass
