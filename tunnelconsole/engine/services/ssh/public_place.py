"""A place here that an SSH client has asked for with ``ssh -R``, and that visitors come to."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

import asyncssh

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.public_places import PublicPlaces

OPEN_PATIENCE: Final = 10.0
"""Seconds that a client has to open a channel for a visitor, its own dial included."""


class PublicPlace(asyncssh.SSHListener):
    """One of them. asyncssh closes it when the client wants it no more, and when the connection is over.

    :param host: as it was asked for, in lower case; the client knows the place by it.
    :param port: as it was asked for.
    """

    def __init__(self, places: PublicPlaces, host: str, port: int) -> None:
        super().__init__()
        self._places = places
        self.login = places.login
        self._server = places.server
        self.asked = (host, port)
        self.address = ""
        """Where visitors come to."""

    @abstractmethod
    async def open(self) -> None:
        """Makes the place; call once.

        :raises TunnelConsoleError: it is not to be had.
        """

    @abstractmethod
    def close(self) -> None:
        """Takes no more visitors; those there are go on. Safe to repeat."""

    async def wait_closed(self) -> None:
        """Nothing needs to be waited for."""

    def get_port(self) -> int:
        return self.asked[1]
