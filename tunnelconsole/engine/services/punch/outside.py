"""How a host looks from outside, asked of a rendezvous by somebody who meets nobody there.

Importing this loads the ciphers.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tunnelconsole.engine.services.punch.observe import ENDPOINTS_ASKED, Observation, observe, probe_filter
from tunnelconsole.engine.services.punch.port import PunchingPort, own_addresses
from tunnelconsole.engine.services.punch.seat import new_number, take_seat
from tunnelconsole.engine.services.server_dialer import ServerDialer
from tunnelconsole.engine.settings import HostPort, Secret, TLSSettings
from tunnelconsole.engine.transport.dialer import Address
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.punch_nat import Nat, filtering_of
from tunnelconsole.engine.wire.punch_room import RoomKey
from tunnelconsole.errors import ConnectFailed

_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """A punch server, and how it is reached."""

    server: HostPort
    connect: HostPort | None = None
    tls: TLSSettings | None = None
    timeout: float = 10.0
    """Seconds for it to be reached."""
    token: Secret | None = None
    """What we prove to it, good for any room; None: nothing."""

    async def endpoints(self) -> list[Address]:
        """Where a port may be observed: told to who takes a seat, so one is taken in a room that nobody else knows.

        :raises ConnectFailed: it cannot be reached, or does not want us, or has no place to observe from.
        :raises CredentialsRefused: it is not the one that was pinned.
        """
        room = secrets.token_hex(_KEY_BYTES // 2)
        dialer = ServerDialer(self.server, self.connect, self.tls, self.timeout)
        key = RoomKey(room, secrets.token_bytes(_KEY_BYTES))
        seat = await take_seat(dialer, room, key, new_number(), self.token or "")
        try:
            endpoints = await seat.endpoints((self.connect or self.server).host)
        finally:
            seat.close()
        if not endpoints:
            raise ConnectFailed(f"the punch server {self.server} has no port to observe from", "look at its events")
        return endpoints


@dataclass(frozen=True, slots=True)
class Outside:
    """How a port of this host looks from outside."""

    nat: Nat
    local: str
    """Its ``host:port`` as we see it."""
    seen: Sequence[tuple[str, str]]
    """Who sees it, and as what; empty where one does not answer."""
    hosts: Sequence[str]
    """All addresses of this host that others may reach."""


async def look(rendezvous: Rendezvous) -> Outside:
    """Finds out what stands between us and the world.

    :raises ConnectFailed: the rendezvous cannot be reached, or not where it observes.
    :raises CredentialsRefused: it is not the one that was pinned.
    """
    endpoints = await rendezvous.endpoints()
    port = PunchingPort()
    observation = Observation()
    try:
        # One after the other: the probe comes from a port of its own, and a NAT may count its ports up.
        observation = await observe(port, endpoints, None)
        observation.require(endpoints)
        probed = await probe_filter(endpoints[0], None)
    finally:
        observation.close()
        port.close()
    filtering, refuses = filtering_of(probed)
    hosts, _ = own_addresses()
    seen = [
        (str(endpoint), format_host_port(*address) if address is not None else "")
        for endpoint, address in zip(endpoints[:ENDPOINTS_ASKED], observation.mapped, strict=True)
    ]
    nat = msgspec.structs.replace(observation.nat, filtering=filtering, refuses=refuses)
    return Outside(nat, format_host_port(*observation.local), seen, hosts)
