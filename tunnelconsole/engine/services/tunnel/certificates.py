"""The tunnel server's certificates: the one for the name that a visitor asks for."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.services.certificate_pair import CertificatePair, reason_of
from tunnelconsole.engine.settings import FilePath
from tunnelconsole.errors import ListenFailed


class CertificateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[service.NAME.certificates."HOST"]``: for visitors that ask for a host."""

    certificate: FilePath
    """PEM file with the chain."""
    key: FilePath
    """PEM file with the private key."""


class Certificates:
    """All of them.

    :param default: for visitors that name no host, or one that is not in ``named``; the first of those when None.
    :param named: by the pattern of the hosts that they are for.
    :raises ListenFailed: one cannot be used.
    :raises ValueError: there is none, or a pattern is no host.
    """

    def __init__(self, default: CertificateSettings | None, named: Mapping[str, CertificateSettings]) -> None:
        self._named = [(HostPattern.parse(text), _read(files)) for text, files in named.items()]
        # An exact name wins over one with a wildcard, and a long pattern over a short one.
        self._named.sort(key=lambda entry: ("*" in entry[0] or "?" in entry[0], -len(entry[0])))
        if default is None and not self._named:
            raise ValueError("there is no certificate")
        self._default = _read(default) if default is not None else self._named[0][1]

    @property
    def context(self) -> ssl.SSLContext:
        """For a handshake that begins now."""
        context = self._default.context
        if self._named:
            context.sni_callback = self._choose
        return context

    def refresh(self) -> None:
        """Reads changed files again.

        :raises OSError: one cannot be used; what was in use stays in use.
        """
        for pair in self.pairs:
            pair.refresh()

    @property
    def pairs(self) -> list[CertificatePair]:
        """Each of them once."""
        return list(dict.fromkeys((self._default, *(pair for _, pair in self._named))))

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        """Gives a handshake the certificate for the host that is asked for."""
        name = (host or "").lower().removesuffix(".")
        for pattern, certificate in self._named:
            if pattern.names(name):
                connection.context = certificate.context
                return


def _read(files: CertificateSettings) -> CertificatePair:
    certificate, key = Path(files.certificate), Path(files.key)
    try:
        return CertificatePair(certificate, key)
    except (OSError, ValueError) as error:
        raise ListenFailed(
            f"the certificate {certificate} with key {key} cannot be used: {reason_of(error)}",
            "certificate and key must be PEM files that belong together",
        ) from error
