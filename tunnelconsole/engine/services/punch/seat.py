"""A client's seat at the rendezvous."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tunnelconsole.engine.services.server_dialer import ServerDialer
from tunnelconsole.engine.transport.dialer import Address, numeric, resolve
from tunnelconsole.engine.transport.ends import End, SocketEnd, receive, send_all
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import check_port, format_host_port, parse_host_port
from tunnelconsole.engine.wire.punch import (
    SEAT_LENGTH,
    Challenge,
    Go,
    Join,
    Joined,
    Left,
    LineReader,
    Message,
    Notice,
    Peer,
    Ping,
    Pong,
    Prove,
    Ready,
    Refused,
    Relay,
    Said,
    Say,
    ServerLine,
    encode,
    parse_server,
)
from tunnelconsole.engine.wire.punch_offer import Offer, encode_offer, parse_offer
from tunnelconsole.engine.wire.punch_room import RoomKey
from tunnelconsole.engine.wire.token_proof import NONCE_LENGTH, NOT_KNOWN, make_proof, secret_id
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

ANSWER_TIME: Final = 5.0
"""Seconds that a rendezvous has to give or refuse a seat."""

SILENCE: Final = 30.0
"""Seconds without a word from the rendezvous, which pings every ten, until it counts as gone."""

READ: Final = 16 * 1024
"""Bytes read at once: the longest line."""


@dataclass(frozen=True, slots=True)
class Offered:
    """The other seat's offer, and from where the rendezvous has seen it."""

    offer: Offer
    seen: Sequence[str]


News = Peer | Left | Offered | Go | Notice
"""What a seat is told."""


class RoomFull(ConnectFailed):
    """Two are in the room already."""


