"""Two punch clients that meet on loopback: what they carry, and what may happen to it on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loopback import (
    BULK,
    FREE,
    Caller,
    Target,
    address_of,
    calling,
    digest_at_end,
    hears,
    running,
    sha256,
    speak_and_close,
    steady,
    target,
    told,
)
from punch_peers import ROOM, SECRET, Rendezvous, rendezvous
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Crashed, PeerRefused, TargetFailed
from tunnelconsole.engine.punch_events import PathChanged, PunchWarning
from tunnelconsole.engine.services.punch import client as client_module
from tunnelconsole.engine.services.punch import pair as pair_module
from tunnelconsole.engine.services.punch import pairing
from tunnelconsole.engine.services.punch import round as round_module
from tunnelconsole.engine.services.punch.client import PunchClient, PunchClientSettings
from tunnelconsole.engine.services.punch.race import Race
from tunnelconsole.engine.settings import Fingerprint, HostPort, Secret, TLSSettings
from tunnelconsole.engine.wire.punch_room import RoomKey
from tunnelconsole.errors import RequestRefused
from waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost no tenth of a second, and nobody waits long before trying again."""
    monkeypatch.setattr(pairing, "room_key", lambda room, secret: RoomKey(room, sha256(f"{room} {secret}".encode())))
    monkeypatch.setattr(pair_module, "ROUND_AFTER_LOSS", 0.05)
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)


def crashes(*engines: Engine) -> list[str]:
    """Faults of ours that there were."""
    return [event.text() for engine in engines for event in told(engine, Crashed)]


def service(engine: Engine) -> PunchClient:
    """The client of an engine."""
    found = engine.services["end"]
    assert isinstance(found, PunchClient)
    return found


def path(engine: Engine) -> str:
    """What carries the link."""
    return service(engine).notes.get("path", "")


class Two:
    """Both ends, and the program that they lead to."""

    def __init__(self, meet: Rendezvous, opens: Engine, accepts: Engine, far: Target) -> None:
        self.meet = meet
        self.opens = opens
        self.accepts = accepts
        self.far = far

    @property
    def ends(self) -> tuple[Engine, Engine]:
        return self.opens, self.accepts

    async def on(self, kind: str) -> None:
        """Waits until both ends go this way."""
        await until(lambda: all(path(engine) == kind for engine in self.ends))

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Caller]:
        """A program at the end that listens."""
        await until(lambda: service(self.opens).address)
        async with calling(address_of(self.opens, "end")) as caller:
            yield caller

    def cut(self, kind: str) -> None:
        """Breaks all paths of this kind at the end that opens."""
        carrier = service(self.opens)._pairing.carrier  # type: ignore[union-attr]
        assert carrier is not None
        for each in list(carrier._paths.values()):
            if each.kind == kind:
                each._lose("cut by the test")


@asynccontextmanager
async def two(meet: Rendezvous, handler: Callable[..., Any] = digest_at_end, **settings: Any) -> AsyncIterator[Two]:
    """Two clients of a rendezvous, without faults of ours at the end."""
    async with (
        target(handler) as far,
        running(end=meet.client(listen=FREE, **settings)) as opens,
        running(end=meet.client(target=far.address, **settings)) as accepts,
    ):
        yield Two(meet, opens, accepts, far)
        assert crashes(opens, accepts, meet.engine) == []


async def asked(pair: Two, data: bytes = b"question") -> None:
    """Makes sure that a stream carries this to its end, and the answer back."""
    async with pair.calling() as caller:
        assert await caller.exchange(data) == sha256(data)


# What is carried


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "relay"])
async def test_programs_reach_the_target_of_the_other_end(direct: bool) -> None:
    async with rendezvous() as meet, two(meet, direct=direct) as pair:
        await pair.on("direct" if direct else "relay")
        await asked(pair, BULK)


