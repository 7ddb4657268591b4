"""The pump between links: every byte, both ways; ends and breaks passed on as what they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from link_owner import Owner
from ssh_pair import ChannelPair, channel_pair
from tcp import Program, connected
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.link import LINK_READ, EndLink, JoinableLink
from tunnelconsole.engine.transport.link_pump import LinkPump
from tunnelconsole.engine.transport.pacing import BURST_SECONDS, Pace
from waiting import Standstill, until

BULK = bytes(range(256)) * 40_000
"""More than every buffer on the way holds."""

WAYS = ("tcp", "ssh")
"""What the right link is: a socket's, or a channel of SSH whose far end is pumped to a socket, too."""

CLIENT_GONE = ("client: connection reset", "client: Broken pipe")


@dataclass
class Joined:
    """A client, a target, and the pump between them."""

    client: Program
    target: Program
    pump: LinkPump
    pair: ChannelPair | None = None
    finished: list[str] = field(default_factory=list)

    async def ended(self) -> str:
        """Waits for the pump's end; returns why."""
        await until(lambda: self.finished)
        assert len(self.finished) == 1
        return self.finished[0]


@asynccontextmanager
async def joined(way: str = "tcp", pace: Pace | None = None) -> AsyncIterator[Joined]:
    """Two programs with a pump between them."""
    loop = asyncio.get_running_loop()
    near, left = connected()
    right, far = connected()
    finished: list[str] = []

    def link(sock: object) -> EndLink:
        return EndLink(loop, SocketEnd(sock))  # type: ignore[arg-type]

    async def run(right_link: JoinableLink, pair: ChannelPair | None) -> AsyncIterator[Joined]:
        pump = LinkPump(loop, link(left), right_link, finished.append, pace=pace)
        assert not finished
        made = Joined(Program(near), Program(far), pump, pair, finished)
        try:
            yield made
        finally:
            pump.abort("the test is over")
            await until(lambda: finished)
            for sock in (near, left, right, far):
                sock.close()

    if way == "tcp":
        async for made in run(link(right), None):
            yield made
        return
    async with channel_pair() as pair:
        other = LinkPump(loop, pair.far, link(right), lambda _: None)
        async for made in run(pair.near, pair):
            yield made
        other.abort("the test is over")


async def filled(program: Program) -> int:
    """Sends until nobody on the way takes any more; returns how many bytes."""
    sent = 0

    def more() -> int:
        nonlocal sent
        sent += program.fill()
        return sent

    await until(Standstill(more))
    return sent


both = pytest.mark.parametrize("way", WAYS)


@both
async def test_every_byte_goes_both_ways_and_is_counted(way: str) -> None:
    async with joined(way) as both_ends:
        client, target = both_ends.client, both_ends.target

        async def to_target() -> None:
            await client.send(BULK)
            await client.half_close()

        async def to_client() -> None:
            await target.send(BULK[::-1])
            await target.half_close()

        at_target, at_client, _, _ = await asyncio.gather(
            target.read_to_end(), client.read_to_end(), to_target(), to_client()
        )
        assert (at_target, at_client) == (BULK, BULK[::-1])
        assert await both_ends.ended() == ""
        assert (both_ends.pump.bytes_in, both_ends.pump.bytes_out) == (len(BULK), len(BULK))
        assert both_ends.pump.path == way


@both
@pytest.mark.parametrize("first", ["client", "target"])
async def test_the_end_of_one_half_is_passed_on_and_the_other_goes_on(way: str, first: str) -> None:
    async with joined(way) as both_ends:
        one, other = both_ends.client, both_ends.target
        if first == "target":
            one, other = other, one
        await one.send(b"a question")
        await one.half_close()
        assert await other.read_to_end() == b"a question"
        await other.send(BULK[:100_000])
        await other.half_close()
        assert await one.read_to_end() == BULK[:100_000]
        assert await both_ends.ended() == ""


@both
@pytest.mark.parametrize("sender", ["client", "target"])
async def test_who_does_not_read_holds_the_sender_up_and_gets_all_in_the_end(way: str, sender: str) -> None:
    async with joined(way) as both_ends:
        one, other = both_ends.client, both_ends.target
        if sender == "target":
            one, other = other, one
        sent = await filled(one)
        await one.half_close()
        assert len(await other.read_to_end()) == sent


