"""The process of a console: its terminal, its bytes, and its end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from tunnelconsole.engine.services.ssh.program import Program
from tunnelconsole.engine.services.ssh.terminal import Terminal
from waiting import until

TERMINAL = Terminal("xterm-256color", 100, 30)

TAKES_TERMINAL = "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"

RAW = TAKES_TERMINAL + "import tty; tty.setraw(0)\n"


class Started:
    """A program that runs, and what it has said."""

    def __init__(self, code: str, terminal: Terminal | None) -> None:
        self.said = bytearray()
        self.aside = bytearray()
        command = [sys.executable, "-c", code]
        self.program = Program(asyncio.get_running_loop(), command, dict(os.environ), terminal, self._say)
        self.ended = asyncio.get_running_loop().create_task(self.program.run())

    def _say(self, data: bytes, *, aside: bool) -> None:
        (self.aside if aside else self.said).extend(data)

    @property
    def process(self) -> psutil.Process:
        process = self.program._process
        assert process is not None
        return psutil.Process(process.pid)


@asynccontextmanager
async def started(code: str, terminal: Terminal | None = None) -> AsyncIterator[Started]:
    made = Started(code, terminal)
    try:
        yield made
    finally:
        made.program.abort("")
        await asyncio.wait([made.ended])


async def test_what_it_writes_arrives_whole_with_its_exit_code() -> None:
    code = "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('aside'); sys.exit(7)"
    async with started(code) as made:
        assert await made.ended == 7
        assert len(made.said) == 3_000_000
        assert bytes(made.aside) == b"aside"
        assert made.program.bytes_out == 3_000_005


async def test_its_terminal_has_the_size_and_is_told_of_another() -> None:
    code = RAW + (
        "show = lambda *_: os.write(1, b'%dx%d.' % tuple(os.get_terminal_size()))\n"
        "signal.signal(signal.SIGWINCH, show); show()\nwhile True: signal.pause()"
    )
    async with started(code, TERMINAL) as made:
        await until(lambda: made.said == b"100x30.")
        made.program.resize(42, 17)
        await until(lambda: made.said == b"100x30.42x17.")


async def test_ten_megabytes_are_typed_into_it_without_being_kept() -> None:
    code = RAW + (
        "import hashlib; digest, left = hashlib.sha256(), 10_000_000; os.write(1, b'go')\n"
        "while left: data = os.read(0, 65536); digest.update(data); left -= len(data)\n"
        "os.write(1, digest.hexdigest().encode())"
    )
    paste = os.urandom(10_000_000)
    async with started(code, TERMINAL) as made:
        await until(lambda: made.said == b"go")
        taken = asyncio.Event()
        for at in range(0, len(paste), 32_768):
            taken.clear()
            if not made.program.feed(paste[at : at + 32_768], taken.set):
                await taken.wait()
        await until(made.ended.done)
        assert made.said[2:].decode() == hashlib.sha256(paste).hexdigest()
        assert made.program.bytes_in == len(paste)


async def test_while_nobody_reads_it_waits_and_nothing_of_it_is_kept() -> None:
    async with started("import os\nwhile True: os.write(1, b'x' * 65536)") as made:
        await until(lambda: made.said)
        made.program.hold("channel")
        made.program.hold("connection")
        heard = len(made.said)
        await until(lambda: made.process.status() == psutil.STATUS_SLEEPING)
        made.program.go_on("channel")
        assert len(made.said) == heard
        made.program.go_on("connection")
        await until(lambda: len(made.said) > heard)


async def test_what_it_said_last_is_heard_however_late_somebody_reads() -> None:
    async with started("import os; os.write(1, b'x' * 60_000)") as made:
        made.program.hold("channel")
        await until(lambda: made.program._process is not None and made.program._process.returncode is not None)
        assert not made.said
        made.program.go_on("channel")
        assert await made.ended == 0
        assert len(made.said) == 60_000


@pytest.mark.parametrize("terminal", [None, TERMINAL])
async def test_it_is_killed_with_what_it_has_started_and_waited_for(terminal: Terminal | None) -> None:
    code = "import os, subprocess; p = subprocess.Popen(['sleep', '600']); os.write(1, b'%d.' % p.pid); p.wait()"
    async with started(code, terminal) as made:
        await until(lambda: made.said.endswith(b"."))
        child, process = psutil.Process(int(made.said[:-1])), made.process
        made.program.abort("kicked")
        assert await made.ended == -9
        assert made.program.cause == "kicked"
        assert not process.is_running()
        await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_what_it_leaves_behind_on_its_pipes_holds_up_nothing() -> None:
    code = "import os, subprocess; subprocess.Popen(['sleep', '5'], start_new_session=True); os.write(1, b'done')"
    async with started(code) as made:
        assert await asyncio.wait_for(made.ended, 4) == 0
        assert made.said == b"done"


async def test_one_that_cannot_be_started_says_so() -> None:
    program = Program(asyncio.get_running_loop(), ["/nowhere"], {}, TERMINAL, lambda data, *, aside: None)
    with pytest.raises(OSError, match="No such file"):
        await program.run()
