"""Network namespaces that belong to this process: made and set up in batches, entered, and removed whatever happens."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import system_tools
from waiting import until_true

FOLDER = Path("/var/run/netns")
"""Where ``ip netns`` keeps the names."""

CLONE_NEWNET = 0x40000000
"""The kind of namespace that ``setns`` is to change; from linux/sched.h."""

CAPABILITIES = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN"}
"""What it takes to make a namespace and to set up the network in it; the bits are from linux/capability.h."""

_NAME = re.compile(r"natlab-(?P<pid>\d+)-(?P<started>\d+)-\d+-\w+")

_numbers = itertools.count()


class LabError(Exception):
    """The network could not be built; the message says which command failed and what it said."""


class Namespace:
    """One network namespace, by its name in ``/var/run/netns``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and no other, is in the namespace while the block runs; a socket stays where it was made."""
        with _opened(Path("/proc/thread-self/ns/net")) as own, _opened(self.path) as other:
            _set_namespace(other)
            try:
                yield
            finally:
                _set_namespace(own)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket of this process in the namespace."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def configure(self, settings: dict[str, str]) -> None:
        """Writes kernel settings, by their paths below ``/proc/sys/net``."""
        with self.entered():
            for path, value in settings.items():
                Path("/proc/sys/net", path).write_text(value)

    def command(self, command: Sequence[str]) -> list[str]:
        """``command``, to run in the namespace with the process id that it is started with."""
        return [system_tools.path_of("ip"), "netns", "exec", self.name, *command]

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts a program in the namespace, in a process group of its own; it is there from its first moment."""
        with self.entered():  # who came in only later was missed by whoever removed the namespace in between
            return subprocess.Popen(self.command(command), start_new_session=True, **options)


class Batch:
    """Commands that run side by side; leaving the block waits for all of them.

    :raises LabError: one of them failed; raised when the block is left.
    """

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        failed = []
        for process in self._running:
            said = process.communicate()[1]
            if process.returncode:
                failed.append(f"{process.args!r}: {said.strip()}")
        if failed:
            raise LabError("; ".join(failed))

    def ip(
        self, lines: Iterable[str], inside: Namespace | None = None, *, version: int = 0, go_on: bool = False
    ) -> None:
        """Commands of ``ip``, in one process.

        :param version: 4 or 6, for commands that do not show which they mean.
        :param go_on: past a command that fails.
        """
        options = [] if inside is None else ["-netns", inside.name]
        options += [f"-{version}"] if version else []
        options += ["-force"] if go_on else []
        self._start([system_tools.path_of("ip"), *options, "-batch", "-"], "\n".join(lines))

    def nft(self, rules: str, inside: Namespace) -> None:
        """A file of nftables rules."""
        self._start(inside.command([system_tools.path_of("nft"), "-f", "-"]), rules)

    def _start(self, command: list[str], lines: str) -> None:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._running.append(process)
        if process.stdin is None:
            raise LabError(f"{command!r} has no input")
        with suppress(BrokenPipeError), process.stdin:  # it ended early; its exit code tells
            process.stdin.write(lines + "\n")
        process.stdin = None


def create(roles: Iterable[str]) -> dict[str, Namespace]:
    """Makes namespaces whose names tell whose they are, after removing those whose owner is gone.

    :raises LabError: they cannot be made.
    """
    remove_leftovers()
    number = next(_numbers)
    owner = f"natlab-{os.getpid()}-{_started(os.getpid())}-{number}"
    made = {role: Namespace(f"{owner}-{role}") for role in roles}
    try:
        with Batch() as batch:
            batch.ip(f"netns add {namespace.name}" for namespace in made.values())
    except BaseException:
        remove(made.values())
        raise
    return made


def remove(namespaces: Iterable[Namespace]) -> None:
    """Kills the processes that are in the namespaces, then removes these; one that is gone already is no failure.

    :raises LabError: one is left.
    """
    present = [namespace for namespace in namespaces if namespace.path.exists()]
    inodes = {inode for namespace in present if (inode := _inode(namespace)) is not None}
    until_true(lambda: not _kill_inhabitants(inodes))
    with suppress(LabError), Batch() as batch:  # another process may have removed it; what counts is what is left
        batch.ip((f"netns delete {namespace.name}" for namespace in present), go_on=True)
    left = [namespace.name for namespace in present if namespace.path.exists()]
    if left:
        raise LabError(f"namespaces that cannot be removed: {', '.join(left)}")


def remove_leftovers() -> None:
    """Removes the namespaces whose owner was killed before it could."""
    remove(Namespace(name) for name in names() if not _has_owner(name))


def names() -> list[str]:
    """All namespaces of labs, of whichever process."""
    if not FOLDER.exists():
        return []
    return sorted(path.name for path in FOLDER.iterdir() if _NAME.fullmatch(path.name))


def owned_by(pid: int) -> list[str]:
    """The namespaces of a process."""
    return [name for name in names() if name.startswith(f"natlab-{pid}-")]


@functools.cache
def what_is_missing() -> str | None:
    """Why no lab can be built here, in words; None when one can."""
    if sys.platform != "linux":
        return "needs network namespaces, which only Linux has"
    if missing := system_tools.what_is_missing(["ip", "nft"]):
        return missing
    if lacking := [name for bit, name in CAPABILITIES.items() if not _effective_capabilities() >> bit & 1]:
        return f"needs {' and '.join(lacking)} for its network namespaces: run the tests as root"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"needs /dev/net/tun for its delays: {error.strerror}"
    return _why_no_trial()


def _why_no_trial() -> str | None:
    """Tries what no capability promises: the kernel has namespaces, virtual links and NAT."""
    try:
        trial = create(["trial"])
    except LabError as error:
        return f"needs network namespaces: {error}"
    try:
        with Batch() as batch:
            batch.ip(["link add trial type veth peer name trial2", "link add br0 type bridge"], trial["trial"])
            batch.nft("table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }", trial["trial"])
    except LabError as error:
        return f"needs virtual links and nftables with NAT in the kernel: {error}"
    finally:
        remove(trial.values())
    return None


def _effective_capabilities() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:")]
    return int(line.split()[1], 16)


def _has_owner(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and _started(int(found["pid"])) == int(found["started"])


def _started(pid: int) -> int | None:
    """When a process began, in ticks since the machine did: with it a process id is told from its next use."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _inode(namespace: Namespace) -> int | None:
    try:
        return namespace.path.stat().st_ino
    except FileNotFoundError:
        return None


def _kill_inhabitants(inodes: set[int]) -> bool:
    """Kills every process that is in one of the namespaces; True when there was any."""
    found = False
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            inhabits = (folder / "ns" / "net").stat().st_ino in inodes
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if inhabits and int(folder.name) != os.getpid():
            found = True
            with suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _set_namespace(descriptor: int) -> None:
    """Moves this thread to a network namespace; ``os.setns`` is there from Python 3.12 on only."""
    if _libc().setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"the network namespace cannot be entered: {os.strerror(number)}")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
