"""Attempts at hole punches over the control socket: what is told of them, and beginning another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controlled import controlled
from jump_peers import jump_server
from loopback import address_of, running
from tunnelconsole.control import messages
from tunnelconsole.control.attempts import AttemptRow, Attempts, GetAttempts, PunchAgain
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.messages import Watch, encode
from tunnelconsole.engine.attempts import ATTEMPTS_KEPT, CANDIDATES_SHOWN, MOMENTS_KEPT
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.punch.client import PunchClientSettings
from tunnelconsole.engine.services.punch.server import PunchServerSettings
from tunnelconsole.engine.settings import HostPort, ListenAddress, PortRange, Secret
from tunnelconsole.errors import RequestRefused
from waiting import until

ANYWHERE = ListenAddress("127.0.0.1", 0)


async def attempts(client: ControlClient, service: str = "", key: str = "") -> list[AttemptRow]:
    reply = await client.ask(GetAttempts(service, key))
    assert isinstance(reply, Attempts)
    return reply.rows


def punch_client(server: str, *, direct: bool = True, leads: bool = False) -> PunchClientSettings:
    """One end of a pair; its local end is a listener, or where nobody listens."""
    host_port = HostPort.parse(server)
    here = {"listen": ANYWHERE} if leads else {"target": HostPort("127.0.0.1", 1)}
    return PunchClientSettings(server=host_port, room="desk", secret=Secret("a long one"), direct=direct, **here)


@asynccontextmanager
async def rendezvous() -> AsyncIterator[tuple[Engine, str]]:
    """An engine with a rendezvous, and where that is."""
    settings = PunchServerSettings(listen=ANYWHERE, observe_ports=PortRange.parse("0"))
    async with running(meet=settings) as engine:
        yield engine, address_of(engine, "meet")


async def settled(engine: Engine, state: str) -> None:
    """Waits until both ends have an attempt that came to this, and their links go that way."""
    ends = {"here", "there"}
    await until(lambda: {each.service for each in engine.node.attempts if each.state == state} == ends)
    await until(lambda: all(engine.services[end].notes.get("path") == state for end in ends))


async def test_an_attempt_is_told_with_its_candidates_and_its_timeline(tmp_path: Path) -> None:
    async with rendezvous() as (engine, server), controlled(engine, tmp_path) as client:
        ends = {"here": punch_client(server, leads=True), "there": punch_client(server)}
        await engine.apply({"meet": engine.services["meet"].settings, **ends})
        await settled(engine, "direct")
        (row,) = await attempts(client, "here")
        assert (row.room, row.state, row.error) == ("desk", "direct", "")
        assert row.method in ("host", "mapped", "accepted")
        assert row.peer.startswith("127.0.0.1:")
        assert row.seconds is not None
        assert row.ours.mapping == row.theirs.mapping == "none"
        assert {each.side for each in row.candidates} == {"ours", "theirs"}
        assert "won" in {each.fate for each in row.candidates}
        assert row.timeline[0].what == "observing"
        assert row.timeline[-1].what == "direct"
        assert [each.ms for each in row.timeline] == sorted(each.ms for each in row.timeline)
        assert [alone.id for alone in await attempts(client, key=row.id)] == [row.id]


async def test_a_watcher_is_told_what_attempts_come_to_and_no_more(tmp_path: Path) -> None:
    async with running(home=jump_server()) as engine, controlled(engine, tmp_path) as client:
        attempt = engine.node.attempts.begin("home", "desk")
        attempt.candidate("192.0.2.1:5000", "host", "theirs")
        attempt.enter("observing")
        (row,) = (await anext(client.watch(Watch(["attempts"])))).attempts or []
        assert (row.candidates, row.timeline, row.more_candidates, row.more_moments) == ([], [], 1, 1)
        (whole,) = await attempts(client)
        assert (len(whole.candidates), len(whole.timeline)) == (1, 1)
        assert (whole.more_candidates, whole.more_moments) == (0, 0)


async def test_as_much_as_may_be_kept_is_told_a_watcher_in_little(tmp_path: Path) -> None:
    async with running(home=jump_server()) as engine, controlled(engine, tmp_path) as client:
        for _ in range(ATTEMPTS_KEPT):
            attempt = engine.node.attempts.begin("home", "x" * 64)
            for number in range(CANDIDATES_SHOWN + 1):
                attempt.rejected(f"[2001:db8::{number:x}]:40000", "host", "r" * 100)
            for number in range(MOMENTS_KEPT + 1):
                attempt.note("refused", f"[2001:db8::{number:x}]:40000")
        update = await anext(client.watch(Watch(["attempts"])))
        assert len(update.attempts or []) == ATTEMPTS_KEPT
        assert len(encode(update)) < 256 * 1024
        rows = await attempts(client)
        assert {(len(row.candidates), len(row.timeline)) for row in rows} == {(CANDIDATES_SHOWN, MOMENTS_KEPT)}
        assert len(encode(rows)) < messages.MAX_ANSWER / 4


async def test_what_is_asked_for_has_to_be_there(tmp_path: Path) -> None:
    async with running(home=jump_server()) as engine, controlled(engine, tmp_path) as client:
        with pytest.raises(RequestRefused, match="there is no attempt p7; only the last are kept"):
            await attempts(client, key="p7")
        with pytest.raises(RequestRefused, match="there is no service hoem"):
            await attempts(client, "hoem")
        with pytest.raises(RequestRefused, match="home is a jump-server, which punches nothing"):
            await client.ask(PunchAgain("home"))


async def test_another_round_is_refused_with_the_reason_where_it_would_be_of_no_use(tmp_path: Path) -> None:
    async with rendezvous() as (engine, server), controlled(engine, tmp_path) as client:
        meet = engine.services["meet"].settings
        await engine.apply({"meet": meet, "here": punch_client(server, leads=True)})
        await until(lambda: any(each.service == "here" for each in engine.node.attempts))
        with pytest.raises(RequestRefused, match="nobody else is in room desk"):
            await client.ask(PunchAgain("here"))
        ends = {"here": punch_client(server, leads=True), "there": punch_client(server)}
        await engine.apply({"meet": meet, **ends})
        await settled(engine, "direct")
        with pytest.raises(RequestRefused, match="room desk has a direct path already"):
            await client.ask(PunchAgain("here"))
        await engine.stop_service("here")
        with pytest.raises(RequestRefused, match="here does not run, it is stopped"):
            await client.ask(PunchAgain("here"))


async def test_a_client_that_is_to_stay_on_the_relay_says_so(tmp_path: Path) -> None:
    async with rendezvous() as (engine, server), controlled(engine, tmp_path) as client:
        meet = engine.services["meet"].settings
        ends = {"here": punch_client(server, direct=False, leads=True), "there": punch_client(server, direct=False)}
        await engine.apply({"meet": meet, **ends})
        await until(lambda: engine.services["here"].notes.get("path") == "relay")
        with pytest.raises(RequestRefused, match="room desk is to stay on the relay"):
            await client.ask(PunchAgain("here"))
        assert await attempts(client) == []


async def test_a_link_on_the_relay_begins_another_round_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.punch.round.judge", lambda _offered, _around: [])
    async with rendezvous() as (engine, server), controlled(engine, tmp_path) as client:
        ends = {"here": punch_client(server, leads=True), "there": punch_client(server)}
        await engine.apply({"meet": engine.services["meet"].settings, **ends})
        await settled(engine, "relay")
        monkeypatch.undo()
        done = await client.ask(PunchAgain("here"))
        assert done == messages.Done("here looks for a direct way to the other end of room desk")
        await settled(engine, "direct")
        states = [row.state for row in await attempts(client, "here")]
        assert states == ["relay", "direct"]


async def test_the_clock_of_an_attempt_starts_when_the_other_side_is_there() -> None:
    async with running(home=jump_server()) as engine:
        attempt = engine.node.attempts.begin("home", "desk")
        attempt._began -= 60
        attempt.enter("observing")
        assert attempt.waited >= 60
        assert attempt.timeline[0].ms < 60_000
        attempt.end("failed", reason="nobody came through")
        assert attempt.seconds is not None
        assert attempt.seconds < 60


async def test_strangers_do_not_push_out_what_decides_an_attempt() -> None:
    async with running(home=jump_server()) as engine:
        attempt = engine.node.attempts.begin("home", "desk")
        attempt.candidate("192.0.2.1:5000", "mapped", "theirs")
        for port in range(2 * MOMENTS_KEPT):
            attempt.accepted(f"198.51.100.9:{port}")
        attempt.fate("192.0.2.1:5000", "won")
        attempt.end("direct", method="mapped")
        assert [moment.what for moment in attempt.timeline[-2:]] == ["won", "direct"]
        assert len(attempt.timeline) == MOMENTS_KEPT + 2
