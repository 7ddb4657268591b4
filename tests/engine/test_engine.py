"""Services are started, started again, steered, replaced and stopped; and none is disturbed by another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jump_peers import framed, jump_server, read_frame, through
from left_behind import nothing_left_behind
from loopback import calling, hears, open_descriptors, target, told
from ports import steady_port
from tunnelconsole.engine import backoff, floods, ticking
from tunnelconsole.engine import engine as engine_module
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    ChannelClosed,
    Crashed,
    EngineStopping,
    PeerRefused,
    Repeated,
    ServiceFailed,
    ServiceRetrying,
    ServiceStopped,
    SessionClosed,
)
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.kinds import make_service
from tunnelconsole.engine.services.service import Service, ServiceSettings
from tunnelconsole.engine.settings import FilePath, ListenAddress, Secret, TLSSettings
from tunnelconsole.engine.transport.certificates import make_self_signed
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.wire.jump import CHALLENGE_FAILED
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, ListenFailed, RequestRefused
from waiting import until

__all__ = ["nothing_left_behind"]

LONG = 60.0
"""Seconds that no test waits for."""


class ScriptSettings(ServiceSettings, frozen=True, kw_only=True):
    """A service that does as it is told."""

    fails: tuple[BaseException, ...] = ()
    """What its first runs raise; the next one listens until it is ended."""
    hangs: bool = False
    """Whether a run gets no further than ``connecting``."""
    faulty: bool = False
    """Whether it fails to stop."""
    edition: int = 1


class Stream:
    """A channel that moves nothing, and ends when it is told to."""

    path = "tcp"
    bytes_in = 0
    bytes_out = 0

    def __init__(self, finished: Finished, faulty: bool) -> None:
        self.finish = finished
        self._faulty = faulty

    def abort(self, reason: str) -> None:
        if self._faulty:
            raise LookupError("no end")
        self.finish(reason)


class Scripted(Service[ScriptSettings]):
    kind = "scripted"

    def __init__(self, name: str, settings: ScriptSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self.runs = 0
        self.accepts = False
        self.end: asyncio.Future[None] = node.loop.create_future()

    async def run(self) -> None:
        self.runs += 1
        if self.runs <= len(self.settings.fails):
            raise self.settings.fails[self.runs - 1]
        if self.settings.hangs:
            self.enter("connecting")
            await self.node.loop.create_future()
        self.accepts = True
        self.enter("listening")
        await self.end

    def stop_accepting(self) -> None:
        if self.settings.faulty:
            raise LookupError("no listener")
        self.accepts = False

    def carry_one(self) -> Stream:
        """Opens a channel."""
        streams: list[Stream] = []

        def start(finished: Finished) -> Stream:
            streams.append(Stream(finished, self.settings.faulty))
            return streams[0]

        self.carry_alone("192.0.2.1:5", "there:80", start)
        return streams[0]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine knows one kind of service more."""

    def make(name: str, settings: ServiceSettings, node: Node) -> Service[Any]:
        if isinstance(settings, ScriptSettings):
            return Scripted(name, settings, node)
        return make_service(name, settings, node)

    monkeypatch.setattr(engine_module, "make_service", make)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again soon."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.008)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is not tried again within a test."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", LONG)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", LONG)


def script(engine: Engine, name: str = "one") -> Scripted:
    service = engine.services[name]
    assert isinstance(service, Scripted)
    return service


def state(engine: Engine, name: str = "one") -> str:
    """A service's state, as it is now."""
    return engine.services[name].state


def one(**settings: Any) -> dict[str, ServiceSettings]:
    return {"one": ScriptSettings(**settings)}


async def test_a_service_that_fails_is_started_again_after_delays_that_double(soon: None) -> None:
    fails = (ListenFailed("port 1 is taken", "choose another"), ConnectFailed("nobody is there"), OSError(5, "broken"))
    async with Engine(one(fails=fails)) as engine:
        await until(lambda: state(engine) == "listening")
        retries = told(engine, ServiceRetrying)
        assert [event.error for event in retries] == [str(error) for error in fails]
        for event, delay in zip(retries, (0.001, 0.002, 0.004), strict=True):
            assert event.delay == pytest.approx(delay, rel=backoff.JITTER + 0.01)
        supervised = engine.supervised["one"]
        assert (supervised.restarts, supervised.retry_at) == (3, None)
        assert supervised.service.error is None
        assert script(engine).runs == 4
        assert not told(engine, Crashed)


