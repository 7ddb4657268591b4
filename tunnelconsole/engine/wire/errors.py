"""The one error of the protocols."""

from __future__ import annotations


class ProtocolError(Exception):
    """The remote broke the protocol. The message says what it did, in one sentence without secrets."""
