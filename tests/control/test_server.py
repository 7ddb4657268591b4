"""The engine's end of the control socket, with real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tunnelconsole.control import answers, messages, origins, server
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.messages import Refused, Watch
from tunnelconsole.control.snapshot import Snapshot
from tunnelconsole.engine.bus import Reader
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import ConfigRefused, ConfigReloaded, PeerRefused
from tunnelconsole.engine.meters import HISTORY, Meter
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.sessions import Channel, Session
from tunnelconsole.engine.settings import ListenAddress, Secret
from tunnelconsole.engine.store import Store, StoredEvent
from tunnelconsole.errors import ConfigError, EngineUnreachable, ListenFailed, RequestRefused
from waiting import until

FREE_PORT = ListenAddress("127.0.0.1", 0)


class StillFlow:
    """A channel's bytes that do not move."""

    path = "splice"

    def __init__(self, bytes_in: int = 0, bytes_out: int = 0) -> None:
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.cut = ""

    def abort(self, reason: str) -> None:
        self.cut = reason


@dataclass
class Node:
    """A running engine with one jump server, ``home``, and its control socket."""

    engine: Engine
    server: server.ControlServer
    path: Path
    stopped: list[str]
    reloaded: str | ConfigError = "1 changed"

    async def ask(self, request: messages.Request) -> messages.Reply:
        async with await ControlClient.connect(self.path) as client:
            return await client.ask(request)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path), limit=messages.MAX_ANSWER)

    def open_session(self, flows: list[StillFlow] | None = None) -> Session:
        ended: list[str] = []
        sessions = self.engine.node.sessions
        session = sessions.open_session("home", "jump-server", "192.0.2.1:5000", "alice", ended.append)
        for flow in flows or []:
            sessions.open_channel(session, "www.example.com:443", flow)
        return session

    def reasons(self) -> list[str]:
        """Why peers were refused."""
        return [
            record.event.reason for record in self.engine.node.bus.recent() if isinstance(record.event, PeerRefused)
        ]


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path short enough for a socket."""
    return tmp_path_factory.mktemp("s") / "control.sock"


@pytest_asyncio.fixture
async def node(path: Path) -> AsyncIterator[Node]:
    engine = Engine(
        {"home": JumpServerSettings(listen=FREE_PORT, secret=Secret("hush"))}, state_dir=path.parent / "state"
    )

    stopped: list[str] = []

    async def reload() -> str:
        if isinstance(made.reloaded, ConfigError):
            raise made.reloaded
        return made.reloaded

    control = server.ControlServer(
        engine,
        path,
        version="9.9",
        config=lambda: "/etc/c.toml",
        reload=reload,
        stop=stopped.append,
    )
    made = Node(engine, control, path, stopped)
    async with engine:
        await engine.settled()
        await control.serve()
        yield made
        await control.close()


def ask_line(request: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"id": 7, "request": request, "protocol": messages.PROTOCOL, **more}).encode() + b"\n"


async def refusal(node: Node, line: bytes) -> messages.Answer:
    """Sends something wrong, and returns the answer once the connection was closed after it."""
    reader, writer = await node.connect()
    writer.write(line)
    answer = messages.decode_answer(await reader.readline())
    assert isinstance(answer.reply, Refused)
    with_nothing_more = await reader.read()
    assert with_nothing_more == b""
    writer.close()
    return answer


class TestQuestions:
    async def test_the_status_is_the_node_in_one_row(self, node: Node) -> None:
        node.open_session([StillFlow(3, 4), StillFlow(30, 40)])
        status = await node.ask(messages.GetStatus())
        assert isinstance(status, messages.Status)
        assert (status.version, status.config, status.draining, status.faults) == ("9.9", "/etc/c.toml", False, 0)
        assert (status.services, status.sessions, status.channels) == (1, 1, 2)
        assert (status.bytes_in, status.bytes_out) == (33, 44)
        assert status.memory > 1_000_000
        assert status.cpu >= 0

    async def test_a_service_says_where_it_listens(self, node: Node) -> None:
        services = await node.ask(messages.GetServices())
        assert isinstance(services, messages.Services)
        (row,) = services.rows
        assert (row.name, row.kind, row.state, row.error) == ("home", "jump-server", "listening", None)
        assert row.address == node.engine.services["home"].address

    async def test_sessions_and_channels_are_those_asked_for(self, node: Node) -> None:
        first = node.open_session([StillFlow(1, 2)])
        node.open_session([StillFlow(), StillFlow()])
        sessions = await node.ask(messages.GetSessions(service="home"))
        assert isinstance(sessions, messages.Sessions)
        assert [(row.id, row.identity, row.channels) for row in sessions.rows] == [
            ("s1", "alice", 1),
            ("s2", "alice", 2),
        ]
        channels = await node.ask(messages.GetChannels())
        assert isinstance(channels, messages.Channels)
        assert len(channels.rows) == 3
        channels = await node.ask(messages.GetChannels(session=first.id))
        assert isinstance(channels, messages.Channels)
        (row,) = channels.rows
        assert (row.service, row.label, row.bytes_in, row.bytes_out, row.path) == (
            "home",
            "www.example.com:443",
            1,
            2,
            "splice",
        )

    @pytest.mark.parametrize("request_", [messages.GetSessions("hom"), messages.GetChannels("hom")])
    async def test_a_service_that_there_is_not_is_named_with_those_there_are(
        self, node: Node, request_: messages.Request
    ) -> None:
        with pytest.raises(RequestRefused, match="there is no service hom; services are: home"):
            await node.ask(request_)

    async def test_events_are_the_newest_oldest_first(self, node: Node) -> None:
        for number in range(5):
            node.engine.node.bus.publish(ConfigReloaded(summary=str(number)))
        events = await node.ask(messages.GetEvents(limit=2))
        assert isinstance(events, messages.Events)
        assert [row.text[-1] for row in events.rows] == ["3", "4"]
        later = await node.ask(messages.GetEvents(after=events.rows[0].id))
        assert isinstance(later, messages.Events)
        assert later.rows == events.rows[1:]

    async def test_events_of_a_level_are_counted_without_those_below(self, node: Node) -> None:
        for number in range(3):
            node.engine.node.bus.publish(ConfigRefused(reason=str(number)))
            node.engine.node.bus.publish(ConfigReloaded(summary=str(number)))
        events = await node.ask(messages.GetEvents(limit=2, level="warning"))
        assert isinstance(events, messages.Events)
        assert [(row.type, row.text[-1]) for row in events.rows] == [("config-refused", "1"), ("config-refused", "2")]

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_no_events_can_be_asked_for(self, node: Node, limit: int) -> None:
        assert await node.ask(messages.GetEvents(limit=limit)) == messages.Events([])

    async def test_a_table_of_many_slices_is_complete_and_in_order(self, node: Node) -> None:
        node.open_session([StillFlow() for _ in range(3 * answers.SLICE + 1)])
        channels = await node.ask(messages.GetChannels())
        assert isinstance(channels, messages.Channels)
        assert [row.id for row in channels.rows] == [f"c{number}" for number in range(1, 3 * answers.SLICE + 2)]

    async def test_the_loop_turns_while_a_big_table_is_made(self, node: Node) -> None:
        node.open_session([StillFlow() for _ in range(10 * answers.SLICE)])
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(turn)

        handle = asyncio.get_running_loop().call_soon(turn)
        made = await node.server.answers.answer(messages.GetChannels())
        handle.cancel()
        assert isinstance(made, dict)
        assert turns >= 10

    async def test_questions_sent_together_are_answered_in_turn(self, node: Node) -> None:
        reader, writer = await node.connect()
        writer.write(ask_line({"type": "get-status"}, id=1) + ask_line({"type": "get-services"}, id=2))
        assert [messages.decode_answer(await reader.readline()).id for _ in range(2)] == [1, 2]
        writer.close()

    async def test_events_of_earlier_runs_come_first_with_negative_numbers(self, path: Path) -> None:
        store = Store(path.parent / "state.sqlite3")
        await store.open()
        await store.save({}, [StoredEvent(1.0, "error", "crashed", "home", text) for text in ("old", "older")])
        await store.close()
        async with Engine(state_dir=path.parent) as engine:
            node = Node(engine, _control(engine, path), path, [])
            await node.server.serve()
            engine.node.bus.publish(ConfigReloaded(summary="new"))
            events = await node.ask(messages.GetEvents())
            assert isinstance(events, messages.Events)
            assert [(row.id, row.text) for row in events.rows][:2] == [(-2, "old"), (-1, "older")]
            assert events.rows[2].id == 1
            events = await node.ask(messages.GetEvents(after=-2, limit=3))
            assert isinstance(events, messages.Events)
            assert [row.id for row in events.rows] == [-1, 1, 2]
            await node.server.close()


class TestActions:
    async def test_a_service_is_stopped_and_started(self, node: Node) -> None:
        done = await node.ask(messages.StopService("home"))
        assert done == messages.Done("service home is stopped")
        assert node.engine.services["home"].state == "stopped"
        assert isinstance(await node.ask(messages.StartService("home")), messages.Done)
        await node.engine.settled()
        assert isinstance(await node.ask(messages.RestartService("home")), messages.Done)

    async def test_what_the_engine_refuses_is_refused_with_its_reason(self, node: Node) -> None:
        with pytest.raises(RequestRefused, match="there is no service away; services are: home"):
            await node.ask(messages.StopService("away"))
        with pytest.raises(RequestRefused, match="there is no session s9"):
            await node.ask(messages.KickSession("s9"))

    async def test_a_session_is_kicked_and_a_channel_closed(self, node: Node) -> None:
        flow = StillFlow()
        session = node.open_session([flow])
        assert await node.ask(messages.CloseChannel("c1")) == messages.Done(
            "channel c1 to www.example.com:443 is closed"
        )
        assert flow.cut == "closed by an operator"
        ended: list[str] = []
        session.end = ended.append
        assert await node.ask(messages.KickSession("s1")) == messages.Done("session s1 of 192.0.2.1:5000 is ended")
        assert ended == ["kicked by an operator"]

    async def test_a_reload_says_what_it_did_or_every_mistake(self, node: Node) -> None:
        assert await node.ask(messages.ReloadConfig()) == messages.Done("1 changed")
        node.reloaded = ConfigError(["service.a: wrong", "service.b: wrong too"])
        with pytest.raises(RequestRefused) as caught:
            await node.ask(messages.ReloadConfig())
        assert caught.value.message == "service.a: wrong\nservice.b: wrong too"

    async def test_stopping_is_left_to_the_engines_owner(self, node: Node) -> None:
        assert isinstance(await node.ask(messages.StopEngine()), messages.Done)
        assert node.stopped == ["asked over the control socket"]

    async def test_a_fault_of_the_engine_is_told_and_ends_nothing(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with await ControlClient.connect(node.path) as client:
            monkeypatch.setattr(node.engine, "kick", lambda session: 1 // 0)
            with pytest.raises(RequestRefused, match="ZeroDivisionError"):
                await client.ask(messages.KickSession("s1"))
            events = await client.ask(messages.GetEvents())
        assert isinstance(events, messages.Events)
        assert "crashed" in [row.type for row in events.rows]


class TestWatching:
    async def test_an_update_holds_the_topics_asked_for_and_no_others(self, node: Node) -> None:
        node.open_session([StillFlow()])
        async with await ControlClient.connect(node.path) as client:
            update = await anext(client.watch(Watch(["services", "channels"])))
        assert update.status.channels == 1
        assert [row.name for row in update.services or []] == ["home"]
        assert [row.id for row in update.channels or []] == ["c1"]
        assert (update.sessions, update.events, update.history) == (None, None, None)

    async def test_watchers_share_what_is_made_of_a_moment(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "FRESH", 0.5)
        channels, made = Snapshot.channels, list[str]()

        def counted(snapshot: Snapshot, service: str = "", session: str = "") -> list[Channel]:
            made.append(service)
            return channels(snapshot, service, session)

        monkeypatch.setattr(Snapshot, "channels", counted)
        async with await ControlClient.connect(node.path) as one, await ControlClient.connect(node.path) as other:
            watches = [client.watch(Watch(["channels"])) for client in (one, other)]
            first, second = await asyncio.gather(*(anext(watch) for watch in watches))
            assert (first.channels, second.channels, made) == ([], [], [""])
            node.open_session([StillFlow()])
            async for update in watches[0]:
                if update.channels:
                    return  # it does not stay as it was

    async def test_events_come_once_and_none_is_missed_when_the_watch_changes(self, node: Node) -> None:
        async with await ControlClient.connect(node.path) as client:
            updates = client.watch(Watch(["events"]))
            await anext(updates)
            seen: list[str] = []
            for number in range(3):
                node.engine.node.bus.publish(ConfigReloaded(summary=str(number)))
                await client.change_watch(Watch(["events", "services"]))
                update = await anext(updates)
                assert update.events is not None
                seen += [row.text[-1] for row in update.events.rows]
            while len(seen) < 3:
                seen += [row.text[-1] for row in ((await anext(updates)).events or messages.Events([])).rows]
        assert seen == ["0", "1", "2"]

    async def test_a_changed_watch_is_answered_under_its_own_number(self, node: Node) -> None:
        reader, writer = await node.connect()
        writer.write(ask_line({"type": "watch", "topics": [], "interval": 60.0}, id=1))
        assert messages.decode_answer(await reader.readline()).id == 1
        writer.write(ask_line({"type": "watch", "topics": ["history"]}, id=2))
        answer = messages.decode_answer(await reader.readline())
        assert answer.id == 2
        assert isinstance(answer.reply, messages.Update)
        assert answer.reply.history is not None
        writer.close()

    async def test_a_topic_that_there_is_not_is_refused_with_those_there_are(self, node: Node) -> None:
        async with await ControlClient.connect(node.path) as client:
            with pytest.raises(RequestRefused, match="no topic weather; topics are: services, sessions"):
                await anext(client.watch(Watch(["weather"])))
            assert isinstance(await client.ask(messages.GetStatus()), messages.Status)

    async def test_one_services_sessions_channels_and_history_can_be_watched_alone(self, node: Node) -> None:
        node.open_session([StillFlow()])
        async with await ControlClient.connect(node.path) as client:
            update = await anext(client.watch(Watch(["sessions", "channels", "history"], service="other")))
        assert (update.sessions, update.channels) == ([], [])
        assert update.history is not None
        assert update.history.rate_in == []

    async def test_histories_begin_with_what_is_kept_and_go_on_with_what_is_new(self, node: Node) -> None:
        meters = node.engine.node.meters
        for rate in range(HISTORY + 5):
            meters.service("home").add(rate, 2 * rate)
            meters.sample(1.0)
        watch = Watch(["histories"])
        async with await ControlClient.connect(node.path) as client:
            updates = client.watch(watch)
            (before,) = (await anext(updates)).histories or []
            assert (before.service, before.interval, len(before.rate_in)) == ("home", 1.0, HISTORY)
            assert list(range(100, 500)) == [rate for rate in before.rate_in if 100 <= rate < 500]
            assert await next_histories(updates, client, Watch(["services"])) is None
            meters.service("home").add(1_000_000, 0)
            meters.sample(1.0)
            (more,) = await next_histories(updates, client, watch) or []
            assert (more.service, more.first) == ("home", before.first + HISTORY)
            assert 1_000_000 in more.rate_in

    async def test_many_histories_are_all_sent(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "HISTORIES_SLICE", 2)
        names = [f"service-{number}" for number in range(7)]
        meters = {name: Meter() for name in names}
        for meter in meters.values():
            meter.sample(1.0)
        monkeypatch.setattr(node.server._snapshot, "sampled", lambda told: list(meters.items()))
        async with await ControlClient.connect(node.path) as client:
            update = await anext(client.watch(Watch(["histories"])))
        assert [row.service for row in update.histories or []] == names

    @pytest.mark.parametrize(
        ("topics", "asked", "channels", "interval"),
        [
            (["channels"], 0.0, 0, 0.25),
            (["channels"], 0.5, 0, 0.5),
            (["channels"], 0.25, answers.BIG_TABLE + 1, 1.0),
            (["services"], 0.25, answers.BIG_TABLE + 1, 0.25),
            (["services"], 1e300, 0, answers.MAX_INTERVAL),
            (["services"], -1e300, 0, 0.25),
        ],
    )
    async def test_updates_keep_a_pace_that_costs_the_tunnels_nothing(
        self, node: Node, topics: list[str], asked: float, channels: int, interval: float
    ) -> None:
        node.open_session([StillFlow() for _ in range(channels)])
        assert node.server.answers.interval(Watch(topics, asked)) == interval

    async def test_a_watcher_that_leaves_leaves_nothing_behind(self, node: Node) -> None:
        async with await ControlClient.connect(node.path) as client:
            await anext(client.watch(Watch(["events"])))
        await until(lambda: not len(node.server.tasks))
        assert not node.engine.node.bus._readers


class TestBadClients:
    @pytest.mark.parametrize(
        "line",
        [
            b"\n",
            b"GET / HTTP/1.1\n",
            b"\xff\xfe\n",
            b"[]\n",
            b"{}\n",
            b"null\n",
            b"[" * 5000 + b"\n",
            b'{"id":1,"a":' + b"[" * 20_000 + b"\n",
            b'{"id":1,"a":"\xff","request":{"type":"\xfe"}}\n',
        ],
        ids=[
            "empty",
            "http",
            "bytes",
            "list",
            "object",
            "null",
            "depth",
            "depth of what is ignored",
            "bytes in a text",
        ],
    )
    async def test_garbage_is_refused_with_a_reason_and_closed(self, node: Node, line: bytes) -> None:
        answer = await refusal(node, line)
        assert isinstance(answer.reply, Refused)
        assert answer.reply.message.startswith("this is not a request: ")

    async def test_an_unknown_request_is_refused_under_its_number(self, node: Node) -> None:
        assert (await refusal(node, ask_line({"type": "make-tea"}))).id == 7

    @pytest.mark.parametrize("request_", [{"type": "get-status"}, {"type": "of-the-future"}])
    async def test_another_version_is_told_so(self, node: Node, request_: dict[str, str]) -> None:
        answer = await refusal(node, ask_line(request_, protocol=1))
        assert answer == messages.Answer(
            7,
            Refused(
                f"the engine speaks version {messages.PROTOCOL} of the control protocol, and you version 1",
                "restart the engine so that both are the same version",
            ),
        )

    async def test_a_line_without_end_is_refused(self, node: Node) -> None:
        answer = await refusal(node, b"x" * (messages.MAX_REQUEST + 1))
        assert isinstance(answer.reply, Refused)
        assert answer.reply.message == "a request is one line of at most 196608 bytes"

    async def test_the_longest_line_is_read(self, node: Node) -> None:
        line = ask_line({"type": "start-service", "name": ""})
        name = "x" * (messages.MAX_REQUEST - len(line))
        reader, writer = await node.connect()
        writer.write(ask_line({"type": "start-service", "name": name}))
        assert b"there is no service xxx" in await reader.readline()
        writer.close()

    async def test_a_request_cut_short_is_forgotten(self, node: Node) -> None:
        reader, writer = await node.connect()
        writer.write(ask_line({"type": "stop-engine"})[:-1])
        writer.write_eof()
        assert await reader.read() == b""
        assert node.stopped == []
        writer.close()

    async def test_a_request_may_come_byte_by_byte(self, node: Node) -> None:
        reader, writer = await node.connect()
        for byte in ask_line({"type": "get-status"}):
            writer.write(bytes([byte]))
            await writer.drain()
        assert messages.decode_answer(await reader.readline()).id == 7
        writer.close()

    async def test_another_user_is_refused_and_reported(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(origins, "peer_uid", lambda sock: 54321)
        reader, writer = await node.connect()
        assert b"for the user who runs the engine" in await reader.read()
        assert node.reasons() == ["the control socket is for the user who runs the engine, and for root"]
        writer.close()

    async def test_one_client_too_many_is_told_so(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "MAX_CLIENTS", 2)
        async with await ControlClient.connect(node.path) as first, await ControlClient.connect(node.path) as second:
            await first.ask(messages.GetStatus())
            await second.ask(messages.GetStatus())
            with pytest.raises(RequestRefused, match="2 consoles and commands are attached already"):
                await node.ask(messages.GetStatus())
            assert isinstance(await first.ask(messages.GetStatus()), messages.Status)
        await until(lambda: not node.server._clients)
        assert isinstance(await node.ask(messages.GetStatus()), messages.Status)

    async def test_a_crowd_is_cut_off(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "MAX_CLIENTS", 0)
        with pytest.raises(EngineUnreachable, match="runs, but ended this connection; too many consoles may be"):
            await node.ask(messages.GetStatus())

    async def test_a_watcher_that_does_not_read_is_made_no_updates_and_then_dropped(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "STALL", 0.2)
        monkeypatch.setattr(server, "MIN_INTERVAL", 0.001)
        monkeypatch.setattr(node.server.answers, "interval", lambda watch: 0.001)
        node.open_session([StillFlow() for _ in range(3000)])
        made: list[dict[str, Any]] = []
        update = node.server.answers.update

        async def counted(watch: Watch, events: Reader | None, told: answers.Told) -> dict[str, Any]:
            made.append(await update(watch, events, told))
            return made[-1]

        monkeypatch.setattr(node.server.answers, "update", counted)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.connect(str(node.path))
            await asyncio.get_running_loop().sock_sendall(sock, ask_line({"type": "watch", "topics": ["channels"]}))
            await until(lambda: node.reasons() == ["it read nothing for 0.2 s"])
            await until(lambda: not node.server._clients)
        assert len(made) == 1

    async def test_a_client_that_asks_and_does_not_read_is_dropped(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "STALL", 0.05)
        node.open_session([StillFlow() for _ in range(3000)])
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.connect(str(node.path))
            await asyncio.get_running_loop().sock_sendall(sock, ask_line({"type": "get-channels"}) * 100)
            await until(lambda: node.reasons() == ["it read nothing for 0.05 s"])
            await until(lambda: not node.server._clients)

    async def test_a_slow_client_holds_up_no_other(self, node: Node) -> None:
        node.open_session([StillFlow() for _ in range(3000)])
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.connect(str(node.path))
            await asyncio.get_running_loop().sock_sendall(sock, ask_line({"type": "get-channels"}) * 100)
            assert isinstance(await node.ask(messages.GetStatus()), messages.Status)


class TestBeginningAndEnd:
    async def test_a_second_engine_is_refused_before_it_starts_anything(self, node: Node) -> None:
        with pytest.raises(ListenFailed, match="an engine runs already"):
            _control(Engine(), node.path).claim()

    async def test_a_client_that_came_early_is_answered_once_the_engine_runs(self, path: Path) -> None:
        engine = Engine()
        control = _control(engine, path)
        control.claim()
        client = await ControlClient.connect(path)
        async with engine:
            await control.serve()
            assert isinstance(await client.ask(messages.GetStatus()), messages.Status)
            await client.close()
            await control.close()

    async def test_closing_ends_every_client_and_removes_the_socket(self, node: Node) -> None:
        async with await ControlClient.connect(node.path) as watcher, await ControlClient.connect(node.path) as idle:
            updates = watcher.watch(Watch([]))
            await anext(updates)
            await idle.ask(messages.GetStatus())
            await node.server.close()
            with pytest.raises(EngineUnreachable):
                await asyncio.wait_for(_all(updates), 5)
            with pytest.raises(EngineUnreachable, match=r"control\.sock went away"):
                await idle.ask(messages.GetStatus())
        assert not node.path.exists()
        await node.server.close()

    async def test_the_processors_share_is_that_of_the_last_window(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        processor = node.server._snapshot._processor
        monkeypatch.setattr(time, "process_time", lambda: processor._marked[1] + 1.0)
        monkeypatch.setattr(time, "monotonic", lambda: processor._marked[0] + 4.0)
        processor._sample()
        assert processor.percent == pytest.approx(25.0)


async def next_histories(
    updates: AsyncIterator[messages.Update], client: ControlClient, watch: Watch
) -> list[messages.History] | None:
    """The histories of the first update of another watch."""
    await client.change_watch(watch)
    return (await anext(updates)).histories


async def _all(updates: AsyncIterator[messages.Update]) -> None:
    async for _ in updates:
        continue


def _control(engine: Engine, path: Path) -> server.ControlServer:
    async def reload() -> str:
        return ""

    return server.ControlServer(engine, path, version="9.9", config=lambda: "", reload=reload, stop=lambda cause: None)
