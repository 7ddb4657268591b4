"""Races between real sockets of this host: who wins, who does not, and what is left."""

from __future__ import annotations

import asyncio
import errno
import gc
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from loopback import PATIENCE, blackhole, nobody
from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.services.punch import contacts, race
from tunnelconsole.engine.services.punch.contacts import Hello, Reached
from tunnelconsole.engine.services.punch.port import PunchingPort, bound
from tunnelconsole.engine.services.punch.race import Race
from tunnelconsole.engine.transport.dialer import Address
from tunnelconsole.engine.wire.punch_nat import MANY_PORTS, MANY_SOCKETS, Plan
from tunnelconsole.engine.wire.punch_offer import SYN_BUDGET, Candidate, Kind
from tunnelconsole.engine.wire.punch_room import HELLO_LENGTH, Role, RoomKey
from waiting import until

KEY = RoomKey("desk", bytes(32))
WRONG_KEY = RoomKey("desk", bytes([1]) * 32)
NONCES = (bytes(16), bytes([1]) * 16)
LIMIT = 30.0
"""Seconds of a race that has to be won."""


def hello(role: Role, key: RoomKey = KEY, round_: int = 1) -> Hello:
    """What one end says and wants to hear."""
    return Hello(role, key.hello(role, NONCES, round_), key.hello(role.other, NONCES, round_))


def at(port: int, kind: Kind = Kind.HOST, host: str = "127.0.0.1") -> Candidate:
    return Candidate.of(kind, host, port)


class Racer:
    """One end of a race."""

    def __init__(self, role: Role, key: RoomKey = KEY, round_: int = 1) -> None:
        self.port = PunchingPort()
        self.hello = hello(role, key, round_)
        self.attempt = Attempt("p1", "home", "desk", lambda _: None)

    def race(self, *candidates: Candidate, plan: Plan | None = None) -> Race:
        """A race against these."""
        for candidate in candidates:
            self.attempt.candidate(candidate.address, candidate.kind.value, "theirs")
        loop = asyncio.get_running_loop()
        return Race(loop, self.port, list(candidates), plan or Plan(), self.hello, self.attempt)

    @property
    def here(self) -> Candidate:
        """Where the other end finds it."""
        return at(self.port.number)

    def fate(self, candidate: Candidate) -> str:
        """What became of a candidate."""
        return self.attempt.candidates["theirs", candidate.address].fate


@contextmanager
def racers() -> Iterator[tuple[Racer, Racer]]:
    """Both ends."""
    both = Racer(Role.A), Racer(Role.B)
    try:
        yield both
    finally:
        for racer in both:
            racer.port.close()


def joined(one: Reached | None, other: Reached | None) -> None:
    """Makes sure that two ends are of one connection which carries bytes both ways, and closes it."""
    assert one is not None
    assert other is not None
    with one.sock, other.sock:
        assert one.sock.getsockname() == other.sock.getpeername()
        for near, far, words in ((one.sock, other.sock, b"T!"), (other.sock, one.sock, b"!")):
            near.send(b"!")
            far.settimeout(PATIENCE)
            assert far.recv(1) + (far.recv(1) if len(words) > 1 else b"") == words


async def begin_as_tls_does(winner: Reached | None) -> Reached | None:
    """As ``a``, says something on the connection that was chosen, which is how ``b`` learns of it."""
    if winner is not None:
        winner.sock.send(b"T")
    return winner


async def both(a: Race, b: Race, limit: float = LIMIT) -> tuple[Reached | None, Reached | None]:
    """Runs both ends of a race."""

    async def lead() -> Reached | None:
        return await begin_as_tls_does(await a.run(limit))

    one, other = await asyncio.gather(lead(), b.run(limit))
    return one, other


@contextmanager
def open_port(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, Candidate]]:
    """Somebody who listens and says nothing."""
    with socket.create_server((host, 0)) as sock:
        sock.setblocking(False)
        yield sock, at(sock.getsockname()[1], host=host)


# Who wins


async def test_both_ends_dial_and_come_to_one_connection() -> None:
    with racers() as (a, b):
        one, other = await both(a.race(b.here), b.race(a.here))
        assert one is not None
        assert one.address == b.here.address
        joined(one, other)
        assert a.fate(b.here) == "won"


