"""The installed program in a topology: a rendezvous, two punch clients, and what these say of their attempts."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from installed import Daemon, Process, Program
from natlab.answering import Answering
from natlab.lab import Host, Lab
from natlab.namespaces import Namespace
from waiting import until_true

RENDEZVOUS_PORT = 7900
LISTEN_PORT = 9001
"""Where the first client lets local programs in: on loopback of its own namespace, so that nobody else has it."""

PATIENCE = 30.0
"""Seconds until an attempt counts as never ended: far beyond the 4 s that it may take."""

WORDS_FOR_PATHS = {"direct": "is reached directly", "relay": "is reached through the relay"}
"""How the log tells that a link goes another way."""

SERVER = f"""
[service.meet]
kind = "punch-server"
listen = "192.0.2.10:{RENDEZVOUS_PORT}"
alternate = "192.0.2.11"
"""

CLIENT = f"""
[service.pair]
kind = "punch-client"
server = "192.0.2.10:{RENDEZVOUS_PORT}"
room = "{{room}}"
secret = "{{secret}}"
{{end}}
"""


class HostProgram(Program):
    """The installed program, whose processes run in a namespace; its commands reach them over their control sockets."""

    def __init__(self, folder: Path, namespace: Namespace) -> None:
        super().__init__(folder)
        self._namespace = namespace

    def start_other(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> Process:
        return super().start_other(self._namespace.command(command), env, stdin)


@dataclass(frozen=True)
class Attempt:
    """What one client says of a try, as ``tunnelconsole attempts --json`` has it."""

    document: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.document["state"])

    @property
    def method(self) -> str:
        return str(self.document["method"])

    @property
    def race_ms(self) -> float:
        """Milliseconds from the starting shot to the end; where there was no race, from the last that it offered."""
        moments = {moment["what"]: moment["ms"] for moment in reversed(self.document["timeline"])}
        offered = max(moment["ms"] for moment in self.document["timeline"] if moment["what"] == "offered")
        return float(moments[self.state] - moments.get("racing", offered))

    @property
    def dialled(self) -> set[str]:
        """Addresses of the other side that it meant to dial."""
        return {
            candidate["address"]
            for candidate in self.document["candidates"]
            if candidate["side"] == "theirs" and not candidate["fate"].startswith("rejected")
        }


class Client:
    """A punch client, in a daemon of its own.

    :param end: the ``listen`` or ``target`` of its service.
    """

    def __init__(self, host: Host, folder: Path, room: str, secret: str, end: str) -> None:
        self.host = host
        self._program = HostProgram(folder, host.namespace)
        service = CLIENT.format(room=room, secret=secret, end=end)
        self._daemon = Daemon(self._program, service, 'log_format = "json"')

    def launch(self) -> None:
        """Starts it, without waiting."""
        self._daemon.launch()

    @property
    def said(self) -> str:
        """All that it wrote, for a test that fails."""
        return self._daemon.process.said

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What its log tells of one kind, in order."""
        whole, _, _ = self._daemon.process.err.rpartition("\n")  # the last line may just be written
        told = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [entry for entry in told if entry["event"] == kind]

    def ended(self) -> bool:
        """Whether an attempt has come to something."""
        return bool(self.events("attempt-ended")) or not self._daemon.process.running

    def goes(self, path: str) -> bool:
        """Whether its link goes this way now."""
        changes = self.events("path-changed")
        return bool(changes) and WORDS_FOR_PATHS[path] in changes[-1]["text"]

    def attempts(self) -> list[Attempt]:
        """All its attempts, the oldest first."""
        return [Attempt(document) for document in self._daemon.json("attempts")]

    def close(self) -> None:
        self._program.close()


class Meeting:
    """Two clients that meet in a room: the first lets local programs in, the other leads them to an echo.

    :param folder: short, because sockets live in it.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        one, other = lab.clients
        self._echo = Answering(other.namespace)
        room, secret = secrets.token_hex(8), secrets.token_hex(16)
        ends = (f'listen = "127.0.0.1:{LISTEN_PORT}"', f'target = "127.0.0.1:{self._echo.port}"')
        folders = [folder / name for name in ("1", "2")]
        for own in folders:
            own.mkdir(parents=True)
        self.first = Client(one, folders[0], room, secret, ends[0])
        self.second = Client(other, folders[1], room, secret, ends[1])

    @property
    def both(self) -> tuple[Client, Client]:
        return self.first, self.second

    def __enter__(self) -> Self:
        for client in self.both:
            client.launch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.both:
            client.close()
        self._echo.close()

    @property
    def said(self) -> str:
        """All that both wrote."""
        return "\n".join(f"{client.host.name}:\n{client.said}" for client in self.both)

    def first_attempts(self) -> tuple[Attempt, Attempt]:
        """What both say of their first attempt, once it is over at both."""
        for client in self.both:
            until_true(client.ended, within=PATIENCE)
        one, other = (client.attempts() for client in self.both)
        assert one, self.said
        assert other, self.said
        return one[0], other[0]

    def settles(self, path: str) -> None:
        """Waits until the link goes this way at both ends."""
        for client in self.both:
            until_true(lambda: client.goes(path), within=PATIENCE)  # noqa: B023 called before the next turn

    def echoes(self, data: bytes) -> bytes:
        """What comes back for ``data`` that goes through the link and returns, to its end."""
        with self.first.host.namespace.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", LISTEN_PORT))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            got = bytearray()
            while more := sock.recv(65536):
                got += more
        return bytes(got)


class Rendezvous:
    """The punch server of a lab, as long as the block runs."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        own = folder / "srv"
        own.mkdir(parents=True)
        self._program = HostProgram(own, lab.srv)

    def __enter__(self) -> Self:
        self._program.daemon(SERVER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.close()
