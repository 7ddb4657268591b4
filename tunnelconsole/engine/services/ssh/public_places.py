"""The public places of one SSH connection, and what its terminals show of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.services.ssh.board import Board
from tunnelconsole.engine.services.ssh.forward_rights import HIGHEST_PORT, shown
from tunnelconsole.engine.services.ssh.public_host import PublicHost
from tunnelconsole.engine.services.ssh.public_place import PublicPlace
from tunnelconsole.engine.services.ssh.public_port import PublicPort
from tunnelconsole.errors import RequestRefused, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.connection import Login

MOST_PLACES: Final = 32
"""Public places of one connection at once: more than anybody types, and far fewer than there are ports."""

WEB_PORTS: Final = (80, 443)
"""Ports that ask for a hostname: those of HTTP and HTTPS."""


class PublicPlaces:
    """All of one connection."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.server = login.server
        self._places: dict[PublicPlace, tuple[str, int]] = {}
        """What was asked for, by place."""
        self._boards: set[Board] = set()
        self._told: deque[str] = deque(maxlen=2 * MOST_PLACES)
        """What became of the places, for terminals to come."""
        self.asked = False
        """Whether one was ever asked for: then a terminal shows what became of it."""

    def __bool__(self) -> bool:
        return bool(self._places)

    async def open(self, host: str, port: int) -> PublicPlace | None:
        """Opens a place; None where it is not to be had, which is told.

        :param host: as it was asked for, in lower case; "localhost" where the user named none.
        """
        self.asked = True
        words = f"-R {port if host == 'localhost' else shown(host, port)}"
        try:
            place = await self._open(host, port)
        except TunnelConsoleError as error:
            self.login.refuse(f"{words}: {error}")
            self.tell(f"refused    {words}: {error}")
            return None
        self.tell(f"forwarding {place.address} ({words})")
        return place

    async def _open(self, host: str, port: int) -> PublicPlace:
        entry = self.login.entry
        self.server.check_forward(entry)
        if port > HIGHEST_PORT:
            raise RequestRefused("there is no such port", f"the highest is {HIGHEST_PORT}")
        if not entry.forward.may_listen(host, port):
            raise RequestRefused("this key may not have it", "permitlisten in its line says what it may")
        if port and any(place.asked == (host, port) for place in self._places):
            raise RequestRefused("this connection has it already", "name another host or port")
        if len(self._places) >= MOST_PLACES:
            raise RequestRefused(f"this connection has {MOST_PLACES} public places already", "open another one")
        if full := self.server.no_session(self.login):
            raise RequestRefused(full)
        web = port in WEB_PORTS and not self.server.ports.has(port)
        place = PublicHost(self, host, port) if web else PublicPort(self, host, port)
        self._places[place] = (host, port)
        try:
            await place.open()
        except BaseException:
            self._places.pop(place, None)
            raise
        if self.login.over:
            place.close()
            raise RequestRefused("the connection ended meanwhile")
        return place

    def has_host(self, name: str) -> bool:
        """Whether a hostname is one of this connection's."""
        return any(isinstance(place, PublicHost) and place.host == name for place in self._places)

    def closed(self, place: PublicPlace) -> None:
        """The client wants a place no more, or has left."""
        self._places.pop(place, None)

    def is_over(self, place: PublicPlace, reason: str) -> None:
        """A place is gone without the client's doing. A connection that has nothing else ends with it."""
        self._places.pop(place, None)
        self.tell(f"ended      {place.address}: {reason}")
        self.login.end_if_idle(reason)

    def stop_accepting(self) -> None:
        """Takes no more visitors; those there are go on."""
        for place in list(self._places):
            place.close()

    # -- what is told ----------------------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        """Shows a line on the connection's terminals; those to come show it too."""
        self._told.append(line)
        for board in self._boards:
            board.show(line)

    def tell_visit(self, visitor: str, label: str) -> None:
        """Shows who came."""
        for board in self._boards:
            board.show_visit(visitor, label)

    def put_up(self, board: Board) -> None:
        """Shows on a terminal what became of the places so far, and whatever comes."""
        for line in self._told:
            board.show(line)
        self._boards.add(board)

    def take_down(self, board: Board) -> None:
        """Shows nothing more there."""
        self._boards.discard(board)
