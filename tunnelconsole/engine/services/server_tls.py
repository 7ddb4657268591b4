"""A server's side of TLS: its certificate, and whose certificates it takes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from tunnelconsole.engine.private_files import private_folder
from tunnelconsole.engine.services.certificate_pair import CertificatePair, reason_of
from tunnelconsole.engine.settings import TLSSettings
from tunnelconsole.errors import ListenFailed

if TYPE_CHECKING:
    from tunnelconsole.engine.transport.client_trust import ClientTrust


def client_trust(settings: TLSSettings | None) -> ClientTrust | None:
    """Whose certificates a server takes; None where nobody has to bring one.

    :raises ValueError: a name in the list can be nobody's, or two have the same key.
    """
    if settings is None or not settings.asks_clients:
        return None
    from tunnelconsole.engine.transport.client_trust import ClientTrust  # noqa: PLC0415 - as in ServerTLS

    return ClientTrust(Path(settings.client_ca) if settings.client_ca else None, settings.client_keys)


class ServerTLS:
    """A server's side of ``[service.NAME.tls]``: its context, from given files or a self-signed certificate.

    :raises ListenFailed: a file cannot be read or made, or the key does not fit the certificate.
    :raises NotPrivate: others could put another key in the place of the one that is made.
    """

    def __init__(self, settings: TLSSettings, name: str, state_dir: Path) -> None:
        # Only where TLS is on: cryptography costs 10 MiB and a tenth of a second, which other servers need not pay.
        from tunnelconsole.engine.transport.certificates import (  # noqa: PLC0415
            certificate_fingerprint,
            make_self_signed,
        )

        self._read_fingerprint = certificate_fingerprint
        self.trust = trust = client_trust(settings)
        """Whose certificates are taken; None where nobody has to bring one."""
        self.identify = trust.identify if trust is not None else None
        """Tells who a client is, where one has to bring a certificate."""
        own = settings.certificate is None or settings.key is None
        if settings.certificate is not None and settings.key is not None:
            certificate, key = Path(settings.certificate), Path(settings.key)
        else:
            folder = state_dir / "tls"
            certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        try:
            if own:
                private_folder(key.parent)
                make_self_signed(certificate, key, name)
            self.pair = CertificatePair(certificate, key, trust)
            self.fingerprint = self._read_fingerprint(certificate)
        except (OSError, ValueError) as error:
            raise ListenFailed(
                f"the certificate {certificate} with key {key} cannot be used: {reason_of(error)}",
                "both must be PEM files that belong together"
                + (f", and {settings.client_ca} one of authorities" if settings.client_ca else ""),
            ) from error

    @property
    def context(self) -> ssl.SSLContext:
        """For a handshake that begins now."""
        return self.pair.context

    def refresh(self) -> None:
        """Reads the files again for handshakes to come.

        :raises OSError: they cannot be used; the old certificate stays.
        """
        if self.pair.refresh():
            self.renewed()

    def renewed(self) -> None:
        """Takes the fingerprint of a certificate that has been read again."""
        self.fingerprint = self._read_fingerprint(self.pair.certificate)

    def take(self, settings: TLSSettings) -> None:
        """Takes the keys of these settings from now on; authorities are read again by :meth:`refresh`."""
        if self.trust is not None:
            self.trust.take(settings.client_keys or {})
