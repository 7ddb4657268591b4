"""Standard input and output joined with an end, so that another program (ssh's ProxyCommand, a shell) can use it.

Nobody knows what the two descriptors are: pipes, a terminal, sockets, files; and whoever shares them with us would not
like to find them non-blocking. So two threads move their bytes in blocking calls to one side of a socket pair, and the
pump joins its other side with the end: half-close, back-pressure and TLS are the pump's, as everywhere.

The threads are daemons: one that waits for a keyboard does not keep the process alive.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Finished, Pump
from tunnelconsole.engine.transport.streams import Join
from tunnelconsole.errors import ConnectFailed

CHUNK = 256 * 1024
"""Bytes moved in one call: four times what a pipe holds by default, so that a larger pipe pays."""

LINGER = 0.25
"""Seconds that standard input may pause once the far side has ended, or may take to end once we are told to: a stream
that still flows is let finish, a keyboard, or an ssh that waits for us to go, is not waited for."""

STDIN, STDOUT = 0, 1


async def join_stdio(end: End, early: bytes) -> None:
    """Moves bytes between standard input, ``end`` and standard output until both directions have ended.

    The end of standard input becomes a half-close of ``end``; the far side's end closes standard output. ``end`` is
    closed when this returns. Call once in a process: standard output is gone afterwards.

    :param early: bytes of the far side that were read already.
    :raises ConnectFailed: the connection broke off, so what was written to standard output may be cut short.
    :raises OSError: standard input cannot be read, or standard output cannot be written: BrokenPipeError when its
        reader has gone. The far side sees a reset then.
    """

    def join(plane: Plane, local: End, finished: Finished) -> Pump:
        return Pump(plane, local, end, finished, early_right=early)

    await stdio_through(join)


async def stdio_through(join: Join) -> None:
    """As :func:`join_stdio`, with what ``join`` joins one side of the socket pair with."""
    await _Join(join).run()


class _Join:
    """The pump, the socket pair and the two threads of one :func:`stdio_through`."""

    def __init__(self, join: Join) -> None:
        self._loop = asyncio.get_running_loop()
        self._outer, inner = socket.socketpair()
        inner.setblocking(False)
        self._plane = Plane(self._loop)
        self._pump_ended = asyncio.Event()
        self._output_ended = asyncio.Event()
        self._broken = ""
        self._fault: OSError | None = None
        self._input_asked: float | None = None
        """When the thread began to wait for standard input; None while it delivers."""
        self._pump = join(self._plane, SocketEnd(inner), self._finished)

    async def run(self) -> None:
        threading.Thread(target=self._read_stdin, name="standard input", daemon=True).start()
        threading.Thread(target=self._write_stdout, name="standard output", daemon=True).start()
        try:
            await self._output_ended.wait()
            await self._let_input_finish()
        except asyncio.CancelledError:
            await self._let_last_input_out()
            raise
        finally:
            self._pump.abort("given up")
            _shut(self._outer, socket.SHUT_RDWR)
            await self._pump_ended.wait()
            self._outer.close()
            self._plane.close()
        if self._fault is not None:
            raise self._fault
        if self._broken:
            raise ConnectFailed(f"the connection broke off: {self._broken}")

    async def _let_input_finish(self) -> None:
        """Waits for the pump; once standard input pauses, what was read of it is its end."""
        while not self._pump_ended.is_set():
            try:
                async with asyncio.timeout(LINGER):
                    await self._pump_ended.wait()
            except TimeoutError:
                asked = self._input_asked
                if asked is not None and time.monotonic() - asked >= LINGER:
                    _shut(self._outer, socket.SHUT_WR)

    async def _let_last_input_out(self) -> None:
        """Waits a little for the end of standard input: who ends us may have said something just before."""
        self._pump.stop_receiving()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._pump_ended.wait()

    def _finished(self, reason: str) -> None:
        self._broken = reason
        self._pump_ended.set()

    def _failed(self, error: OSError) -> None:
        self._fault = self._fault or error
        self._pump.abort(error.strerror or str(error))

    def _read_stdin(self) -> None:
        """Standard input to the pump; runs in a thread of its own."""
        try:
            while data := self._next_input():
                self._outer.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the pump takes no more, and knows why
        except OSError as error:
            self._tell(self._failed, error)
        _shut(self._outer, socket.SHUT_WR)

    def _next_input(self) -> bytes:
        self._input_asked = time.monotonic()
        data = _read(STDIN)
        self._input_asked = None
        return data

    def _write_stdout(self) -> None:
        """The pump to standard output; runs in a thread of its own."""
        view = memoryview(bytearray(CHUNK))
        try:
            while count := self._next_output(view):
                _write(STDOUT, view[:count])
            _close_stdout()
        except OSError as error:
            self._tell(self._failed, error)
        self._tell(self._output_ended.set)

    def _next_output(self, buffer: memoryview) -> int:
        try:
            return self._outer.recv_into(buffer)
        except ConnectionResetError:  # the pump broke off, and says so to whoever waits for it
            return 0

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        """Calls back on the loop, from a thread."""
        with suppress(RuntimeError):  # the loop is closed: the join was cancelled, and nobody waits any more
            self._loop.call_soon_threadsafe(callback, *arguments)


def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:  # whoever shares the descriptor made it non-blocking
            select.select([descriptor], [], [])


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def _close_stdout() -> None:
    """Lets the reader see the end, and leaves the number taken, so that no later file becomes standard output."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, STDOUT)
    os.close(nothing)


def _shut(sock: socket.socket, how: int) -> None:
    with suppress(OSError):  # shut down already, by the other thread or the pump
        sock.shutdown(how)
