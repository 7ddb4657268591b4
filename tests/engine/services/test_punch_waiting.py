"""What is seen of a punch client that waits for the other end: why, for how long, and nothing that was never tried."""

from __future__ import annotations

import asyncio

import pytest

from loopback import FREE, hears, running, sha256, steady
from punch_peers import rendezvous
from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.punch_events import PunchWarning
from tunnelconsole.engine.services.punch import pairing
from tunnelconsole.engine.services.punch import round as round_module
from tunnelconsole.engine.services.punch.client import PunchClient
from tunnelconsole.engine.services.punch.observe import Observation
from tunnelconsole.engine.settings import HostPort, Secret
from tunnelconsole.engine.wire.punch_room import RoomKey
from waiting import until

NOWHERE = HostPort("127.0.0.1", 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost no tenth of a second, and nobody waits long before trying again."""
    monkeypatch.setattr(pairing, "room_key", lambda room, secret: RoomKey(room, sha256(f"{room} {secret}".encode())))
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)


def end(engine: Engine) -> PunchClient:
    """The client of an engine."""
    found = engine.services["end"]
    assert isinstance(found, PunchClient)
    return found


def attempts(engine: Engine) -> list[Attempt]:
    """All that are kept."""
    return list(engine.node.attempts)


async def test_a_wrong_secret_shows_at_the_service_and_at_the_attempt_that_waits() -> None:
    async with (
        rendezvous() as meet,
        running(end=meet.client(listen=FREE)) as one,
        running(end=meet.client(target=NOWHERE, secret=Secret("wr0ng"))) as other,
    ):
        for engine in (one, other):
            await hears(engine, PunchWarning, "with another secret")
            assert end(engine).state == "connecting"
            assert "with another secret" in (end(engine).error or "")
            (attempt,) = attempts(engine)
            assert (attempt.state, attempt.reason) == ("waiting", end(engine).error)


async def test_what_was_wrong_is_forgotten_once_there_is_a_link() -> None:
    async with rendezvous() as meet, running(end=meet.client(listen=FREE)) as one:
        async with running(end=meet.client(target=NOWHERE, secret=Secret("wr0ng"))):
            await until(lambda: end(one).error)
        async with running(end=meet.client(target=NOWHERE)) as other:
            await until(lambda: end(one).state == end(other).state == "connected")
            assert end(one).error is None
            await until(lambda: [each.state for each in attempts(one)] == ["direct"])
            assert attempts(one)[0].reason == ""


@pytest.mark.parametrize("way", ["listen", "target"])
async def test_two_of_the_same_way_show_it_at_both_services(way: str) -> None:
    local = {"listen": FREE} if way == "listen" else {"target": NOWHERE}
    async with (
        rendezvous() as meet,
        running(end=meet.client(**local)) as one,
        running(end=meet.client(**local)) as other,
    ):
        for engine in (one, other):
            await until(lambda engine=engine: "one of the two needs" in (end(engine).error or ""))  # type: ignore[misc]


async def test_who_stops_while_it_waits_leaves_no_attempt() -> None:
    async with rendezvous() as meet, running(end=meet.client(listen=FREE)) as engine:
        await until(lambda: [each.state for each in attempts(engine)] == ["waiting"])
        await engine.stop_service("end")
        assert attempts(engine) == []


async def test_a_rendezvous_that_restarts_while_it_is_waited_in_leaves_one_attempt() -> None:
    async with rendezvous(listen=steady()) as meet, running(end=meet.client(listen=FREE)) as engine:
        for _ in range(3):
            await until(lambda: meet.seats == 1 and attempts(engine))
            await meet.engine.restart_service("meet")
        await until(lambda: meet.seats == 1 and attempts(engine))
        assert [each.state for each in attempts(engine)] == ["waiting"]


async def test_a_rendezvous_that_restarts_beside_a_direct_link_adds_no_attempt() -> None:
    async with (
        rendezvous(listen=steady()) as meet,
        running(end=meet.client(listen=FREE)) as one,
        running(end=meet.client(target=NOWHERE)) as other,
    ):
        await until(lambda: end(one).notes.get("path") == end(other).notes.get("path") == "direct")
        for _ in range(2):
            await until(lambda: meet.seats == 2)
            await meet.engine.restart_service("meet")
        await until(lambda: meet.seats == 2)
        for engine in (one, other):
            assert [each.state for each in attempts(engine)] == ["direct"]


async def test_who_is_left_by_the_other_waits_for_it_again() -> None:
    async with rendezvous() as meet, running(end=meet.client(listen=FREE)) as one:
        async with running(end=meet.client(target=NOWHERE)):
            await until(lambda: [each.state for each in attempts(one)] == ["direct"])
        await until(lambda: [each.state for each in attempts(one)] == ["direct", "waiting"])


async def test_a_round_that_is_under_way_when_this_end_stops_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    held = asyncio.Event()

    async def hold(*_: object) -> Observation:
        await held.wait()
        return Observation()

    monkeypatch.setattr(round_module, "observe", hold)
    async with (
        rendezvous() as meet,
        running(end=meet.client(listen=FREE)) as one,
        running(end=meet.client(target=NOWHERE)) as other,
    ):
        await until(lambda: all(attempts(each) and attempts(each)[0].state == "observing" for each in (one, other)))
        await one.stop_service("end")
        assert [(each.state, each.reason) for each in attempts(one)] == [("left", "this end was stopped")]
        await until(lambda: attempts(other)[0].over)
        assert attempts(other)[0].reason == "the other side left"


async def test_the_rendezvous_shows_who_is_in_which_room() -> None:
    async with rendezvous() as meet, running(end=meet.client(listen=FREE, room="attic")):
        await until(lambda: meet.seats == 1)
        assert [session.identity for session in meet.service.attached] == ["attic"]
