"""``ssh://[user@]host[:port]``, as it stands before a server that is reached through an SSH host."""

from __future__ import annotations

from typing import Final, NamedTuple

from tunnelconsole.engine.wire.hostport import check_host, format_host_port, parse_host_port

SCHEME = "ssh://"
"""What such a text begins with, in whatever case."""

DEFAULT_PORT: Final = 22
"""Where SSH servers listen (RFC 4251, section 1)."""

LONGEST_USER = 256
"""Bytes in a user's name at the most: far more than any system gives one."""


class SSHURL(NamedTuple):
    """An SSH host, and what stands behind it."""

    user: str
    """Empty for the local user's name."""
    host: str
    """In lower case, as in a file of known hosts; an IPv6 address without brackets."""
    port: int | None
    """None where none is named."""
    behind: str | None
    """What follows the slash behind the host; None where there is no slash."""


def begins_with_ssh(text: str) -> bool:
    """Whether a text is meant to be read by :func:`parse_ssh_url`."""
    return text.lstrip().lower().startswith(SCHEME)


def format_ssh_url(user: str, host: str, port: int) -> str:
    """The SSH host as it is written, the port always."""
    return f"{SCHEME}{f'{user}@' if user else ''}{format_host_port(host, port)}"


def parse_ssh_url(text: str) -> SSHURL:
    """Reads an SSH host and what is behind it, unread.

    :raises ValueError: it is none; the text says what is wrong, and never shows a password.
    """
    if not begins_with_ssh(text):
        raise ValueError(f"an SSH host is written as {SCHEME}user@host:port")
    authority, slash, behind = text.strip()[len(SCHEME) :].partition("/")
    user, at, place = authority.rpartition("@")
    if ":" in user or (at and "@" in user):
        raise ValueError(f"takes no password in {SCHEME}user@host; use a key, or an agent that holds one")
    if at and not _is_user(user):
        raise ValueError(f"the user before the @ of {SCHEME}user@host is none")
    host, port = _host_and_port(place)
    if host.startswith("-"):
        raise ValueError(f"{host!r} is not a host name")
    return SSHURL(user, host.lower(), port, behind if slash else None)


def _is_user(user: str) -> bool:
    return 1 <= len(user) <= LONGEST_USER and user.isprintable() and " " not in user and not user.startswith("-")


def _host_and_port(place: str) -> tuple[str, int | None]:
    if not place:
        raise ValueError(f"names no host behind {SCHEME}")
    if place.startswith("[") and place.endswith("]"):
        return check_host(place[1:-1]), None
    return parse_host_port(place) if ":" in place else (check_host(place), None)
