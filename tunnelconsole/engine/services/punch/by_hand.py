"""By hand, as the original program: two users tell each other their addresses, and both sides dial and listen.

Nothing is said on the connection, and nothing is proved: it is a plain one, with whoever is at the named addresses.
"""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.attempts import Attempt, Attempts
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.services.punch.contacts import Reached
from tunnelconsole.engine.services.punch.observe import Observation, observe
from tunnelconsole.engine.services.punch.port import PunchingPort, own_addresses
from tunnelconsole.engine.services.punch.race import Race
from tunnelconsole.engine.transport.dialer import Address, resolve
from tunnelconsole.engine.wire.hostport import format_host_port, parse_host_port
from tunnelconsole.engine.wire.punch_nat import Nat, Plan
from tunnelconsole.engine.wire.punch_offer import LOCAL_NETWORKS, MAX_CANDIDATES, Candidate, Kind
from tunnelconsole.errors import ConnectFailed

if TYPE_CHECKING:
    from tunnelconsole.engine.services.punch.outside import Rendezvous

ROUND: Final = 20.0
"""Seconds of one attempt: three addresses that refuse are dialled as often then as one attempt may dial."""

HOLD: Final = 20.0
"""Seconds between two looks from outside while the other user's addresses are awaited: some NATs forget a connection
that has ended after half a minute."""

LONELY: Final = "127.0.0.1"
"""The address of a host that is on no network."""

Provider = Callable[[], str | Awaitable[str]]
"""Gives the public IP address of this host, or ``host:port`` where it knows the port too."""


class ByHand:
    """A port that can be punched: its addresses, and the attempt to meet somebody there.

    :param number: of the port; 0 takes any free one.
    :raises ConnectFailed: it cannot be had.
    """

    def __init__(self, number: int = 0) -> None:
        self._port = PunchingPort(number)
        self._observation = Observation()
        self._endpoints: list[Address] = []
        self._attempts = Attempts(Bus())
        self.nat: Nat | None = None
        """What stands in between, as far as a rendezvous has told."""
        self.public_address = ""
        """The ``host:port`` that others see, once it is known."""

    @property
    def number(self) -> int:
        """The number of the port."""
        return self._port.number

    @property
    def local_addresses(self) -> list[str]:
        """The ``host:port`` of each network that this host is on."""
        hosts, _ = own_addresses()
        return [format_host_port(host, self.number) for host in hosts or [LONELY]]

    @property
    def attempts(self) -> list[Attempt]:
        """What was tried, the oldest first."""
        return list(self._attempts)

    async def ask(self, rendezvous: Rendezvous) -> None:
        """Asks a rendezvous for our public address, and keeps the NAT's mapping by that.

        :raises ConnectFailed: it cannot be reached, or not where it observes.
        :raises CredentialsRefused: it is not the one that was pinned.
        """
        self._endpoints = await rendezvous.endpoints()
        await self._look()
        self._observation.require(self._endpoints)

    async def take_from(self, provider: Provider) -> None:
        """Takes our public address from who knows it; a bare IP address means that the NAT keeps the port.

        :raises ConnectFailed: what it gives is none.
        """
        given = provider()
        text = (await given if inspect.isawaitable(given) else given).strip()
        try:
            self.public_address = format_host_port(str(ipaddress.ip_address(text)), self.number)
            return
        except ValueError:
            pass  # then it has a port
        try:
            self.public_address = format_host_port(*parse_host_port(text))
        except ValueError as error:
            raise ConnectFailed("who was asked for the public address gave something else") from error

    async def hold(self) -> None:
        """Keeps the NAT's mapping, by asking again and again, until cancelled."""
        while True:
            await asyncio.sleep(HOLD)
            if self._endpoints:
                await self._look()

    async def _look(self) -> None:
        before, self._observation = self._observation, await observe(self._port, self._endpoints, None)
        before.close()
        if self._observation.last is not None:
            self.public_address = format_host_port(*self._observation.last)
            self.nat = self._observation.nat

    async def attempt(self, addresses: Sequence[str], wait: float) -> Reached:
        """Dials somebody, and is dialled, until there is a connection.

        :param addresses: where they may be, each ``host:port``.
        :param wait: seconds at most.
        :raises ConnectFailed: there is none in that time.
        :raises ValueError: an address is none, or there are none or too many.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        candidates = await self._candidates(addresses)
        while True:
            attempt = self._attempts.begin("", "")
            for candidate in candidates:
                attempt.candidate(candidate.address, "given", "theirs")
            attempt.enter("racing")
            race = Race(loop, self._port, candidates, Plan(), None, attempt)
            try:
                reached = await race.run(min(ROUND, until - loop.time()))
            except asyncio.CancelledError:
                attempt.end("left", reason="it was given up")
                raise
            if reached is not None:
                attempt.peer = reached.address
                attempt.end("direct", method=reached.method)
                return reached
            fates = ", ".join(f"{each.address} {each.fate}" for each in attempt.candidates.values())
            attempt.end("failed", reason=fates)
            if loop.time() >= until:
                raise ConnectFailed(
                    f"no connection within {wait:g} s: {fates}",
                    "both sides have to try at the same time; if that does not help, meet in a room, which can relay",
                )

    async def _candidates(self, addresses: Sequence[str]) -> list[Candidate]:
        """What to dial.

        :raises ConnectFailed: a name has no address.
        :raises ValueError: see :meth:`attempt`.
        """
        if not 1 <= len(addresses) <= MAX_CANDIDATES:
            raise ValueError(f"name 1 to {MAX_CANDIDATES} addresses of the other side, not {len(addresses)}")
        mine = {*self.local_addresses, format_host_port(LONELY, self.number)}
        found: dict[str, Candidate] = {}
        for text in addresses:
            for address in await resolve(*parse_host_port(text.strip())):
                if str(address) in mine:
                    raise ValueError(f"{address} is our own address; name the other side's")
                ip = ipaddress.ip_address(address.host)
                local = ip.is_loopback or any(ip in network for network in LOCAL_NETWORKS)
                kind = Kind.HOST if local else Kind.MAPPED
                found.setdefault(str(address), Candidate(kind, str(address)))
        return list(found.values())[:MAX_CANDIDATES]

    def close(self) -> None:
        """Gives the port back; connections live on. Safe to call twice."""
        self._observation.close()
        self._port.close()
