"""Who is at the other end of a control connection, as far as the kernel tells: nothing that is said there counts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import psutil

from tunnelconsole.control.audit import Means
from tunnelconsole.control.unix_socket import peer_pid, peer_uid
from tunnelconsole.engine.audit import Actor, user
from tunnelconsole.engine.operators import Operators

UNKNOWN = "somebody on this machine"
"""Who it is where the system tells nothing of the other end."""


class Origin:
    """The other end of one connection.

    A process that the ssh-server has started for an operator, and whatever that has started in turn, is that operator.
    Anybody else is the user of this machine that the process belongs to.

    :param sock: the connection, as soon as it is there: later its process may be gone.
    """

    def __init__(self, sock: socket.socket, operators: Operators) -> None:
        self._operators = operators
        self.uid = peer_uid(sock)
        self._pid = peer_pid(sock)
        self._sid = _session_of(self._pid)

    def actor(self, means: Means) -> Actor:
        """Who asks.

        :param means: through what, as it says itself; of an operator over SSH that is known better.
        """
        if operator := self._operator():
            return Actor(operator, "ssh")
        if self.uid is None:
            return Actor(UNKNOWN, means)
        return Actor(user(self.uid), means)

    def _operator(self) -> str:
        """The operator whose process it is; "" where it is nobody's."""
        if not self._operators or self._pid is None:
            return ""
        for pid in self._leading_to_it():
            if who := self._operators.running(pid):
                return who
            ended = self._operators.ended(pid)
            if ended is not None and not _began_after(pid, ended.time):
                return ended.who
        return ""

    def _leading_to_it(self) -> Iterator[int]:
        """The process, the one that leads its session, and those that it descends from."""
        if self._pid is None:
            return
        yield self._pid
        if self._sid is not None:
            yield self._sid
        try:
            yield from (parent.pid for parent in psutil.Process(self._pid).parents())
        except psutil.Error:
            return  # it is gone, and nobody knows any more what it descended from


def _session_of(pid: int | None) -> int | None:
    """The leader of a process's session; None where there is no telling."""
    if pid is None:
        return None
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _began_after(pid: int, time: float) -> bool:
    """Whether a process has this number that was begun later, and so is another one."""
    try:
        return psutil.Process(pid).create_time() > time
    except psutil.Error:
        return False