async def test_a_client_that_breaks_off_resets_the_target() -> None:
    async with joined() as both_ends:
        await both_ends.client.send(b"half of")
        assert await both_ends.target.read_exactly(7) == b"half of"
        both_ends.client.reset()
        assert await both_ends.target.read_until_broken() == (b"", True)
        assert await both_ends.ended() == "client: connection reset"


async def test_a_target_that_breaks_off_resets_the_client() -> None:
    async with joined() as both_ends:
        await both_ends.target.send(b"half of")
        assert await both_ends.client.read_exactly(7) == b"half of"
        both_ends.target.reset()
        assert await both_ends.client.read_until_broken() == (b"", True)
        assert await both_ends.ended() == "target: connection reset"


async def test_a_lost_ssh_connection_resets_the_client() -> None:
    async with joined("ssh") as both_ends:
        await both_ends.target.send(b"half of")
        assert await both_ends.client.read_exactly(7) == b"half of"
        assert both_ends.pair is not None
        both_ends.pair.lose()
        assert await both_ends.client.read_until_broken() == (b"", True)
        assert await both_ends.ended() == "target: the SSH connection ended"


async def test_a_lost_ssh_connection_resets_a_client_that_does_not_read() -> None:
    async with joined("ssh") as both_ends:
        await filled(both_ends.target)
        assert both_ends.pair is not None
        both_ends.pair.lose()
        assert await both_ends.ended() == "target: the SSH connection ended"
        assert (await both_ends.client.read_until_broken())[1]


@both
async def test_writing_to_who_has_closed_in_order_does_not_break_what_it_sent_before(way: str) -> None:
    async with joined(way) as both_ends:
        client, target = both_ends.client, both_ends.target
        await target.send(BULK[:500_000])
        target.close()
        await client.send(b"too late")
        got, broken = await client.read_until_broken()
        assert BULK.startswith(got)
        assert broken or got == BULK[:500_000]
        client.close()
        await both_ends.ended()


async def test_a_channel_that_was_closed_in_order_ends_in_order_though_its_bytes_are_not_read_yet() -> None:
    async with channel_pair() as pair:
        near, left = connected(buffer=4096)
        finished: list[str] = []
        loop = asyncio.get_running_loop()
        pair.far.owner = Owner()
        pair.far.write(BULK[:500_000])
        pair.far.finish()
        LinkPump(loop, EndLink(loop, SocketEnd(left)), pair.near, finished.append)
        far = pair.far
        await pair.all_came()
        far.close()  # behind its end
        client = Program(near)
        await client.send(b"too late")  # while what came from there is still on its way to us
        assert await client.read_until_broken() == (BULK[:500_000], False)
        client.close()
        await until(lambda: finished)


async def test_cutting_resets_both_and_tells_why_once() -> None:
    async with joined() as both_ends:
        both_ends.pump.abort("kicked")
        both_ends.pump.abort("again")
        assert await both_ends.ended() == "kicked"
        for program in (both_ends.client, both_ends.target):
            assert await program.read_until_broken() == (b"", True)


async def test_a_pump_that_is_to_receive_no_more_delivers_what_the_left_has_sent() -> None:
    async with joined() as both_ends:
        await both_ends.client.send(BULK[:300_000])
        await both_ends.client.half_close()
        both_ends.pump.stop_receiving()
        assert await both_ends.target.read_exactly(300_000) == BULK[:300_000]
        assert await both_ends.ended() == ""


@both
async def test_a_rate_holds_both_directions_together(way: str) -> None:
    waits: list[float] = []

    class Watched(Pace):
        def take(self, count: int, now: float) -> float:
            waits.append(super().take(count, now))
            return waits[-1]

    rate = 2_000_000
    async with joined(way, Watched(rate)) as both_ends:
        loop = asyncio.get_running_loop()
        began = loop.time()
        sending = asyncio.gather(both_ends.client.send(BULK[:600_000]), both_ends.target.send(BULK[:600_000]))
        await asyncio.gather(both_ends.target.read_exactly(600_000), both_ends.client.read_exactly(600_000))
        await sending
        assert any(wait > 0 for wait in waits)
        at_once = rate * BURST_SECONDS + 2 * LINK_READ  # the last pieces were not waited for
        assert rate * (loop.time() - began) + at_once >= 1_200_000