async def test_a_service_that_failed_says_why_and_when_it_is_tried_again(late: None) -> None:
    async with Engine(one(fails=(ListenFailed("port 1 is taken"),))) as engine:
        await engine.settled()
        supervised = engine.supervised["one"]
        assert (supervised.service.state, supervised.service.error) == ("backoff", "port 1 is taken")
        assert supervised.service.address == ""
        assert isinstance(supervised.error, ListenFailed)
        assert supervised.retry_at is not None
        assert supervised.retry_at > engine.started_at


async def test_an_exception_nobody_expected_is_told_and_ends_no_other_service(soon: None) -> None:
    services = {"bad": ScriptSettings(fails=(ValueError("a fault"),)), "good": ScriptSettings()}
    async with Engine(services) as engine:
        stream = script(engine, "good").carry_one()
        await until(lambda: state(engine, "bad") == "listening")
        (crash,) = told(engine, Crashed)
        assert (crash.service, crash.task, crash.error) == ("bad", "service bad", "ValueError: a fault")
        assert "raise self.settings.fails" in crash.trace
        assert [event.error for event in told(engine, ServiceRetrying)] == ["ValueError: a fault"]
        assert state(engine, "good") == "listening"
        assert script(engine, "good").runs == 1
        assert len(engine.node.sessions.channels) == 1
        stream.finish("")


async def test_a_task_of_a_service_that_fails_is_told_and_the_service_goes_on() -> None:
    async def fail() -> None:
        raise ValueError("a fault")

    async with Engine(one()) as engine:
        await engine.settled()
        script(engine).tasks.start(fail(), "visitor 1")
        event = await hears(engine, Crashed)
        assert (event.service, event.task, event.error) == ("one", "service one: visitor 1", "ValueError: a fault")
        assert (state(engine), script(engine).runs) == ("listening", 1)


@pytest.mark.parametrize("how", ["returns", "is cancelled from within"])
async def test_a_run_that_ends_without_an_error_is_followed_by_another(soon: None, how: str) -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        ended = script(engine).end
        script(engine).end = engine.node.loop.create_future()
        if how == "returns":
            ended.set_result(None)
        else:
            ended.cancel()
        await until(lambda: script(engine).runs == 2)
        assert state(engine) == "listening"
        assert len(told(engine, ServiceRetrying)) == 1


async def test_a_service_that_worked_for_a_stable_time_starts_over_at_the_first_delay(
    soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "STABLE_AFTER", 0.0)
    async with Engine(one()) as engine:
        await until(lambda: state(engine) == "listening")
        script(engine).end.set_exception(OSError("broken"))  # and so ends every later run, once it listens
        await until(lambda: script(engine).runs > 3)
        delays = [event.delay for event in told(engine, ServiceRetrying)][:3]
        assert delays == [pytest.approx(0.001, rel=backoff.JITTER + 0.01)] * 3


async def test_the_time_in_which_a_service_only_tried_does_not_count_as_work(
    soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "STABLE_AFTER", 1e-9)
    async with Engine(one(fails=(OSError("no answer"),) * 3)) as engine:
        await until(lambda: state(engine) == "listening")
        delays = [event.delay for event in told(engine, ServiceRetrying)]
        assert delays == [pytest.approx(0.001 * factor, rel=backoff.JITTER + 0.01) for factor in (1, 2, 4)]


async def test_refused_credentials_are_final(soon: None) -> None:
    async with Engine(one(fails=(CredentialsRefused("wrong secret", "ask for the right one"),))) as engine:
        await engine.settled()
        supervised = engine.supervised["one"]
        assert (supervised.service.state, supervised.service.error) == ("failed", "wrong secret; ask for the right one")
        await until(lambda: supervised.task is not None and supervised.task.done())
        assert (supervised.restarts, supervised.retry_at, script(engine).runs) == (0, None, 1)
        assert [event.error for event in told(engine, ServiceFailed)] == ["wrong secret; ask for the right one"]
        assert not told(engine, ServiceRetrying)
        assert not told(engine, Crashed)