@pytest.mark.parametrize("dialler", [Role.A, Role.B])
async def test_one_end_that_is_dialled_by_the_other_is_enough(dialler: Role) -> None:
    with racers() as (a, b), blackhole() as hole:
        silent = at(hole.port)
        dials = (b.here, silent) if dialler is Role.A else (silent, a.here)
        one, other = await both(a.race(dials[0]), b.race(dials[1]))
        listener = other if dialler is Role.A else one
        assert listener is not None
        assert listener.method == "accepted"
        joined(one, other)


async def test_an_end_that_comes_later_is_met_all_the_same() -> None:
    with racers() as (a, b):
        number = b.port.number
        b.port.close()
        first = a.race(b.here)
        leading = asyncio.ensure_future(first.run(LIMIT))
        await until(lambda: a.attempt.candidates["theirs", b.here.address].tries > 5)
        b.port = PunchingPort(number)
        other = asyncio.ensure_future(b.race(a.here).run(LIMIT))
        joined(await begin_as_tls_does(await leading), await other)


async def test_the_first_that_proves_itself_wins_over_those_that_answer() -> None:
    with racers() as (a, b), ExitStack() as stack:
        silent = [stack.enter_context(open_port())[1] for _ in range(5)]
        joined(*await both(a.race(*silent, b.here), b.race(a.here)))
        assert [a.fate(candidate) for candidate in silent] == ["lost"] * 5


async def test_addresses_that_do_not_answer_hold_nobody_up() -> None:
    with racers() as (a, b), blackhole() as hole:
        joined(*await both(a.race(at(hole.port), at(nobody().port), b.here), b.race(a.here)))
        assert a.fate(at(hole.port)) == "silent"


async def test_ipv4_and_ipv6_are_raced_together() -> None:
    with racers() as (a, b):
        if len(a.port.listeners) < 2:
            pytest.skip("no IPv6 here")
        joined(*await both(a.race(at(b.port.number, host="::1"), at(nobody().port)), b.race(at(nobody().port))))


# Who does not


@pytest.mark.parametrize(
    "answer",
    [
        KEY.hello(Role.A, NONCES, 1),
        KEY.hello(Role.B, NONCES, 2),
        KEY.hello(Role.B, NONCES[::-1], 1),
        WRONG_KEY.hello(Role.B, NONCES, 1),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01",
        b"",
    ],
    ids=["what we say", "another round", "other nonces", "another secret", "ssh", "tls", "nothing"],
)
async def test_somebody_who_cannot_prove_it_is_never_chosen(answer: bytes) -> None:
    with racers() as (a, _), open_port() as (sock, candidate):
        running = asyncio.ensure_future(a.race(candidate).run(LIMIT))
        loop = asyncio.get_running_loop()
        stranger, _ = await loop.sock_accept(sock)
        with stranger:
            if answer:
                stranger.send(answer)
            else:
                stranger.shutdown(socket.SHUT_WR)
            await until(lambda: a.fate(candidate) in ("wrong peer", "lost"))
            assert a.fate(candidate) == ("wrong peer" if answer else "lost")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_says_our_hello_back_is_not_chosen() -> None:
    with racers() as (a, _), open_port() as (sock, candidate):
        running = asyncio.ensure_future(a.race(candidate).run(LIMIT))
        loop = asyncio.get_running_loop()
        mirror, _ = await loop.sock_accept(sock)
        with mirror:
            await loop.sock_sendall(mirror, await loop.sock_recv(mirror, HELLO_LENGTH))
            await until(lambda: a.fate(candidate) == "wrong peer")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_two_ends_with_different_secrets_do_not_meet() -> None:
    with racers() as (a, _):
        b = Racer(Role.B, WRONG_KEY)
        assert await both(a.race(b.here), b.race(a.here), limit=0.3) == (None, None)
        assert a.fate(b.here) != "won"
        b.port.close()


async def test_we_do_not_meet_ourselves() -> None:
    with racers() as (a, _):
        assert await a.race(a.here).run(0.3) is None
        assert a.fate(a.here) in ("ourselves", "wrong peer", "trying", "silent", "lost")


async def test_a_hello_in_single_bytes_counts() -> None:
    with racers() as (a, _), open_port() as (sock, candidate):
        running = asyncio.ensure_future(a.race(candidate).run(LIMIT))
        loop = asyncio.get_running_loop()
        far, _ = await loop.sock_accept(sock)
        with far:
            for byte in a.hello.theirs:
                far.send(bytes([byte]))
                await asyncio.wait([running], timeout=0.001)
            winner = await running
            assert winner is not None
            winner.sock.close()


