"""The errors of the protocols."""

from __future__ import annotations


class ProtocolError(Exception):
    """The remote broke the protocol. The message says what it did, in one sentence without secrets."""


class WrongCredentials(ProtocolError):
    """The remote tried a secret, password, token or key, and it is wrong."""


class NoRoom(ProtocolError):
    """The remote broke nothing, but a limit is reached."""


class NotAllowed(ProtocolError):
    """The remote broke nothing, but may not have what it wants."""
