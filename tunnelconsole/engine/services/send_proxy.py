"""Clients that tell their target who the visitor is, with a header of the PROXY protocol before the visitor's bytes."""

from __future__ import annotations

import ipaddress
import socket

from tunnelconsole.engine.wire.hostport import parse_peer
from tunnelconsole.engine.wire.proxy_protocol import Endpoint, Version, encode_proxy_header

SendProxy = Version
"""What ``send_proxy`` may be: the version of the header."""


def announce(sock: socket.socket, version: SendProxy, visitor: str, came_to: str = "") -> None:
    """Sends the header on a connection to the target on which nothing was sent before.

    :param visitor: its numeric ``host:port``, the port 0 where nobody knows it; anything else for a visitor who is not
        known, of whom the header then says just that.
    :param came_to: the ``host:port`` to which it connected; where that is no address, the target's own is told.
    :raises OSError: the connection is broken.
    """
    header = encode_proxy_header(version, _endpoint(visitor), _endpoint(came_to) or _target_of(sock))
    if sock.send(header) != len(header):  # an empty buffer of the kernel takes some thousand bytes
        raise OSError("it did not take the PROXY header")


def _endpoint(text: str) -> Endpoint | None:
    try:
        host, port = parse_peer(text)
        return Endpoint(str(ipaddress.ip_address(host)), port)
    except ValueError:
        return None


def _target_of(sock: socket.socket) -> Endpoint:
    host, port = sock.getpeername()[:2]
    return Endpoint(host, port)
