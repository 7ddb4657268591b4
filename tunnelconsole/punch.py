"""The punch system in a program: a direct connection between two hosts behind NATs, or a relayed one.

Both ends name a room of a punch server and know its secret. The connection is encrypted end to end, goes through the
relay at once, and directly as soon as there is a way::

    server, room, secret = "meet.example.net:7900", "desk", "only the two of us know"
    async with tunnelconsole.punch.connect(server, room, secret) as conn:
        conn.writer.write(b"are you there?\\n")
        print(await conn.reader.readline(), "came by", conn.method)

Without a punch server, as the original program does it: the users tell each other their addresses, and the connection
is a direct one, in the clear, or none::

    async with tunnelconsole.punch.by_hand() as hand:
        print("tell the other side", hand.local_address)
        conn = await hand.attempt(["203.0.113.2:40000"])
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import RendezvousAddress, Secret, TLSSettings
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.ends import READ_SIZE, SocketEnd
from tunnelconsole.engine.transport.streams import Streams, joined_streams, streams_of
from tunnelconsole.engine.wire.hostport import format_host_port

if TYPE_CHECKING:
    from tunnelconsole.engine.attempts import Attempt
    from tunnelconsole.engine.services.punch.by_hand import ByHand, Provider

__all__ = ["Connecting", "Connection", "Hand", "TLSSettings", "attempt", "by_hand", "connect"]

CONNECT_TIMEOUT = LimitSettings().handshake_timeout
"""Seconds to reach the punch server, and at the end for the other side to take what was written last."""

BY_HAND_WAIT = 60.0
"""Seconds for which a connection by hand is tried: users who talk to each other start within less."""

DataHandler = Callable[[bytes], Awaitable[None] | None]
"""Told what comes, and ``b""`` once the other end has sent its last; may be a coroutine function."""


class _Known(Protocol):
    """What is known of a connection."""

    @property
    def path(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def peer(self) -> str: ...
    @property
    def local_address(self) -> str: ...
    @property
    def public_address(self) -> str: ...
    @property
    def attempts(self) -> list[Attempt]: ...


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a connection that was made by hand."""

    method: str
    peer: str
    local_address: str
    public_address: str
    attempts: list[Attempt]
    path: str = "direct"


@dataclass(frozen=True, slots=True)
class _Callbacks:
    established: Callable[[Connection], None] | None
    data: DataHandler | None
    error: Callable[[Exception], None] | None


class Connection:
    """A connection with the other end, until :meth:`close` or the end of ``async with``."""

    def __init__(self, streams: Streams, known: _Known, stack: AsyncExitStack, callbacks: _Callbacks) -> None:
        self.reader, self.writer = streams
        self._known = known
        self._stack = stack
        self._callbacks = callbacks
        self._tasks = Tasks("punch", _report)
        if callbacks.data is not None:
            self._tasks.start(self._hand_out(callbacks.data), "data")

    @property
    def path(self) -> str:
        """What carries it now: ``direct``, ``relay``, or nothing for the moment; what is written waits then."""
        return self._known.path

    @property
    def method(self) -> str:
        """``relay``, or how the direct path was found: ``host``, ``mapped``, ``predicted``, ``many ports``,
        ``accepted``.
        """
        return self._known.method

    @property
    def peer(self) -> str:
        """The address of the other end on a direct path; else that of the rendezvous."""
        return self._known.peer

    @property
    def local_address(self) -> str:
        """Our own ``host:port`` in it."""
        return self._known.local_address

    @property
    def public_address(self) -> str:
        """The ``host:port`` that others see in place of it; empty where nobody has told."""
        return self._known.public_address

    @property
    def attempts(self) -> list[Attempt]:
        """The tries to reach the other end directly, the oldest first, with candidates and timelines."""
        return self._known.attempts

    async def _hand_out(self, handler: DataHandler) -> None:
        try:
            while True:
                data = await self.reader.read(READ_SIZE)
                answer = handler(data)
                if inspect.isawaitable(answer):
                    await answer
                if not data:
                    return
        except OSError as error:
            if self._callbacks.error is not None:
                self._callbacks.error(error)

    async def close(self) -> None:
        """Ends the connection once the other end has what was written; safe to call twice.

        :raises ConnectionResetError: what was written last may not have arrived.
        """
        await self._tasks.close()
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()
        await self._stack.__aexit__(kind, error, trace)


