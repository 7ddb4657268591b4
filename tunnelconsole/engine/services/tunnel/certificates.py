"""The tunnel server's certificates: the one for the name that a visitor asks for, read again when its files change."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tunnelconsole.engine.services.tunnel.routes import HostPattern
from tunnelconsole.engine.settings import FilePath
from tunnelconsole.engine.transport.tls import server_context
from tunnelconsole.errors import ListenFailed

LOOK_AGAIN: Final = 1.0
"""Seconds between two looks whether a certificate's files have changed: a handshake costs far more than the look."""


class CertificateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[service.NAME.certificates."HOST"]``: for visitors that ask for a host."""

    certificate: FilePath
    """PEM file with the chain."""
    key: FilePath
    """PEM file with the private key."""


class Certificate:
    """One certificate with its key.

    :param failed: told why changed files cannot be used; the old certificate stays in use then.
    :raises ListenFailed: they cannot be used.
    """

    def __init__(self, files: CertificateSettings, failed: Callable[[str], None]) -> None:
        self._certificate = Path(files.certificate)
        self._key = Path(files.key)
        self._failed = failed
        self._looked = time.monotonic()
        try:
            self._stamp = self._read_stamp()
            self._context = server_context(self._certificate, self._key)
        except (OSError, ValueError) as error:
            raise ListenFailed(
                self._explain(error), "certificate and key must be PEM files that belong together"
            ) from error

    @property
    def context(self) -> ssl.SSLContext:
        """For a handshake that begins now."""
        now = time.monotonic()
        if now - self._looked >= LOOK_AGAIN:
            self._looked = now
            try:
                self.refresh()
            except OSError as error:
                self._failed(str(error))
        return self._context

    def refresh(self) -> None:
        """Reads the files again if they have changed.

        :raises OSError: they cannot be used; it is not raised again until they change again.
        """
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            # A new context each time: files that do not fit would leave the one in use without a key.
            self._context = server_context(self._certificate, self._key)
        except (OSError, ValueError) as error:
            raise OSError(self._explain(error)) from error

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in (self._certificate, self._key):
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _explain(self, error: Exception) -> str:
        reason = (isinstance(error, ssl.SSLError) and error.reason) or getattr(error, "strerror", "") or str(error)
        return f"the certificate {self._certificate} with key {self._key} cannot be used: {reason}"


class Certificates:
    """All of them.

    :param default: for visitors that name no host, or one that is not in ``named``; the first of those when None.
    :param named: by the pattern of the hosts that they are for.
    :raises ListenFailed: one cannot be used.
    :raises ValueError: there is none, or a pattern is no host.
    """

    def __init__(
        self,
        default: CertificateSettings | None,
        named: Mapping[str, CertificateSettings],
        failed: Callable[[str], None],
    ) -> None:
        self._named = [(HostPattern.parse(text), Certificate(files, failed)) for text, files in named.items()]
        # An exact name wins over one with a wildcard, and a long pattern over a short one.
        self._named.sort(key=lambda entry: ("*" in entry[0] or "?" in entry[0], -len(entry[0])))
        if default is None and not self._named:
            raise ValueError("there is no certificate")
        self._default = Certificate(default, failed) if default is not None else self._named[0][1]

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
        for certificate in (self._default, *(certificate for _, certificate in self._named)):
            certificate.refresh()

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        """Gives a handshake the certificate for the host that is asked for."""
        name = (host or "").lower().removesuffix(".")
        for pattern, certificate in self._named:
            if pattern.names(name):
                connection.context = certificate.context
                return
