"""Who the two ends of a room are to each other: TLS 1.3, where each shows the one certificate that the room key makes.

Both know the room key, and with it the same private key and the same certificate, byte for byte. Each shows that it has
the key and accepts nobody else's; so the two need not agree on anything before, and a stranger gets no further.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from tunnelconsole.engine.transport.tls import NotTLS, TLSEnd, complete_handshake, why
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

_SERIAL = 1
"""The same at both ends; there is no other certificate of this issuer to be told apart from."""

_VALID_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_VALID_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""For ever (RFC 5280, section 4.1.2.5): a host with a wrong clock meets its peer too."""

_OF_ANOTHER_ROOM = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_DECRYPT_ERROR",
    "ALERT_ACCESS_DENIED",
    "CERTIFICATE_VERIFY_FAILED",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    "BAD_SIGNATURE",
)
"""OpenSSL's reasons, its own and those of alerts (RFC 8446, section 6.2), where a certificate is not the room's."""


class RoomIdentity:
    """The certificate of a room and the two contexts that show it and accept nothing else.

    Making one takes about a millisecond.

    :param seed: the private key (RFC 8032, section 5.1.5), 32 bytes; see
        :attr:`~tunnelconsole.engine.wire.punch_room.RoomKey.certificate_seed`.
    :raises OSError: there is no place for the private key, not even for a moment.
    """

    def __init__(self, seed: bytes) -> None:
        private = Ed25519PrivateKey.from_private_bytes(seed)
        made = _certificate(private)
        self.certificate = made.public_bytes(Encoding.DER)
        """In DER; the same wherever the room key is the same."""
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
        self.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with _passing_file(pem) as file:
            for context in (self.client_context, self.server_context):
                context.check_hostname = False  # the certificate names nobody: it is the room's
                context.verify_mode = ssl.CERT_REQUIRED
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.options |= ssl.OP_NO_TICKET
                context.load_verify_locations(cadata=self.certificate)
                context.load_cert_chain(file)
        self.server_context.num_tickets = 0  # a path is never taken up again, so nothing is to be remembered

    def end(self, sock: socket.socket, *, server_side: bool) -> TLSEnd:
        """A TLS end over a connected, non-blocking socket, which it owns; for :meth:`complete`."""
        return TLSEnd(sock, self.server_context if server_side else self.client_context, server_side=server_side)

    async def complete(self, end: TLSEnd) -> None:
        """Waits until the far side has shown that it has the room key; the caller sets the time limit, and closes.

        :raises CredentialsRefused: it has another, or it does not accept ours.
        :raises ConnectFailed: the connection broke, or the far side does not speak TLS.
        """
        try:
            await complete_handshake(end)
        except NotTLS as error:
            raise ConnectFailed("the other end does not speak TLS", "something in between answers for it") from error
        except ssl.SSLError as error:
            if any(reason in (error.reason or "") for reason in _OF_ANOTHER_ROOM):
                raise _another_secret() from error
            raise ConnectFailed(f"the TLS handshake with the other end failed: {why(error)}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectFailed(f"the connection broke during the TLS handshake: {reason}") from error
        if not hmac.compare_digest(end.peer_certificate() or b"", self.certificate):
            raise _another_secret()


def _another_secret() -> CredentialsRefused:
    return CredentialsRefused(
        "the other end of this connection does not have this room's secret",
        "set the same room and the same secret at both ends",
    )


def _certificate(private: Ed25519PrivateKey) -> x509.Certificate:
    """The certificate of a key. Nothing in it is chance, the signature neither (RFC 8032, section 5.1.6)."""
    public = private.public_key()
    fingerprint = hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, fingerprint[:32])])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(_SERIAL)
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, None)
    )


@contextmanager
def _passing_file(content: bytes) -> Iterator[Path]:
    """A file for who takes nothing else: in memory where the system can, else one that only this user can read."""
    descriptors = Path("/proc/self/fd")
    if hasattr(os, "memfd_create") and descriptors.is_dir():
        with os.fdopen(os.memfd_create("room"), "wb", buffering=0) as memory:
            memory.write(content)
            yield descriptors / str(memory.fileno())
        return
    with tempfile.NamedTemporaryFile(buffering=0) as file:  # mode 0600, and gone with the block
        file.write(content)
        yield Path(file.name)
