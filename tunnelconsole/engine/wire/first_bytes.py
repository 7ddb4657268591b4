"""What a connection speaks, by its first bytes: a hint for whoever has led the one thing to the other's port."""

from __future__ import annotations

import re

#: Bytes that are enough to tell: the longest HTTP method that is likely, and a space.
ENOUGH = 16

TLS = "TLS"

_SIGNS = (
    # A TLS connection begins with a record of type "handshake" or "alert" and major version 3 (RFC 8446, section 5.1).
    (re.compile(rb"[\x15\x16]\x03"), TLS),
    (re.compile(rb"HTTP/|[A-Z]{3,8} "), "HTTP"),
    (re.compile(rb"SSH-"), "SSH"),
    (re.compile(rb"\x05[\x01-\x09]"), "SOCKS5"),
    (re.compile(rb"\x04[\x01\x02]"), "SOCKS4"),
    (re.compile(rb"\x00[\x00-\x03]\x00"), "yamux"),
    (re.compile(rb"TCRELAY"), "relay"),
    (re.compile(rb" [A-Za-z0-9]{8}"), "jump"),
    (re.compile(rb"\{\""), "channel"),
)


def spoken_by(first: bytes) -> str:
    """Return the usual name of what a connection that begins like this most likely speaks; "" when it is none we know.

    :param first: its first bytes; :data:`ENOUGH` of them are looked at.
    """
    return next((name for sign, name in _SIGNS if sign.match(first[:ENOUGH])), "")
