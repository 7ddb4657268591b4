"""A token lets its holder in at each system, as far as its rights go, and whoever has none stays out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from channel_peers import hub
from jump_peers import YES, ask, framed, home, proof, read_frame
from loopback import PATIENCE, Caller, calling, hears, target, told
from punch_peers import ROOM, rendezvous
from relay_peers import edge, relay_client, relay_server, shop_at
from tunnel_peers import HOST, app_at, tunnel_client, web
from tunnelconsole import channel
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import ChannelOpened, PeerRefused, ServiceFailed, SessionClosed, SessionOpened
from tunnelconsole.engine.services.service import ServiceSettings
from tunnelconsole.engine.settings import HostPort, Secret
from tunnelconsole.engine.tokens.rights import decode_rights
from tunnelconsole.engine.wire.token_proof import NOT_KNOWN
from tunnelconsole.engine.wire.tunnel_lines import GREETING
from tunnelconsole.errors import ConnectFailed, CredentialsRefused
from waiting import until
from yamux_frames import SYN, WINDOW, data, frame

UNKNOWN = Secret("tc_" + "A" * 43)
NEEDED = {"require_token": True}
JUMP: dict[str, Any] = {"require_token": True, "secret": None}


async def made(engine: Engine, name: str = "alice", **rights: Any) -> Secret:
    """The secret of a new token."""
    return Secret(await engine.node.tokens.create(name, decode_rights(rights)))


def in_with(engine: Engine, name: str = "alice") -> int:
    """Sessions of a token."""
    return len(engine.node.tokens.find(name).sessions)


def identities(engine: Engine) -> list[str]:
    return [session.identity for session in engine.node.sessions.sessions.values()]


@asynccontextmanager
async def attempting(settings: ServiceSettings) -> AsyncIterator[Engine]:
    """A client that has tried once."""
    async with Engine({"client": settings}) as engine:
        await engine.settled()
        yield engine


async def fails(settings: ServiceSettings, reason: str) -> str:
    """The state of a client that does not get in."""
    async with attempting(settings) as engine:
        service = engine.services["client"]
        assert reason in (service.error or "")
        return service.state


# Relay


async def test_a_relay_client_gets_a_port_by_its_token_and_is_known_by_its_name() -> None:
    async with edge(**NEEDED) as at:
        token = await made(at.engine, kinds=["relay"])
        async with shop_at(at, token=token) as made_shop:
            await made_shop.serves()
            assert identities(at.engine) == ["alice"]
            channel_of = told(at.engine, ChannelOpened)[0].session
            assert at.engine.node.tokens.find("alice").sessions
            assert channel_of in at.engine.node.sessions.sessions


async def test_a_relay_tells_each_why_it_stays_out() -> None:
    async with edge(**NEEDED) as at, target() as far:
        elsewhere = await made(at.engine, kinds=["tunnel"])
        far_away = await made(at.engine, "bob", clients=["192.0.2.0/24"])
        assert await fails(relay_client(at.address, far.address), "a token is needed here") == "backoff"
        assert await fails(relay_client(at.address, far.address, token=UNKNOWN), NOT_KNOWN) == "failed"
        await fails(relay_client(at.address, far.address, token=elsewhere), "the token is not for relay")
        await fails(relay_client(at.address, far.address, token=far_away), "may not be used from this address")


async def test_a_relay_gives_a_token_one_of_its_own_ports() -> None:
    async with edge() as other, other.backend() as (_, address):
        port = HostPort.parse(address).port
    async with edge(**NEEDED) as at:
        token = await made(at.engine, ports=[str(port)])
        async with shop_at(at, token=token) as first, target() as far:
            assert HostPort.parse(first.address).port == port
            await fails(relay_client(at.address, far.address, token=token), f"no public port of {port}-{port} is free")


async def test_a_token_that_is_not_required_still_has_to_be_right() -> None:
    async with edge() as at, target() as far:
        assert await fails(relay_client(at.address, far.address, token=UNKNOWN), NOT_KNOWN) == "failed"


@pytest.mark.parametrize("said", [b"TCTOKEN1", b"TCTOKEN1" + bytes(32), b"T", b"TCTOKEN1" + bytes(64)])
async def test_a_relay_survives_a_proof_that_breaks_off(said: bytes) -> None:
    async with edge(**NEEDED) as at:
        async with calling(at.address) as caller:
            await caller.send(said)
            caller.half_close()
            await caller.read_to_end()
        await hears(at.engine, PeerRefused)
        token = await made(at.engine)
        async with shop_at(at, token=token) as works:
            await works.serves()


async def test_a_proof_that_was_overheard_opens_nothing() -> None:
    """What was offered is no proof (x/crypto CVE-2024-45337): it holds for the nonce of its own connection alone."""
    overheard = bytearray()
    async with edge(**NEEDED) as at:
        where = HostPort.parse(at.address)

        async def listen_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up, down = await asyncio.open_connection(where.host, where.port)

            async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter, keep: bool) -> None:
                with suppress(ConnectionError):
                    while data := await source.read(4096):
                        if keep and len(overheard) < 72:
                            overheard.extend(data)
                        to.write(data)
                to.close()

            await asyncio.gather(pass_on(reader, down, keep=True), pass_on(up, writer, keep=False))

        token = await made(at.engine)
        async with (
            target(listen_in) as between,
            target() as far,
            attempting(relay_client(between.address, far.address, token=token)) as engine,
        ):
            assert engine.services["client"].state == "connected"
        async with calling(at.address) as thief:
            await thief.send(bytes(overheard[:72]))
            await thief.read(16)
            assert await thief.read(1) == b"\x01"
            assert NOT_KNOWN.encode() in await thief.read_to_end()


# Jump


async def test_a_jump_client_of_the_original_gets_in_by_a_token_as_its_secret() -> None:
    async with home(**JUMP) as at:
        token = await made(at.engine, kinds=["jump"], destinations=[f"127.0.0.1:{at.far.address.port}"])
        async with at.through(secret=token) as caller:
            assert await caller.exchange(b"ping") == b"ping"
        (opened,) = told(at.engine, SessionOpened)
        assert opened.identity == "alice"
        async with at.calling() as caller:
            assert "not allowed here" in await ask(caller, "127.0.0.1:9", token)


async def test_a_jump_server_with_tokens_alone_knows_no_other_secret() -> None:
    async with home(**JUMP) as at:
        await made(at.engine, kinds=["relay"])
        for secret in ("superBigSecret", "", UNKNOWN):
            async with at.calling() as caller:
                assert await ask(caller, at.far.address, secret) == "challenge failed, check secret"


async def test_a_token_that_was_revoked_jumps_no_more_and_what_it_carried_is_cut_within_a_second() -> None:
    async with home(**JUMP) as at:
        token = await made(at.engine, kinds=["jump"])
        async with at.through(secret=token) as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            await at.engine.node.tokens.revoke("alice")
            async with asyncio.timeout(1):
                assert await caller.broken()
        closed = await hears(at.engine, SessionClosed)
        assert closed.cause == "its token was revoked"
        async with at.calling() as caller:
            assert await ask(caller, at.far.address, token) == "challenge failed, check secret"


# Channel


@asynccontextmanager
async def joined(address: str, chid: str, receivers: list[str], token: str) -> AsyncIterator[Any]:
    async with channel.connect(address, chid, receivers=receivers, token=token) as streams:
        yield streams


async def test_channel_clients_talk_by_their_tokens() -> None:
    async with hub(**NEEDED) as at:
        alice, bob = await made(at.engine), await made(at.engine, "bob")
        async with joined(at.address, "a", ["b"], alice) as (_, writer), joined(at.address, "b", ["a"], bob) as (r, _):
            writer.write(b"hello")
            assert await r.readexactly(5) == b"hello"
            assert sorted(identities(at.engine)) == ["alice", "bob"]


@pytest.mark.parametrize(
    ("chid", "receivers", "reason"),
    [
        ("lab-1", ["lab-2"], ""),
        ("desk", ["lab-2"], "the token is not for the chid desk"),
        ("lab-1", ["desk"], "the token is not for the chid desk"),
        ("lab-1", [], "the receivers must be named"),
    ],
)
async def test_a_chid_is_judged_whether_it_is_claimed_or_sent_to(chid: str, receivers: list[str], reason: str) -> None:
    async with hub(**NEEDED) as at:
        token = await made(at.engine, chids=["lab-*"])
        if not reason:
            async with joined(at.address, chid, receivers, token):
                return
        with pytest.raises(ConnectFailed, match=reason):
            async with joined(at.address, chid, receivers, token):
                pass


async def test_a_channel_server_keeps_out_who_brings_no_token_or_an_unknown_one() -> None:
    async with hub(**NEEDED) as at:
        with pytest.raises(ConnectFailed, match="a token is needed here"):
            async with joined(at.address, "a", [], ""):
                pass
        with pytest.raises(CredentialsRefused, match=NOT_KNOWN):
            async with joined(at.address, "a", [], UNKNOWN):
                pass


async def test_a_password_and_a_token_of_one_name_are_two_identities() -> None:
    """Authorising one identity and routing by another (frp CVE-2026-40910): the name alone takes nobody's place."""
    async with hub(passwords={"alice": Secret("the password")}) as at:
        token = await made(at.engine)
        async with channel.connect(at.address, "desk", password="the password"):
            with pytest.raises(ConnectFailed, match="chid desk is taken"):
                async with channel.connect(at.address, "desk", password="the password", token=token):
                    pass


