"""A punch client among enemies: the other end has the right secret, or the rendezvous lies, and nobody else is hit."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest

from loopback import FREE, digest_at_end, hears, running, sha256, target, told
from punch_peers import ROOM, SECRET, Rendezvous, rendezvous
from rendezvous_lines import Line, Lines
from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Crashed
from tunnelconsole.engine.punch_events import PunchWarning
from tunnelconsole.engine.services.punch import pair as pair_module
from tunnelconsole.engine.services.punch import pairing
from tunnelconsole.engine.services.punch import round as round_module
from tunnelconsole.engine.services.punch import seat as seat_module
from tunnelconsole.engine.services.punch.client import PunchClientSettings
from tunnelconsole.engine.settings import HostPort, Secret
from tunnelconsole.engine.wire.punch import (
    MAX_LINE,
    Go,
    Join,
    Joined,
    Left,
    LineReader,
    Message,
    Notice,
    Peer,
    Ping,
    Ready,
    Refused,
    Said,
    Say,
    encode,
    parse_first,
    parse_seat,
)
from tunnelconsole.engine.wire.punch_offer import MAX_ROUND, Candidate, Kind, Mode, Offer, encode_offer, parse_offer
from tunnelconsole.engine.wire.punch_room import RoomKey
from waiting import until

KEY = RoomKey(ROOM, sha256(f"{ROOM} {SECRET}".encode()))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost no tenth of a second, and nobody waits long for what never comes."""
    monkeypatch.setattr(pairing, "room_key", lambda room, secret: RoomKey(room, sha256(f"{room} {secret}".encode())))
    monkeypatch.setattr(round_module, "GO_TIME", 0.2)
    monkeypatch.setattr(round_module, "OFFER_TIME", 0.3)
    monkeypatch.setattr(pair_module, "RELAY_TIME", 0.3)
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)


def sealed(offer: Offer) -> Say:
    return Say(KEY.seal(encode_offer(offer), secrets.token_bytes))


def opened(said: Said | Say) -> Offer:
    return parse_offer(KEY.open(said.sealed))


def offer(**fields: object) -> Offer:
    """An offer of the end that opens streams."""
    return Offer(**{"nonce": secrets.token_hex(16), "mode": Mode.OPENS, **fields})  # type: ignore[arg-type]


def attempts(engine: Engine) -> list[Attempt]:
    return list(engine.node.attempts)


async def ended(engine: Engine) -> Attempt:
    """The first attempt that has come to something."""
    found = await until(lambda: [attempt for attempt in attempts(engine) if attempt.over])
    return found[0]


# The other end


class Enemy:
    """The other end of a room, which has its secret."""

    def __init__(self, line: Line) -> None:
        self.line = line

    async def hear(self, round_: int) -> Offer:
        """What the client offers for a round."""
        while True:
            theirs = opened(await self.line.find(Said))
            if theirs.round == round_:
                return theirs

    async def meet(self) -> None:
        """Has the client make a link with us."""
        await self.line.send(sealed(offer()))
        await self.hear(0)

    async def race(self, round_: int = 1, **fields: object) -> None:
        """Offers what it likes for a round, and is ready."""
        await self.line.send(sealed(offer(round=round_, **fields)), Ready(f"go {round_}"))


@asynccontextmanager
async def enemy_of(meet: Rendezvous) -> AsyncIterator[tuple[Enemy, Engine]]:
    """A client, and an enemy in its room."""
    async with Lines(meet.address) as lines, running(end=meet.client(target=HostPort("127.0.0.1", 1))) as engine:
        await until(lambda: meet.seats == 1)
        enemy = Enemy(await lines.join(ROOM, KEY.tag))
        yield enemy, engine
        assert not told(engine, Crashed)