class _ServerLines:
    """What the rendezvous says, one thing after the other."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._reader = LineReader()
        self._waiting: list[bytes] = []

    async def next(self) -> ServerLine:
        """The next thing.

        :raises ConnectFailed: the rendezvous is gone, or none.
        """
        try:
            while not self._waiting:
                data = await receive(self._end, READ)
                if not data:
                    raise ConnectFailed("the rendezvous closed the connection")
                self._waiting += self._reader.feed(data)
            return parse_server(self._waiting.pop(0))
        except ProtocolError as error:
            raise ConnectFailed(f"what answers is no punch server: {error}") from error
        except OSError as error:
            raise ConnectFailed(f"connection to the rendezvous lost: {error.strerror or error}") from error


class Seat:
    """A seat that is taken. It is ours until :meth:`close`, or until the rendezvous is gone.

    :param joined: what the rendezvous said to us.
    """

    def __init__(
        self, end: End, number: str, key: RoomKey, joined: Joined, dialer: ServerDialer, lines: _ServerLines
    ) -> None:
        self._end = end
        self._key = key
        self._dialer = dialer
        self._lines = lines
        self._writing = asyncio.Lock()
        self.number = number
        self.first = joined.first
        """Whether we were here before the other, or would have been."""
        self.address = joined.address
        """From where the rendezvous sees this seat."""
        self._endpoints = joined.endpoints
        self.local_address = local_address(end)
        """Our own ``host:port`` on the way to the rendezvous."""

    @property
    def local(self) -> str:
        """The host of :attr:`local_address`."""
        return parse_host_port(self.local_address)[0] if self.local_address else ""

    async def endpoints(self, host: str) -> list[Address]:
        """Where our punching port may be observed.

        :param host: of the rendezvous, as we dialled it.
        """
        found: list[Address] = []
        for text in self._endpoints:
            name, _, port = text.rpartition(":")
            address = numeric(name.strip("[]"), int(port)) if name else (await resolve(host, int(port)))[0]
            if address is not None and self._may_observe(address):
                found.append(address)
        return found

    def _may_observe(self, address: Address) -> bool:
        """A rendezvous elsewhere has no business on this host or beside it: what it names there is not dialled."""
        ip = ipaddress.ip_address(address.host)
        if ip.is_unspecified or ip.is_multicast:
            return False
        ours = ipaddress.ip_address(self.local)
        return (ours.is_loopback or not ip.is_loopback) and (ours.is_link_local or not ip.is_link_local)

    async def next(self) -> News:
        """What happens next.

        :raises ConnectFailed: the rendezvous is gone, or has thrown us out.
        """
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    message = await self._lines.next()
            except TimeoutError as error:
                raise ConnectFailed(f"nothing heard of the rendezvous for {SILENCE:g} s") from error
            match message:
                case Ping(number):
                    await self._send(Pong(number))
                case Left():
                    self.first = True
                    return message
                case Said():
                    return Offered(self._open(message), message.seen)
                case Peer() | Go() | Notice():
                    return message
                case Refused(reason):
                    raise ConnectFailed(f"the rendezvous ended it: {reason}")
                case _:
                    raise ConnectFailed("the rendezvous said what it never says; does it run another version?")

    def _open(self, said: Said) -> Offer:
        try:
            return parse_offer(self._key.open(said.sealed))
        except ProtocolError as error:
            raise ConnectFailed(str(error)) from error

    async def say(self, offer: Offer) -> None:
        """Tells the other seat something; nobody where it is empty.

        :raises ConnectFailed: the rendezvous is gone.
        """
        await self._send(Say(self._key.seal(encode_offer(offer), secrets.token_bytes)))

    async def ready(self, step: str) -> None:
        """Says that we are ready for a step; a :class:`~tunnelconsole.engine.wire.punch.Go` follows once both are.

        :raises ConnectFailed: the rendezvous is gone.
        """
        await self._send(Ready(step))

    async def _send(self, message: Message) -> None:
        try:
            async with self._writing:
                await send_all(self._end, encode(message))
        except OSError as error:
            raise ConnectFailed(f"connection to the rendezvous lost: {error.strerror or error}") from error

    async def relay(self) -> End:
        """A connection that is joined with the other seat's, once it has one too.

        :raises ConnectFailed: the rendezvous cannot be reached.
        :raises CredentialsRefused: it is not the one that was pinned.
        """
        return await dial_relay(self._dialer, self.number)

    def close(self) -> None:
        """Leaves the room; safe to call twice."""
        self._end.close()


def local_address(end: End) -> str:
    """Our own ``host:port`` in a connection."""
    return format_host_port(*end.socket.getsockname()[:2]) if isinstance(end, SocketEnd | TLSEnd) else ""


async def dial_relay(dialer: ServerDialer, number: str) -> End:
    """See :meth:`Seat.relay`."""
    end = await dialer.reach("punch server")
    try:
        await send_all(end, encode(Relay(number)))
    except OSError as error:
        end.close()
        raise ConnectFailed(f"connection to the rendezvous lost: {error.strerror or error}") from error
    except BaseException:
        end.close()
        raise
    return end


async def _join(end: End, lines: _ServerLines, join: Join, token: str) -> ServerLine:
    """Asks for a seat, proves the token where there is one, and returns the answer.

    :raises ConnectFailed: the rendezvous is gone, or takes no tokens.
    :raises OSError: the connection is broken.
    """
    if not token:
        await send_all(end, encode(join))
        return await lines.next()
    nonce = secrets.token_bytes(NONCE_LENGTH)
    await send_all(end, encode(msgspec.structs.replace(join, token=secret_id(token).hex(), nonce=nonce.hex())))
    answer = await lines.next()
    if isinstance(answer, Joined):
        raise ConnectFailed("the rendezvous takes no tokens; does it run an earlier version?")
    if isinstance(answer, Challenge):
        await send_all(end, encode(Prove(make_proof(token, nonce, bytes.fromhex(answer.nonce)).hex())))
        answer = await lines.next()
    return answer


async def take_seat(dialer: ServerDialer, room: str, key: RoomKey, number: str, token: str = "") -> Seat:
    """Takes a seat in a room.

    :param number: see :func:`new_number`.
    :param token: the secret of a token that we prove; empty for none.
    :raises RoomFull: there is none.
    :raises ConnectFailed: the rendezvous cannot be reached, or does not want us.
    :raises CredentialsRefused: it is not the one that was pinned, or does not know the token.
    :raises CertificateRefused: it does not take our certificate.
    """
    with dialer.judging():
        return await _take_seat(dialer, room, key, number, token)


async def _take_seat(dialer: ServerDialer, room: str, key: RoomKey, number: str, token: str) -> Seat:
    end = await dialer.reach("punch server")
    lines = _ServerLines(end)
    try:
        async with asyncio.timeout(ANSWER_TIME):
            answer = await _join(end, lines, Join(room=room, tag=key.tag, seat=number), token)
        match answer:
            case Joined() as joined:
                _check_addresses(joined)
            case Refused(reason) if "full" in reason:
                raise RoomFull(f"the rendezvous refuses us: {reason}")
            case Refused(reason) if reason == NOT_KNOWN:
                raise CredentialsRefused(f"the rendezvous refuses us: {reason}", "check the token")
            case Refused(reason):
                raise ConnectFailed(f"the rendezvous refuses us: {reason}")
            case _:
                raise ConnectFailed("the rendezvous answered what it never answers; does it run another version?")
    except TimeoutError as error:
        end.close()
        raise ConnectFailed(
            f"the rendezvous did not answer within {ANSWER_TIME:g} s", dialer.advice("punch server", "", b"")
        ) from error
    except OSError as error:
        end.close()
        raise ConnectFailed(f"connection to the rendezvous lost: {error.strerror or error}") from error
    except BaseException:
        end.close()
        raise
    return Seat(end, number, key, joined, dialer, lines)


def _check_addresses(joined: Joined) -> None:
    """Makes sure that a seat's addresses are some.

    :raises ConnectFailed: they are not.
    """
    try:
        parse_host_port(joined.address)
        for endpoint in joined.endpoints:
            check_port(endpoint.rpartition(":")[2])
    except ValueError as error:
        raise ConnectFailed(f"what answers is no punch server: {error}") from None


def new_number() -> str:
    """A number for a seat, which nobody can guess."""
    return secrets.token_hex(SEAT_LENGTH)