async def test_refused_credentials_end_the_sessions_of_that_service() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        script(engine).carry_one()
        script(engine).end.set_exception(CredentialsRefused("revoked"))
        event = await hears(engine, SessionClosed)
        assert event.cause == "the service failed"


async def test_a_failed_service_can_be_started_by_hand() -> None:
    async with Engine(one(fails=(CredentialsRefused("wrong secret"),))) as engine:
        await engine.settled()
        failed = script(engine)
        await engine.start_service("one")
        assert script(engine) is not failed
        await until(lambda: state(engine) == "failed")


async def test_a_service_in_backoff_is_tried_at_once_when_it_is_started_by_hand(late: None) -> None:
    async with Engine(one(fails=(OSError("broken"),))) as engine:
        await engine.settled()
        waiting = engine.supervised["one"]
        await engine.start_service("one")
        await engine.settled()
        assert waiting.task is not None
        assert waiting.task.done()
        assert waiting.service.state == "stopped"
        assert (state(engine), engine.supervised["one"].restarts) == ("backoff", 2)
        assert len(told(engine, ServiceRetrying)) == 2


async def test_a_disabled_service_waits_for_nobody_until_it_is_started_by_hand() -> None:
    async with Engine(one(enabled=False)) as engine:
        await engine.settled()
        assert (state(engine), script(engine).runs) == ("stopped", 0)
        await engine.start_service("one")
        await engine.settled()
        assert state(engine) == "listening"


async def test_starting_a_running_service_is_refused() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        before = script(engine)
        with pytest.raises(RequestRefused, match="service one is listening already"):
            await engine.start_service("one")
        assert script(engine) is before
        assert before.accepts


async def test_a_stopped_service_has_cut_what_it_carried_and_stays_stopped() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        script(engine).carry_one()
        await engine.stop_service("one")
        assert (state(engine), script(engine).accepts, script(engine).address) == ("stopped", False, "")
        assert not engine.node.sessions.sessions
        assert not engine.node.sessions.channels
        assert [event.cause for event in told(engine, ServiceStopped)] == ["by hand"]
        assert [event.cause for event in told(engine, SessionClosed)] == ["by hand"]
        with pytest.raises(RequestRefused, match="service one is stopped already"):
            await engine.stop_service("one")
        await engine.start_service("one")
        await until(lambda: state(engine) == "listening")


async def test_a_restarted_service_is_a_new_one_that_remembers_how_often_it_failed(soon: None) -> None:
    async with Engine(one(fails=(OSError("broken"),))) as engine:
        await until(lambda: state(engine) == "listening")
        before = script(engine)
        await engine.restart_service("one")
        await until(lambda: state(engine) == "listening")
        assert script(engine) is not before
        assert not before.accepts
        assert engine.supervised["one"].restarts == 2
        assert [event.cause for event in told(engine, ServiceStopped)] == ["restarted by hand"]


async def test_a_stopped_service_can_be_restarted_and_has_not_stopped_twice() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        await engine.stop_service("one")
        await engine.restart_service("one")
        await until(lambda: state(engine) == "listening")
        assert len(told(engine, ServiceStopped)) == 1


async def test_restarts_at_the_same_time_leave_one_service_running() -> None:
    async with Engine(one()) as engine:
        await asyncio.gather(*(engine.restart_service("one") for _ in range(5)))
        await until(lambda: state(engine) == "listening")
        running = [task for task in asyncio.all_tasks() if "service one" in task.get_name()]
        assert running == [engine.supervised["one"].task]


