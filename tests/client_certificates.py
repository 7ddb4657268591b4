"""Authorities and client certificates, made by openssl as people make them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import NamedTuple

from tunnelconsole.engine.settings import FilePath, Fingerprint, TLSSettings


def openssl(*arguments: object) -> bytes:
    """Runs openssl; returns what it wrote."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False)
    assert not done.returncode, done.stderr.decode()
    return done.stdout


class Owned(NamedTuple):
    """A certificate and its private key."""

    certificate: Path
    key: Path

    @property
    def pin(self) -> Fingerprint:
        """The SHA-256 of its public key, as the guide tells to compute it."""
        public = openssl("x509", "-in", self.certificate, "-noout", "-pubkey")
        self.certificate.with_suffix(".pub").write_bytes(public)
        der = openssl("pkey", "-pubin", "-in", self.certificate.with_suffix(".pub"), "-outform", "DER")
        return Fingerprint.parse("sha256:" + hashlib.sha256(der).hexdigest())

    def settings(self, fingerprint: str) -> TLSSettings:
        """A client's, for a server with that fingerprint."""
        return TLSSettings(
            certificate=FilePath(str(self.certificate)),
            key=FilePath(str(self.key)),
            fingerprint=Fingerprint.parse(fingerprint),
        )


def new_key(path: Path) -> Path:
    """A private key that only we can read."""
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    path.chmod(0o600)
    return path


def self_signed(folder: Path, subject: str, key: Path | None = None, file: str = "own") -> Owned:
    """A certificate that nobody vouches for."""
    key = key or new_key(folder / f"{file}.key")
    made = folder / f"{file}.crt"
    openssl("req", "-x509", "-new", "-utf8", "-key", key, "-days", 2, "-subj", subject, "-out", made)
    return Owned(made, key)


class Authority:
    """One that signs for clients."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.own = self_signed(folder, f"/CN={name}", file=name)

    def sign(
        self, subject: str, *, extensions: str = "extendedKeyUsage=clientAuth", days: int = 2, file: str = "client"
    ) -> Owned:
        """A certificate for a client with a new key.

        :param days: for which it is good; below 0 it has ended.
        """
        key = new_key(self._folder / f"{self._name}-{file}.key")
        request, made = key.with_suffix(".csr"), key.with_suffix(".crt")
        openssl("req", "-new", "-utf8", "-key", key, "-subj", subject, "-out", request)
        own = ("-CA", self.own.certificate, "-CAkey", self.own.key)
        rules = key.with_suffix(".ext")
        rules.write_text(extensions)
        openssl("x509", "-req", "-in", request, *own, "-days", days, "-extfile", rules, "-out", made)
        return Owned(made, key)
