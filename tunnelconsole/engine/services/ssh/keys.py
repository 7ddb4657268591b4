"""Who may come in: a file like OpenSSH's authorized_keys, read again whenever it changes.

A line with an option that is not known here lets nobody in: whoever wrote it meant to narrow what the key may do.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from asyncssh.pattern import HostPatternList

from tunnelconsole.engine.access import plain_address
from tunnelconsole.engine.node import Role
from tunnelconsole.engine.private_files import OTHERS_WRITE, file_exposed
from tunnelconsole.engine.services.ssh.forward_rights import ForwardRights, NotAKey
from tunnelconsole.engine.services.ssh.public_keys import read_public_key

LARGEST = 64 * 1024
"""Bytes of the file at the most: 690 Ed25519 keys, or 370 of ECDSA.

The file is read and its keys are decoded on the engine's loop, and every tunnel waits meanwhile: 18 ms for a full one
(25 ms with keys on P-521) on a virtual machine with two cores at 2 GHz; ten thousand keys would be 270 ms.
"""

LONGEST_IDENTITY = 64
"""Characters of a comment that make an identity; tables have no room for more."""

LEAST_RSA = 2048
"""Bits of an RSA key at the least (NIST SP 800-131A)."""

KINDS = ("ssh-ed25519", "sk-ssh-ed25519", "ecdsa-sha2-nistp", "sk-ecdsa-sha2-nistp256", "ssh-rsa")
"""How the kinds of keys begin that may be used; no others."""

NARROWING = ("no-agent-forwarding", "no-x11-forwarding", "no-user-rc")
"""Options that forbid what is not done here anyway."""

_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(,|[ \t]+)')
"""One option (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"): its name, its value in quotes, and what ends it."""

_TIME = re.compile(r"\d{8}(?:\d{4}(?:\d{2})?)?Z?")
"""A time as ``expiry-time`` has it: YYYYMMDD, or that with HHMM or HHMMSS, and Z for UTC."""


@dataclass(frozen=True)
class Entry:
    """One line of the file."""

    key: bytes
    """As it travels."""
    identity: str
    """The comment behind the key, or its fingerprint."""
    fingerprint: str
    role: Role = "operate"
    sources: tuple[HostPatternList, ...] = ()
    """Where the key may be used from; anywhere when empty."""
    expires: float | None = None
    """Unix time from which on it opens nothing."""
    terminal: bool = True
    """Whether it may have a terminal, and with it the console."""
    console: bool = True
    """Whether it may have the console and its commands."""
    forward: ForwardRights = field(default_factory=ForwardRights)
    key_only: bool = False
    """Whether it needs no second factor, where others do."""

    @property
    def token(self) -> str:
        """The token of this node that it stands for, with its rights and limits; empty for none."""
        return self.forward.token

    def refuses(self, peer: str, now: float) -> str:
        """Why the key opens nothing for ``peer`` (numeric ``host:port``) at this time; "" when it does."""
        if self.expires is not None and now >= self.expires:
            return f"the key of {self.identity} has expired"
        address = str(plain_address(peer.rpartition(":")[0].strip("[]")))
        if not all(pattern.matches(address, address, ipaddress.ip_address(address)) for pattern in self.sources):
            return f"the key of {self.identity} may not be used from its address"
        return ""


class AuthorizedKeys:
    """The keys in a file.

    :param path: others must not be able to write it.
    :param report: told of each line that lets nobody in, and of a file that cannot be read any more.
    :param has_read: told of the identities in the file, each time that it was read.
    :raises OSError: the file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        has_read: Callable[[set[str]], None] = lambda identities: None,
    ) -> None:
        self._path = path
        self._report = report
        self._clock = clock
        self._has_read = has_read
        self._seen: tuple[int, ...] = ()
        self._entries: dict[bytes, Entry] = {}
        self.read()

    def find(self, key: bytes) -> Entry | None:
        """The line of a key, in the file as it is now; None where there is none, or the file cannot be read."""
        try:
            status = self._path.stat()
            if _identity(status) != self._seen:
                self.read()
        except OSError as error:
            if self._seen:
                self._report(f"{self._path} cannot be read, so nobody is let in: {error.strerror or error}")
            self._seen, self._entries = (), {}
        return self._entries.get(key)

    def judge(self, entry: Entry, peer: str) -> str:
        """Why a key opens nothing for ``peer`` now; "" when it does."""
        return entry.refuses(peer, self._clock())

    def read(self) -> None:
        """Reads the file.

        :raises OSError: it cannot be read, is another user's, others can write it, or it is too large; what was known
            before stays.
        """
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            what, mend = file_exposed(self._path, status, OTHERS_WRITE, "it")
            if what:
                raise OSError(0, f"{what}; run: {mend}", str(self._path))
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is not a regular file", str(self._path))
            if status.st_size > LARGEST:
                raise OSError(
                    0, f"it is too large: {status.st_size} bytes, and {LARGEST} are the most", str(self._path)
                )
            text = file.read(LARGEST).decode(errors="replace")
        self._entries = {entry.key: entry for entry in self._lines(text)}
        self._seen = _identity(status)
        self._has_read({entry.identity for entry in self._entries.values()})

    def _lines(self, text: str) -> Iterator[Entry]:
        for number, line in reversed(list(enumerate(text.splitlines(), 1))):  # the first line of a key counts
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            try:
                yield parse_line(stripped)
            except NotAKey as error:
                self._report(f"line {number} of {self._path} lets nobody in: {error}")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def parse_line(line: str) -> Entry:
    """Reads one line.

    :raises NotAKey: it lets nobody in.
    """
    options: list[tuple[str, str | None]] = []
    if not line.startswith(KINDS):
        options, line = _options(line)
    if not line.startswith(KINDS):
        raise NotAKey("it has no key of a kind that is taken here: Ed25519, ECDSA, RSA, or one of a security key")
    words = line.split(None, 2)
    try:
        key = read_public_key(" ".join(words[:2]))  # asyncssh takes no comment beyond ASCII
    except ValueError as error:
        raise NotAKey(f"its key cannot be read: {error}") from error
    bits = getattr(key.pyca_key, "key_size", None) if key.get_algorithm() == "ssh-rsa" else None
    if bits is not None and bits < LEAST_RSA:
        raise NotAKey(f"its RSA key has {bits} bits, and {LEAST_RSA} are the least")
    fingerprint = key.get_fingerprint()
    comment = "".join(letter for letter in words[2] if letter.isprintable()) if len(words) > 2 else ""
    return _narrowed(key.public_data, comment.strip()[:LONGEST_IDENTITY] or fingerprint, fingerprint, options)


def _options(line: str) -> tuple[list[tuple[str, str | None]], str]:
    """The options at the beginning of a line, and the rest of it."""
    options: list[tuple[str, str | None]] = []
    at = 0
    while match := _OPTION.match(line, at):
        name, value, end = match.groups()
        options.append((name.lower(), None if value is None else re.sub(r"\\(.)", r"\1", value)))
        at = match.end()
        if end != ",":
            return options, line[at:]
    raise NotAKey("its options cannot be read")


def _narrowed(key: bytes, identity: str, fingerprint: str, options: list[tuple[str, str | None]]) -> Entry:
    sources: list[HostPatternList] = []
    expires: float | None = None
    terminal = True
    forward = ForwardRights()
    key_only = False
    for name, value in options:
        changed = forward.with_option(name, value)
        forward = changed or forward
        match name, value:
            case "role", ("view" | "forward" | "operate"):
                pass
            case "from", str(patterns):
                sources.append(_sources(patterns))
            case "expiry-time", str(text):
                moment = _moment(text)
                expires = moment if expires is None else min(expires, moment)
            case (("restrict" | "no-pty"), None):
                terminal = False
            case "pty", None:
                terminal = True
            case "key-only", None:
                key_only = True
            case other, None if other in NARROWING:
                pass
            case other, _ if changed is None:
                raise NotAKey(f"its option {other[:32]!r} is not known here, or has a value that is not")
    role, console = _role([value for name, value in options if name == "role"], forward.token)
    return Entry(key, identity, fingerprint, role, tuple(sources), expires, terminal, console, forward, key_only)


def _role(given: list[str | None], token: str) -> tuple[Role, bool]:
    """What a key may do of these roles, of which the least counts, and whether it may have the console.

    Whoever is given a token is to use servers: that they may steer this engine has to be said.
    """
    named = set(given) or {"forward" if token else "operate"}
    return ("operate" if named == {"operate"} else "view"), "forward" not in named


def _sources(patterns: str) -> HostPatternList:
    if not patterns.strip():
        raise NotAKey("its option 'from' names nobody")
    try:
        return HostPatternList(patterns)
    except ValueError as error:
        raise NotAKey(f"its option 'from' cannot be read: {error}") from error


def _moment(text: str) -> float:
    """The Unix time that ``expiry-time`` means, in this machine's zone unless it ends with Z."""
    if not _TIME.fullmatch(text):
        raise NotAKey(f"its option 'expiry-time' is no time: {text[:32]!r}; write one as 20301231 or 202901021530Z")
    digits = text.removesuffix("Z")
    try:
        naive = datetime.strptime(digits.ljust(14, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - the zone is set below
        return (naive.replace(tzinfo=UTC) if text.endswith("Z") else naive.astimezone()).timestamp()
    except (ValueError, OverflowError) as error:
        raise NotAKey(f"its option 'expiry-time' is no time: {text}") from error
