"""A certificate with its key, as files that may be replaced while they are in use, and who looks whether they were."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from tunnelconsole.engine.events import CertificateRenewed, CertificateUnusable
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.transport.tls import server_context

if TYPE_CHECKING:
    from tunnelconsole.engine.transport.client_trust import ClientTrust

LOOK_AGAIN = 2.0
"""Seconds between two looks at the files. They are taken once two looks have found the same, so that a pair which is
just being replaced is not read half way; a certificate is renewed days before the old one ends."""

Stamp = tuple[tuple[int, ...] | None, ...]
"""What shows that files were replaced, written to, or made readable; None for one that cannot be found."""


class CertificatePair:
    """A certificate's file and its key's, and what was in them when they were read last.

    :param clients: whose certificates are taken, where clients have to bring one; the file of their authorities is
        looked at with the others.

    A path may be a symbolic link, as certbot has it: what counts is the file that it leads to.

    :raises OSError: one cannot be read, or they do not belong together (:class:`ssl.SSLError`).
    :raises ValueError: one is not what it should be.
    """

    def __init__(self, certificate: Path, key: Path, clients: ClientTrust | None = None) -> None:
        self._clients = clients
        self.certificate = certificate
        self.key = key
        self.stamp = self.look()
        self._digests = self._read_digests()
        self.renewed_file = certificate
        """The first of the files in which :meth:`refresh` found something else the last time that it did."""
        self.context = self._make_context()
        """For handshakes that begin now."""

    def look(self) -> Stamp:
        """The files as they are at this moment, without reading them."""
        return tuple(_stamp_of(path) for path in self._paths)

    def refresh(self) -> bool:
        """Reads the files again where they have changed; returns whether there is something else in them.

        :raises OSError: they cannot be used; the old certificate stays in use, and the next call tries again.
        """
        stamp = self.look()
        if stamp == self.stamp:
            return False
        try:
            digests = self._read_digests()
            # A new context each time: loading files that do not fit together into the one in use would leave it without
            # a key, and every handshake would fail.
            context = self._make_context()
        except (OSError, ValueError) as error:
            raise OSError(self.explain(error)) from error
        renewed = [path for path, digest in digests.items() if digest != self._digests[path]]
        self.stamp, self._digests = stamp, digests
        if renewed:
            self.context, self.renewed_file = context, renewed[0]
        return bool(renewed)

    def explain(self, error: Exception) -> str:
        """What is wrong with the files, in a sentence."""
        return f"the certificate {self.certificate} with key {self.key} cannot be used: {reason_of(error)}"

    @property
    def _paths(self) -> tuple[Path, ...]:
        authorities = self._clients.ca if self._clients is not None else None
        return (self.certificate, self.key, *([authorities] if authorities is not None else ()))

    def _make_context(self) -> ssl.SSLContext:
        context = server_context(self.certificate, self.key)
        if self._clients is not None:
            self._clients.demand(context)
        return context

    def _read_digests(self) -> dict[Path, bytes]:
        return {path: hashlib.sha256(path.read_bytes()).digest() for path in self._paths}


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def reason_of(error: Exception) -> str:
    """Why files of TLS cannot be used, in a few words."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "not a PEM certificate and key"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


class Holder(Protocol):
    """A service, as far as its certificates are concerned."""

    name: str

    @property
    def certificates(self) -> Iterable[CertificatePair]:
        """Those in use."""

    def renewed(self) -> None:
        """Told that one of them is another one now."""


class _Found:
    """What the last look at a pair has found."""

    def __init__(self) -> None:
        self.stamp: Stamp | None = None
        self.tried = False
        self.told = ""


class CertificateWatch:
    """Has changed certificates taken without a reload; handshakes to come see the new one, connections go on.

    Files that cannot be used are told once, and tried again when they change again; the old certificate stays.

    :param holders: gives the services.
    """

    def __init__(self, node: Node, holders: Callable[[], Iterable[Holder]]) -> None:
        self._node = node
        self._holders = holders
        self._found: WeakKeyDictionary[CertificatePair, _Found] = WeakKeyDictionary()

    async def run(self) -> None:
        """Looks every :data:`LOOK_AGAIN` seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            await self._look()

    async def _look(self) -> None:
        pairs = [(holder, pair) for holder in self._holders() for pair in holder.certificates]
        if not pairs:
            return
        # In a thread, because the files may lie on a disk that is slow or away.
        stamps = await asyncio.to_thread(lambda: [pair.look() for _, pair in pairs])
        for (holder, pair), stamp in zip(pairs, stamps, strict=True):
            with self._node.contain(f"reading {pair.certificate} again", holder.name):
                self._judge(holder, pair, stamp)

    def _judge(self, holder: Holder, pair: CertificatePair, stamp: Stamp) -> None:
        found = self._found.setdefault(pair, _Found())
        if stamp == pair.stamp:
            found.stamp, found.told = None, ""
            return
        if stamp != found.stamp:  # somebody may be at it still
            found.stamp, found.tried = stamp, False
            return
        if found.tried:
            return
        found.tried = True
        try:
            renewed = pair.refresh()
        except OSError as error:
            if str(error) != found.told:
                found.told = str(error)
                self._node.bus.publish(CertificateUnusable(service=holder.name, reason=str(error)))
            return
        found.told = ""
        if renewed:
            holder.renewed()
            self._node.bus.publish(CertificateRenewed(service=holder.name, certificate=str(pair.renewed_file)))