async def test_a_holder_that_comes_back_takes_its_own_place() -> None:
    async with hub(**NEEDED) as at:
        token = await made(at.engine)
        async with joined(at.address, "desk", ["x"], token), joined(at.address, "desk", ["x"], token):
            await until(lambda: at.chids == ["desk"])


async def test_in_broadcast_mode_a_token_comes_before_everything() -> None:
    async with hub(mode="broadcast", **NEEDED) as at:
        token = await made(at.engine)
        async with (
            channel.broadcast(at.address, token=token) as (_, writer),
            channel.broadcast(at.address, token=token) as (reader, _),
        ):
            await until(lambda: len(at.chids) == 2)
            writer.write(b"to all")
            assert await reader.readexactly(6) == b"to all"
        with pytest.raises(CredentialsRefused, match=NOT_KNOWN):
            async with channel.broadcast(at.address, token=UNKNOWN):
                pass
        async with at.calling() as caller:
            await caller.send(b"no token at all")
            assert await caller.read_to_end() == b""


# Tunnel


async def test_a_tunnel_client_has_the_hosts_of_its_token_alone() -> None:
    async with web(**NEEDED) as at, target() as far:
        token = await made(at.engine, hosts=[HOST])
        async with app_at(at, token=token) as app:
            async with app.visiting() as visitor:
                assert (await visitor.get("/")).status == 200
            assert identities(at.engine) == ["alice"]
            other = tunnel_client(at.address, far.address, token=token, host="other.example.com")
            await fails(other, "the token is not for the host other.example.com")


