"""Who is banned, for how long, and what is remembered of those who fail."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine import bans as module
from tunnelconsole.engine.ban_events import AddressBanned, AddressUnbanned, BansRestored, FailuresForgotten
from tunnelconsole.engine.ban_table import BanChanges, KeptBan
from tunnelconsole.engine.bans import (
    LONGEST,
    MAX_BANS,
    MAX_SOURCES,
    SOON,
    Bans,
    HandshakeRate,
    Policy,
    source_named,
    usable,
)
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.events import Event
from tunnelconsole.engine.limits import BAN_AFTER, BAN_TIME, BAN_WITHIN, LimitSettings
from tunnelconsole.engine.settings import NetworkPattern
from tunnelconsole.engine.units import Duration, Frequency
from tunnelconsole.errors import RequestRefused

GUESSER = "192.0.2.7"


@dataclass
class Guarded:
    """A register with a clock of its own."""

    now: float = 1000.0
    wall: float = 1e9
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bus = Bus()
        self.bus.count(self.events.append)
        self.bans = Bans(self.bus, lambda: self.now, lambda: self.now + self.wall)

    def fails(self, times: int = 1, host: str = GUESSER, **limits: Any) -> None:
        for _ in range(times):
            self.bans.failed(f"{host}:40112", "home", "wrong secret", policy(**limits))

    def banned(self, host: str = GUESSER, **limits: Any) -> bool:
        return self.bans.turns_away(f"{host}:51000", policy(**limits))

    def told(self, kind: type[Event]) -> list[str]:
        return [event.text() for event in self.events if isinstance(event, kind)]


def policy(**limits: Any) -> Policy:
    return Policy(LimitSettings(**limits))


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


class TestWhoIsBanned:
    def test_who_guesses_wrong_so_often_is_banned(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER - 1)
        assert not guarded.banned()
        guarded.fails()
        assert guarded.banned()
        assert guarded.told(AddressBanned) == ["banned 192.0.2.7 for 10m, after 10 failures, the last: wrong secret"]

    def test_others_are_not(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        assert not guarded.banned("192.0.2.8")

    def test_failures_long_ago_do_not_count(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER - 1)
        guarded.now += BAN_WITHIN + 1
        guarded.fails(BAN_AFTER - 1)
        assert not guarded.banned()

    def test_failures_at_all_services_count_together(self, guarded: Guarded) -> None:
        guarded.fails(2, ban_after=4)
        guarded.bans.failed(f"{GUESSER}:1", "edge", "wrong token", policy(ban_after=3))
        assert guarded.banned()

    def test_the_addresses_of_one_ipv6_line_are_one(self, guarded: Guarded) -> None:
        for number in range(BAN_AFTER):
            guarded.fails(host=f"[2001:db8:0:1::{number:x}]")
        assert guarded.banned("[2001:db8:0:1:ffff::9]")
        assert not guarded.banned("[2001:db8:0:2::1]")

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]"])
    def test_this_machine_is_not_banned_unless_it_is_said(self, guarded: Guarded, host: str) -> None:
        guarded.fails(100, host)
        assert not guarded.banned(host)
        guarded.fails(100, host, bans_exempt=())
        assert guarded.banned(host, bans_exempt=())

    def test_a_network_that_is_exempt_here_may_come_here_and_not_elsewhere(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        assert not guarded.banned(bans_exempt=(NetworkPattern("192.0.2.0/24"),))
        assert guarded.banned()

    def test_a_service_without_bans_neither_counts_nor_turns_away(self, guarded: Guarded) -> None:
        guarded.fails(100, ban_time=Duration(0))
        assert not guarded.banned()
        guarded.fails(BAN_AFTER)
        assert not guarded.banned(ban_time=Duration(0))

    def test_a_peer_without_an_address_cannot_be_banned(self, guarded: Guarded) -> None:
        for peer in ("stream 5", "", "a console", "gate.example:22"):
            for _ in range(100):
                guarded.bans.failed(peer, "home", "wrong secret", policy())
        assert not len(guarded.bans)


class TestHowLong:
    def test_a_ban_ends_by_itself(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        assert guarded.banned()
        guarded.now += BAN_TIME
        guarded.bans.tick()
        assert not guarded.banned()
        assert guarded.told(AddressUnbanned) == [
            "the ban of 192.0.2.7 has ended: its time is over; 1 connections were turned away"
        ]

    def test_it_is_over_at_once_even_before_the_next_tick(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        guarded.now += BAN_TIME
        assert not guarded.banned()

    def test_the_next_one_soon_after_is_twice_as_long_up_to_a_day(self, guarded: Guarded) -> None:
        lengths = []
        for _ in range(12):
            guarded.fails(BAN_AFTER)
            ((ban, left),) = guarded.bans.rows()
            assert left == pytest.approx(ban.seconds)
            lengths.append(ban.seconds)
            guarded.now += ban.seconds + 1
            guarded.bans.tick()
        assert lengths[:3] == [600, 1200, 2400]
        assert lengths[-2:] == [LONGEST, LONGEST]

    def test_after_a_day_of_peace_it_is_as_the_first(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        guarded.now += BAN_TIME + SOON + 1
        guarded.fails(BAN_AFTER)
        ((ban, _),) = guarded.bans.rows()
        assert ban.seconds == BAN_TIME

    def test_one_that_is_longer_than_a_day_stays_as_long(self, guarded: Guarded) -> None:
        week = Duration(7 * 86_400)
        for _ in range(2):
            guarded.fails(BAN_AFTER, ban_time=week)
            ((ban, _),) = guarded.bans.rows()
            assert ban.seconds == week
            guarded.now += week
            guarded.bans.tick()

    def test_failures_of_who_was_inside_already_do_not_prolong_it(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER + 5)
        ((ban, left),) = guarded.bans.rows()
        assert (ban.failures, left) == (BAN_AFTER + 5, BAN_TIME)
        assert len(guarded.told(AddressBanned)) == 1


class TestByHand:
    def test_an_operator_bans_whom_they_want_even_who_is_exempt(self, guarded: Guarded) -> None:
        assert guarded.bans.ban("127.0.0.1", 60.0) == "127.0.0.1 is banned; its sessions that are open stay"
        assert guarded.banned("127.0.0.1", ban_time=Duration(0))
        guarded.now += 60
        assert not guarded.banned("127.0.0.1")

    def test_a_lifted_ban_is_over_and_so_is_what_led_to_it(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        assert guarded.bans.lift(GUESSER) == "192.0.2.7 may connect again"
        assert not guarded.banned()
        guarded.fails(BAN_AFTER - 1)
        assert not guarded.banned()

    def test_one_that_there_is_not_cannot_be_lifted(self, guarded: Guarded) -> None:
        with pytest.raises(RequestRefused, match=r"192\.0\.2\.7 is not banned"):
            guarded.bans.lift(GUESSER)

    @pytest.mark.parametrize(
        ("text", "source"),
        [
            ("192.0.2.7", "192.0.2.7"),
            (" 192.0.2.7/32 ", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::/64"),
            ("[2001:db8::7]", "2001:db8::/64"),
            ("2001:db8::/64", "2001:db8::/64"),
        ],
    )
    def test_an_address_may_be_written_in_many_ways(self, text: str, source: str) -> None:
        assert source_named(text) == source

    @pytest.mark.parametrize(
        "text", ["", "home", "10.0.0.0/8", "2001:db8::/48", "2001:db8::7/128", "1.2.3", "1.2.3.4:5"]
    )
    def test_what_is_no_address_is_refused_with_a_hint(self, text: str) -> None:
        with pytest.raises(RequestRefused) as caught:
            source_named(text)
        assert "192.0.2.7" in str(caught.value.hint)

    @given(st.text())
    def test_whatever_is_typed_is_an_address_or_refused(self, text: str) -> None:
        with suppress(RequestRefused):
            ipaddress.ip_network(source_named(text))

    @pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
    def test_a_time_that_is_none_is_refused(self, guarded: Guarded, seconds: float) -> None:
        with pytest.raises(RequestRefused):
            guarded.bans.ban(GUESSER, seconds)

    def test_more_than_anybody_keeps_by_hand_are_refused(
        self, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_BY_HAND", 2)
        guarded.bans.ban("192.0.2.1", 60.0)
        guarded.bans.ban("192.0.2.2", 60.0)
        guarded.bans.ban("192.0.2.2", 90.0)  # the same once more
        with pytest.raises(RequestRefused, match="2 addresses are banned by hand already"):
            guarded.bans.ban("192.0.2.3", 60.0)


class TestFloods:
    def test_a_hundred_thousand_sources_that_fail_keep_memory_bounded(self, guarded: Guarded) -> None:
        everywhere = policy(ban_after=2)
        for number in range(100_000):
            peer = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:4"
            for _ in range(1 + number % 2):
                guarded.bans.failed(peer, "home", "wrong secret", everywhere)
            guarded.events.clear()
        assert guarded.bans.counted == MAX_SOURCES
        assert len(guarded.bans) == MAX_BANS

    def test_that_failures_are_forgotten_is_told(self, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_SOURCES", 3)
        for number in range(4):
            guarded.fails(host=f"192.0.2.{number}")
        assert guarded.bans.counted == 3
        assert len(guarded.told(FailuresForgotten)) == 1

    def test_the_oldest_ban_makes_room_but_never_one_by_hand(
        self, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_BANS", 3)
        guarded.bans.ban("192.0.2.200", 60.0)
        for number in range(5):
            guarded.fails(1, f"192.0.2.{number}", ban_after=1)
        assert [ban.address for ban, _ in guarded.bans.rows()] == ["192.0.2.4", "192.0.2.3", "192.0.2.200"]
        assert len(guarded.told(AddressUnbanned)) == 3
        assert MAX_BANS > 3


class TestHandshakeRates:
    def test_so_many_may_come_at_once_and_then_as_time_goes_by(self) -> None:
        now = 0.0
        rate = HandshakeRate(Frequency(20, 10.0), lambda: now)
        assert [rate.admits("192.0.2.7:1") for _ in range(22)] == [True] * 20 + [False] * 2
        now = 0.6
        assert [rate.admits("192.0.2.7:1") for _ in range(2)] == [True, False]
        now = 60.0
        assert [rate.admits("192.0.2.7:1") for _ in range(21)] == [True] * 20 + [False]

    def test_each_source_has_its_own(self) -> None:
        rate = HandshakeRate(Frequency(1, 10.0), lambda: 0.0)
        assert rate.admits("192.0.2.7:1")
        assert not rate.admits("192.0.2.7:2")
        assert rate.admits("192.0.2.8:1")

    def test_a_hundred_thousand_sources_are_not_all_remembered(self) -> None:
        rate = HandshakeRate(Frequency(1, 10.0), lambda: 0.0)
        for number in range(100_000):
            rate.admits(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1")
        assert len(rate) == MAX_SOURCES

    def test_who_has_waited_long_enough_is_forgotten(self) -> None:
        now = 0.0
        rate = HandshakeRate(Frequency(1, 1.0), lambda: now)
        for number in range(1000):
            now += 2.0
            rate.admits(f"10.0.{number >> 8}.{number & 255}:1")
        assert len(rate) <= 2


class TestARestart:
    """What one register gives away, and another one takes over."""

    def after(self, guarded: Guarded, seconds: float = 0.0) -> Guarded:
        """The register of an engine that is started so much later, whose clock has begun anew."""
        off = guarded.now + 1e9 + seconds
        later = Guarded()
        later.bans = Bans(later.bus, lambda: later.now, lambda: later.now - 1000 + off)
        later.bans.restore(usable(guarded.bans.take_changes().written))
        return later

    def test_a_ban_lasts_for_as_long_as_it_had_left(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        later = self.after(guarded, BAN_TIME - 10)
        assert later.banned()
        assert later.told(BansRestored) == ["1 address is still banned from before the restart"]
        later.now += 11
        assert not later.banned()
        assert later.told(AddressUnbanned)

    def test_all_that_is_told_of_it_is_kept(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        guarded.bans.ban("2001:db8::7", 3600)
        (before, after) = ([ban for ban, _ in each.bans.rows()] for each in (guarded, self.after(guarded)))
        assert [(ban.address, ban.by_hand) for ban in after] == [("2001:db8::/64", True), (GUESSER, False)]
        for one, other in zip(before, after, strict=True):
            assert (one.service, one.reason, one.failures, one.since, one.seconds) == (
                other.service,
                other.reason,
                other.failures,
                other.since,
                other.seconds,
            )

    def test_one_that_ended_meanwhile_is_over(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        later = self.after(guarded, BAN_TIME + 1)
        assert not later.banned()
        assert not later.events

    def test_none_gets_longer_because_the_time_of_day_was_set_back(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        ((_, left),) = self.after(guarded, -1e6).bans.rows()
        assert left == pytest.approx(BAN_TIME)

    def test_the_next_one_is_twice_as_long_all_the_same(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        later = self.after(guarded)
        later.now += BAN_TIME + 1
        later.fails(BAN_AFTER)
        ((ban, _),) = later.bans.rows()
        assert ban.seconds == 2 * BAN_TIME

    def test_one_that_was_lifted_does_not_come_back(self, guarded: Guarded) -> None:
        guarded.fails(BAN_AFTER)
        guarded.bans.lift(GUESSER)
        assert not self.after(guarded).banned()

    @pytest.mark.parametrize(
        "spoilt",
        [
            {"address": "everybody"},
            {"address": "192.0.2.0/24"},
            {"address": "2001:db8::7"},
            {"until": float("inf"), "seconds": float("inf")},
            {"until": float("nan")},
            {"seconds": float("nan")},
            {"seconds": 0.0},
            {"since": float("nan")},
        ],
        ids=str,
    )
    def test_what_no_engine_has_written_is_left_out(self, guarded: Guarded, spoilt: dict[str, Any]) -> None:
        row: dict[str, Any] = {
            "address": GUESSER,
            "service": "home",
            "reason": "wrong secret",
            "failures": 10,
            "since": 1e9 + guarded.now,
            "seconds": 600.0,
            "until": 1e9 + guarded.now + 600,
            "by_hand": False,
        }
        guarded.bans.restore(usable([KeptBan(**row | spoilt)]))
        assert not guarded.bans.rows()

    def test_no_more_are_taken_over_than_there_may_be(self, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(3):
            guarded.bans.ban(f"192.0.2.{number}", 60)
        monkeypatch.setattr(module, "MAX_BANS", 2)
        assert len(self.after(guarded).bans) == 2

    def test_what_changes_while_it_is_written_is_written_again(self, guarded: Guarded) -> None:
        guarded.bans.ban(GUESSER, 60)
        assert [ban.address for ban in guarded.bans.take_changes().written] == [GUESSER]
        guarded.bans.lift(GUESSER)
        assert guarded.bans.take_changes() == BanChanges([], [GUESSER], False)
        assert not guarded.bans.take_changes()

    def test_what_could_not_be_written_is_written_later_as_it_is_then(self, guarded: Guarded) -> None:
        guarded.bans.ban(GUESSER, 60)
        guarded.bans.put_back(guarded.bans.take_changes())
        guarded.bans.lift(GUESSER)
        changes = guarded.bans.take_changes()
        assert changes == BanChanges([], [GUESSER], False)
        guarded.bans.put_back(changes)
        assert guarded.bans.take_changes() == changes

    def test_of_too_many_changes_no_more_is_noted_than_that_there_are(
        self, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_BANS", 2)
        for number in range(9):
            guarded.fails(BAN_AFTER, f"192.0.2.{number}")
        assert len(guarded.bans._changed) <= 4
        changes = guarded.bans.take_changes()
        assert changes.all
        assert [ban.address for ban in changes.written] == ["192.0.2.7", "192.0.2.8"]

    def test_where_the_time_of_day_is_set_the_ends_are_kept_anew(self, guarded: Guarded) -> None:
        guarded.bans.ban(GUESSER, 3600)
        guarded.bans.take_changes()
        guarded.bans.tick()
        assert not guarded.bans.take_changes()
        guarded.wall += 50e6
        guarded.bans.tick()
        changes = guarded.bans.take_changes()
        assert changes.all
        assert changes.written[0].until == guarded.wall + guarded.now + 3600
