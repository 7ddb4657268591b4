"""TLS as an end, with a half-close that works, and the contexts for it.

The standard library's socket wrapper cannot send ``close_notify`` while application data is still arriving (OpenSSL
answers APPLICATION_DATA_AFTER_CLOSE_NOTIFY and the connection is lost), and asyncio's transport refuses half-close
altogether. Over memory BIOs both can be done: everything that has arrived is decrypted first, so that OpenSSL finds no
data when it sends its ``close_notify`` (RFC 8446, section 6.1, allows the other direction to go on).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from tunnelconsole.engine.transport.ends import READ_SIZE, reset, wait_readable, wait_writable
from tunnelconsole.engine.wire.first_bytes import ENOUGH, TLS, spoken_by
from tunnelconsole.errors import CertificateRejected, ConnectFailed, CredentialsRefused

_PROTOCOL_VERSION_ALERT = bytes.fromhex("15 0301 0002 0246")
"""A fatal alert in plain text (RFC 8446, section 6). OpenSSL sends none to who does not speak TLS at all; by this one
our own clients know what they have come to."""

_UNTRUSTED = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_ACCESS_DENIED",
)
"""Alerts of who does not like our certificate (RFC 8446, section 6.2)."""

_REQUIRED = "ALERT_CERTIFICATE_REQUIRED"
"""The alert of who wants one, and got none."""


Identify = Callable[[bytes | None], str]
"""Tells who has proved to hold a certificate, in DER; raises :class:`ClientNotTaken` when that cannot be told."""


class NotTLS(OSError):
    """The far side does not speak TLS.

    :param first: the bytes it began with.
    """

    def __init__(self, first: bytes) -> None:
        self.spoken = spoken_by(first)
        """The usual name of what it speaks; "" when that is not known."""
        super().__init__(None, "the far side does not speak TLS")


class ClientNotTaken(OSError):
    """A client has done its TLS handshake, and its certificate does not tell who it is.

    :param reason: why, as a sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(None, reason)


