"""A process of its own for one console or command, on a terminal or on pipes, and the bytes between it and the client.

What it writes is read only as fast as the client takes it: a process whose output nobody reads waits, and nothing of it
is kept here. It dies with its client, and is waited for.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from tunnelconsole.engine.services.ssh.terminal import Terminal
from tunnelconsole.engine.transport.watch import InputWatch

READ_SIZE = 32 * 1024
"""Bytes read at once of what it writes: a screen full; a terminal of Linux gives 4 KiB at the most."""

NICENESS = 10
"""By how much it gives way to the engine (nice(2)): where processors are short, tunnels come before screens. With 10, a
console that wants all it can get has a tenth of what the engine may have."""

LAST_WORDS = 1.0
"""Seconds without a further byte after which it has been heard out, once it has ended."""


class Say(Protocol):
    """Takes what a process writes."""

    def __call__(self, data: bytes, *, aside: bool) -> None:
        """``aside``: to standard error."""


class Program:
    """One process; a :class:`~tunnelconsole.engine.sessions.Flow`.

    :param arguments: its command line; no shell reads it.
    :param terminal: the terminal it gets; None for pipes.
    :param takes_input: whether it may read what the client sends where it has no terminal.
    :param begun: called with its number as soon as it is there.
    """

    path = "ssh"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        terminal: Terminal | None,
        say: Say,
        *,
        takes_input: bool = False,
        begun: Callable[[int], None] | None = None,
    ) -> None:
        self._loop = loop
        self._arguments = arguments
        self._environment = environment
        self._terminal = terminal
        self._say = say
        self._size = (0, 0) if terminal is None else (terminal.columns, terminal.rows)
        self._held: set[str] = set()
        self._outlets: list[_Outlet] = []
        self._takes_input = takes_input
        self._begun = begun
        self._inlet: _Inlet | None = None
        self._early = bytearray()
        """What was typed before it was there to read it."""
        self._early_taken: Callable[[], None] | None = None
        self._input_over = False
        self._master = -1
        self._process: asyncio.subprocess.Process | None = None
        self._aborted = False
        self.cause = ""
        """Why it was ended from outside."""
        self.bytes_in = 0
        self.bytes_out = 0

    async def run(self) -> int:
        """Runs it to its end; gives its exit code, or the negative number of the signal that killed it.

        :raises OSError: it cannot be started.
        """
        opened: list[int] = []
        try:
            await self._start(opened)
            return await self._to_the_end()
        finally:
            if self._process is not None and self._process.returncode is None:
                self._kill()
                await self._process.wait()
            for outlet in self._outlets:
                outlet.close()
            if self._inlet is not None:
                self._inlet.close()
                self._inlet = None
            self._master = -1
            for descriptor in opened:
                os.close(descriptor)

    async def _start(self, opened: list[int]) -> None:
        """:param opened: gets every descriptor that is to be closed in the end."""
        childs: list[int] = []
        try:
            if self._terminal is not None:
                self._master, own = os.openpty()
                opened.append(self._master)
                childs.append(own)
                os.set_blocking(self._master, False)
                self._set_size()
                standard = (own, own, own)
                self._outlets.append(_Outlet(self._loop, self._master, self._wrote))
                self._inlet = _Inlet(self._loop, self._master)
            else:
                for wrote in (self._wrote, self._wrote_aside):
                    reading, writing = os.pipe()
                    opened.append(reading)
                    childs.append(writing)
                    os.set_blocking(reading, False)
                    self._outlets.append(_Outlet(self._loop, reading, wrote))
                standard = (asyncio.subprocess.DEVNULL, *childs)  # type: ignore[assignment]
                if self._takes_input:
                    reading, writing = os.pipe()
                    childs.append(reading)
                    os.set_blocking(writing, False)
                    self._inlet = _Inlet(self._loop, writing, owned=True)
                    standard = (reading, *childs[:2])  # type: ignore[assignment]
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=standard[0],
                stdout=standard[1],
                stderr=standard[2],
                env=self._environment,
                start_new_session=True,
            )
            if self._begun is not None:
                self._begun(self._process.pid)
            _give_way(self._process.pid)
            self._feed_early()
        finally:
            for descriptor in childs:
                os.close(descriptor)

    async def _to_the_end(self) -> int:
        if self._process is None:
            raise RuntimeError("it has not been started")
        if self._aborted:
            self._kill()
        elif not self._held:
            for outlet in self._outlets:
                outlet.go_on()
        code = await self._process.wait()
        for outlet in self._outlets:
            await self._hear_out(outlet)
        return code

    async def _hear_out(self, outlet: _Outlet) -> None:
        """Waits for the end of what was written, however slowly the client takes it.

        What the process has started may hold its terminal or its pipes for ever: once that is silent, it is over.
        """
        while not outlet.over.is_set() and not self._aborted:
            heard = self.bytes_out
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await outlet.over.wait()
            if not self._held and heard == self.bytes_out:
                return

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own, with whatever it started

    def abort(self, reason: str) -> None:
        """Kills it; it then ends in the usual way."""
        self.cause = self.cause or reason
        self._aborted = True
        for outlet in self._outlets:
            outlet.close()
        self._kill()

    def hold(self, reason: str) -> None:
        """Reads no more of what it writes."""
        self._held.add(reason)
        for outlet in self._outlets:
            outlet.hold()

    def go_on(self, reason: str) -> None:
        """Takes back one reason not to read."""
        self._held.discard(reason)
        if not self._held and self._process is not None:
            for outlet in self._outlets:
                outlet.go_on()

    def feed(self, data: bytes, taken: Callable[[], None]) -> bool:
        """Gives it what the client has typed; False when it cannot take it all now, and then ``taken`` is called."""
        self.bytes_in += len(data)
        if self._process is None:
            self._early += data
            self._early_taken = taken
            return False
        return self._inlet is None or self._inlet.feed(data, taken)

    def _feed_early(self) -> None:
        early, taken = bytes(self._early), self._early_taken
        self._early.clear()
        if taken is not None and (self._inlet is None or self._inlet.feed(early, taken)):
            taken()
        if self._input_over:
            self.end_input()

    def end_input(self) -> None:
        """The client sends no more; a terminal has no such end."""
        self._input_over = True
        if self._inlet is not None and self._process is not None:
            self._inlet.finish()

    def resize(self, columns: int, rows: int) -> None:
        """Makes its terminal another size."""
        self._size = (columns, rows)
        if self._master >= 0:
            self._set_size()

    def _set_size(self) -> None:
        columns, rows = self._size
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _wrote(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self._say(data, aside=False)

    def _wrote_aside(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self._say(data, aside=True)


def _give_way(pid: int) -> None:
    """Lowers a process's priority, before it has begun anything that would not follow."""
    with suppress(OSError):  # it has ended already; or the system forbids it, and then it is as before
        os.setpriority(os.PRIO_PROCESS, pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))


