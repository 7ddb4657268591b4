"""What is measured is a route: a way from a port of loopback to the sink."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.processes import Program

ADMIN_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
"""Where programs are looked for; sshd and haproxy are often beyond a user's PATH."""


@dataclass(frozen=True)
class Route:
    """A way to the sink that is open now."""

    port: int
    """The port of loopback where it begins."""
    programs: list[Program] = field(default_factory=list)
    """What it consists of; their memory and processor time are the contender's."""
    handshake: dict[str, str] = field(default_factory=dict)
    """What :mod:`bench.flow` needs in its environment to speak the jump handshake itself."""
    config: Path | None = None
    """The configuration of our own daemon, where that is what a route leads through."""
    speaks: Literal["tcp", "channel", "http"] = "tcp"
    """What goes through it: any bytes to the sink, any bytes between clients of a channel server, or HTTP alone."""
    receivers: int = 0
    """Clients of a channel server that one client sends to."""
    host: str = "127.0.0.1"
    """The public hostname of a tunnel: what HTTP requests ask for."""


@dataclass(frozen=True)
class Contender:
    """One way to the sink that can be opened."""

    name: str
    open: Callable[[ExitStack, Path, int], Route]
    """Opens it: what closes it goes on the stack, its files go in the folder, it leads to the port of loopback."""
    needs: tuple[str, ...] = ()
    """Programs without which it is left out."""
    most_held: int = 60_000
    """The most idle channels it is asked to hold."""
    ours: bool = False
    """True for what is ours, though it needs another project's program beside it."""

    @property
    def is_peer(self) -> bool:
        """True for another project's program."""
        return bool(self.needs) and not self.ours

    def missing(self) -> list[str]:
        """The programs it needs that are not installed."""
        return [program for program in self.needs if shutil.which(program, path=ADMIN_PATH) is None]
