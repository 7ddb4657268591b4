"""Authorities and client certificates, made by openssl as people make them, and who comes with them."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jump_peers import ask, home
from loopback import Caller, hears, told
from tunnelconsole.engine.events import PeerRefused, SessionOpened
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


def asking(authority: Authority | None = None, **keys: Fingerprint) -> TLSSettings:
    """A server's settings: clients need a certificate of that authority, or one of these keys."""
    ca = FilePath(str(authority.own.certificate)) if authority is not None else None
    return TLSSettings(client_ca=ca, client_keys=keys or None)


def showing(owned: Owned | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if owned is not None:
        context.load_cert_chain(*owned)
    return context


@asynccontextmanager
async def coming(address: str, context: ssl.SSLContext) -> AsyncIterator[Caller]:
    """A connection by TLS, with what the context shows."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    caller = Caller(reader, writer)
    try:
        yield caller
    finally:
        writer.transport.abort()


async def identity_at(tls: TLSSettings, owned: Owned | None, **more: Any) -> str:
    """As whom a jump server with these settings lets somebody in; why not, when it does not."""
    async with home(tls=tls, **more) as at, coming(at.address, showing(owned)) as caller:
        try:
            refusal = await ask(caller, at.far.address)
        except (OSError, asyncio.IncompleteReadError):
            refused = await hears(at.engine, PeerRefused)
            assert not told(at.engine, SessionOpened)
            return f"{refused.kind}: {refused.reason}"
        assert not refusal, refusal
        return (await hears(at.engine, SessionOpened)).identity