async def test_a_tunnel_server_keeps_out_who_brings_no_token_or_one_that_was_revoked() -> None:
    async with web(**NEEDED) as at, target() as far:
        token = await made(at.engine)
        await at.engine.node.tokens.revoke("alice")
        assert await fails(tunnel_client(at.address, far.address), "a token is needed here") == "failed"
        assert await fails(tunnel_client(at.address, far.address, token=token), NOT_KNOWN) == "failed"


async def test_a_token_that_was_revoked_does_not_become_one_that_anybody_made_up() -> None:
    """Where everybody may come, a token is a name that its holder chose; one of ours must not turn into that."""
    async with web() as at, target() as far:
        token = await made(at.engine)
        await at.engine.node.tokens.revoke("alice")
        await fails(tunnel_client(at.address, far.address, token=token), NOT_KNOWN)


async def test_a_host_stays_its_tokens_whatever_other_identity_has_the_same_name() -> None:
    async with web(tokens={"alice": Secret("of-the-settings")}, shared=True) as at, target() as far:
        token = await made(at.engine)
        async with app_at(at, token=Secret("of-the-settings")):
            taken = tunnel_client(at.address, far.address, token=token)
            await fails(taken, f"a tunnel for {HOST} exists already")


async def test_what_is_reserved_for_an_identity_of_the_settings_is_not_for_a_token_of_its_name() -> None:
    settings = {"tokens": {"alice": Secret("of-the-settings")}, "reserved": {HOST: "alice"}}
    async with web(**settings) as at, target() as far:
        token = await made(at.engine)
        await fails(tunnel_client(at.address, far.address, token=token), "reserved for somebody else")


