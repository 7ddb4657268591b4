"""Telling a client where it is seen from, and what its NAT does with strangers."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from tunnelconsole.engine.access import plain_address
from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.dialer import numeric
from tunnelconsole.engine.transport.ends import SocketEnd, reset
from tunnelconsole.engine.wire.hostport import format_host_port, parse_host_port
from tunnelconsole.engine.wire.punch import Probed, Reached

PROBE_TIME: Final = 1.0
"""Seconds that a client's NAT has to answer a stranger: the kernel sends no second SYN before."""


def seen_as(peer: str) -> str:
    """Where ``peer`` (``host:port``) comes from, as others dial it: a listener for both families sees IPv4 in IPv6."""
    host, port = parse_host_port(peer)
    return format_host_port(str(plain_address(host)), port)


async def probe(observing: SocketEnd, peer: str, alternate: str) -> Probed:
    """Dials whoever is at the other end of ``observing``, from where it has not dialled us.

    :param observing: its connection to us.
    :param peer: where it comes from, ``host:port``; nobody else is dialled.
    :param alternate: another address of ours; empty where there is none.
    """
    own = str(observing.socket.getsockname()[0])
    others = [host for host in (alternate,) if host and host != own]
    other_address, other_port = await asyncio.gather(
        _dial(others[0], peer) if others else _untried(),
        _dial(own, peer),
    )
    return Probed(other_address=other_address, other_port=other_port)


async def _untried() -> Reached:
    return Reached.UNTRIED


async def _dial(source: str, peer: str) -> Reached:
    """What becomes of a dial from any free port of ``source``."""
    address = numeric(*parse_host_port(peer))
    if address is None:
        return Reached.UNTRIED
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError:
        return Reached.UNTRIED
    try:
        if sock.fileno() >= descriptors.ceiling():
            return Reached.UNTRIED
        sock.setblocking(False)
        sock.bind((source, 0))
        async with asyncio.timeout(PROBE_TIME):
            await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except TimeoutError:
        return Reached.SILENT
    except OSError:
        return Reached.REFUSED  # by a reset, or by ICMP, which has several numbers
    else:
        return Reached.OPEN
    finally:
        reset(sock)
