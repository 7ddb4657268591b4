"""Which client certificates a server takes, and who has proved to be whom by one.

A certificate is taken when an authority of ours has signed it, or when its public key is listed. Python's ``ssl`` can
ask for the first only: it has no callback for verifying. For the second, the certificate is seen when it comes, through
the callback that ``ssl`` has for messages, and where its key is listed this one handshake trusts it, by a context of
its own. OpenSSL still judges its dates and its purpose, and that its holder has the private key.

That callback is a private one of ``ssl``. Where it is missing or stays silent, no listed key is taken, and a server
with a list says so at its start, because it tries it out then.

What comes from a stranger is looked at here before its holder has proved anything. So it is only walked through, to
find the public key: the bytes of which the list has the digest are the bytes that OpenSSL takes the key from, and
nobody has to read them alike. A name is read once OpenSSL has taken the certificate and the proof.

There are no sessions to take up again (TLS 1.3 without tickets), so every connection is judged by what holds now.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from tunnelconsole.engine.transport.tls import ClientNotTaken
from tunnelconsole.errors import ListenFailed

LONGEST_NAME: Final = 128
"""Characters of an identity: twice what a common name may have (RFC 5280, ub-common-name), for names like URIs."""

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@:/+=-]*[A-Za-z0-9])?")
"""What an identity is made of: nothing that looks like something else, ends a line, or ends a string."""

RESERVED: Final = "anonymous"
"""The identity of those who have proved nothing; no certificate may be for it."""

KEPT: Final = 64
"""Contexts kept, each for one certificate with a listed key: making one takes as long as a handshake, 1 ms,
and anybody may show a certificate that he has seen. Strangers can push others out and no more: one is used for who
shows the very certificate that it trusts, while its key is listed. OpenSSL takes 100 KiB of certificates at most."""

_NO_COMPRESSED_CERTIFICATES: Final = 1 << 33
"""OpenSSL's SSL_OP_NO_RX_CERTIFICATE_COMPRESSION, from 3.2 on: one that is compressed (RFC 8879) comes in a message
that nobody here looks into, so a listed key would not be seen. It also spares us from unpacking what strangers send."""

_UNUSABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises over a certificate that OpenSSL has taken all the same."""

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_VERSION: Final = 0xA0
"""Tags in a certificate (RFC 5280, section 4.1): the last is that of its version, which may be left out."""

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


def key_pin(certificate: bytes) -> str:
    """The SHA-256 of a certificate's public key, of its SubjectPublicKeyInfo as it stands there; 64 hex digits.

    :param certificate: in DER.
    :raises ValueError: it is none.
    """
    start, end = _element(certificate, 0, _SEQUENCE)
    if end != len(certificate):
        raise ValueError("there is something behind the certificate")
    at, _ = _element(certificate, start, _SEQUENCE)
    if certificate[at : at + 1] == bytes([_VERSION]):
        _, at = _element(certificate, at, _VERSION)
    _, at = _element(certificate, at, _INTEGER)  # its number; then algorithm, issuer, dates and subject
    for _ in range(4):
        _, at = _element(certificate, at, _SEQUENCE)
    _, end = _element(certificate, at, _SEQUENCE)
    return hashlib.sha256(certificate[at:end]).hexdigest()


