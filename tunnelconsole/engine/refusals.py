"""Why somebody was turned away, as one of a few words: for bans, filters of the log, and metrics."""

from __future__ import annotations

import ssl
from typing import Final, Literal, get_args

from tunnelconsole.engine.transport.tls import NotTLS, brought_none, not_taken
from tunnelconsole.engine.wire.errors import NoRoom, NotAllowed, ProtocolError, WrongCredentials

RefusalKind = Literal[
    "credentials", "banned", "address", "rate", "limit", "timeout", "tls", "left", "not_allowed", "protocol", "other"
]
"""``credentials``: a secret, password, token or key was tried and is wrong, which is how guessing looks; nothing else
counts for a ban. ``banned``: an address that is banned now. ``address``: one that ``clients_allow`` or ``clients_deny``
keeps out. ``rate``: it came too often. ``limit``: there is no room. ``timeout``: it took too long. ``tls``: TLS did not
come about. ``left``: it went away or broke off. ``not_allowed``: it may not have what it wants, or brought nothing that
proves who it is. ``protocol``: it said what makes no sense. ``other``: none of these."""

REFUSAL_KINDS: Final[tuple[RefusalKind, ...]] = get_args(RefusalKind)
"""All of them."""


def kind_of(error: ProtocolError | OSError) -> RefusalKind:
    """The word for what ended a handshake."""
    match error:
        case WrongCredentials():
            return "credentials"
        case NoRoom():
            return "limit"
        case NotAllowed():
            return "not_allowed"
        case ProtocolError():
            return "protocol"
        case TimeoutError(errno=None):  # the clock; the kernel has a number for giving up
            return "timeout"
        case OSError() if not_taken(error):
            return "credentials"
        case OSError() if brought_none(error):
            return "not_allowed"
        case NotTLS() | ssl.SSLError():
            return "tls"
        case _:
            return "left"