@asynccontextmanager
async def decoys(*hosts: str) -> AsyncIterator[list[socket.socket]]:
    """Third parties that listen; nobody has dialled them at the end."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_server((host, 0))) for host in hosts]
        for sock in made:
            sock.setblocking(False)
        yield made
        for sock in made:
            with pytest.raises(BlockingIOError):
                sock.accept()


@pytest.mark.parametrize("kind", Kind)
async def test_a_third_party_is_never_dialled(kind: Kind) -> None:
    async with rendezvous() as meet, decoys("127.0.0.9", "127.0.0.10") as third, enemy_of(meet) as (enemy, engine):
        await enemy.meet()
        candidates = tuple(Candidate.of(kind, *sock.getsockname()) for sock in third)
        await enemy.race(candidates=candidates)
        attempt = await ended(engine)
        assert attempt.reason == "none of the addresses that the other side offers may be dialled"
        assert {attempt.candidates["theirs", each.address].reason for each in candidates} == {"it is loopback"}
        assert attempt.syns == 0


async def test_the_rendezvous_is_not_dialled_for_somebody_else() -> None:
    async with rendezvous(observe_ports=None) as meet, enemy_of(meet) as (enemy, engine):
        await enemy.meet()
        await enemy.race(candidates=(Candidate(Kind.MAPPED, "192.0.2.10:7900"), Candidate(Kind.HOST, "10.255.1.1:22")))
        attempt = await ended(engine)
        assert attempt.syns == 0


async def test_ten_thousand_addresses_are_no_offer_and_cost_the_enemy_our_company() -> None:
    async with rendezvous() as meet, enemy_of(meet) as (enemy, engine):
        await enemy.meet()
        text = encode_offer(offer(round=1, candidates=tuple(Candidate.of(Kind.HOST, "::", n) for n in range(100))))
        await enemy.line.send(Say(KEY.seal(text, secrets.token_bytes)))
        await enemy.line.find(Left)
        await enemy.line.find(Peer)
        assert all(not attempt.syns for attempt in attempts(engine))


async def test_rounds_that_are_asked_for_without_end_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_module, "ASKED_AGAIN", 3600.0)
    async with rendezvous() as meet, enemy_of(meet) as (enemy, engine):
        await enemy.meet()
        for round_ in range(2, 20):
            await enemy.line.send(sealed(offer(round=round_)))
        await ended(engine)
        assert len(attempts(engine)) <= 3


async def test_the_highest_round_is_the_last_one_asked_for() -> None:
    async with rendezvous() as meet, enemy_of(meet) as (enemy, engine):
        await enemy.meet()
        await enemy.race(MAX_ROUND, candidates=(Candidate(Kind.MAPPED, "127.0.0.1:1025"),))
        assert (await enemy.hear(MAX_ROUND)).round == MAX_ROUND
        await until(lambda: any(attempt.over for attempt in attempts(engine)))


async def test_an_enemy_that_never_offers_nor_is_ready_leaves_us_on_the_relay() -> None:
    async with rendezvous() as meet, enemy_of(meet) as (enemy, engine):
        await enemy.meet()
        attempt = await ended(engine)
        assert "offered nothing within" in attempt.reason
        await enemy.line.send(sealed(offer(round=2, candidates=(Candidate(Kind.MAPPED, "127.0.0.1:1025"),))))
        await until(lambda: [each for each in attempts(engine) if "not ready within" in each.reason])


async def test_an_enemy_that_begins_anew_again_and_again_leaves_one_link() -> None:
    async with rendezvous() as meet, enemy_of(meet) as (enemy, engine):
        for _ in range(20):
            await enemy.meet()
        client = engine.services["end"]
        await until(lambda: len(client.attached) == 1)


async def test_what_was_not_sealed_with_the_secret_costs_the_enemy_our_company() -> None:
    async with rendezvous() as meet, enemy_of(meet) as (enemy, _):
        await enemy.line.find(Said)
        await enemy.line.send(Say("bm9pc2U="))
        await enemy.line.find(Left)
        await enemy.line.find(Peer)


# The rendezvous


Script = Callable[["Liar", "Guest"], Awaitable[None]]


class Guest:
    """A client's seat at a rendezvous that lies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lines = LineReader()
        self._waiting: list[bytes] = []

    async def say(self, *messages: Message | bytes) -> None:
        self._writer.write(b"".join(each if isinstance(each, bytes) else encode(each) for each in messages))
        await self._writer.drain()

    async def line(self) -> bytes:
        while not self._waiting:
            data = await self._reader.read(1 << 16)
            if not data:
                raise ConnectionResetError
            self._waiting += self._lines.feed(data)
        return self._waiting.pop(0)

    async def offer(self) -> Said:
        """What the client says next, as if the other seat had."""
        while True:
            message = parse_seat(await self.line())
            if isinstance(message, Say):
                return Said(sealed=message.sealed, seen=["127.0.0.1"])

    async def gone(self) -> None:
        """Waits until the client leaves."""
        while await self._reader.read(1 << 16):
            pass