async def test_without_a_direct_way_nothing_is_raced() -> None:
    async with rendezvous() as meet, two(meet, direct=False) as pair:
        await pair.on("relay")
        await asked(pair)
        assert not [attempt for attempt in pair.opens.node.attempts if attempt.timeline]
        with pytest.raises(RequestRefused, match="stay on the relay"):
            pair.opens.punch_again("end")


async def test_the_relay_carries_nothing_more_once_the_link_is_direct() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        await until(lambda: not meet.service.channels)
        await asked(pair, BULK)
        assert not meet.service.channels


async def test_each_program_has_a_stream_of_its_own() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")

        async def one(number: int) -> None:
            await asked(pair, f"{number} ".encode() * (1 + 1000 * number))

        await asyncio.gather(*(one(number) for number in range(30)))
        assert pair.far.served == 30
        await until(lambda: not any(service(engine).channels for engine in pair.ends))
        assert all(len(service(engine).attached) == 1 for engine in pair.ends)


async def test_a_target_that_speaks_first_is_heard() -> None:
    async with rendezvous() as meet, two(meet, speak_and_close) as pair:
        await pair.on("direct")
        async with pair.calling() as caller:
            assert await caller.read_to_end() == b"hello"


async def test_a_target_that_refuses_is_a_reset_and_an_event() -> None:
    async with (
        rendezvous() as meet,
        running(end=meet.client(listen=FREE)) as opens,
        running(end=meet.client(target=HostPort("127.0.0.1", steady().port))) as accepts,
    ):
        await until(lambda: path(opens) and path(accepts))
        async with calling(address_of(opens, "end")) as caller:
            assert await caller.broken()
        await hears(accepts, TargetFailed, "connection refused")


async def test_a_program_that_comes_before_the_other_end_waits_for_it() -> None:
    async with rendezvous() as meet, target(digest_at_end) as far, running(end=meet.client(listen=FREE)) as opens:
        await until(lambda: service(opens)._listener)
        listener = service(opens)._listener
        assert listener is not None
        async with calling(listener.address) as caller:
            answer = asyncio.ensure_future(caller.exchange(b"early"))
            await until(lambda: service(opens)._newcomers)
            async with running(end=meet.client(target=far.address)):
                assert await answer == sha256(b"early")


async def test_a_program_that_nobody_comes_for_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LINK_WAIT", 0.05)
    async with rendezvous() as meet, running(end=meet.client(listen=FREE)) as opens:
        await until(lambda: service(opens)._listener)
        listener = service(opens)._listener
        assert listener is not None
        async with calling(listener.address) as caller:
            assert await caller.broken()
        await hears(opens, PeerRefused, "nobody else came to room desk")


# Paths that come and go


async def test_a_stream_loses_nothing_while_its_link_moves() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        async with pair.calling() as caller:
            answer = asyncio.ensure_future(caller.exchange(BULK * 2))
            for _ in range(3):
                await pair.on("direct")
                pair.cut("direct")
                await until(lambda: path(pair.opens) != "direct")
                pair.cut("relay")
            assert await answer == sha256(BULK * 2)


async def test_a_direct_path_that_is_cut_is_replaced_by_the_relay_and_then_by_another() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        sessions = [set(service(engine).attached) for engine in pair.ends]
        async with pair.calling() as caller:
            await caller.send(b"one ")
            pair.cut("direct")
            await until(lambda: [event.path for event in told(pair.opens, PathChanged)].count("direct") == 2)
            assert "relay" in [event.path for event in told(pair.opens, PathChanged)][-2:]
            await caller.send(b"two")
            caller.half_close()
            assert await caller.read_to_end() == sha256(b"one two")
        assert [set(service(engine).attached) for engine in pair.ends] == sessions


