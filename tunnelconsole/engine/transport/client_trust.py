"""Which client certificates a server takes, and who has proved to be whom by one.

A certificate is taken when an authority of ours has signed it, or when its public key is listed. Python's ``ssl`` can
ask for the first only: it has no callback for verifying. For the second, the certificate is seen when it comes, through
the callback that ``ssl`` has for messages, and where its key is listed this one handshake trusts it, by a context of
its own. OpenSSL still judges its dates and its purpose, and that its holder has the private key.

There are no sessions to take up again (TLS 1.3 without tickets), so every connection is judged by what holds now.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tunnelconsole.engine.transport.tls import ClientNotTaken

LONGEST_NAME: Final = 128
"""Characters of an identity: twice what a common name may have (RFC 5280, ub-common-name), for names like URIs."""

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@:/+=-]*[A-Za-z0-9])?")
"""What an identity is made of: nothing that looks like something else, ends a line, or ends a string."""

RESERVED: Final = "anonymous"
"""The identity of those who have proved nothing; no certificate may be for it."""

_HANDSHAKE: Final = 22
_CERTIFICATE: Final = 11
"""TLS's numbers for a handshake record and for the message with certificates (RFC 8446, sections 5.1 and 4)."""


def wrong_with_name(name: str) -> str:
    """What keeps ``name`` from being an identity, as the end of a sentence; "" when nothing does."""
    if not name:
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"has more than {LONGEST_NAME} characters"
    if not _NAME.fullmatch(name):
        return "has other characters than letters, digits, spaces and ._@:/+=- of ASCII, or begins or ends with these"
    return f'is "{RESERVED}", which stands for nobody' if name.lower() == RESERVED else ""


def key_pin(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate's public key (its SubjectPublicKeyInfo in DER), 64 lower-case hex digits.

    :raises ValueError: the key is of no known kind.
    """
    try:
        public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UnsupportedAlgorithm as error:
        raise ValueError("its public key is of no known kind") from error
    return hashlib.sha256(public).hexdigest()


def subject_of(certificate: x509.Certificate) -> str:
    """Who a certificate is for: its subject's one common name, or where it has none its one alternative name.

    :raises ValueError: that is nobody, several, or no name that an identity may have.
    """
    names = [str(entry.value) for entry in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    where = "common name"
    if not names:
        names, where = _alternative_names(certificate), "alternative name"
    if len(names) != 1:
        raise ValueError("its subject has several common names" if names and where == "common name" else _no_one(names))
    if wrong := wrong_with_name(names[0]):
        raise ValueError(f"its {where} {wrong}")
    return names[0]


def _no_one(names: list[str]) -> str:
    return f"it has no common name and {len(names) or 'no'} alternative names, so it says not who it is for"


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    kinds = (x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier)
    return [name.value for name in found if isinstance(name, kinds)]


class ClientTrust:
    """What a server's ``client_ca`` and ``client_keys`` say.

    :param ca: PEM file of authorities; None for none.
    :param keys: :func:`key_pin` of keys that are taken whoever signed for them, by the identity of their holder.
    """

    def __init__(self, ca: Path | None, keys: Mapping[str, str]) -> None:
        self.ca = ca
        self._names = {pin: name for name, pin in keys.items()}

    def demand(self, context: ssl.SSLContext) -> None:
        """Has a server's context ask for a certificate, and let nobody in without.

        :raises OSError: the authorities' file cannot be read, or holds no certificate.
        """
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        if self.ca is not None:
            context.load_verify_locations(self.ca)
        if self._names:
            context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # a listed one is an anchor by itself
            watched: Any = context  # typeshed does not know the attribute
            watched._msg_callback = self._watch(self._unlisted())  # noqa: SLF001 - see the module's words

    def identify(self, certificate_der: bytes | None) -> str:
        """Who has proved to hold a certificate's key, after a handshake.

        :raises ClientNotTaken: that cannot be told.
        """
        if certificate_der is None:
            raise ClientNotTaken("it brought no client certificate")
        try:
            certificate = x509.load_der_x509_certificate(certificate_der)
            return self._listed(certificate) or subject_of(certificate)
        except ValueError as error:
            raise ClientNotTaken(f"its client certificate is of no use: {error}") from error

    def _listed(self, certificate: x509.Certificate) -> str:
        try:
            return self._names.get(key_pin(certificate), "") if self._names else ""
        except ValueError:
            return ""

    def _unlisted(self) -> ssl.SSLContext:
        """For the rest of a handshake whose key is not listed: what holds for those without a list."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.ca is not None:
            context.load_verify_locations(self.ca)
        return context

    def _watch(self, unlisted: ssl.SSLContext) -> Callable[..., None]:
        """The callback for messages.

        It has a handshake go on by another context once the certificate is there: so nothing that a stranger brings
        stays in the context of all, and no message is looked at after that one.
        """

        def seen(connection: ssl.SSLObject, way: str, _: int, record: int, message: int, data: bytes) -> None:
            if way != "read" or record != _HANDSHAKE or message != _CERTIFICATE:
                return
            connection.context = unlisted
            first = first_certificate(data)
            try:
                if first and self._listed(x509.load_der_x509_certificate(first)):
                    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    alone.load_verify_locations(cadata=first)
                    connection.context = alone
            except (ValueError, ssl.SSLError):
                pass  # OpenSSL is about to say what is wrong with it

        return seen


def first_certificate(message: bytes) -> bytes:
    """The first certificate of TLS 1.3's message, its header of 4 bytes included (RFC 8446, section 4.4.2)."""
    if len(message) < 5:
        return b""
    start = 5 + message[4] + 3
    length = int.from_bytes(message[start : start + 3], "big")
    found = message[start + 3 : start + 3 + length]
    return found if len(found) == length else b""