class Liar:
    """A rendezvous that says what a test tells it to whoever takes a seat."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.writers: set[asyncio.StreamWriter] = set()
        self.address = HostPort("127.0.0.1", 1)
        self.guests: list[Guest] = []
        self.over = asyncio.Event()
        self.done = 0
        """Seats for which the script is over."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        guest = Guest(reader, writer)
        try:
            if isinstance(parse_first(await guest.line()), Join):
                self.guests.append(guest)
                await self._script(self, guest)
                self.done += 1
            await guest.gone()
        except ConnectionError:
            return
        finally:
            writer.close()
            self.writers.discard(writer)

    def joined(
        self, *, first: bool = True, address: str = "127.0.0.1:40000", endpoints: tuple[str, ...] = ()
    ) -> Joined:
        return Joined(first=first, address="127.0.0.1:40000", endpoints=[])


@asynccontextmanager
async def lying(script: Script, clients: int = 1) -> AsyncIterator[tuple[Liar, list[Engine]]]:
    """A rendezvous that lies, and its victims: the first with a listener, the second with a target."""
    liar = Liar(script)
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    liar.address = HostPort(*server.sockets[0].getsockname()[:2])
    made = PunchClientSettings
    try:
        async with target(digest_at_end) as far:
            opens = made(server=liar.address, room=ROOM, secret=Secret(SECRET), listen=FREE)
            accepts = made(server=liar.address, room=ROOM, secret=Secret(SECRET), target=far.address)
            async with running(end=opens) as one, running(**({"end": accepts} if clients == 2 else {})) as other:
                engines = [one, other][:clients]
                yield liar, engines
                for engine in engines:
                    assert not told(engine, Crashed)
    finally:
        server.close()
        liar.over.set()
        for writer in list(liar.writers):
            writer.transport.abort()
        await until(lambda: not liar.writers)


@pytest.mark.parametrize(
    "words",
    [
        b"noise\n",
        b"x" * (MAX_LINE + 10),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        encode(Go(step="go 1", rtt=0.1)),
        encode(Refused("no")),
        encode(Joined(first=True, address="nowhere", endpoints=[])),
        encode(Joined(first=True, address="127.0.0.1:1", endpoints=["127.0.0.1:http"])),
        encode(Joined(first=True, address="127.0.0.1:1", endpoints=["127.0.0.1:70000"])),
        encode(Joined(first=True, address="127.0.0.1:1", endpoints=[""])),
    ],
)
async def test_whatever_answers_that_is_no_rendezvous_is_an_error_in_words(words: bytes) -> None:
    async def script(_: Liar, guest: Guest) -> None:
        await guest.say(words)
        if not words:
            raise ConnectionResetError

    async with lying(script) as (_, (engine,)):
        client = engine.services["end"]
        await until(lambda: client.state == "backoff")
        assert any(word in (client.error or "") for word in ("rendezvous", "punch server"))


@pytest.mark.parametrize(
    "words",
    [b"noise\n", b"x" * (MAX_LINE + 10), encode(Refused("go")), encode(Joined(first=True, address="", endpoints=[]))],
)
async def test_a_rendezvous_that_goes_mad_is_left(words: bytes) -> None:
    async def script(liar: Liar, guest: Guest) -> None:
        await guest.say(liar.joined(), Peer())
        await guest.offer()
        await guest.say(words)

    async with lying(script) as (liar, (engine,)):
        await until(lambda: len(liar.guests) > 1)
        assert not engine.services["end"].attached


