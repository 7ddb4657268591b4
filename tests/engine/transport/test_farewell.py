"""Last words: a peer can read why it is turned away, whatever it is still sending; and none of them stays for long."""

from __future__ import annotations

import asyncio

import pytest

from tcp import Program, connected
from tls_programs import SecureProgram, ends_of, shake_hands
from tunnelconsole.engine.transport import farewell as farewell_module
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.farewell import FAREWELL_BYTES, Farewells
from waiting import until

WORDS = b"no, because of this"


def part(sock_end: SocketEnd, words: bytes = WORDS) -> Farewells:
    farewells = Farewells(asyncio.get_running_loop())
    farewells.bid(sock_end, words)
    return farewells


async def test_the_words_arrive_although_the_peer_has_sent_what_nobody_read() -> None:
    near, far = connected()
    peer, end = Program(near), SocketEnd(far)
    await peer.send(bytes(100_000))
    part(end)
    assert await peer.read_to_end() == WORDS
    await peer.send(b"and it still talks")
    peer.close()
    await until(lambda: end.fileno() == -1)


async def test_over_tls_they_arrive_and_end_in_order() -> None:
    near, far = connected()
    outer, inner = ends_of(near, far)
    await shake_hands(outer, inner)
    peer = SecureProgram(outer)
    await peer.send(bytes(100_000))
    Farewells(asyncio.get_running_loop()).bid(inner, WORDS)
    assert await peer.read_to_end() == WORDS
    peer.close()
    await until(lambda: inner.fileno() == -1)


@pytest.mark.parametrize("half_closed", [False, True])
async def test_many_words_are_waited_for(half_closed: bool) -> None:
    near, far = connected(4096)
    peer, end = Program(near), SocketEnd(far)
    part(end, bytes(500_000))
    if half_closed:
        await peer.half_close()
    assert await peer.read_to_end() == bytes(500_000)
    peer.close()
    await until(lambda: end.fileno() == -1)


async def test_a_peer_that_neither_reads_nor_leaves_is_cut_off_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell_module, "FAREWELL_TIME", 0.05)
    near, far = connected(4096)
    end = SocketEnd(far)
    part(end, bytes(500_000))
    await until(lambda: end.fileno() == -1)
    near.close()


async def test_a_peer_that_never_stops_sending_is_cut_off() -> None:
    near, far = connected()
    peer, end = Program(near), SocketEnd(far)
    part(end)
    with pytest.raises(ConnectionError):
        await peer.send(bytes(20 * FAREWELL_BYTES))
    assert end.fileno() == -1
    peer.close()


async def test_a_peer_that_has_gone_is_let_go_at_once() -> None:
    near, far = connected()
    end = SocketEnd(far)
    Program(near).reset()
    part(end)
    await until(lambda: end.fileno() == -1)


async def test_a_peer_that_breaks_off_behind_unread_bytes_is_let_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell_module, "FAREWELL_TIME", 3600.0)
    near, far = connected()
    peer, end = Program(near), SocketEnd(far)
    part(end)
    await peer.send(bytes(200_000))
    peer.reset()
    await until(lambda: end.fileno() == -1)


async def test_they_end_with_their_owner_whatever_their_peers_have_heard() -> None:
    farewells = Farewells(asyncio.get_running_loop())
    assert farewells.over.is_set()
    peers, ends = [], []
    for words in (WORDS, bytes(500_000)):
        near, far = connected(4096)
        peers.append(near)
        ends.append(SocketEnd(far))
        farewells.bid(ends[-1], words)
    assert not farewells.over.is_set()
    farewells.close()
    assert [end.fileno() for end in ends] == [-1, -1]
    assert farewells.over.is_set()
    for near in peers:
        near.close()


async def test_they_are_over_once_the_last_peer_has_gone() -> None:
    farewells = Farewells(asyncio.get_running_loop())
    peers = []
    for _ in range(2):
        near, far = connected()
        peers.append(Program(near))
        farewells.bid(SocketEnd(far), WORDS)
    for peer in peers:
        assert not farewells.over.is_set()
        assert await peer.read_to_end() == WORDS
        peer.close()
    await until(farewells.over.is_set)


async def test_one_whose_peer_has_gone_before_it_begins_is_over_at_once() -> None:
    near, far = connected()
    Program(near).reset()
    farewells = part(SocketEnd(far))
    await until(farewells.over.is_set)


async def test_a_peer_that_takes_an_end_for_a_half_close_is_reset_once_it_has_all() -> None:
    near, far = connected(4096)
    peer, end = Program(near), SocketEnd(far)
    Farewells(asyncio.get_running_loop()).bid(end, bytes(500_000), reset=True)
    assert await peer.read_until_broken() == (bytes(500_000), True)
    peer.close()


async def test_a_peer_that_does_not_take_all_before_its_reset_gets_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell_module, "FAREWELL_TIME", 0.05)
    near, far = connected(4096)
    peer, end = Program(near), SocketEnd(far)
    taken = Program(far).fill()
    Farewells(asyncio.get_running_loop()).bid(end, b"", reset=True)
    await until(lambda: end.fileno() == -1)
    assert await peer.read_until_broken() == (bytes(taken), False)
    peer.close()
