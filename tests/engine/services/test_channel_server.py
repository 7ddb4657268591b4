"""The channel server's handshake, who is let in and who is not, with raw clients on real sockets."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import pytest

from channel_peers import ALL, OK, failed, hs1, hs2, hs3, hub, join_sealed
from loopback import BULK, FREE, Caller, hears, open_descriptors, refuses, told
from tunnelconsole.engine import limits
from tunnelconsole.engine.events import ChannelClosed, ChannelOpened, PeerRefused, SessionClosed, SessionOpened
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.channel import server as server_module
from tunnelconsole.engine.services.channel.server import ChannelServerSettings
from tunnelconsole.engine.settings import NetworkPattern, Secret, TLSSettings
from tunnelconsole.engine.units import Duration, Rate, Size
from tunnelconsole.engine.wire.channel import Joined, JoinRefused, PasswordRefused
from tunnelconsole.engine.wire.channel_lines import MAX_LINE
from waiting import until
from wire_transcripts import load, sent_by

SHORT_TICK = ("tunnelconsole.engine.ticking.TICK", 0.02)


async def test_what_one_sends_reaches_the_receivers_it_names_and_nobody_else() -> None:
    async with (
        hub() as at,
        at.client("a", ["b", "c"]) as a,
        at.client("b", ["a"]) as b,
        at.client("c", ["a"]) as c,
        at.client("d", ["a"]) as d,
    ):
        await a.send(b"from a")
        assert await b.read(6) == await c.read(6) == b"from a"
        await d.send(b"from d")
        assert await a.read(6) == b"from d"
        assert at.party("d").bytes_out == 0


async def test_who_names_no_receivers_sends_to_all_others_and_not_to_itself() -> None:
    async with hub() as at, at.client("a", ALL) as a, at.client("b", ["nobody"]) as b, at.client("c", ["a"]) as c:
        await a.send(b"to all")
        assert await b.read(6) == await c.read(6) == b"to all"
        await c.send(b"back")
        assert await a.read(4) == b"back"


async def test_who_names_itself_does_not_get_its_own_bytes_back() -> None:
    async with hub() as at, at.client("a", ["a", "b"]) as a, at.client("b", ["a"]) as b:
        await a.send(b"mine")
        assert await b.read(4) == b"mine"
        await b.send(b"yours")
        assert await a.read(5) == b"yours"
        assert at.party("a").undelivered == 0


async def test_bulk_goes_both_ways_at_once_and_is_counted_to_the_byte() -> None:
    async with hub() as at:
        async with at.client("a", ["b"]) as a, at.client("b", ["a"]) as b:
            sends = a.send(BULK), b.send(BULK)
            _, _, *read = await asyncio.gather(*sends, a.read(len(BULK)), b.read(len(BULK)))
            assert read == [BULK, BULK]
        await until(lambda: len(told(at.engine, ChannelClosed)) == 2)
        assert [(event.bytes_in, event.bytes_out) for event in told(at.engine, ChannelClosed)] == [(len(BULK),) * 2] * 2


async def test_a_client_is_a_session_with_one_channel_that_says_who_and_to_whom() -> None:
    async with hub() as at, at.client("a", ["b", "c"]) as a, at.client("b"), at.client("c", list("tuvwxyz")):
        opened = [event.label for event in told(at.engine, ChannelOpened)]
        assert opened == ["a -> b, c", "b -> all", "c -> t, u, v, w, x and 2 more"]
        assert told(at.engine, SessionOpened)[0].peer == a.name
        assert len(at.engine.node.sessions.channels) == len(at.engine.node.sessions.sessions) == 3


async def test_payload_that_comes_with_the_handshake_is_delivered_first() -> None:
    async with hub() as at, at.client("b", ["a"]) as b, at.calling() as a:
        await a.send(hs1("a") + hs3("b") + b"early ")
        assert await a.read(len(hs2("a") + OK)) == hs2("a") + OK
        await a.send(b"and late")
        assert await b.read(14) == b"early and late"
        assert at.party("a").bytes_in == at.party("b").bytes_out == 14


async def test_a_client_that_says_all_and_closes_its_side_at_once_still_gets_its_answer() -> None:
    async with hub() as at, at.client("b", ["a"]) as b, at.calling() as a:
        await a.send(hs1("a") + hs3("b") + BULK)
        a.half_close()
        assert await b.read(len(BULK)) == BULK
        await b.send(b"the answer")
        b.half_close()
        assert await a.read_to_end() == hs2("a") + OK + b"the answer"


async def test_a_client_that_closes_is_forgotten_and_its_receivers_stay() -> None:
    async with hub() as at, at.client("b", ["elsewhere"]) as b:
        async with at.client("a", ["b"]) as a:
            await a.send(b"last words")
        await until(lambda: at.chids == ["b"])
        assert await b.read(10) == b"last words"
        closed = await hears(at.engine, SessionClosed)
        assert (closed.bytes_in, closed.bytes_out, closed.cause) == (10, 0, "")
        await at.serves()


async def test_a_client_without_a_chid_is_given_one_that_cannot_be_guessed() -> None:
    async with hub() as at:
        given = set()
        for first in (b'{"req":"hs1"}\n', hs1("")):
            async with at.calling() as caller:
                await caller.send(first + hs3("x"))
                answer = await caller.read(len(hs2("c-12345678") + OK))
                (chid,) = re.findall(rb'"chid":"(c-[a-z2-7]{8})"', answer)
                given.add(chid.decode())
                assert at.chids == [chid.decode()]
            await until(lambda: not at.chids)
        assert len(given) == 2


async def test_a_chid_that_is_made_is_never_one_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [b"\0\0\0\0\0"] * 3 + [b"\0\0\0\0\1"]
    async with hub() as at, at.client("c-aaaaaaaa", ["x"]), at.calling() as caller:
        monkeypatch.setattr("secrets.token_bytes", lambda _count: drawn.pop(0))
        await caller.send(hs1("") + hs3())
        assert await caller.read(len(hs2("c-aaaaaaab"))) == hs2("c-aaaaaaab")


async def test_a_chid_that_is_taken_is_refused_to_another_address() -> None:
    async with hub() as at, at.client("ch0") as first, at.client("x", ["ch0"]) as x:
        async with at.calling("127.0.0.2") as second:
            await second.send(hs1() + hs3())
            assert failed(await second.read_to_end()) == "chid ch0 is taken"
        await hears(at.engine, PeerRefused, "chid ch0 is taken")
        await x.send(b"still here")
        assert await first.read(10) == b"still here"


async def test_an_anonymous_client_that_comes_back_from_its_address_takes_its_place() -> None:
    async with (
        hub() as at,
        at.client("x", ["ch0"]) as x,
        at.client("ch0", ["x"]) as first,
        at.client("ch0", ["x"]) as second,
    ):
        assert await first.broken()
        await hears(at.engine, SessionClosed, f"replaced by {second.name}")
        await x.send(b"for the new one")
        assert await second.read(15) == b"for the new one"
        await second.send(b"and back")
        assert await x.read(8) == b"and back"


async def test_of_two_handshakes_for_one_chid_the_later_is_refused() -> None:
    async with hub() as at, at.calling() as one, at.calling("127.0.0.2") as other:
        for caller in (one, other):
            await caller.send(hs1())
            assert await caller.read(len(hs2())) == hs2()
        await other.send(hs3())
        assert await other.read(len(OK)) == OK
        await one.send(hs3())
        assert failed(await one.read_to_end()) == "chid ch0 is taken"


async def test_a_handshake_one_byte_at_a_time_works() -> None:
    async with hub() as at, at.client("b", ["x"]) as b, at.calling() as a:
        for byte in hs1("a") + hs3("b") + b"payload":
            await a.send(bytes([byte]))
        assert await a.read(len(hs2("a") + OK)) == hs2("a") + OK
        assert await b.read(7) == b"payload"


async def test_a_handshake_cut_at_any_byte_is_told_and_disturbs_nobody() -> None:
    whole = hs1() + hs3("b")
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]) as b:
        for length in range(len(whole)):
            async with at.calling() as caller:
                await caller.send(whole[:length])
                caller.half_close()
                assert "the client closed before" in failed(await caller.read_to_end())
        reasons = [event.reason for event in told(at.engine, PeerRefused)]
        assert {reason.split(" it ")[1] for reason in reasons} == {"said which chid", "named its receivers"}
        await a.send(b"still here")
        assert await b.read(10) == b"still here"
        assert at.chids == ["a", "b"]


async def test_a_reset_inside_the_handshake_is_an_event() -> None:
    async with hub() as at, at.calling() as caller:
        await caller.send(hs1())
        await caller.read(len(hs2()))
        caller.reset()
        await hears(at.engine, PeerRefused, "it broke off during the handshake")
        await at.serves()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n", "not the JSON"),
        (b"\x16\x03\x01\x02\x00\x01", "it spoke TLS to a listener without it; set [service.hub.tls]"),
        (bytes(8192), "more than 4096 bytes"),
        (hs1("a b"), "without spaces"),
        (hs1() + b"[]\n", "not the JSON"),
        (hs1() + hs3(*(f"r{number}" for number in range(1025))), "more than 1024 receivers"),
        (hs1() + bytes(MAX_LINE), f"more than {MAX_LINE} bytes"),
        (hs1() + hs3(timeout=-1), "a timeout is"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_garbage_is_answered_with_the_reason_and_is_an_event(sent: bytes, reason: str) -> None:
    async with hub() as at:
        async with at.calling() as caller:
            await caller.send(sent)
            caller.half_close()
            assert reason in failed(await caller.read_to_end())
        await hears(at.engine, PeerRefused, reason)
        await at.serves()


async def test_who_does_not_finish_its_handshake_is_told_so_in_time() -> None:
    async with hub(limits=LimitSettings(handshake_timeout=Duration(0.1))) as at, at.calling() as caller:
        await caller.send(hs1())
        assert failed(await caller.read_to_end()) == "no handshake within 0.1 s"


async def test_a_crowd_that_never_ends_its_lines_fills_only_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_HANDSHAKE_BYTES", 100_000)
    async with hub() as at, AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(at.calling()) for _ in range(3)]
        for caller in crowd:
            await caller.send(hs1() + b" " * 45_000)
        await hears(at.engine, PeerRefused, "too many newcomers are sending long lines")
        await at.serves()
        assert len(told(at.engine, PeerRefused)) == 1


async def test_a_flood_of_newcomers_leaves_the_clients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 8)
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]) as b, AsyncExitStack() as stack:
        for _ in range(40):
            caller = await stack.enter_async_context(at.calling())
            await caller.send(b'{"req":"hs1"')
        await a.send(b"through the crowd")
        assert await b.read(17) == b"through the crowd"
        await hears(at.engine, PeerRefused, "too many connections are inside their handshake")


@pytest.mark.parametrize("limited", [LimitSettings(sessions=1), LimitSettings(channels=1)])
async def test_who_is_one_too_many_is_told_but_may_take_its_own_place(limited: LimitSettings) -> None:
    async with hub(limits=limited) as at, at.client("a", ["x"]):
        async with at.calling() as caller:
            await caller.send(hs1("b") + hs3())
            assert "the limit of 1" in failed(await caller.read_to_end())
        async with at.client("a", ["x"]):
            assert at.chids == ["a"]


async def test_networks_that_may_not_come_are_closed_without_a_word() -> None:
    async with hub(clients_deny=(NetworkPattern("127.0.0.2"),)) as at:
        async with at.calling("127.0.0.2") as caller:
            assert await caller.read_to_end() == b""
        await hears(at.engine, PeerRefused, "clients_allow")
        await at.serves()


async def test_a_password_encrypts_the_handshake_and_leaves_its_client_anonymous() -> None:
    async with hub(handshake_password=Secret("open sesame")) as at, at.calling() as a, at.calling() as b:
        assert await join_sealed(a, "open sesame", "a", ["b"]) == [Joined("a")]
        assert await join_sealed(b, "open sesame", "b", ["a"]) == [Joined("b")]
        await a.send(b"in the clear")
        assert await b.read(12) == b"in the clear"
        assert {event.identity for event in told(at.engine, SessionOpened)} == {"anonymous"}


async def test_who_knows_a_password_is_seen_by_its_identity() -> None:
    passwords = {"alice": Secret("alice's"), "bob": Secret("bob's")}
    async with hub(passwords=passwords, handshake_password=Secret("ours")) as at:
        for password, identity in (("alice's", "alice"), ("bob's", "bob"), ("ours", "anonymous")):
            async with at.calling() as caller:
                assert await join_sealed(caller, password, "x") == [Joined("x")]
                assert at.party("x").identity == identity
            await until(lambda: not at.chids)


async def test_an_identity_takes_its_own_place_from_anywhere_and_nobody_elses() -> None:
    passwords = {"alice": Secret("alice's"), "bob": Secret("bob's")}
    async with hub(passwords=passwords) as at, at.calling() as first:
        assert await join_sealed(first, "alice's", "desk", ["x"]) == [Joined("desk")]
        async with at.calling() as other:
            assert await join_sealed(other, "bob's", "desk") == [JoinRefused("chid desk is taken")]
        async with at.calling("127.0.0.2") as again:
            assert await join_sealed(again, "alice's", "desk", ["x"]) == [Joined("desk")]
            assert await first.broken()
            assert at.party("desk").peer == again.name


async def test_a_wrong_password_and_none_at_all_are_told_in_the_clear() -> None:
    async with hub(handshake_password=Secret("open sesame")) as at:
        async with at.calling() as caller:
            assert await join_sealed(caller, "wrong", "a") == [PasswordRefused("wrong handshake password")]
        async with at.calling() as caller:
            await caller.send(hs1() + hs3())
            greeting, answer = (await caller.read_to_end()).splitlines()
            assert not greeting.startswith(b"{")
            assert "a handshake password is needed" in failed(answer)
        assert [event.kind for event in told(at.engine, PeerRefused)] == ["credentials", "not_allowed"]
        assert not any("sesame" in event.text() for event in told(at.engine, PeerRefused))


async def test_a_recorded_encrypted_handshake_cannot_be_replayed() -> None:
    async with hub(handshake_password=Secret("open sesame")) as at:
        async with at.calling() as caller:
            said: list[bytes] = []
            send = caller.send

            async def recording(data: bytes) -> None:
                said.append(data)
                await send(data)

            caller.send = recording  # type: ignore[method-assign]
            assert await join_sealed(caller, "open sesame", "a") == [Joined("a")]
        async with at.calling() as caller:
            await caller.send(b"".join(said))
            assert failed(await caller.read_to_end()) == "wrong handshake password"


async def test_the_greetings_salt_stays_the_same_and_its_nonce_does_not() -> None:
    async with hub(handshake_password=Secret("open sesame")) as at:
        greetings = []
        for _ in range(2):
            async with at.calling() as caller:
                greetings.append(await caller.read(44))
        one, other = greetings
        assert one[:20] == other[:20]
        assert one[24:] != other[24:]


async def test_tls_carries_everything_including_bulk_one_to_many() -> None:
    async with (
        hub(tls=TLSSettings()) as at,
        at.tls_client("a", ALL) as a,
        at.tls_client("b", ["a"]) as b,
        at.tls_client("c", ["x"]) as c,
    ):
        reads = (caller.read(len(BULK)) for caller in (a, b, c))
        _, _, *read = await asyncio.gather(a.send(BULK), b.send(BULK[::-1]), *reads)
        assert read == [BULK[::-1], BULK, BULK]
        assert at.party("a").path == "tls"


async def test_a_client_that_does_not_speak_tls_is_an_event() -> None:
    async with hub(tls=TLSSettings()) as at, at.calling() as caller:
        await caller.send(hs1() + hs3())
        await hears(at.engine, PeerRefused, "it spoke plain channel to a TLS listener; set [service.NAME.tls]")


async def test_in_broadcast_mode_every_byte_goes_to_everybody_else() -> None:
    async with hub(mode="broadcast") as at, at.calling() as a, at.calling() as b, at.calling() as c:
        await until(lambda: at.chids == ["1000", "1001", "1002"])
        await a.send(b'{"req":"hs1"}\n')
        assert await b.read(14) == await c.read(14) == b'{"req":"hs1"}\n'
        await c.send(b"reply")
        assert await a.read(5) == await b.read(5) == b"reply"
        assert at.party("1002").bytes_out == 14


async def test_a_broadcast_that_is_full_closes_the_newcomer() -> None:
    async with hub(mode="broadcast", limits=LimitSettings(sessions=1)) as at, at.calling():
        await until(lambda: at.chids)
        async with at.calling() as caller:
            assert await caller.read_to_end() == b""
        await hears(at.engine, PeerRefused, "the limit of 1 sessions")


async def test_a_broadcast_client_that_nothing_came_from_or_for_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "FIRST_BYTE_TIMEOUT", 0.1)
    async with hub(mode="broadcast") as at, at.calling() as talker, at.calling() as listener:
        await talker.send(b"something")
        assert await listener.read(9) == b"something"
        async with at.calling() as silent:
            assert await silent.broken()
        await hears(at.engine, SessionClosed, "nothing from it or to it within 0.1 s")
        assert at.chids == ["1000", "1001"]


async def test_a_silent_client_is_closed_after_the_services_idle_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*SHORT_TICK)
    async with hub(idle_timeout=Duration(0.2)) as at, at.client("a", ["x"]) as caller:
        assert await caller.broken()
        await hears(at.engine, SessionClosed, "idle for 0.2 s")


@pytest.mark.parametrize(
    ("service", "limit", "own", "least"), [(120, 0, 7, 7), (5, 0, 7, 5), (0, 0, 7, 7), (9, 3, 7, 3), (0, 0, 0, 0)]
)
async def test_the_shortest_idle_timeout_counts(service: float, limit: float, own: int, least: float) -> None:
    settings = LimitSettings(idle_timeout=Duration(limit))
    async with hub(idle_timeout=Duration(service), limits=settings) as at, at.client("a", timeout=own):
        channel = at.party("a").channel
        assert channel is not None
        assert channel.idle_timeout == least


async def test_a_client_that_asks_for_a_timeout_is_closed_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*SHORT_TICK)
    async with hub() as at, at.client("a", ["x"], timeout=0.2) as caller, at.client("b", ["x"]):
        assert await caller.broken()
        assert at.chids == ["b"]


async def test_a_client_that_is_only_sent_to_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*SHORT_TICK)
    loop = asyncio.get_running_loop()
    async with hub() as at, at.client("a", ["x"], timeout=0.2) as a, at.client("b", ["a"]) as b:
        began = loop.time()
        while loop.time() - began < 0.5:
            await b.send(b".")
            assert await a.read(1) == b"."
        assert at.chids == ["a", "b"]


async def test_a_rate_holds_the_senders_back_and_loses_nothing() -> None:
    rate, size, loop = 2_000_000, 1_000_000, asyncio.get_running_loop()
    settings = LimitSettings(rate=Rate(rate))
    async with hub(limits=settings) as at, at.client("a", ["b"]) as a, at.client("b", ["x"]) as b:
        began = loop.time()
        _, read = await asyncio.gather(a.send(BULK[:size]), b.read(size))
        assert read == BULK[:size]
        burst, last_read = rate / 4, 65536
        assert loop.time() - began >= (size - burst - last_read) / rate


async def test_a_kicked_client_is_reset_and_others_go_on() -> None:
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]), at.client("c", ["a"]) as c:
        session = at.party("b").session
        assert session is not None
        at.engine.kick(session.id)
        await hears(at.engine, SessionClosed, "kicked by an operator")
        await c.send(b"still here")
        assert await a.read(10) == b"still here"
        assert at.chids == ["a", "c"]


async def test_a_service_that_stops_takes_nobody_and_cuts_its_clients() -> None:
    async with hub() as at, at.client("a") as a, at.calling() as newcomer:
        await newcomer.send(hs1("b"))
        await newcomer.read(len(hs2("b")))
        await at.engine.stop_service("hub")
        assert await a.broken()
        assert await newcomer.broken()
        await refuses(at.address)


async def test_each_way_out_leaves_no_descriptor() -> None:
    async with hub() as at:
        before = open_descriptors()
        for _ in range(5):
            async with at.client("a", ["b"]) as a, at.client("b", ["a"]) as b:
                _, read = await asyncio.gather(a.send(BULK), b.read(len(BULK)))
                assert read == BULK
                a.reset()
            async with at.calling() as caller:
                await caller.send(b"garbage\n")
                await caller.read_to_end()
        await until(lambda: not at.chids)
        at.engine.node.plane.close()
        await until(lambda: open_descriptors() <= before)


def record(conn: int, sender: str) -> bytes:
    """What one end of a recorded connection sent behind its handshake."""
    return [read.data for read in load("channel-chan") if read.data and (read.conn, read.sender) == (conn, sender)][-1]


async def test_the_originals_clients_are_served_as_recorded_in_any_pieces() -> None:
    async with hub() as at:
        handshakes = [sent_by("channel-chan", "client", conn).removesuffix(record(conn, "client")) for conn in (1, 2)]
        for cut in range(1, max(map(len, handshakes))):
            async with at.calling() as one, at.calling() as other:
                callers = (one, other)
                for caller, handshake, conn in zip(callers, handshakes, (1, 2), strict=True):
                    for piece in (handshake[:cut], handshake[cut:]):
                        await caller.send(piece)
                    answers = sent_by("channel-chan", "server", conn).removesuffix(record(conn, "server"))
                    assert await caller.read(len(answers)) == answers
                await say(one, record(1, "client"), other, record(2, "server"))
                await say(other, record(2, "client"), one, record(1, "server"))
                for caller in callers:
                    caller.half_close()
                for caller in callers:
                    assert await caller.read_to_end() == b""
            await until(lambda: not at.chids)


async def say(speaker: Caller, said: bytes, listener: Caller, heard: bytes) -> None:
    """Has one end of a recording say its part, and the other hear what it heard."""
    await speaker.send(said)
    assert await listener.read(len(heard)) == heard


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mode": "broadcast", "handshake_password": Secret("x")}, "handshake_password"),
        ({"mode": "broadcast", "passwords": {"alice": Secret("x")}}, "passwords"),
        ({"mode": "broadcast", "hold": Size(1)}, "hold"),
        ({"passwords": {"alice": Secret("")}}, "passwords.alice"),
        ({"passwords": {"alice": Secret("x"), "bob": Secret("x")}}, "passwords"),
        ({"passwords": {"alice": Secret("x")}, "handshake_password": Secret("x")}, "passwords"),
        ({"passwords": {str(number): Secret(str(number)) for number in range(65)}}, "passwords"),
        ({"hold": Size(2**40)}, "hold"),
        ({"buffer": Size(1000)}, "buffer"),
        ({"buffer": Size(2**40)}, "buffer"),
    ],
)
def test_settings_that_cannot_work_are_told(changes: dict[str, object], key: str) -> None:
    settings = ChannelServerSettings(listen=FREE, **changes)  # type: ignore[arg-type]
    assert [where for where, _ in settings.problems()] == [key]


def test_plain_settings_have_no_problem() -> None:
    assert not ChannelServerSettings(listen=FREE, handshake_password=Secret("")).problems()