def _element(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the content of DER's next element begins and ends.

    :raises ValueError: there is none with that tag, or it is cut short.
    """
    head = data[at : at + 2]
    if len(head) < 2 or head[0] != tag or head[1] == 0x80:
        raise ValueError("not a certificate in DER")
    more = head[1] & 0x7F if head[1] > 0x80 else 0
    start = at + 2 + more
    end = start + (int.from_bytes(data[at + 2 : start], "big") if more else head[1])
    if end > len(data):
        raise ValueError("a certificate that is cut short")
    return start, end


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
    :param keys: :func:`key_pin` of keys that are taken whoever signed for them, by the identity of their holder; None
        for no list.
    :raises ValueError: a name can be nobody's, or two have the same key.
    """

    def __init__(self, ca: Path | None, keys: Mapping[str, str] | None) -> None:
        self.ca = ca
        self.authorities: frozenset[bytes] = frozenset()
        """Those in that file, in DER, as they were read last."""
        self._has_list = keys is not None
        self.take(keys or {})

    def take(self, keys: Mapping[str, str]) -> None:
        """Takes these keys from now on, and no others.

        :raises ValueError: a name can be nobody's, or two have the same key.
        """
        for name in keys:
            if wrong := wrong_with_name(name):
                raise ValueError(f"tls.client_keys: the identity {name!r} {wrong}")
        if len(set(keys.values())) < len(keys):
            raise ValueError("tls.client_keys: two identities have the same key, so nobody could tell them apart")
        self._names = {pin: name for name, pin in keys.items()}

    def demand(self, context: ssl.SSLContext) -> None:
        """Has a server's context ask for a certificate, and let nobody in without.

        :param context: one with a certificate.
        :raises OSError: the authorities' file cannot be read, or holds no certificate.
        :raises ListenFailed: there is a list, and ``ssl`` does not show what clients bring.
        """
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        if ssl.OPENSSL_VERSION_INFO >= (3, 2):
            context.options |= _NO_COMPRESSED_CERTIFICATES
        # A listed one is an anchor by itself. So is whatever is in the file, with a list or without.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        self._load(context)
        if self._has_list:
            watched: Any = context  # typeshed does not know the attribute
            watched._msg_callback = self._watch(self._unlisted())  # noqa: SLF001 - see the module's words
            if not _is_watched(context):
                raise ListenFailed(
                    "client_keys cannot be used: the ssl of this Python does not show the certificates of clients",
                    "sign for the clients and name the authority with client_ca, or run it with another Python",
                )

    def identify(self, certificate_der: bytes | None) -> str:
        """Who has proved to hold a certificate's key, after a handshake.

        :raises ClientNotTaken: that cannot be told.
        """
        if certificate_der is None:
            raise ClientNotTaken("it brought no client certificate")
        try:
            return self._listed(certificate_der) or subject_of(x509.load_der_x509_certificate(certificate_der))
        except _UNUSABLE as error:
            raise ClientNotTaken(f"its client certificate is of no use: {error}") from error

    def still_takes(self, certificate_der: bytes) -> bool:
        """Whether somebody who got in by a certificate would again, by what holds now.

        Dates are not looked at. One that an authority signed for through another one counts as not taken: which others
        there were on the way is not kept, and its holder may come again.
        """
        return bool(self._listed(certificate_der)) or any(
            _signed(authority, certificate_der) for authority in self.authorities
        )

    def _listed(self, certificate: bytes) -> str:
        """Whose key a certificate (DER) has, by the list; "" for nobody's there."""
        try:
            return self._names.get(key_pin(certificate), "") if self._names else ""
        except ValueError:
            return ""

    def read(self) -> None:
        """Reads the authorities, for :meth:`still_takes`; :meth:`demand` does that too.

        :raises OSError: their file cannot be read, or holds no certificate.
        """
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def _load(self, context: ssl.SSLContext) -> None:
        if self.ca is not None:
            context.load_verify_locations(self.ca)
            self.authorities = frozenset(context.get_ca_certs(binary_form=True))

    def _unlisted(self) -> ssl.SSLContext:
        """For the rest of a handshake whose key is not listed: what holds for those without a list."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.ca is not None:
            context.load_verify_locations(self.ca)
        return context

    def _watch(self, unlisted: ssl.SSLContext) -> Callable[..., None]:
        """The callback for messages.

        It has a handshake go on by another context once the certificate is there: so nothing that a stranger brings
        gets into the context of all, and no message is looked at after that one.
        """

        def seen(connection: ssl.SSLObject, way: str, _: int, record: int, message: int, data: bytes) -> None:
            if way != "read" or record != _HANDSHAKE or message != _CERTIFICATE:
                return
            connection.context = unlisted
            first = first_certificate(data)
            try:
                if self._listed(first):
                    connection.context = _trusting(first)
            except (ValueError, ssl.SSLError):
                pass  # OpenSSL is about to say what is wrong with it

        return seen


@lru_cache(maxsize=KEPT)
def _trusting(certificate: bytes) -> ssl.SSLContext:
    """A context that trusts one certificate (DER) and nothing else."""
    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    alone.load_verify_locations(cadata=certificate)
    return alone


def _is_watched(context: ssl.SSLContext) -> bool:
    """Whether a server's context sees what clients bring: tried out, with one that brings no certificate."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = careless.wrap_bio(to_client, to_server)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            break  # as it should: there is no certificate
    return server.context is not context


def _signed(authority: bytes, certificate: bytes) -> bool:
    try:
        signer = x509.load_der_x509_certificate(authority)
        x509.load_der_x509_certificate(certificate).verify_directly_issued_by(signer)
    except (*_UNUSABLE, InvalidSignature):
        return False
    return True


def first_certificate(message: bytes) -> bytes:
    """The first certificate of TLS 1.3's message, its header of 4 bytes included (RFC 8446, section 4.4.2)."""
    if len(message) < 5:
        return b""
    start = 5 + message[4] + 3
    length = int.from_bytes(message[start : start + 3], "big")
    found = message[start + 3 : start + 3 + length]
    return found if len(found) == length else b""
