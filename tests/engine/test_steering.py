"""A service that drains, and settings that are taken in place: what goes on, what is cut, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from client_certificates import asking, coming, self_signed, showing
from jump_peers import ask, home, jump_server, through
from left_behind import nothing_left_behind
from loopback import FREE, hears, refuses, running, told
from tunnelconsole.control.previewing import preview
from tunnelconsole.control.reload_words import cost, preview_words
from tunnelconsole.engine.changes import changed_keys
from tunnelconsole.engine.events import ChannelClosed, PeerRefused, ServiceStopped
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.engine.settings import Fingerprint, ListenAddress, NetworkPattern, Secret, TLSSettings
from tunnelconsole.engine.steering_events import DrainCut, ServiceDraining
from tunnelconsole.engine.units import Duration, Rate
from tunnelconsole.errors import RequestRefused
from waiting import until

__all__ = ["nothing_left_behind"]

LONG = 600.0
"""Seconds that no test waits for."""


async def test_a_draining_service_takes_nobody_new_and_stops_once_what_it_carries_is_over() -> None:
    async with home() as at, at.through() as caller:
        done = await at.engine.drain_service("home", LONG)
        assert done == "service home: takes nothing new; 1 channel may finish within 600 s, then it stops"
        assert at.engine.supervised["home"].state == "draining"
        await refuses(at.address)
        assert await caller.exchange(b"still here") == b"still here"
        await until(lambda: at.engine.supervised["home"].state == "stopped")
        assert [event.cause for event in told(at.engine, ServiceStopped)] == ["drained"]
        assert not told(at.engine, DrainCut)


async def test_what_is_left_when_a_drain_is_over_is_cut_and_told() -> None:
    async with home(secret=None, secrets={"alice": Secret("superBigSecret")}) as at, at.through() as caller:
        await at.engine.drain_service("home", 0.01)
        event = await hears(at.engine, DrainCut)
        assert event.text() == f"1 channel of alice from {caller.name} did not finish within 0.01 s and was cut"
        await caller.broken()
        assert not at.engine.node.sessions.channels


async def test_a_service_that_carries_nothing_is_stopped_at_once_by_a_drain() -> None:
    async with home() as at:
        await at.engine.drain_service("home", LONG)
        await until(lambda: at.engine.supervised["home"].state == "stopped")
        assert (await hears(at.engine, ServiceDraining)).text() == ("takes nothing new; it carries nothing, and stops")


async def test_starting_a_service_that_drains_takes_that_back_and_cuts_nobody() -> None:
    async with home() as at, at.through() as caller:
        await at.engine.drain_service("home", 0.01)
        await at.engine.start_service("home")
        await at.engine.settled()
        assert at.engine.supervised["home"].state == "listening"
        async with through(at.engine.services["home"].address, at.far.address) as newcomer:
            assert await newcomer.exchange(b"new") == b"new"
        assert await caller.exchange(b"old") == b"old"
        assert not told(at.engine, DrainCut)


async def test_stopping_a_service_that_drains_waits_no_longer() -> None:
    async with home() as at, at.through() as caller:
        await at.engine.drain_service("home", LONG)
        await at.engine.stop_service("home")
        await caller.broken()
        assert at.engine.supervised["home"].state == "stopped"
        assert [event.cause for event in told(at.engine, ServiceStopped)] == ["by hand"]


async def test_a_further_drain_sets_another_time() -> None:
    async with home() as at, at.through() as caller:
        await at.engine.drain_service("home", LONG)
        await at.engine.drain_service("home", 0.01)
        await hears(at.engine, DrainCut)
        await caller.broken()
        assert len(told(at.engine, ServiceDraining)) == 2


async def test_an_engine_stops_while_a_service_drains() -> None:
    async with home() as at, at.through() as caller:
        await at.engine.drain_service("home", LONG)
        await at.engine.stop(drain=0.0)
        await caller.broken()


async def test_a_reload_without_a_change_lets_a_drain_go_on() -> None:
    async with home() as at, at.through() as caller:
        await at.engine.drain_service("home", LONG)
        await at.engine.apply({"home": at.service.settings})
        assert at.engine.supervised["home"].state == "draining"
        assert await caller.exchange(b"still here") == b"still here"


@pytest.mark.parametrize("seconds", [-1.0, 1e300])
async def test_a_time_that_nobody_can_wait_is_refused(seconds: float) -> None:
    async with home() as at:
        with pytest.raises(RequestRefused, match="give 0 to 604800 seconds"):
            await at.engine.drain_service("home", seconds)
        await at.serves()


async def test_what_does_not_run_cannot_be_drained() -> None:
    async with home() as at:
        await at.engine.stop_service("home")
        with pytest.raises(RequestRefused, match="service home is stopped already"):
            await at.engine.drain_service("home", LONG)
        with pytest.raises(RequestRefused, match="there is no service away"):
            await at.engine.drain_service("away", LONG)


async def test_limits_and_client_networks_change_in_place_and_cut_nobody() -> None:
    async with home() as at, at.through() as caller:
        service = at.service
        denied = (NetworkPattern("127.0.0.1"),)
        changed = jump_server(limits=LimitSettings(sessions=1), clients_deny=denied)
        done = await at.engine.apply({"home": changed})
        assert done == "0 added, 1 changed, 0 removed, 0 untouched; in place: home"
        assert at.engine.services["home"] is service
        async with at.calling() as newcomer:
            await newcomer.broken()
        assert "clients_deny" in (await hears(at.engine, PeerRefused)).reason
        async with at.calling("127.0.0.2") as second:
            assert "limit of 1 sessions" in await ask(second, at.far.address)
        assert await caller.exchange(b"still here") == b"still here"


async def test_an_idle_timeout_that_is_changed_in_place_holds_for_open_channels() -> None:
    async with home() as at, at.through() as caller:
        await at.engine.apply({"home": jump_server(limits=LimitSettings(idle_timeout=Duration(0.1)))})
        assert "idle for 0.1 s" in (await hears(at.engine, ChannelClosed)).cause
        await caller.broken()


async def test_a_service_that_does_not_run_is_replaced_whatever_changes() -> None:
    async with home() as at:
        await at.engine.stop_service("home")
        await at.engine.apply({"home": jump_server(limits=LimitSettings(sessions=1))})
        await at.engine.settled()
        assert at.engine.supervised["home"].state == "listening"


def test_what_differs_is_named_by_its_path_and_no_value_is_told() -> None:
    secrets = {"alice": Secret("a"), "bob": Secret("b")}
    before = JumpServerSettings(listen=ListenAddress("127.0.0.1", 1), secrets=secrets)
    after = JumpServerSettings(
        listen=ListenAddress("127.0.0.1", 2),
        secrets=secrets | {"alice": Secret("hush")},
        limits=LimitSettings(sessions=7, rate=Rate(5)),
        tls=TLSSettings(),
    )
    assert changed_keys(before, after) == ["tls", "limits.sessions", "limits.rate", "listen", "secrets.alice"]


def test_another_kind_under_the_same_name_differs_in_its_kind() -> None:
    listen = ListenAddress("127.0.0.1", 0)
    assert changed_keys(JumpServerSettings(listen=listen), RelayServerSettings(listen=listen)) == ["kind"]


async def test_a_preview_names_who_would_be_cut_and_changes_nothing() -> None:
    async with home(secret=None, secrets={"alice": Secret("superBigSecret")}) as at, at.through() as caller:
        wanted = {
            "home": msgspec.structs.replace(at.service.settings, secrets={"bob": Secret("hush")}),
            "more": RelayServerSettings(listen=FREE),
        }
        found = preview(at.engine, wanted)
        keys = "(secrets.alice, secrets.bob)"
        ends = f"1 session ends, 1 channel may finish within 30s: alice from {caller.name}"
        assert preview_words(found) == [
            f"home, a jump-server: replaced {keys}, {ends}",
            "more, a relay-server: added",
        ]
        assert cost(found) == "ends 1 session with 1 channel"
        assert await caller.exchange(b"untouched") == b"untouched"
        assert list(at.engine.services) == ["home"]


async def test_a_preview_names_who_would_be_cut_by_settings_that_are_taken_in_place(tmp_path: Path) -> None:
    own = self_signed(tmp_path, "/CN=own")
    async with home(tls=asking(desk=own.pin)) as at, coming(at.address, showing(own)) as caller:
        assert not await ask(caller, at.far.address)
        [session] = at.service.attached
        wanted = {"home": msgspec.structs.replace(at.service.settings, tls=asking(other=Fingerprint("0" * 64)))}
        found = preview(at.engine, wanted)
        keys = "(tls.client_keys.desk, tls.client_keys.other)"
        ends = f"1 session ends, 1 channel is cut: desk from {session.peer}"
        assert preview_words(found) == [f"home, a jump-server: changed in place {keys}, {ends}"]
        assert cost(found) == "ends 1 session with 1 channel"


async def test_a_preview_says_what_is_taken_in_place_removed_and_kept() -> None:
    async with running(home=jump_server(), old=jump_server(), kept=jump_server()) as engine:
        wanted = {"home": jump_server(limits=LimitSettings(channels=3)), "kept": jump_server()}
        found = preview(engine, wanted)
        assert preview_words(found) == [
            "old, a jump-server: removed, nobody is attached",
            "home, a jump-server: changed in place (limits.channels), nobody is cut",
            "1 service is kept as it is",
        ]
        assert cost(found) == "cuts nobody"