async def test_endpoints_of_third_parties_on_this_network_are_not_asked() -> None:
    async with decoys("127.0.0.9") as (third,):
        host, port = third.getsockname()
        seat = seat_module.Seat.__new__(seat_module.Seat)
        seat.local_address, seat._endpoints = "192.0.2.1:5", [f"{host}:{port}", "224.0.0.1:7901", "169.254.1.1:7901"]
        assert await seat.endpoints("192.0.2.10") == []


async def test_a_rendezvous_that_sends_our_offers_back_is_found_out() -> None:
    async def script(liar: Liar, guest: Guest) -> None:
        await guest.say(liar.joined(), Peer())
        while True:
            await guest.say(await guest.offer())

    async with lying(script) as (_, (engine,)):
        await hears(engine, PunchWarning, "the rendezvous sends it back to us")
        assert not engine.services["end"].attached


async def test_a_rendezvous_that_floods_says_nothing_that_costs_more_than_its_reading() -> None:
    async def script(liar: Liar, guest: Guest) -> None:
        await guest.say(liar.joined(), Peer())
        said = await guest.offer()
        await guest.say(*[said, Left(), Peer(), Ping(1), Go(step="go 1", rtt=0), Notice("?")] * 200)

    async with lying(script) as (liar, (engine,)):
        await until(lambda: liar.done)
        assert all(not attempt.syns for attempt in attempts(engine))
        assert not engine.services["end"].attached


async def between(liar: Liar, change: Callable[[Said, int], Said]) -> None:
    """Tells each of two guests what the other says, as changed."""
    one, two = liar.guests

    async def carry(near: Guest, far: Guest, number: int) -> None:
        while True:
            await far.say(change(await near.offer(), number))

    await asyncio.gather(carry(one, two, 0), carry(two, one, 1))


def meeting(change: Callable[[Said, int], Said], *, first: tuple[bool, bool] = (True, False)) -> Script:
    """The script of a rendezvous without relay and without ``go``."""

    async def script(liar: Liar, guest: Guest) -> None:
        number = len(liar.guests) - 1
        await guest.say(liar.joined(first=first[number % 2]))
        if number == 1:
            for each in liar.guests:
                await each.say(Peer())
            await between(liar, change)
        await liar.over.wait()

    return script


async def test_a_rendezvous_that_never_says_go_leaves_a_reason() -> None:
    async with lying(meeting(lambda said, _: said), clients=2) as (_, engines):
        for engine in engines:
            attempt = await ended(engine)
            assert attempt.reason
            assert attempt.syns == 0


async def test_a_rendezvous_that_lies_about_where_the_other_was_seen_has_nobody_dialled() -> None:
    def lie(said: Said, _: int) -> Said:
        return Said(sealed=said.sealed, seen=["127.0.0.9", "8.8.8.8", "nowhere", ""])

    async with decoys("127.0.0.9"), lying(meeting(lie), clients=2) as (_, engines):
        for engine in engines:
            assert (await ended(engine)).syns == 0


async def test_a_rendezvous_that_calls_both_the_first_gets_no_link_carried() -> None:
    async with lying(meeting(lambda said, _: said, first=(True, True)), clients=2) as (_, engines):
        for engine in engines:
            await hears(engine, PunchWarning, "the relay does not work")
            assert engine.services["end"].state == "connecting"


async def test_a_rendezvous_that_plays_old_offers_again_makes_no_link_that_carries_anything() -> None:
    old: list[Said] = []

    def replay(said: Said, _: int) -> Said:
        old.append(said)
        return old[0] if len(old) > 2 else said

    async with lying(meeting(replay), clients=2) as (_, engines):
        for engine in engines:
            await ended(engine)
            assert engine.services["end"].notes.get("path", "none") == "none"