async def test_a_relay_that_is_cut_during_the_race_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    racing = asyncio.Event()
    going = asyncio.Event()
    run = Race.run

    async def held(race: Any, *limit: float) -> Any:
        racing.set()
        await going.wait()
        return await run(race, *limit)

    monkeypatch.setattr(Race, "run", held)
    async with rendezvous() as meet, two(meet) as pair:
        await racing.wait()
        await pair.on("relay")
        async with pair.calling() as caller:
            await caller.send(b"one ")
            for seat in meet.service.rooms.seats.values():
                if seat.cut_relay is not None:
                    seat.cut_relay("cut by the test")
            going.set()
            await pair.on("direct")
            await caller.send(b"two")
            caller.half_close()
            assert await caller.read_to_end() == sha256(b"one two")


async def test_streams_live_on_while_the_rendezvous_is_away() -> None:
    where = steady()
    async with rendezvous(listen=where) as meet, two(meet) as pair:
        await pair.on("direct")
        async with pair.calling() as caller:
            await caller.send(b"one ")
            await meet.engine.stop_service("meet")
            await asked(pair)
            await meet.engine.start_service("meet")
            await until(lambda: meet.seats == 2)
            await caller.send(b"two")
            caller.half_close()
            assert await caller.read_to_end() == sha256(b"one two")
        assert all(path(engine) == "direct" for engine in pair.ends)
        pair.cut("direct")
        await until(lambda: [event.path for event in told(pair.opens, PathChanged)].count("direct") == 2)
        await asked(pair)


async def test_both_paths_lost_while_the_rendezvous_restarts_is_waited_out() -> None:
    where = steady()
    async with rendezvous(listen=where) as meet, two(meet, direct=False) as pair:
        await pair.on("relay")
        async with pair.calling() as caller:
            await caller.send(b"one ")
            await meet.engine.restart_service("meet")
            await caller.send(b"two")
            caller.half_close()
            assert await caller.read_to_end() == sha256(b"one two")


# Others


async def test_who_has_another_secret_is_told_and_reaches_nobody() -> None:
    async with (
        rendezvous() as meet,
        running(end=meet.client(listen=FREE)) as opens,
        running(end=meet.client(target=HostPort("127.0.0.1", 1), secret=Secret("wr0ng"))) as stranger,
    ):
        for engine in (opens, stranger):
            warning = await hears(engine, PunchWarning, "with another secret")
            assert "wr0ng" not in warning.text()
            assert SECRET not in warning.text()
            assert not service(engine).attached


async def test_a_third_client_is_refused_and_comes_in_when_another_leaves() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        async with target(digest_at_end) as far, running(end=meet.client(target=far.address)) as third:
            assert service(third).state == "backoff"
            assert "full" in (service(third).error or "")
            await asked(pair)
            await pair.accepts.stop_service("end")
            await until(lambda: path(third) == "direct")
            await asked(pair)
            assert far.served == 1


@pytest.mark.parametrize("way", ["listen", "target"])
async def test_two_of_the_same_way_are_told_what_is_wrong(way: str) -> None:
    local = {"listen": FREE} if way == "listen" else {"target": HostPort("127.0.0.1", 1)}
    async with rendezvous() as meet:
        async with running(end=meet.client(**local)) as one, running(end=meet.client(**local)) as other:
            for engine in (one, other):
                await hears(engine, PunchWarning, "one of the two needs")
                await until(lambda engine=engine: [each for each in engine.node.attempts if each.state == "failed"])  # type: ignore[misc]
            await until(lambda: not meet.service.channels)
            assert not service(one).attached
            assert crashes(one, other, meet.engine) == []
        async with two(meet) as pair:
            await asked(pair)


