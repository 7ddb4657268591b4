"""The connections of a race, until one of them is chosen: by proof, or by hand where there can be none.

Both sides have to choose the same one. Whoever has the room's key says so first, and the side that leads the race
decides. By hand nothing may be said, because the original program says nothing: each side waits a moment and takes the
one that ranks first, and the ranks are such that both come to the same.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import ipaddress
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from tunnelconsole.engine.attempts import Attempt, Fate
from tunnelconsole.engine.transport.ends import reset
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.punch_offer import LOCAL_NETWORKS
from tunnelconsole.engine.wire.punch_room import HELLO_LENGTH, Role

MAX_CONTACTS: Final = 64
"""Connections at once that have not proved themselves: the other side makes a few, and strangers may make more."""

ACCEPTED: Final = "accepted"
"""The method of a connection from an address that was not offered."""

SETTLE: Final = 0.3
"""Seconds by hand from the first connection to the choice: those that cross arrive meanwhile at both sides, and the
original closes all but its first at once."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What both say first."""

    role: Role
    ours: bytes
    theirs: bytes


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection to the other side, and to nobody else."""

    sock: socket.socket
    address: str
    """Where it is."""
    label: str
    """The address under which it is written down: that, or ``host:*`` where many ports were tried as one."""
    method: str
    """How it was reached: ``host``, ``mapped``, ``predicted``, ``many ports`` or ``accepted``."""


class Contact:
    """A connection that is not chosen yet."""

    __slots__ = ("buffer", "input", "label", "method", "sock", "verified")

    def __init__(self, sock: socket.socket, method: str, label: str) -> None:
        self.sock = sock
        self.method = method
        self.label = label
        """The address under which it is written down."""
        self.buffer = b""
        self.verified = False
        self.input: InputWatch


class Contacts(ABC):
    """The connections of one race."""

    def __init__(self, loop: asyncio.AbstractEventLoop, attempt: Attempt) -> None:
        self._loop = loop
        self._attempt = attempt
        self._contacts: dict[Contact, None] = {}
        """The oldest first."""
        self.won: asyncio.Future[Reached] = loop.create_future()
        """The one that was chosen."""

    def meet(self, sock: socket.socket, method: str, label: str) -> None:
        """Takes a connection, which it owns from here on."""
        if len(self._contacts) >= MAX_CONTACTS:
            oldest = next((each for each in self._contacts if each.method == ACCEPTED and not each.verified), None)
            if oldest is None:
                reset(sock)
                return
            self._drop(oldest, "lost")  # a crowd of silent strangers must not keep the other side out
        contact = Contact(sock, method, label)
        contact.input = InputWatch(self._loop, sock.fileno(), functools.partial(self._hear, contact))
        if self._greet(contact):
            self._attempt.fate(label, "connected")
            self._contacts[contact] = None
            contact.input.start()
        else:
            sock.close()

    @abstractmethod
    def _greet(self, contact: Contact) -> bool:
        """Begins with a connection; False closes it."""

    @abstractmethod
    def _hear(self, contact: Contact) -> None:
        """Something has come, or its end."""

    def _nominate(self, contact: Contact) -> None:
        if self.won.done():
            return
        contact.input.stop()
        self._contacts.pop(contact, None)
        self._attempt.fate(contact.label, "won")
        self.won.set_result(Reached(contact.sock, _address(contact), contact.label, contact.method))

    def _drop(self, contact: Contact, fate: Fate) -> None:
        contact.input.stop()
        self._contacts.pop(contact, None)
        contact.sock.close()
        self._attempt.fate(contact.label, fate)

    def close(self) -> None:
        """Closes all but the one that was chosen."""
        for contact in list(self._contacts):
            self._drop(contact, "lost")


def _address(contact: Contact) -> str:
    """Where the other end of a connection is; one that broke just now was where it is written down."""
    try:
        return format_host_port(*contact.sock.getpeername()[:2])
    except OSError:
        return contact.label


class ProvingContacts(Contacts):
    """Each side proves that it has the room's key; role ``a`` chooses the first, and ``b`` sees where ``a`` begins."""

    def __init__(self, loop: asyncio.AbstractEventLoop, attempt: Attempt, hello: Hello) -> None:
        super().__init__(loop, attempt)
        self._hello = hello

    def _greet(self, contact: Contact) -> bool:
        try:
            contact.sock.send(self._hello.ours)  # 33 bytes always fit into an empty buffer
        except OSError:
            return False
        return True

    def _hear(self, contact: Contact) -> None:
        """Compares a hello; then, as ``b``, waits for ``a`` to begin on the connection that it has chosen."""
        try:
            if contact.verified:
                if contact.sock.recv(1, socket.MSG_PEEK):
                    self._nominate(contact)
                else:
                    self._drop(contact, "lost")
                return
            data = contact.sock.recv(HELLO_LENGTH - len(contact.buffer))
        except BlockingIOError:
            return
        except OSError:
            self._drop(contact, "refused")
            return
        contact.buffer += data
        if not data or not hmac.compare_digest(contact.buffer, self._hello.theirs[: len(contact.buffer)]):
            self._drop(contact, "wrong peer" if data else "lost")
        elif len(contact.buffer) == HELLO_LENGTH:
            contact.verified = True
            self._attempt.note("verified", contact.label)
            if self._hello.role is Role.A:
                self._nominate(contact)


class PlainContacts(Contacts):
    """Nothing is said: who comes from one of the hosts that the user has named is taken for the other side.

    :param hosts: those, in numbers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, attempt: Attempt, hosts: Collection[str]) -> None:
        super().__init__(loop, attempt)
        self._hosts = hosts
        self._choosing: asyncio.TimerHandle | None = None

    def _greet(self, contact: Contact) -> bool:
        try:
            host = contact.sock.getpeername()[0]
        except OSError:
            return False
        if host not in self._hosts:
            self._attempt.fate(contact.label, "wrong peer")
            return False
        if self._choosing is None:
            self._choosing = self._loop.call_later(SETTLE, self._choose)
        return True

    def _hear(self, contact: Contact) -> None:
        try:
            if contact.sock.recv(1, socket.MSG_PEEK):
                self._nominate(contact)  # the other side has chosen
            else:
                self._drop(contact, "lost")
        except BlockingIOError:
            return
        except OSError:
            self._drop(contact, "refused")

    def _choose(self) -> None:
        self._choosing = None
        ranked = [(rank, contact) for contact in self._contacts if (rank := _rank(contact.sock))]
        if ranked:
            self._nominate(min(ranked, key=lambda entry: entry[0])[1])

    def close(self) -> None:
        if self._choosing is not None:
            self._choosing.cancel()
        super().close()


def _rank(sock: socket.socket) -> tuple[bool, int, list[tuple[str, int]]] | None:
    """Which connection comes first, the same at both sides: one within a network, without a NAT, before others.

    None for one that is broken. Between such ones it is the numbers at both ends, which a NAT would change for one.
    """
    try:
        ends = [sock.getsockname()[:2], sock.getpeername()[:2]]
    except OSError:
        return None
    ip = ipaddress.ip_address(ends[1][0].partition("%")[0])
    local = ip.is_loopback or any(ip in network for network in LOCAL_NETWORKS)
    return not local, ip.version, sorted(ends)
