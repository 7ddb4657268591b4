"""The text ``host:port``, read strictly and written in one way."""

from __future__ import annotations

import ipaddress

#: Bytes in a host name, and in one of its labels, at most (RFC 1035, section 2.3.4). The resolver of the standard
#: library raises UnicodeError, not OSError, for a name that breaks them: so they are checked here.
MAX_HOST = 253
MAX_LABEL = 63

# Each of these in a host means that something else was given: a URL, a user, an address with brackets.
_FORBIDDEN = frozenset(" /\\@[]:?#%")


def parse_host_port(text: str) -> tuple[str, int]:
    """Split ``host:port`` at its last colon; an IPv6 address stands in brackets, as in ``[::1]:80``.

    :returns: the host, as :func:`check_host` returns it and without brackets, and the port, 1 to 65535.
    :raises ValueError: the text is something else; the message says what is wrong with it.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port; expected host:port")
    if host.startswith("[") and host.endswith("]"):
        host = _check_ipv6(host[1:-1])
    elif ":" in host:
        raise ValueError(f"{text!r} has too many colons; an IPv6 address is written in brackets, as in [::1]:80")
    else:
        host = check_host(host)
    return host, check_port(port_text)


def parse_peer(text: str) -> tuple[str, int]:
    """Split the ``host:port`` of somebody who has connected: as :func:`parse_host_port`, but the port may be 0.

    That is what a proxy in front tells of a visitor whose port it does not know.

    :raises ValueError: the text is something else; the message says what is wrong with it.
    """
    host, _, port = text.rpartition(":")
    return (parse_host_port(f"{host}:1")[0], 0) if port == "0" else parse_host_port(text)


def check_host(host: str) -> str:
    """Return ``host``, a name or an IP address without brackets; a name beyond ASCII in its IDNA form.

    :raises ValueError: it is empty, too long, or holds characters that no host has.
    """
    if not host:
        raise ValueError("the host is empty; expected host:port")
    if ":" in host:
        return _check_ipv6(host)
    if not host.isprintable() or not _FORBIDDEN.isdisjoint(host):
        raise ValueError(f"{host!r} is not a host name or an IP address")
    name = host
    if not host.isascii():
        try:
            name = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError(f"{host!r} is not an international host name") from None
        if not name or not _FORBIDDEN.isdisjoint(name):
            raise ValueError(f"{host!r} is not an international host name")
    bare = name.removesuffix(".")
    if len(bare) > MAX_HOST:
        raise ValueError(f"the host name has {len(bare)} bytes; at most {MAX_HOST} are possible")
    for label in bare.split("."):
        if not label or len(label) > MAX_LABEL:
            raise ValueError(f"{host!r} is not a host name: each part between dots has 1 to {MAX_LABEL} bytes")
    return name


def check_port(text: str) -> int:
    """Return the port that ``text`` names, 1 to 65535.

    :raises ValueError: it is not a number, or out of range.
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the port {text!r} is not a number")
    if len(text) > 5 or not 1 <= int(text) <= 65535:
        raise ValueError(f"the port {text[:20]} is not between 1 and 65535")
    return int(text)


def format_host_port(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_ipv6(host: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv6 address") from None
    if not host.isprintable() or " " in host:
        raise ValueError(f"{host!r} is not an IPv6 address")
    return host