def _report(task: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"{task} failed", "exception": error})


class Connecting:
    """A connection to come: ``await`` it, or use it with ``async with``."""

    def __init__(self, make: Callable[[], Awaitable[Connection]]) -> None:
        self._make = make
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        return self._make().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._make()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.__aexit__(kind, error, trace)


def connect(
    server: str,
    room: str,
    secret: str,
    *,
    direct: bool = True,
    wait: float | None = None,
    token: str | None = None,
    tls: TLSSettings | None = None,
    connect_to: str | None = None,
    timeout: float = CONNECT_TIMEOUT,
    on_data: DataHandler | None = None,
    on_established: Callable[[Connection], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> Connecting:
    """A connection with the other end of a room, which may be a program like this one, ``tunnelconsole punch``, or a
    punch-client service.

    When an ``async with`` block fails, the other end sees a break, and not half a message as a whole one.

    :param server: the punch server, ``host:port``.
    :param room: where the two meet.
    :param secret: what both know; the punch server never learns it.
    :param direct: False stays on the relay.
    :param wait: seconds for the other end to come; None waits for ever.
    :param token: what to prove to the server.
    :param tls: settings when the server's listener is a TLS one.
    :param connect_to: the address to dial when it is not the one that ``server`` names.
    :param timeout: seconds to reach the server, and at the end for the other end to take what was written last.
    :param on_data: see :data:`DataHandler`; takes the place of the reader.
    :param on_established: told the connection, once it is there.
    :param on_error: told what breaks it, where ``on_data`` reads; without, the reader raises it.
    :param on_notice: told in a sentence what happens on the way, such as that the path has changed, or that somebody is
        in the room with another secret.
    :raises CredentialsRefused: the server is not the one that was pinned.
    :raises ConnectFailed: the server cannot be reached at first or does not want us, or nobody came in time; a server
        that goes away while the other end is waited for is waited for, too.
    :raises ValueError: an address is not ``host:port``, a room's name is none, or the secret is empty.
    """
    where = RendezvousAddress.parse(server)
    dialled = RendezvousAddress.parse(connect_to) if connect_to else None
    callbacks = _callbacks(on_data, on_established, on_error)
    given = None if token is None else Secret(token)
    if not secret:
        raise ValueError("an empty secret would let everybody in who knows the room's name")

    async def make() -> Connection:
        # Only when used: cryptography costs 10 MiB and a tenth of a second.
        from tunnelconsole.engine.services.punch.connection import RoomConnection  # noqa: PLC0415
        from tunnelconsole.engine.services.punch.meeting import Meeting, wrong_with_room  # noqa: PLC0415
        from tunnelconsole.engine.wire.punch_offer import Mode  # noqa: PLC0415

        if wrong := wrong_with_room(room):
            raise ValueError(f"a room's name {wrong}")
        meeting = Meeting(where, room, Secret(secret), Mode.EITHER, dialled, tls, direct, timeout, given)
        known = RoomConnection(meeting, on_notice or _ignore)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(known.close)
            await known.open(wait)
            streams = await stack.enter_async_context(joined_streams(known.join, timeout))
            return _established(streams, known, stack, callbacks)

    return Connecting(make)


def _ignore(_: str) -> None:
    """Nobody wants to know."""


def _callbacks(
    data: DataHandler | None,
    established: Callable[[Connection], None] | None,
    error: Callable[[Exception], None] | None,
) -> _Callbacks:
    if error is not None and data is None:
        raise ValueError("on_error goes with on_data: without it, the reader raises what breaks the connection")
    return _Callbacks(established, data, error)


def _established(streams: Streams, known: _Known, stack: AsyncExitStack, callbacks: _Callbacks) -> Connection:
    """Makes a connection that owns what is on the stack."""
    connection = Connection(streams, known, stack.pop_all(), callbacks)
    if callbacks.established is not None:
        callbacks.established(connection)
    return connection


class Hand:
    """A port that can be punched by hand."""

    def __init__(self, hand: ByHand, timeout: float) -> None:
        self._hand = hand
        self._timeout = timeout

    @property
    def local_address(self) -> str:
        """Our ``host:port`` in our own network."""
        return self._hand.local_addresses[0]

    @property
    def public_address(self) -> str:
        """The ``host:port`` that others see; empty where nobody has told."""
        return self._hand.public_address

    def attempt(
        self,
        addresses: Sequence[str],
        *,
        wait: float = BY_HAND_WAIT,
        on_data: DataHandler | None = None,
        on_established: Callable[[Connection], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> Connecting:
        """A plain connection with somebody who tries to reach us at the same time; see :func:`connect`.

        :param addresses: where they are, as they have told: each ``host:port``.
        :param wait: seconds for which it is tried.
        :raises ConnectFailed: there is none in that time.
        :raises ValueError: an address is none, or is our own, or there are none or too many.
        """
        if isinstance(addresses, str):
            raise ValueError(f"addresses is a list, such as [{addresses!r}]")
        callbacks = _callbacks(on_data, on_established, on_error)

        async def make() -> Connection:
            reached = await self._hand.attempt(addresses, wait)
            local = format_host_port(*reached.sock.getsockname()[:2])
            known = _Found(reached.method, reached.address, local, self.public_address, self._hand.attempts)
            async with AsyncExitStack() as stack:
                streams = await stack.enter_async_context(streams_of(SocketEnd(reached.sock), b"", self._timeout))
                return _established(streams, known, stack, callbacks)

        return Connecting(make)


@asynccontextmanager
async def by_hand(
    *,
    port: int = 0,
    server: str | None = None,
    public_address: Provider | None = None,
    tls: TLSSettings | None = None,
    timeout: float = CONNECT_TIMEOUT,
) -> AsyncIterator[Hand]:
    """A port that can be punched by hand, until the block ends; connections that were made live on.

    :param port: its number; 0 takes any free one.
    :param server: a punch server, which tells our public address; the NAT's mapping is kept meanwhile.
    :param public_address: tells it in place of that: a function, or a coroutine function, that returns our public IP
        address, or ``host:port``.
    :param tls: settings when the server's listener is a TLS one.
    :param timeout: seconds to reach the server, and at the end of a connection for what was written last.
    :raises ConnectFailed: the port cannot be had, or the public address not be found out.
    :raises ValueError: both ``server`` and ``public_address`` are given, or the server is not ``host:port``.
    """
    from tunnelconsole.engine.services.punch.by_hand import ByHand  # noqa: PLC0415 - see connect()

    if server is not None and public_address is not None:
        raise ValueError("either a server or a function tells the public address, not both")
    where = RendezvousAddress.parse(server) if server is not None else None
    hand = ByHand(port)
    holding = Tasks("punch", _report)
    try:
        if where is not None:
            from tunnelconsole.engine.services.punch.outside import Rendezvous  # noqa: PLC0415

            await hand.ask(Rendezvous(where, tls=tls, timeout=timeout))
            holding.start(hand.hold(), "hold")
        elif public_address is not None:
            await hand.take_from(public_address)
        yield Hand(hand, timeout)
    finally:
        await holding.close()
        hand.close()


def attempt(
    addresses: Sequence[str],
    *,
    port: int = 0,
    wait: float = BY_HAND_WAIT,
    server: str | None = None,
    public_address: Provider | None = None,
    tls: TLSSettings | None = None,
    timeout: float = CONNECT_TIMEOUT,
    on_data: DataHandler | None = None,
    on_established: Callable[[Connection], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
) -> Connecting:
    """:func:`by_hand` and :meth:`Hand.attempt` in one, where the addresses are known beforehand."""

    async def make() -> Connection:
        async with by_hand(port=port, server=server, public_address=public_address, tls=tls, timeout=timeout) as hand:
            return await hand.attempt(
                addresses, wait=wait, on_data=on_data, on_established=on_established, on_error=on_error
            )

    return Connecting(make)