@pytest.mark.parametrize("steer", [Engine.start_service, Engine.stop_service, Engine.restart_service])
async def test_steering_a_service_that_is_not_there_is_refused_with_those_that_are(
    steer: Callable[[Engine, str], Any],
) -> None:
    async with Engine({"two": ScriptSettings(), "one": ScriptSettings()}) as engine:
        with pytest.raises(RequestRefused, match="there is no service three; services are: one, two"):
            await steer(engine, "three")
    async with Engine() as engine:
        with pytest.raises(RequestRefused, match="services are: none"):
            await steer(engine, "three")


async def test_a_kicked_session_ends_and_others_go_on() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        for _ in range(2):
            script(engine).carry_one()
        first, second = engine.node.sessions.sessions
        assert engine.kick(first) == "192.0.2.1:5"
        assert list(engine.node.sessions.sessions) == [second]
        assert [(event.session, event.cause) for event in told(engine, SessionClosed)] == [
            (first, "kicked by an operator")
        ]
        with pytest.raises(RequestRefused, match=f"there is no session {first}; it may have ended"):
            engine.kick(first)


async def test_a_channel_is_closed_by_its_id_and_others_go_on() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        for _ in range(2):
            script(engine).carry_one()
        first, second = engine.node.sessions.channels
        assert engine.close_channel(first) == "there:80"
        assert list(engine.node.sessions.channels) == [second]
        assert [(event.channel, event.cause) for event in told(engine, ChannelClosed)] == [
            (first, "closed by an operator")
        ]
        with pytest.raises(RequestRefused, match=f"there is no channel {first}; it may have ended"):
            engine.close_channel(first)


async def test_applying_touches_only_the_services_that_changed() -> None:
    async with target() as far, Engine({"kept": jump_server(), "changed": jump_server()}) as engine:
        await engine.settled()
        kept, changed = engine.services["kept"], engine.services["changed"]
        address, task = kept.address, engine.supervised["kept"].task
        async with through(address, far.address) as caller:
            done = await engine.apply({"kept": jump_server(), "changed": jump_server(deny=("*:22",))})
            assert done == "0 added, 1 changed, 0 removed, 1 untouched"
            assert engine.services["kept"] is kept
            assert (kept.address, engine.supervised["kept"].task) == (address, task)
            assert engine.services["changed"] is not changed
            assert await caller.exchange(b"ping") == b"ping"
        assert [(event.service, event.cause) for event in told(engine, ServiceStopped)] == [
            ("changed", "its settings changed")
        ]


async def test_services_are_listed_in_the_order_of_the_settings_applied_last() -> None:
    services: dict[str, ServiceSettings] = {name: ScriptSettings() for name in ("a", "b", "c")}
    async with Engine(services) as engine:
        done = await engine.apply({"d": ScriptSettings(), "c": ScriptSettings(edition=2), "a": ScriptSettings()})
        assert done == "1 added, 1 changed, 1 removed, 1 untouched"
        assert list(engine.services) == ["d", "c", "a"]


async def test_a_service_stopped_by_hand_stays_so_until_its_settings_change() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        await engine.stop_service("one")
        await engine.apply(one())
        assert state(engine) == "stopped"
        await engine.apply(one(edition=2))
        await engine.settled()
        assert state(engine) == "listening"
        await engine.apply(one(edition=2, enabled=False))
        assert state(engine) == "stopped"


async def test_a_changed_service_drains_while_its_successor_listens_on_the_same_port() -> None:
    listen = ListenAddress("127.0.0.1", steady_port())
    async with target() as far, Engine({"home": jump_server(listen=listen)}) as engine:
        await engine.settled()
        async with through(str(listen), far.address) as old:
            changed = jump_server(listen=listen, limits=LimitSettings(channels=7))
            await engine.apply({"home": changed})
            await engine.settled()
            assert engine.services["home"].state == "listening"
            assert not told(engine, ServiceRetrying)
            async with through(str(listen), far.address) as new:
                assert await new.exchange(b"to the new one") == b"to the new one"
            assert await old.exchange(b"still here") == b"still here"
        await until(lambda: not engine._retiring)
        assert [event.cause for event in told(engine, ChannelClosed)] == ["", ""]