class TLSEnd:
    """One TLS connection over a non-blocking socket, as an :class:`~tunnelconsole.engine.transport.ends.End`.

    :param sock: a connected, non-blocking TCP socket, owned by the end from here on.
    :param context: from :func:`server_context` or :func:`client_context`.
    :param server_side: True on the accepting side.
    :param server_name: the name for SNI and for checking the certificate, on the connecting side.
    :param identify: tells who has proved to hold a certificate (in DER), on an accepting side that asks for one.
    """

    __slots__ = (
        "_ended",
        "_identify",
        "_incoming",
        "_outgoing",
        "_ready",
        "_tls",
        "_unsent",
        "established",
        "heard",
        "not_taken",
        "peer_identity",
        "socket",
    )
    path = "tls"

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
        identify: Identify | None = None,
    ) -> None:
        self.socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        self._unsent = b""
        self._ready = b""
        self._ended = False
        self._identify = identify
        self.established = False
        self.peer_identity = ""
        """Who the far side has proved to be by a certificate, once established; "" for nobody."""
        self.not_taken: Callable[[str], None] | None = None
        """Told, on a connecting side, when the far side refuses our certificate, and in what words. In TLS 1.3 that
        comes after our handshake, and so from nobody but the far side; before it, anybody may have said it."""
        self.heard = b""
        """The first bytes of the far side."""

    def fileno(self) -> int:
        return self.socket.fileno()

    def handshake(self) -> None:
        """Goes as far in the TLS handshake as the bytes at hand allow; sets ``established`` when it is done.

        :raises BlockingIOError: it needs more from the far side.
        :raises NotTLS: the far side speaks something else.
        :raises ClientNotTaken: its certificate does not tell who it is.
        :raises OSError: the far side is not acceptable.
        """
        while not self.established:
            try:
                self._tls.do_handshake()
                if self._identify is not None:  # not before the far side has proved that it has the key
                    self.peer_identity = self._identify(self.peer_certificate())
                self.established = True
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            except ssl.SSLError as error:
                foreign = self.heard and spoken_by(self.heard) != TLS
                if foreign and self._tls.server_side:
                    self._unsent += _PROTOCOL_VERSION_ALERT
                with contextlib.suppress(OSError):  # the alert that tells the far side why, where it still listens
                    self.flush()
                if foreign:
                    raise NotTLS(self.heard) from error
                raise
        self.flush()

    def receive(self, size: int) -> bytes:
        if self._ready:
            data, self._ready = self._ready[:size], self._ready[size:]
            return data
        pieces: list[bytes] = []
        taken = 0
        while taken < size and not self._ended:
            try:
                piece = self._tls.read(size - taken)
            except ssl.SSLWantReadError:
                if pieces:
                    break
                if self._outgoing.pending:  # reading had to answer, to a change of keys for one
                    with contextlib.suppress(OSError):  # what came before the break can still be read
                        self.flush()
                self._fill()
                continue
            except ssl.SSLZeroReturnError:
                piece = b""
            except ssl.SSLEOFError as error:
                if pieces:
                    break
                raise ConnectionResetError("the far side closed without TLS close_notify") from error
            except ssl.SSLError as error:  # in TLS 1.3 a client hears only now whether its certificate was taken
                if self._tls.server_side or "ALERT" not in (error.reason or ""):
                    raise
                if self.not_taken is not None and _about_certificates(error.reason):
                    self.not_taken(refusal_in(error.reason))
                raise ConnectionResetError(None, refusal_in(error.reason)) from error
            self._ended = not piece
            pieces.append(piece)
            taken += len(piece)
        return b"".join(pieces)

    def send(self, data: bytes | memoryview) -> int:
        if not self.flush():
            raise BlockingIOError
        taken = self._tls.write(data[:READ_SIZE])
        self.flush()
        return taken

    def flush(self) -> bool:
        while True:
            if not self._unsent:
                if not self._outgoing.pending:
                    return True
                self._unsent = self._outgoing.read()
            try:
                sent = self.socket.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError:
                self._hear_why()
                raise
            self._unsent = self._unsent[sent:]

    def holds_input(self) -> bool:
        return bool(self._ready) or self._ended or self._incoming.pending > 0 or self._tls.pending() > 0

    def send_eof(self) -> None:
        self._decrypt_all()
        with contextlib.suppress(ssl.SSLWantReadError):  # close_notify is out; the far side's is still to come
            self._tls.unwrap()
        self.flush()

    def close(self) -> None:
        if self.established and self.socket.fileno() >= 0:
            with contextlib.suppress(OSError):  # a far side that is gone needs no close_notify
                self.send_eof()
        self.socket.close()

    def abort(self) -> None:
        reset(self.socket)

    def peer_certificate(self) -> bytes | None:
        """The far side's certificate in DER, once established; None when it sent none."""
        return self._tls.getpeercert(binary_form=True)

    def _fill(self) -> None:
        data = self.socket.recv(READ_SIZE)
        if data:
            self.heard = self.heard or data[:ENOUGH]
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _hear_why(self) -> None:
        """Reads what the far side has said before it went, where that may be what it has against our certificate.

        :raises ConnectionResetError: it was.
        """
        if self.not_taken is None or not self.established or self._ready or self._ended:
            return
        try:
            self._ready = self.receive(READ_SIZE)
        except ConnectionResetError as error:
            if error.errno is None:
                raise
        except OSError:
            pass  # it has said nothing

    def _decrypt_all(self) -> None:
        """Empties the BIO into ``_ready``, at most one read of ciphertext, so that ``unwrap`` finds no data."""
        pieces = [self._ready]
        while not self._ended and (self._incoming.pending or self._tls.pending()):
            try:
                pieces.append(self._tls.read(READ_SIZE))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                pieces.append(b"")
            self._ended = not pieces[-1]
        self._ready = b"".join(pieces)


async def complete_handshake(end: TLSEnd) -> None:
    """Waits until the TLS handshake is done; the caller sets the time limit.

    :raises OSError: it failed; the error says why.
    """
    while not end.established:
        try:
            end.handshake()
        except BlockingIOError:
            await wait_readable(end)
    while not end.flush():
        await wait_writable(end)


def fingerprint_of(certificate_der: bytes) -> str:
    """The SHA-256 fingerprint of a DER certificate: 64 lower-case hex digits."""
    return hashlib.sha256(certificate_der).hexdigest()


def plain_fingerprint(text: str) -> str:
    """A fingerprint as people write it (``AB:CD:...``, ``sha256:...``) as 64 lower-case hex digits.

    :raises ValueError: it is not a SHA-256 fingerprint.
    """
    digits = text.lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise ValueError("a fingerprint is the SHA-256 of the certificate: 64 hex digits, colons allowed")
    return digits