async def test_requests_of_a_tokens_visitors_are_held_to_its_rate() -> None:
    async with web(**NEEDED) as at:
        token = await made(at.engine, requests=0.01)
        async with app_at(at, token=token) as app, app.visiting() as visitor:
            statuses = [(await visitor.get("/")).status for _ in range(3)]
            assert statuses[0] == 200
            assert 429 in statuses


# Punch


async def test_a_room_is_entered_by_a_token_that_is_for_it() -> None:
    async with rendezvous(**NEEDED) as meet:
        token = await made(meet.engine, rooms=[ROOM])
        client = meet.client(target=HostPort("127.0.0.1", 1), token=token, direct=False)
        async with Engine({"client": client}):
            await until(lambda: identities(meet.engine) == ["alice"])
        await hears(meet.engine, SessionClosed)
        elsewhere = meet.client(target=HostPort("127.0.0.1", 1), token=token, room="other")
        await refused(elsewhere, "the token is not for this room")


async def test_a_rendezvous_keeps_out_who_brings_no_token_or_an_unknown_one() -> None:
    async with rendezvous(**NEEDED) as meet:
        await refused(meet.client(target=HostPort("127.0.0.1", 1)), "a token is needed here")
        unknown = meet.client(target=HostPort("127.0.0.1", 1), token=UNKNOWN)
        async with Engine({"client": unknown}) as engine:
            await hears(engine, ServiceFailed, NOT_KNOWN)


async def refused(settings: ServiceSettings, reason: str) -> None:
    async with Engine({"client": settings}) as engine:
        await until(lambda: reason in (engine.services["client"].error or ""))


# What holds for all


async def flood(caller: Caller) -> None:
    """Says more than anybody needs to before a proof, as long as anybody listens."""
    with suppress(ConnectionError):
        await caller.send(b"TCTOKEN1" + bytes(10_000_000))


async def test_a_length_that_is_never_said_cannot_overflow_before_login() -> None:
    """A length that overflows before login (frp CVE-2026-73564): what comes before a proof has a fixed length."""
    async with edge(**NEEDED) as at:
        async with calling(at.address) as caller, asyncio.timeout(PATIENCE):
            await flood(caller)
        event = await hears(at.engine, PeerRefused)
        assert event.reason == NOT_KNOWN


Revocation = Callable[[Engine], Awaitable[object]]


@pytest.mark.parametrize(
    "take_away",
    [
        pytest.param(lambda engine: engine.node.tokens.revoke("alice"), id="revoked"),
        pytest.param(lambda engine: engine.node.tokens.change("alice", disabled=True), id="disabled"),
        pytest.param(lambda engine: engine.node.tokens.rotate("alice", overlap=0), id="rotated"),
        pytest.param(
            lambda engine: engine.node.tokens.change("alice", rights=decode_rights({"kinds": ["jump"]})), id="changed"
        ),
    ],
)
async def test_what_is_taken_from_a_token_is_taken_from_those_who_are_in(take_away: Revocation) -> None:
    """An access list checked at the handshake but not for each channel (chisel CVE-2026-48113)."""
    async with edge(**NEEDED) as at, target() as far:
        token = await made(at.engine)
        async with attempting(relay_client(at.address, far.address, token=token)) as engine:
            address = engine.services["client"].address
            async with calling(address) as visitor:
                await visitor.send(b"ping")
                assert await visitor.read(4) == b"ping"
                await take_away(at.engine)
                async with asyncio.timeout(1):
                    assert await visitor.broken()
            await until(lambda: not at.engine.node.sessions.sessions)


async def test_where_the_store_cannot_be_read_the_door_is_closed(tmp_path: Path) -> None:
    """A credential source that is never read, so the door is open (chisel CVE-2024-43798)."""
    (tmp_path / "state.sqlite3").mkdir()

    async with Engine({"edge": relay_server(**NEEDED)}, state_dir=tmp_path) as engine, target() as far:
        await engine.settled()
        at = engine.services["edge"].address
        await fails(relay_client(at, far.address), "a token is needed here")
        assert await fails(relay_client(at, far.address, token=UNKNOWN), "the tokens cannot be read") == "backoff"
        assert {event.kind for event in told(engine, PeerRefused)} == {"not_allowed"}