async def test_b_chooses_nothing_before_a_does() -> None:
    with racers() as (_, b):
        running = asyncio.ensure_future(b.race(at(nobody().port)).run(LIMIT))
        loop = asyncio.get_running_loop()
        lines = []
        for _ in range(3):
            sock = socket.create_connection(("127.0.0.1", b.port.number))
            sock.setblocking(False)
            sock.send(b.hello.theirs)
            assert await loop.sock_recv(sock, HELLO_LENGTH) == b.hello.ours
            lines.append(sock)
        await until(lambda: [moment.what for moment in b.attempt.timeline].count("verified") == 3)
        assert not running.done()
        lines[1].send(b"T")
        winner = await running
        assert winner is not None
        assert winner.sock.getpeername() == lines[1].getsockname()
        assert [await loop.sock_recv(line, 1) for line in (lines[0], lines[2])] == [b"", b""]
        lines[1].setblocking(False)
        with pytest.raises(BlockingIOError):  # and closing the others has not reset this one
            lines[1].recv(1)
        for sock in (winner.sock, *lines):
            sock.close()


async def test_a_crowd_of_silent_strangers_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "MAX_CONTACTS", 4)
    with racers() as (a, b), ExitStack() as stack:
        running = asyncio.ensure_future(a.race(at(nobody().port)).run(LIMIT))
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", a.port.number)))
        await until(lambda: [moment.what for moment in a.attempt.timeline].count("accepted") == 20)
        other = asyncio.ensure_future(b.race(a.here).run(LIMIT))
        joined(await begin_as_tls_does(await running), await other)


# What it costs


async def test_losers_are_closed_and_the_winner_is_not_reset_by_that() -> None:
    with racers() as (a, b):
        candidates = [at(b.port.number, host=f"127.0.0.{number}") for number in range(1, 9)]
        one, other = await both(a.race(*candidates), b.race(a.here))
        joined(one, other)


def dialled(attempt: Attempt) -> int:
    return sum(tried.tries for tried in attempt.candidates.values())


@pytest.mark.parametrize(
    "plan",
    [Plan(), Plan(many_ports=MANY_PORTS), Plan(many_sockets=MANY_SOCKETS), Plan(ahead=20)],
    ids=["plain", "many ports", "many sockets", "ahead"],
)
async def test_a_race_stays_within_its_packets(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "LAST_REDIAL", 0.001)
    monkeypatch.setattr(race, "FIRST_REDIAL", 0.001)
    with racers() as (a, _):
        candidates = [at(20_000 + number, Kind.MAPPED, f"127.9.9.{number}") for number in range(16)]
        assert await a.race(*candidates, plan=plan).run(0.4) is None
        assert 0 < a.attempt.syns <= SYN_BUDGET
        assert dialled(a.attempt) <= SYN_BUDGET


async def test_what_the_kernel_repeats_is_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "SYN_BUDGET", 12)
    monkeypatch.setattr(race, "FIRST_REPETITION", 0.02)
    with racers() as (a, _), ExitStack() as stack:
        silent = [at(stack.enter_context(blackhole()).port) for _ in range(5)]
        assert await a.race(*silent).run(0.3) is None
        assert 5 < a.attempt.syns <= 12


async def test_sockets_that_are_begun_anew_stay_within_the_packets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "SYN_BUDGET", 40)
    monkeypatch.setattr(race, "PROBE_LIFE", 0.01)
    monkeypatch.setattr(race, "HALFWAY", 0.01)
    with racers() as (a, _), blackhole() as hole:
        assert await a.race(at(hole.port, Kind.MAPPED), plan=Plan(many_sockets=10)).run(0.3) is None
        assert 20 < a.attempt.syns <= 40