def check_fingerprint(end: TLSEnd, expected: str) -> None:
    """Compares the far side's certificate with a pinned fingerprint (64 hex digits).

    :raises CredentialsRefused: it is another certificate.
    """
    certificate = end.peer_certificate()
    actual = fingerprint_of(certificate) if certificate else ""
    if not hmac.compare_digest(actual, expected):
        raise CredentialsRefused(
            f"the server's certificate has the fingerprint {actual or 'none'}, not the pinned one",
            "if the server's certificate was replaced on purpose, pin the new fingerprint; else somebody is in between",
        )


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for the accepting side; TLS 1.2 and later.

    :param certificate: PEM file with the chain, the server's own first.
    :param key: PEM file with the private key, not encrypted.
    :raises OSError: a file cannot be read, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key, no_passphrase)
    return context


def no_passphrase() -> str:
    """What OpenSSL asks for when a key is encrypted; it would ask at the terminal otherwise."""
    raise OSError(None, "the private key is encrypted; write it without a passphrase")


def client_context(ca: Path | None, fingerprint: str) -> ssl.SSLContext:
    """A context for the connecting side; TLS 1.2 and later.

    :param ca: PEM file with the authorities to trust; None for the system's.
    :param fingerprint: when set, the certificate is judged by :func:`check_fingerprint` alone.
    :raises OSError: the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if fingerprint:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


_OTHER_NAME = (62, 64)
"""OpenSSL's numbers for a certificate of another host name, and of another IP address (x509_vfy.h)."""


def explain(error: ssl.SSLError | NotTLS, without_tls: str) -> ConnectFailed:
    """A failed client handshake as an error with something to do.

    :param error: of :func:`complete_handshake`.
    :param without_tls: how this client is told to do without TLS.
    """
    if isinstance(error, NotTLS):
        seen = f"; it began like plain {error.spoken}" if error.spoken else ""
        return ConnectFailed(
            f"the server does not speak TLS{seen}",
            f"{without_tls}, or set [service.NAME.tls] on the server",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return CertificateRejected(
                f"the server's certificate is for another name: {error.verify_message}",
                "call the server by a name that is in it, or pin it with tls.fingerprint",
            )
        return CertificateRejected(
            f"the server's certificate is not trusted: {error.verify_message}",
            "pin a self-signed certificate with tls.fingerprint, or name its authority with tls.ca",
        )
    if _about_certificates(error.reason or ""):
        return ConnectFailed(refusal_in(error.reason), SHOW_ONE)
    return ConnectFailed(f"the TLS handshake failed: {why(error)}", "is the server's listener a TLS one, on this port?")


SHOW_ONE = "set certificate and key in [service.NAME.tls] to ones that the server takes"
"""What to do about a server that wants a client certificate."""


def _about_certificates(reason: str) -> bool:
    """Whether an alert is about our certificate."""
    return any(alert in reason for alert in (_REQUIRED, *_UNTRUSTED))


def refusal_in(reason: str) -> str:
    """What a server has against us, by the alert that it sent."""
    if _REQUIRED in reason:
        return "the server wants a client certificate"
    if any(alert in reason for alert in _UNTRUSTED):
        return f"the server does not take our client certificate ({reason})"
    return f"the server ended TLS ({reason})"


def not_taken(error: OSError) -> str:
    """Why a server did not take a client's certificate, from its failed handshake; "" when that was not it."""
    if isinstance(error, ClientNotTaken):
        return str(error.strerror)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its client certificate is not taken: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason in ("BAD_SIGNATURE", "LENGTH_MISMATCH", "WRONG_SIGNATURE_TYPE"):
        return "it does not have the key of the client certificate that it showed"
    return ""


def brought_none(error: OSError) -> bool:
    """Whether a handshake failed because a client brought no certificate, where one is needed."""
    return isinstance(error, ssl.SSLError) and error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


def why(error: ssl.SSLError) -> str:
    """Why a handshake failed, in words where OpenSSL's own are hard to read."""
    reason = error.reason or str(error)
    if isinstance(error, ssl.SSLEOFError):
        return "the other side closed the connection"
    if any(alert in reason for alert in _UNTRUSTED):
        return f"the other side does not trust the certificate ({reason})"
    return reason
