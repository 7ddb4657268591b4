"""Certificates made and read here: a self-signed one for a server that was given none, and fingerprints.

Apart from the rest of TLS because it imports ``cryptography``, which a daemon without TLS need not load.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tunnelconsole.engine.transport.tls import fingerprint_of

SELF_SIGNED_DAYS = 3650
"""Days a self-signed certificate is valid. It is trusted by its fingerprint, so its date protects nobody."""


def make_self_signed(certificate: Path, key: Path, name: str) -> None:
    """Makes a P-256 key and a certificate for ``name``, once: files that exist are left alone.

    The key file has mode 0600.

    :raises OSError: the files cannot be written.
    """
    if certificate.exists() and key.exists():
        return
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key, private_pem, 0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Puts a file in its place in one step, so that a crash leaves none that is cut short."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(path)


def certificate_fingerprint(certificate: Path) -> str:
    """The SHA-256 fingerprint of the first certificate in a PEM file.

    :raises OSError: the file cannot be read.
    :raises ValueError: it holds no certificate.
    """
    first = x509.load_pem_x509_certificate(certificate.read_bytes())
    return fingerprint_of(first.public_bytes(serialization.Encoding.DER))
