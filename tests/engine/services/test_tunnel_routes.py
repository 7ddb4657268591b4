"""Who may have which host, which client gets a request, and what a party has left."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.rates import Allowance, RateSettings
from tunnelconsole.engine.services.tunnel.backend import Backend
from tunnelconsole.engine.services.tunnel.routes import HostRules, Routes, Tunnel
from tunnelconsole.engine.units import Rate


def patterns(*texts: str) -> list[HostPattern]:
    return [HostPattern.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "named", "others"),
    [
        ("app.example.com", ["app.example.com"], ["xapp.example.com", "app.example.com.evil"]),
        ("*.Example.com", ["a.example.com", "a.b.example.com"], ["example.com", "example.com.evil"]),
        ("app-?.example.com.", ["app-1.example.com"], ["app-12.example.com", "app-.example.com"]),
        ("*", ["anything", "a.b"], []),
    ],
)
def test_a_pattern_names_hosts(text: str, named: list[str], others: list[str]) -> None:
    pattern = HostPattern.parse(text)
    assert all(map(pattern.names, named))
    assert not any(map(pattern.names, others))


@pytest.mark.parametrize("text", ["", " ", "a b", "a:80", "http://a", "a/b", "[a]", "a" * 300])
def test_what_is_no_pattern_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        HostPattern.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a..b", "between"),
        (".a", "before"),
        ("a.b..", "behind"),
        ("*..b", "between"),
        ("-a.b", 'part "-a" begins or ends'),
        ("a_.*", 'part "a_" begins or ends'),
        ("*-", "begins or ends"),
        ("a" * 64 + ".b", "more than 63"),
        (".".join(["a" * 60] * 5), "at most 253"),
        ("a.256", "no IP address"),
        ("0x7f.1", "no IP address"),
    ],
)
def test_a_pattern_that_no_host_can_match_is_refused_and_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="is not a host and names none") as caught:
        HostPattern.parse(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("*.123", "10.0.0.123"),
        ("10.0.0.1", "10.0.0.1"),
        ("?" * 64, "a" * 31 + "." + "b" * 32),
        ("a*" * 200, "a" * 60 + "." + "a" * 60 + "." + "a" * 60 + "." + "a" * 20),
        ("x_*_y.a", "x_1_y.a"),
        ("*.*", "a.b"),
    ],
)
def test_a_pattern_that_few_hosts_can_match_is_taken(text: str, host: str) -> None:
    assert HostPattern.parse(text).names(host)


def test_deny_wins_and_reserved_hosts_are_their_owners_alone() -> None:
    rules = HostRules(patterns("*.example.com"), patterns("bad.*"), {"app.*": "alice", "bob.example.com": "bob"})
    assert rules.refuses("a.example.com", "anonymous") == ""
    assert "not allowed" in rules.refuses("a.example.org", "anonymous")
    assert "not allowed" in rules.refuses("bad.example.com", "alice")
    assert rules.refuses("app.example.com", "alice") == ""
    assert "reserved" in rules.refuses("app.example.com", "bob")
    assert rules.refuses("app.elsewhere.org", "alice") == ""
    assert rules.refuses("bob.example.com", "bob") == ""


class Client:
    """What a route knows of a client."""

    def __init__(self, load: int, down_until: float, healthy: bool) -> None:
        self.load = load
        self.down_until = down_until
        self.healthy = healthy


def backend(load: int = 0, down_until: float = 0.0, *, healthy: bool = True) -> Backend:
    return cast("Backend", Client(load, down_until, healthy))


def tunnel(*backends: Any) -> Tunnel:
    made = Tunnel("host", "owner", (), None)
    made.backends = list(backends)
    return made


def test_the_least_busy_client_is_chosen_and_the_last_one_among_equals() -> None:
    one, two, three = backend(2), backend(1), backend(1)
    at = tunnel(one, two, three)
    assert at.choose(0.0, None, None) is two
    assert at.choose(0.0, three, None) is three
    assert at.choose(0.0, one, None) is three


def test_clients_that_are_equally_busy_take_turns() -> None:
    one, two, three = backend(), backend(), backend()
    at = tunnel(one, two, three)
    assert [at.choose(0.0, None, None) for _ in range(5)] == [one, two, three, one, two]
    assert [at.choose(0.0, one, None) for _ in range(2)] == [one, one]  # who has been there before is no turn
    assert at.choose(0.0, None, None) is three
    at.backends = [one]
    assert at.choose(0.0, None, None) is one


def test_a_client_that_is_down_or_has_failed_is_chosen_only_if_there_is_no_other() -> None:
    down, busy = backend(0, down_until=10.0), backend(9)
    at = tunnel(down, busy)
    assert at.choose(5.0, down, None) is busy
    assert at.choose(10.0, None, None) is down
    assert at.choose(5.0, None, busy) is down
    assert tunnel(down).choose(5.0, None, None) is down
    assert tunnel(down).choose(5.0, None, down) is None
    assert tunnel().choose(5.0, None, None) is None


def test_a_client_that_is_not_healthy_is_never_chosen() -> None:
    sick, busy = backend(healthy=False), backend(9, down_until=10.0)
    assert tunnel(sick, busy).choose(5.0, sick, None) is busy
    assert tunnel(sick, busy).choose(5.0, None, busy) is None
    assert tunnel(sick).choose(5.0, sick, None) is None
    assert tunnel(sick, sick).choose(5.0, sick, None) is None


def test_a_host_is_free_when_its_last_client_has_left_and_not_before() -> None:
    routes, one, two = Routes(), backend(), backend()
    at = tunnel(one, two)
    routes.add(at)
    routes.leave(at, one)
    routes.leave(at, one)
    assert routes.find("host") is at
    routes.leave(at, two)
    assert routes.find("host") is None


def test_a_late_leave_does_not_free_the_host_of_somebody_else() -> None:
    routes, old = Routes(), backend()
    before, after = tunnel(old), tunnel(backend())
    routes.add(before)
    routes.add(after)
    routes.leave(before, old)
    assert routes.find("host") is after


def test_requests_are_taken_up_to_a_rate_with_a_second_of_burst() -> None:
    allowance = Allowance(RateSettings(requests=2.0))
    assert [allowance.take_request(100.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert allowance.take_request(100.5) == 0.0
    assert allowance.take_request(100.5) == pytest.approx(0.5)
    assert [allowance.take_request(200.0) for _ in range(3)] == [0.0, 0.0, 0.5]


def test_a_low_rate_lets_one_request_through_at_a_time() -> None:
    allowance = Allowance(RateSettings(requests=0.1))
    assert allowance.take_request(100.0) == 0.0
    assert allowance.take_request(101.0) == pytest.approx(9.0)


def test_without_a_rate_everything_is_taken_and_bytes_have_a_pace_of_their_own() -> None:
    allowance = Allowance(RateSettings(rate=Rate(1000.0)))
    assert all(not allowance.take_request(0.0) for _ in range(1000))
    assert allowance.pace is not None
    assert Allowance(RateSettings(requests=1.0)).pace is None