async def test_a_removed_service_drains_and_lets_nobody_in() -> None:
    async with target() as far, Engine({"home": jump_server()}) as engine:
        await engine.settled()
        address = engine.services["home"].address
        async with through(address, far.address) as old:
            assert await engine.apply({}) == "0 added, 0 changed, 1 removed, 0 untouched"
            assert engine.services == {}
            with pytest.raises(ConnectionRefusedError):
                async with through(address, far.address):
                    pass
            assert await old.exchange(b"still here") == b"still here"
        await until(lambda: not engine._retiring)


@pytest.mark.parametrize(
    ("services", "cause"),
    [
        ({"one": ScriptSettings(edition=2)}, "its settings changed, and it did not finish in time"),
        ({}, "removed, and it did not finish in time"),
    ],
    ids=["changed", "removed"],
)
async def test_what_a_replaced_service_carries_is_cut_at_the_end_of_the_drain(
    services: dict[str, ServiceSettings], cause: str
) -> None:
    async with Engine(one(), drain=0.01) as engine:
        await engine.settled()
        script(engine).carry_one()
        await engine.apply(services)
        event = await hears(engine, ChannelClosed)
        assert event.cause == cause
        await until(lambda: not engine._retiring)


async def test_a_draining_service_whose_run_ends_is_not_started_again(soon: None) -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        old, task = script(engine), engine.supervised["one"].task
        stream = old.carry_one()
        await engine.apply(one(edition=2))
        old.end.set_exception(ConnectFailed("the server closed the session"))
        await until(lambda: task is not None and task.done())
        assert (old.runs, old.accepts, old.state) == (1, False, "stopped")
        assert not told(engine, ServiceRetrying)
        assert [channel.flow for channel in engine.node.sessions.channels.values()] == [stream]
        stream.finish("")
        await until(lambda: not engine._retiring)


async def test_a_service_in_backoff_is_not_started_again_once_it_drains(late: None) -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        old, task = script(engine), engine.supervised["one"].task
        stream = old.carry_one()
        old.end.set_exception(ConnectFailed("the server closed the session"))
        await until(lambda: old.state == "backoff")
        await engine.apply({})
        assert task is not None
        assert task.done()
        assert engine.node.sessions.channels
        stream.finish("")
        await until(lambda: not engine._retiring)


async def test_wrong_settings_are_refused_and_every_service_is_as_it_was() -> None:
    async with Engine({"one": ScriptSettings(), "two": ScriptSettings()}) as engine:
        await engine.settled()
        before, stream = engine.services, script(engine).carry_one()
        with pytest.raises(RequestRefused, match="the settings of service bad are wrong: a jump server needs"):
            await engine.apply({"one": ScriptSettings(edition=2), "bad": jump_server(secret=Secret(""))})
        assert engine.services == before
        assert all(script(engine, name).accepts for name in ("one", "two"))
        assert not told(engine, ServiceStopped)
        assert await engine.apply({"one": ScriptSettings(), "two": ScriptSettings()}) == (
            "0 added, 0 changed, 0 removed, 2 untouched"
        )
        stream.finish("")


async def test_files_that_cannot_be_read_again_are_refused_and_every_service_is_as_it_was(tmp_path: Path) -> None:
    certificate, key = tmp_path / "home.crt", tmp_path / "home.key"
    make_self_signed(certificate, key, "home")
    secure = jump_server(tls=TLSSettings(certificate=FilePath(str(certificate)), key=FilePath(str(key))))
    async with Engine({"one": ScriptSettings(), "home": secure}) as engine:
        await engine.settled()
        before = engine.services
        key.unlink()
        with pytest.raises(RequestRefused, match=r"service home cannot read its files again: .*home\.key"):
            await engine.apply({"one": ScriptSettings(edition=2), "home": secure})
        assert engine.services == before
        assert [service.state for service in engine.services.values()] == ["listening", "listening"]


async def test_wrong_settings_at_the_start_are_raised_and_nothing_runs() -> None:
    engine = Engine({"one": ScriptSettings(), "bad": jump_server(secret=Secret(""))})
    with pytest.raises(ValueError, match="a jump server needs at least one secret"):
        await engine.start()
    assert not engine.node.state_dir.exists()


