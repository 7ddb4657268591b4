"""How well a rate is kept, how evenly its channels share it, and how soon a revoked token's sessions are over."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.measures import Effort
from bench.ours import COMMAND_TIME, service_port, start_daemon, tunnelconsole_command
from bench.processes import BenchError, running, wait_until
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.tokens import RevokeToken

NAME = "limits"
"""How ``--only`` calls this part."""

RATES = (("1MB/s", 1e6, 1), ("10MB/s", 10e6, 4), ("100MB/s", 100e6, 10))
"""What a token is limited to, as it is written and in bytes per second, and how many channels share it."""

WINDOW = 5.0
"""Seconds over which a rate is to be kept."""

SETTLE = 1.0
"""Seconds before the first window: what may go at once at first is not part of it."""

READ = 1 << 18
"""Bytes that a visitor reads at once."""

RELAY = """
[service.relay]
kind = "relay-server"
listen = "127.0.0.1:0"
public_host = "127.0.0.1"
require_token = true
"""


@dataclass(frozen=True)
class Kept:
    """One rate, over several windows."""

    rate: float
    channels: int
    measured: list[float]
    """Bytes per second of all channels together, in each window."""
    evenness: float
    """What the slowest channel moved for each byte of the fastest, in the least even window."""

    @property
    def farthest(self) -> float:
        """The window that is farthest from the rate, as a part of it: 0.05 is 5 % off."""
        return max(abs(value / self.rate - 1) for value in self.measured)


@dataclass
class Limits:
    """All that was measured of limits."""

    kept: list[Kept] = field(default_factory=list)
    revoked_seconds: list[float] = field(default_factory=list)
    """From when the engine was asked to revoke a token until its visitors were cut."""


class Visitor:
    """Reads what comes until it is cut."""

    def __init__(self, port: int) -> None:
        self.read = 0
        self.cut_at: float | None = None
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._thread.start()

    def _read_all(self) -> None:
        try:
            while data := self._socket.recv(READ):
                self.read += len(data)
        except OSError:
            pass  # cut, or closed by us
        self.cut_at = time.monotonic()

    def close(self) -> None:
        """Reads no more."""
        self._socket.close()


@contextmanager
def pouring() -> Iterator[int]:
    """The port of a program that sends without end to whoever comes."""
    server = socket.create_server(("127.0.0.1", 0))
    block = bytes(READ)

    def pour(client: socket.socket) -> None:
        with closing(client):
            try:
                while True:
                    client.sendall(block)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return  # closed
            threading.Thread(target=pour, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


class Relay:
    """A relay server of ours that takes tokens, and clients with them.

    :param folder: takes what they write.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        _, self._config = start_daemon(stack, folder, "limits", RELAY)
        self._port = service_port(self._config, "relay")

    def ask(self, *command: str) -> str:
        """What a command about the engine prints.

        :raises BenchError: it failed.
        """
        done = subprocess.run(
            [*tunnelconsole_command(), *command, "-c", str(self._config)],
            capture_output=True,
            check=False,
            timeout=COMMAND_TIME,
        )
        if done.returncode != 0:
            raise BenchError(f"`tunnelconsole {command[0]}` failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    def revoke(self, name: str) -> float:
        """Has the engine revoke a token; returns when it was asked.

        It is asked as the command asks it, without the start of a program, which is measured elsewhere.
        """

        async def ask() -> float:
            async with await ControlClient.connect(self._config.parent / "control.sock") as client:
                since = time.monotonic()
                await client.ask(RevokeToken(name))
                return since

        return asyncio.run(ask())

    def expose(self, target: int, name: str, *options: str) -> int:
        """The public port of a client with a new token of this name."""
        token = self._folder / f"{name}.token"
        token.touch(0o600)
        token.write_text(self.ask("token", "create", name, *options))
        command = [*tunnelconsole_command(), "tcp", str(target), "--server", f"127.0.0.1:{self._port}"]
        client = self._stack.enter_context(
            running([*command, "--token-file", str(token)], self._folder, read_output=True)
        )
        line = client.read_line(COMMAND_TIME)  # forwarding tcp://127.0.0.1:40000 -> 127.0.0.1:3000
        return int(line.partition(" -> ")[0].rpartition(":")[2])


def take_all(
    folder: Path, effort: Effort, failed: Callable[[str, BenchError], None], tell: Callable[[str], None]
) -> Limits:
    """Measures everything; what fails is told to ``failed``, and the rest goes on."""
    limits = Limits()
    with ExitStack() as stack, pouring() as target:
        try:
            relay = Relay(stack, folder)
            for text, rate, channels in RATES:
                tell(f"a rate of {text} over {channels} channels")
                limits.kept.append(
                    _keep(relay.expose(target, f"rate-{channels}", "--rate", text), rate, channels, effort)
                )
            for number in range(effort.rounds):
                tell("revoking a token")
                port = relay.expose(target, f"revoked-{number}")
                limits.revoked_seconds.append(_revoke(relay, port, f"revoked-{number}"))
        except BenchError as error:
            failed(NAME, error)
    return limits


def _keep(port: int, rate: float, channels: int, effort: Effort) -> Kept:
    with ExitStack() as stack:
        visitors = [stack.enter_context(closing(Visitor(port))) for _ in range(channels)]
        _let_run(SETTLE)
        measured, evenness = [], 1.0
        for _ in range(effort.rounds):
            before, since = [visitor.read for visitor in visitors], time.monotonic()
            _let_run(WINDOW)
            seconds = time.monotonic() - since
            moved = [visitor.read - read for visitor, read in zip(visitors, before, strict=True)]
            measured.append(sum(moved) / seconds)
            evenness = min(evenness, min(moved) / max(1, *moved))
    return Kept(rate, channels, measured, evenness)


def _let_run(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 what is measured is what happens in that time


def _revoke(relay: Relay, port: int, name: str) -> float:
    with closing(Visitor(port)) as visitor:
        wait_until(lambda: visitor.read > 0, "a visitor of a token that is to be revoked hears nothing")
        since = relay.revoke(name)
        wait_until(lambda: visitor.cut_at is not None, "a visitor of a revoked token is not cut")
        return (visitor.cut_at or time.monotonic()) - since