async def test_while_tokens_cannot_be_read_none_is_called_wrong_and_nobody_gives_up() -> None:
    """What holders bring meanwhile is no guess: they are not counted for a ban, and come again."""
    unread = "the tokens cannot be read"
    async with web(**NEEDED) as at, target() as far:
        at.engine.node.tokens.readable = False
        assert await fails(tunnel_client(at.address, far.address, token=UNKNOWN), unread) == "backoff"
        assert await fails(tunnel_client(at.address, far.address), "a token is needed here") == "failed"
        assert {event.kind for event in told(at.engine, PeerRefused)} == {"not_allowed"}
    async with hub(**NEEDED) as at:
        at.engine.node.tokens.readable = False
        with pytest.raises(ConnectFailed, match=unread):
            async with joined(at.address, "a", [], UNKNOWN):
                pass
    async with rendezvous(**NEEDED) as meet:
        meet.engine.node.tokens.readable = False
        await refused(meet.client(target=HostPort("127.0.0.1", 1), token=UNKNOWN, direct=False), unread)
    async with home(**JUMP) as at:
        at.engine.node.tokens.readable = False
        async with at.calling() as caller:
            await read_frame(caller)
            await caller.send(framed(b"wrong"))
            assert await caller.read_to_end() == b""
        assert {event.kind for event in told(at.engine, PeerRefused)} == {"not_allowed"}


async def test_a_rate_of_a_token_holds_for_its_sessions_together_at_all_services() -> None:
    async with edge(**NEEDED) as at:
        token = await made(at.engine, rate="1MB/s")
        async with shop_at(at, token=token) as one, shop_at(at, token=token) as other:
            for made_shop in (one, other):
                await made_shop.serves()
            paces = {at.service.pace_in(session) for session in at.service.attached}
            assert paces == {at.engine.node.tokens.find("alice").pace}
            assert in_with(at.engine) == 2


# Who has proved a token, and is not in yet


async def test_a_jump_that_begins_before_its_token_is_revoked_leads_nowhere_after() -> None:
    """The secrets are those of when it connected; what holds is what holds when it is led on."""
    async with home(**JUMP) as at:
        token = await made(at.engine, kinds=["jump"])
        async with at.calling() as caller, at.calling() as proved:
            answer, other = await proof(caller, token), await proof(proved, token)
            await proved.send(other)
            assert await proved.read(1) == YES
            await at.engine.node.tokens.revoke("alice")
            await caller.send(answer)
            assert await caller.read(1) == YES
            for each in (caller, proved):
                await each.send(framed(str(at.far.address).encode()))
                assert await each.read(1) != YES
                assert await read_frame(each) == b"the token was revoked"
        assert not at.engine.node.sessions.sessions


async def test_all_newcomers_of_a_jump_server_share_one_table_of_secrets_until_a_token_changes() -> None:
    async with home(**JUMP) as at:
        await made(at.engine, kinds=["jump"])
        before = at.service.secrets
        assert at.service.secrets is before
        await at.engine.node.tokens.revoke("alice")
        assert not at.service.secrets


@pytest.mark.parametrize("first", ["used", "revoked"])
async def test_a_tunnel_that_was_promised_is_not_given_by_a_token_that_is_good_for_nothing_more(first: str) -> None:
    async with web(**NEEDED) as at:
        token = await made(at.engine, one_time=True)
        bearer = f"Authorization: Bearer {token}"
        async with at.asking(HOST, bearer) as (late, answer):
            assert b"200" in answer
            if first == "used":
                async with at.original(fields=[bearer]):
                    await greets(late)
                    assert identities(at.engine) == ["alice"]
            else:
                await at.engine.node.tokens.revoke("alice")
                await greets(late)
        refusal = await hears(at.engine, PeerRefused)
        assert refusal.reason in ("the token was for one use, and has been used", "the token was revoked")


async def greets(caller: Caller) -> None:
    """Asks for what was promised, and waits until that is denied."""
    await caller.send(frame(WINDOW, SYN, 1) + data(1, GREETING))
    await caller.broken()
