"""Asking a rendezvous where the port to be punched is seen from, and what stands in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tunnelconsole.engine.services.punch.port import PunchingPort
from tunnelconsole.engine.transport.dialer import Address
from tunnelconsole.engine.transport.ends import SocketEnd, receive, send_all
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import parse_host_port
from tunnelconsole.engine.wire.punch import (
    LineReader,
    Observe,
    Observed,
    Probe,
    Probed,
    ServerLine,
    encode,
    parse_server,
)
from tunnelconsole.engine.wire.punch_nat import Nat, classify
from tunnelconsole.errors import ConnectFailed

OBSERVING_TIME: Final = 3.5
"""Seconds for all endpoints: the other side waits for our offer no longer than five."""

OBSERVE_TIME: Final = 2.0
"""Seconds that an endpoint has to say where we are seen from: a lost SYN and its repetition, and the round trips."""

PROBE_TIME: Final = 1.5
"""Seconds that it has to say what became of its dials: it gives them one."""

ENDPOINTS_ASKED: Final = 3
"""Endpoints by which the kind of a mapping shows: two ports of one address, and another address."""

READ: Final = 4096
"""Bytes read at once; an answer has less than 200."""


@dataclass(slots=True)
class Observation:
    """What endpoints told. It keeps its connections, and so the NAT's mapping, until :meth:`close`."""

    local: tuple[str, int] = ("", 0)
    """The address and port that we dialled from, as we see them."""
    mapped: list[tuple[str, int] | None] = field(default_factory=list)
    """Where each endpoint sees us, in the order in which they were dialled; None where one said nothing."""
    _open: list[SocketEnd] = field(default_factory=list)

    @property
    def last(self) -> tuple[str, int] | None:
        """Where we were seen last; None when nobody answered."""
        return next((address for address in reversed(self.mapped) if address is not None), None)

    @property
    def nat(self) -> Nat:
        """What stands in between."""
        return classify(self.local, self.mapped)

    def require(self, endpoints: Sequence[Address]) -> None:
        """Makes sure that one of them has answered.

        :raises ConnectFailed: none has.
        """
        if self.last is None:
            asked = ", ".join(map(str, endpoints[:ENDPOINTS_ASKED]))
            raise ConnectFailed(
                f"nobody answers where the punch server observes: {asked}", "its observe ports must be open to clients"
            )

    def keep(self, end: SocketEnd) -> None:
        """Takes a connection over."""
        self._open.append(end)

    def close(self) -> None:
        """Closes what is open; safe to call twice."""
        for end in self._open:
            end.abort()  # in order it would keep the port's pairs for a minute, for nobody
        self._open.clear()


async def observe(port: PunchingPort, endpoints: Sequence[Address], seat: str | None) -> Observation:
    """Asks endpoints where ``port`` is seen from, one after the other: a NAT may count its ports up.

    :param endpoints: in the order of :class:`~tunnelconsole.engine.wire.punch.Joined`; the fourth would tell no more.
    :param seat: our seat's number; None when we have none.
    """
    observation = Observation()
    try:
        loop = asyncio.get_running_loop()
        over = loop.time() + OBSERVING_TIME
        for endpoint in endpoints[:ENDPOINTS_ASKED]:
            patience = min(OBSERVE_TIME, over - loop.time())
            observation.mapped.append(await _ask(observation, port, endpoint, seat, patience))
    except BaseException:
        observation.close()
        raise
    return observation


async def _ask(
    observation: Observation, port: PunchingPort, endpoint: Address, seat: str | None, patience: float
) -> tuple[str, int] | None:
    """Where one endpoint sees us; None when it does not answer as it should."""
    try:
        sock = port.dialling(endpoint)
    except OSError:
        return None
    end = SocketEnd(sock)
    observation.keep(end)
    try:
        async with asyncio.timeout(patience):
            await asyncio.get_running_loop().sock_connect(sock, endpoint.sockaddr)
            observation.local = sock.getsockname()[:2]
            await send_all(end, encode(Observe(seat)))
            return await _Answers(end).observed()
    except (OSError, ProtocolError):
        return None


async def probe_filter(endpoint: Address, seat: str | None) -> Probed | None:
    """Has strangers dial a port of ours that has dialled ``endpoint`` and nobody else; None when it does not tell.

    A port of its own: whom the punched one has dialled is a stranger to it no more.
    """
    try:
        port = PunchingPort()
    except ConnectFailed:
        return None
    try:
        end = SocketEnd(port.dialling(endpoint))
        try:
            answers = _Answers(end)
            async with asyncio.timeout(OBSERVE_TIME + PROBE_TIME):
                await asyncio.get_running_loop().sock_connect(end.socket, endpoint.sockaddr)
                await send_all(end, encode(Observe(seat)) + encode(Probe()))
                await answers.observed()
                answer = await answers.next()
            return answer if isinstance(answer, Probed) else None
        finally:
            end.abort()
    except (OSError, ProtocolError):
        return None
    finally:
        port.close()


class _Answers:
    """What an endpoint says, one thing after the other."""

    def __init__(self, end: SocketEnd) -> None:
        self._end = end
        self._reader = LineReader()
        self._lines: list[bytes] = []

    async def next(self) -> ServerLine:
        """The next thing.

        :raises ProtocolError: it is none of those that a server says, or it closed.
        :raises OSError: the connection broke.
        """
        while not self._lines:
            data = await receive(self._end, READ)
            if not data:
                raise ProtocolError("it closed before it answered")
            self._lines += self._reader.feed(data)
        return parse_server(self._lines.pop(0))

    async def observed(self) -> tuple[str, int]:
        """Where we are seen from, which is the first thing.

        :raises ProtocolError: it is something else.
        """
        message = await self.next()
        if not isinstance(message, Observed):
            raise ProtocolError("it said something else than where it sees us")
        try:
            return parse_host_port(message.address)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