async def test_many_ports_are_of_one_address_and_none_is_a_system_service_s(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    dialling = PunchingPort.dialling

    def noting(port: PunchingPort, address: Address) -> socket.socket:
        seen.append(address.sockaddr[:2])
        return dialling(port, address)

    monkeypatch.setattr(PunchingPort, "dialling", noting)
    with racers() as (a, _):
        mapped = at(nobody().port, Kind.MAPPED, "127.9.9.9")
        assert await a.race(mapped, at(nobody().port), plan=Plan(many_ports=MANY_PORTS)).run(0.5) is None
    guessed = [port for host, port in seen if host == "127.9.9.9"]
    assert len(guessed) >= MANY_PORTS
    assert min(guessed) >= 1024
    assert {host for host, _ in seen} == {"127.9.9.9", "127.0.0.1"}


async def test_one_of_many_ports_that_is_met_is_told_with_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with racers() as (a, b):
        met = b.port.number
        monkeypatch.setattr(random, "sample", lambda *_: [met])
        mapped = at(nobody().port, Kind.MAPPED)
        reached, other = await both(a.race(mapped, plan=Plan(mapped=False, many_ports=1)), b.race(at(nobody().port)))
        joined(reached, other)
        assert reached is not None
        assert (reached.address, reached.label, reached.method) == (f"127.0.0.1:{met}", "127.0.0.1:*", "many ports")


async def test_many_sockets_meet_who_listens() -> None:
    with racers() as (a, b):
        there = at(b.port.number, Kind.MAPPED)
        joined(*await both(a.race(there, plan=Plan(many_sockets=8)), b.race(at(nobody().port))))


async def test_further_sockets_dial_while_nobody_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "HALFWAY", 0.01)
    monkeypatch.setattr(race, "PROBE_LIFE", LIMIT)
    with racers() as (a, _), blackhole() as hole:
        running = asyncio.ensure_future(a.race(at(hole.port, Kind.MAPPED), plan=Plan(many_sockets=8)).run(LIMIT))
        await until(lambda: dialled(a.attempt) == 16)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_socket_that_nobody_meets_is_begun_anew_from_another_port(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []

    def noting(family: socket.AddressFamily, port: int) -> socket.socket:
        made = bound(family, port)
        ports.append(made.getsockname()[1])
        return made

    monkeypatch.setattr(race, "bound", noting)
    monkeypatch.setattr(race, "PROBE_LIFE", 0.02)
    with racers() as (a, _), blackhole() as hole:
        running = asyncio.ensure_future(a.race(at(hole.port, Kind.MAPPED), plan=Plan(many_sockets=1)).run(LIMIT))
        await until(lambda: len(ports) >= 6)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(set(ports)) > 2


async def test_nobody_dials_from_further_sockets_once_somebody_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "HALFWAY", LIMIT)
    with racers() as (a, b):
        made = a.race(at(b.port.number, Kind.MAPPED), plan=Plan(many_sockets=8))
        joined(*await both(made, b.race(at(nobody().port))))
        assert dialled(a.attempt) == 8
        assert all(dial.timer is None for dial in made._dials)


async def test_a_host_without_descriptors_dials_on_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    class Exhausted:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def accept(self) -> None:
            nonlocal tried
            tried += 1
            raise OSError(errno.EMFILE, "Too many open files")

    with racers() as (a, _):
        made = a.race(at(nobody().port))
        accept = made._accept
        monkeypatch.setattr(made, "_accept", lambda sock: accept(Exhausted(sock)))  # type: ignore[arg-type]
        with socket.create_connection(("127.0.0.1", a.port.number)):
            assert await made.run(0.3) is None
        assert tried == 1


@pytest.mark.parametrize("plan", [Plan(), Plan(many_ports=MANY_PORTS), Plan(many_sockets=MANY_SOCKETS)])
async def test_a_race_that_is_cancelled_leaves_nothing(plan: Plan) -> None:
    with racers() as (a, _), blackhole() as hole, open_port() as (_, silent):
        made = a.race(at(hole.port, Kind.MAPPED), silent, plan=plan)
        running = asyncio.ensure_future(made.run(LIMIT))
        await until(lambda: a.attempt.candidates["theirs", silent.address].fate == "connected")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert all(dial.sock is None and dial.timer is None for dial in made._dials)
        assert not made._contacts._contacts


async def test_a_race_that_is_cancelled_as_it_is_won_closes_the_winner() -> None:
    with racers() as (a, b):
        made = a.race(b.here)
        running = asyncio.ensure_future(made.run(LIMIT))
        other = asyncio.ensure_future(b.race(a.here).run(LIMIT))
        made._won.add_done_callback(lambda _: running.cancel())
        with pytest.raises(asyncio.CancelledError):
            await running
        assert made._won.result().sock.fileno() < 0
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_a_race_that_never_runs_leaves_nothing() -> None:
    with racers() as (a, b):
        made = a.race(b.here)
        del made
        gc.collect()


async def test_a_port_is_given_back() -> None:
    port = PunchingPort()
    port.close()
    port.close()
    with socket.create_server(("127.0.0.1", port.number)):
        pass


async def test_each_port_is_another() -> None:
    ports = [PunchingPort() for _ in range(20)]
    assert len({port.number for port in ports}) == 20
    for port in ports:
        port.close()