async def test_stopping_lets_channels_finish_and_nobody_in() -> None:
    async with target() as far:
        engine = Engine({"home": jump_server()}, drain=LONG)
        await engine.start()
        await engine.settled()
        address = engine.services["home"].address
        async with through(address, far.address) as caller, asyncio.TaskGroup() as group:
            stopping = group.create_task(engine.stop(cause="asked by the test"))
            event = await hears(engine, EngineStopping)
            assert (event.cause, event.channels) == ("asked by the test", 1)
            with pytest.raises(ConnectionRefusedError):
                async with through(address, far.address):
                    pass
            assert await caller.exchange(b"to the end") == b"to the end"
            await stopping
        assert [event.cause for event in told(engine, ChannelClosed)] == [""]
        assert [event.cause for event in told(engine, ServiceStopped)] == ["the engine stops"]


async def test_stopping_cuts_what_has_not_finished_in_time() -> None:
    async with target() as far, Engine({"home": jump_server()}) as engine:
        await engine.settled()
        async with through(engine.services["home"].address, far.address) as caller:
            await engine.stop(drain=0.01)
            assert await caller.broken()
        assert [event.cause for event in told(engine, ChannelClosed)] == ["the engine stops"]
        assert not engine.node.sessions.sessions


@pytest.mark.parametrize("drain", [0.0, LONG])
async def test_a_service_that_fails_to_stop_is_told_and_everything_else_stops(drain: float) -> None:
    engine = Engine({"faulty": ScriptSettings(faulty=True), "one": ScriptSettings()})
    await engine.start()
    await engine.settled()
    streams = [script(engine, name).carry_one() for name in ("faulty", "one")]

    async def finish() -> None:
        await until(lambda: engine.draining)
        if drain:
            for stream in streams:
                stream.finish("")

    await asyncio.gather(engine.stop(drain=drain), finish())
    assert [service.state for service in engine.services.values()] == ["stopped", "stopped"]
    assert not script(engine).accepts
    assert not script(engine).attached
    crashes = {event.text() for event in told(engine, Crashed) if event.service == "faulty"}
    assert "service faulty, told to take nobody new, failed unexpectedly: LookupError: no listener" in crashes
    assert drain or "ending session s1 failed unexpectedly: LookupError: no end" in crashes


async def test_stopping_lets_those_who_are_turned_away_read_why_and_cuts_them_off_in_time() -> None:
    async with Engine({"home": jump_server()}) as engine:
        await engine.settled()
        address = str(engine.services["home"].address)
        async with calling(address) as reader, calling(address) as rude:
            for caller in (reader, rude):
                await read_frame(caller)
                await caller.send(framed(bytes(20)))
            await until(lambda: len(told(engine, PeerRefused)) == 2)
            await reader.send(bytes(200_000))

            async def read() -> None:
                await until(lambda: engine.draining)
                assert await reader.read_to_end() == b"\x01" + framed(CHALLENGE_FAILED.encode())
                await reader.close()

            before = open_descriptors()
            await asyncio.gather(engine.stop(drain=0.3), read())
            accepted, listening, closed_by_the_reader = 2, 1, 1
            assert open_descriptors() <= before - accepted - listening - closed_by_the_reader


async def test_stopping_while_a_replaced_service_drains_waits_for_it_too() -> None:
    engine = Engine(one(), drain=LONG)
    await engine.start()
    await engine.settled()
    stream = script(engine).carry_one()
    await engine.apply({})
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(engine.stop())
        await hears(engine, EngineStopping)
        assert not stopping.done()
        stream.finish("")
    assert [event.cause for event in told(engine, ChannelClosed)] == [""]


async def test_stopping_cuts_what_a_replaced_service_still_carries() -> None:
    async with Engine(one(), drain=LONG) as engine:
        await engine.settled()
        script(engine).carry_one()
        await engine.apply(one(edition=2))
        await engine.stop(drain=0.0)
        assert [event.cause for event in told(engine, ChannelClosed)] == ["the engine stops"]
        assert not engine._retiring