class _Outlet:
    """Reads what comes out of a descriptor, which is somebody else's to close."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, wrote: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._wrote = wrote
        self._watch = InputWatch(loop, descriptor, self._readable)
        self.over = asyncio.Event()
        """Set once nothing more can come."""

    def go_on(self) -> None:
        if not self.over.is_set():
            self._watch.start()

    def hold(self) -> None:
        self._watch.stop()

    def close(self) -> None:
        self._watch.stop()
        self.over.set()

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal any more (pty(7))
            data = b""
        if data:
            self._wrote(data)
        else:
            self.close()


class _Inlet:
    """Writes into a descriptor, as fast as it takes.

    :param owned: whether the descriptor is ours to close, and so to end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, *, owned: bool = False) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._owned = owned
        self._finishing = False
        self._waiting = bytearray()
        self._taken: Callable[[], None] | None = None

    def feed(self, data: bytes, taken: Callable[[], None]) -> bool:
        """See :meth:`Program.feed`."""
        if self._descriptor < 0:
            return True
        self._waiting += data
        if self._taken is None and not self._write():
            self._loop.add_writer(self._descriptor, self._writable)
            self._taken = taken
        return self._taken is None

    def _writable(self) -> None:
        if self._write():
            taken = self._taken
            self._stop_waiting()
            if self._finishing:
                self.close()
            if taken is not None:
                taken()

    def _write(self) -> bool:
        """Whether all could be written."""
        while self._waiting:
            try:
                del self._waiting[: os.write(self._descriptor, self._waiting)]
            except BlockingIOError:
                return False
            except OSError:  # nobody reads it any more
                self._waiting.clear()
        return True

    def finish(self) -> None:
        """Ends it behind what was fed, where it is ours."""
        self._finishing = self._owned
        if self._finishing and self._taken is None:
            self.close()

    def _stop_waiting(self) -> None:
        if self._taken is not None:
            self._loop.remove_writer(self._descriptor)
            self._taken = None

    def close(self) -> None:
        self._stop_waiting()
        if self._owned and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