@pytest.mark.parametrize("when", ["seated", "relay", "direct"])
@pytest.mark.parametrize("leaver", ["opens", "accepts"])
async def test_a_peer_that_vanishes_and_comes_back_is_met_again(
    when: str, leaver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if when != "direct":
        monkeypatch.setattr(round_module, "GO_TIME", 0.2)
    async with rendezvous() as meet, two(meet, direct=when == "direct") as pair:
        gone = getattr(pair, leaver)
        if when == "seated":
            await until(lambda: meet.seats == 2)
        else:
            await pair.on(when)
        for seat in list(meet.service.rooms.seats.values()):
            if when == "seated":
                seat.leave("cut by the test")
        before = {session for engine in pair.ends for session in service(engine).attached}
        monkeypatch.setattr(gone.node.farewells, "bid", lambda end, _: end.abort())  # it has no last words
        await gone.restart_service("end")
        await until(
            lambda: (
                all(len(service(engine).attached) == 1 for engine in pair.ends)
                and not before & {session for engine in pair.ends for session in service(engine).attached}
            )
        )
        await asked(pair)


async def test_a_link_that_is_kicked_is_followed_by_another() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        (session,) = service(pair.opens).attached
        async with pair.calling() as caller:
            await caller.send(b"never answered")
            pair.opens.kick(session.id, "kicked by the test")
            assert await caller.broken()
        await until(lambda: session not in service(pair.opens).attached)
        await pair.on("direct")
        await asked(pair)
        await until(lambda: all(len(service(engine).attached) == 1 for engine in pair.ends))


async def test_a_seat_that_is_kicked_comes_back_and_the_streams_notice_nothing() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        async with pair.calling() as caller:
            await caller.send(b"one ")
            for session in list(meet.service.attached):
                meet.engine.kick(session.id)
            await until(lambda: not meet.seats)
            await until(lambda: meet.seats == 2)
            caller.half_close()
            assert await caller.read_to_end() == sha256(b"one ")


async def test_changed_settings_make_another_link_and_what_is_open_finishes() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        async with pair.calling() as caller:
            await caller.send(b"one ")
            caller.half_close()
            assert await caller.read_to_end() == sha256(b"one ")
        await pair.accepts.apply({"end": meet.client(target=pair.far.address, direct=False)})
        await until(lambda: path(pair.opens) == path(pair.accepts) == "relay")
        await asked(pair)


async def test_an_end_that_stops_tells_the_other_and_leaves_nothing() -> None:
    async with rendezvous() as meet, two(meet) as pair:
        await pair.on("direct")
        async with pair.calling() as caller:
            await caller.send(b"never answered")
            await until(lambda: pair.far.open)
            await pair.accepts.stop_service("end")
            assert await caller.broken()
        await until(lambda: not service(pair.opens).attached and not service(pair.accepts).attached)
        await until(lambda: meet.seats == 1)
        assert service(pair.opens).state == "connecting"
        assert service(pair.accepts).state == "stopped"


async def test_a_rendezvous_that_is_not_there_is_tried_again_and_is_no_fault_of_ours() -> None:
    where = steady()
    async with rendezvous(listen=where) as meet:
        await meet.engine.stop_service("meet")
        settings = PunchClientSettings(
            server=HostPort(where.host, where.port), room=ROOM, secret=Secret(SECRET), listen=FREE
        )
        async with running(end=settings) as engine:
            assert service(engine).state == "backoff"
            assert crashes(engine) == []
            await meet.engine.start_service("meet")
            await until(lambda: meet.seats == 1)
            assert crashes(engine) == []


# TLS


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "relay"])
async def test_the_rendezvous_may_have_tls_around_all_that(direct: bool) -> None:
    async with rendezvous(tls=TLSSettings()) as meet:
        pinned = TLSSettings(fingerprint=Fingerprint(meet.fingerprint))
        async with two(meet, direct=direct, tls=pinned) as pair:
            await pair.on("direct" if direct else "relay")
            await asked(pair, BULK)


async def test_another_rendezvous_than_the_pinned_one_is_final() -> None:
    async with rendezvous(tls=TLSSettings()) as meet:
        wrong = TLSSettings(fingerprint=Fingerprint("ab" * 32))
        async with running(end=meet.client(listen=FREE, tls=wrong)) as engine:
            await until(lambda: service(engine).state == "failed")
            assert crashes(engine) == []
            assert not meet.seats
