"""The clients of channel servers over the control socket: who sends to whom, what was lost, and changing that."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from channel_peers import At, hub
from controlled import controlled
from jump_peers import jump_server
from loopback import address_of, hears, running
from tunnelconsole.control import messages
from tunnelconsole.control.answers import RECEIVERS_TOLD, receivers_told
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.messages import ChidRow, Watch, encode
from tunnelconsole.engine.events import ReceiversChanged
from tunnelconsole.engine.services.channel.server import ChannelServerSettings
from tunnelconsole.engine.units import Size
from tunnelconsole.engine.wire.channel_lines import MAX_RECEIVERS
from tunnelconsole.errors import RequestRefused
from waiting import PATIENCE, until

FLOOD = 64 << 20
"""Bytes that are more than every buffer on the way to a client that does not read."""


async def chids(client: ControlClient, service: str = "", session: str = "") -> list[ChidRow]:
    reply = await client.ask(messages.GetChids(service, session))
    assert isinstance(reply, messages.Chids)
    return reply.rows


def session_of(at: At, chid: str) -> str:
    session = at.party(chid).session
    assert session is not None
    return session.id


async def test_each_client_says_who_it_is_to_whom_it_sends_and_what_moved(tmp_path: Path) -> None:
    async with (
        hub() as at,
        controlled(at.engine, tmp_path) as client,
        at.client("a", ["b", "gone"]) as a,
        at.client("b") as b,
    ):
        await a.send(b"hello")
        assert await b.read(5) == b"hello"
        await until(lambda: at.party("a").undelivered)
        b.half_close()
        await until(lambda: at.party("b").ended)
        first, second = await chids(client)
        assert (first.chid, first.service, first.peer, first.identity) == ("a", "hub", a.name, "anonymous")
        assert (first.receivers, first.senders, first.ended) == (["b", "gone"], 0, False)
        assert (first.bytes_in, first.bytes_out, first.undelivered, first.dropped) == (5, 0, 5, 0)
        assert (second.receivers, second.senders, second.ended) == ([], 1, True)
        assert (second.bytes_in, second.bytes_out) == (0, 5)
        assert first.session == session_of(at, "a")
        assert first.channel in at.engine.node.sessions.channels
        assert first.since > 0


async def test_the_rows_of_one_service_can_be_asked_for_alone(tmp_path: Path) -> None:
    async with hub() as at, controlled(at.engine, tmp_path) as client, at.client("a"):
        assert [row.chid for row in await chids(client, "hub")] == ["a"]
        with pytest.raises(RequestRefused, match="there is no service hbu; services are: hub"):
            await chids(client, "hbu")


async def test_many_clients_are_all_told(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(40)]
    async with hub() as at, controlled(at.engine, tmp_path) as client:
        callers = [at.client(name, names) for name in names]
        for caller in callers:
            await caller.__aenter__()
        rows = await chids(client)
        assert [row.chid for row in rows] == names
        assert [row.senders for row in rows] == [39] * 40
        for caller in callers:
            await caller.__aexit__(None, None, None)


async def test_a_watcher_sees_chids_when_it_asks_for_them(tmp_path: Path) -> None:
    async with hub() as at, controlled(at.engine, tmp_path) as client, at.client("a"):
        updates = client.watch(Watch(["chids"]))
        assert [row.chid for row in (await anext(updates)).chids or []] == ["a"]
        await client.change_watch(Watch(["channels"]))
        while (update := await anext(updates)).chids is not None:
            continue
        assert update.channels is not None


async def test_a_sender_that_is_held_up_says_by_whom(tmp_path: Path) -> None:
    async with (
        hub() as at,
        controlled(at.engine, tmp_path) as client,
        at.client("a", ["b", "c"]) as a,
        at.client("b", ["x"]) as b,
        at.client("c", ["x"]),
        asyncio.TaskGroup() as tasks,
    ):
        sent = tasks.create_task(a.send(bytes(FLOOD)))
        read = tasks.create_task(b.read(FLOOD))
        async with asyncio.timeout(
            PATIENCE
        ):  # whoever is slower for a moment, in the end it is the one that never reads
            while [row.waits_for for row in await chids(client)] != ["c", "", ""]:
                continue
        sent.cancel()
        read.cancel()


async def test_receivers_are_changed_with_an_event(tmp_path: Path) -> None:
    async with (
        hub() as at,
        controlled(at.engine, tmp_path) as client,
        at.client("a", ["b"]) as a,
        at.client("b", ["x"]) as b,
        at.client("c", ["x"]) as c,
    ):
        done = await client.ask(messages.SetReceivers(session_of(at, "a"), ["c"]))
        assert done == messages.Done("a now sends to c")
        await a.send(b"for c")
        assert await c.read(5) == b"for c"
        await client.ask(messages.SetReceivers(session_of(at, "a"), []))
        await a.send(b"for all")
        assert await b.read(7) == await c.read(7) == b"for all"
        event = await hears(at.engine, ReceiversChanged, "a now sends to all")
        assert event.session == session_of(at, "a")


async def test_as_many_receivers_as_there_may_be_fit_into_a_request(tmp_path: Path) -> None:
    receivers = [f"{number:04}".rjust(128, "x") for number in range(1024)]
    async with hub() as at, controlled(at.engine, tmp_path) as client, at.client("a", ["b"]):
        await client.ask(messages.SetReceivers(session_of(at, "a"), receivers))
        (row,) = await chids(client, session=session_of(at, "a"))
        assert (row.receivers, row.more_receivers) == (receivers, 0)


async def test_of_very_many_receivers_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(1000)]
    async with (
        hub() as at,
        controlled(at.engine, tmp_path) as client,
        at.client("a", names),
        at.client("c999", ["a"]),
        at.client("c500"),
    ):
        first, second, third = await chids(client)
        assert first.receivers == ["c500", "c999", *names[: RECEIVERS_TOLD - 2]]
        assert first.more_receivers == 1000 - RECEIVERS_TOLD
        assert (second.receivers, second.more_receivers) == (["a"], 0)
        assert (third.receivers, third.more_receivers) == ([], 0)
        (alone,) = await chids(client, session=first.session)
        assert (alone.receivers, alone.more_receivers) == (names, 0)
        assert await chids(client, session="s-of-nobody") == []


@pytest.mark.parametrize(
    ("clients", "told"), [(0, 128), (1, 128), (128, 128), (129, 127), (1000, 16), (20_000, 1), (100_000, 1)]
)
def test_the_more_clients_there_are_the_fewer_receivers_of_each_are_named(clients: int, told: int) -> None:
    assert receivers_told(clients) == told


async def test_a_hostile_crowd_with_long_names_does_not_outgrow_what_a_console_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = 60
    monkeypatch.setattr(messages, "MAX_ANSWER", messages.MAX_ANSWER // 8)
    names = [f"{number:04}".rjust(70, "x").ljust(128, '"') for number in range(MAX_RECEIVERS)]
    assert len(encode(names)) * crowd > messages.MAX_ANSWER
    async with hub() as at, controlled(at.engine, tmp_path) as client, AsyncExitStack() as stack:
        for number in range(crowd):
            await stack.enter_async_context(at.client(f"{number:02}".ljust(128, "x"), names))
        rows = await chids(client)
        assert [len(row.receivers) + row.more_receivers for row in rows] == [MAX_RECEIVERS] * crowd
        assert len(encode(rows)) < messages.MAX_ANSWER / 2
        update = await anext(client.watch(Watch(["chids", "channels", "sessions"])))
        assert update.chids is not None
        assert [row.receivers for row in update.chids] == [row.receivers for row in rows]


async def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with hub() as at, controlled(at.engine, tmp_path) as client, at.client("a", ["b"]):
        with pytest.raises(RequestRefused, match="there is no session s99"):
            await client.ask(messages.SetReceivers("s99", ["b"]))
        with pytest.raises(RequestRefused, match="a chid is not empty"):
            await client.ask(messages.SetReceivers(session_of(at, "a"), ["b", ""]))


async def test_a_session_of_another_kind_has_no_receivers() -> None:
    async with running(home=jump_server()) as engine:
        service = engine.services["home"]
        session = service.open_session("192.0.2.1:5000", lambda _reason: None)
        with pytest.raises(RequestRefused, match=f"session {session.id} is of a jump-server, which has no receivers"):
            engine.set_receivers(session.id, [])
        service.close_session(session)


async def test_clients_of_a_service_whose_settings_changed_are_told_and_steered_until_they_are_gone() -> None:
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]) as b:
        session = session_of(at, "a")
        settings = at.service.settings
        await at.engine.apply({"hub": ChannelServerSettings(listen=settings.listen, hold=Size(1))})
        assert address_of(at.engine, "hub") != at.address
        assert at.engine.set_receivers(session, ["b", "c"]) == "a now sends to b, c"
        await a.send(b"still here")
        assert await b.read(10) == b"still here"