async def test_nothing_is_started_again_while_the_engine_drains(soon: None) -> None:
    services = {"busy": ScriptSettings(), "broken": ScriptSettings(fails=(OSError("broken"),) * 1000)}
    engine = Engine(services, drain=LONG)
    await engine.start()
    await engine.settled()
    broken, stream = script(engine, "broken"), script(engine, "busy").carry_one()
    await until(lambda: broken.state == "backoff")
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.stop())
        await hears(engine, EngineStopping)
        supervised = engine.supervised["broken"]
        await until(lambda: supervised.task is not None and supervised.task.done())
        script(engine, "busy").end.set_exception(OSError("broken"))
        busy = engine.supervised["busy"].task
        await until(lambda: busy is not None and busy.done())
        stream.finish("")
    assert script(engine, "busy").runs == 1
    assert len(told(engine, ServiceRetrying)) == broken.runs


async def test_a_service_that_has_not_connected_yet_does_not_hold_up_the_stop() -> None:
    engine = Engine(one(hangs=True), drain=LONG)
    await engine.start()
    await until(lambda: state(engine) == "connecting")
    async with asyncio.timeout(30):
        await engine.stop()
    assert state(engine) == "stopped"


async def test_stopping_again_does_nothing_more() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        await asyncio.gather(engine.stop(drain=0.0), engine.stop(drain=0.0))
        await engine.stop()
    assert len(told(engine, EngineStopping)) == 1
    assert len(told(engine, ServiceStopped)) == 1


async def test_a_stopping_engine_cannot_be_steered() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        await engine.stop(drain=0.0)
        for steer in (engine.start_service("one"), engine.restart_service("one"), engine.apply(one(edition=2))):
            with pytest.raises(RequestRefused, match="the engine is stopping"):
                await steer
        assert state(engine) == "stopped"


async def test_a_change_under_way_is_made_to_its_end_before_the_engine_stops() -> None:
    async with Engine(one()) as engine:
        await engine.settled()
        with contextlib.suppress(RequestRefused):  # when the stop came first
            await asyncio.gather(engine.apply({**one(edition=2), "two": ScriptSettings()}), engine.stop(drain=0.0))
        assert {service.state for service in engine.services.values()} == {"stopped"}
        assert [supervised.task.done() for supervised in engine.supervised.values() if supervised.task] == [True] * 2


async def test_settled_waits_for_the_first_result_of_every_service(late: None) -> None:
    services: dict[str, ServiceSettings] = {
        "disabled": ScriptSettings(enabled=False),
        "listening": ScriptSettings(),
        "failing": ScriptSettings(fails=(OSError("broken"),)),
        "failed": ScriptSettings(fails=(CredentialsRefused("wrong secret"),)),
    }
    async with Engine(services) as engine:
        await engine.settled()
        assert [service.state for service in engine.services.values()] == ["stopped", "listening", "backoff", "failed"]


async def test_settled_does_not_wait_for_a_service_that_is_stopped_meanwhile() -> None:
    async with Engine(one(hangs=True)) as engine, asyncio.TaskGroup() as group:
        settling = group.create_task(engine.settled())
        await until(lambda: state(engine) == "connecting")
        assert not settling.done()
        await engine.stop_service("one")


def test_an_engine_that_was_not_started_has_no_registers() -> None:
    with pytest.raises(RuntimeError, match="use `async with Engine"):
        _ = Engine().node


async def test_a_flood_is_counted_while_the_engine_runs_and_when_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticking, "TICK", 0.01)
    monkeypatch.setattr(floods, "INTERVAL", 0.05)
    async with Engine() as engine:
        for _ in range(1000):
            engine.node.bus.publish(PeerRefused(peer="192.0.2.7:1", reason="wrong secret"))
        await hears(engine, Repeated, "995 more peer-refused")
        monkeypatch.setattr(floods, "INTERVAL", 1000.0)
        for _ in range(100):
            engine.node.bus.publish(PeerRefused(peer="192.0.2.7:1", reason="wrong secret"))
    counted = sum(event.count for event in told(engine, Repeated))
    assert counted + len(told(engine, PeerRefused)) == 1100
