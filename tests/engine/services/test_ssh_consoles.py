"""As many consoles as there may be, at once, on one engine."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import asyncssh
import psutil
import pytest

from ssh_peers import SSHDesk, ssh_desk
from tunnelconsole.engine.services.ssh.server import CONSOLES
from waiting import until

CONNECTIONS = 4
"""Operators, each with as many consoles as the others."""

PAINTED = ("TunnelConsole", "running", "leave")
"""What stands at the top and at the foot of a console once it shows its engine."""

STARTED = 90.0
"""Seconds until all have painted: each is a process that takes a second of a processor, and gives way to others."""


async def paints(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """Waits until a console has painted its first screen."""
    seen = b""
    while not all(words.encode() in seen for words in PAINTED):
        piece = await process.stdout.read(1 << 16)
        assert piece, seen[-500:]
        seen += piece


async def status(desk: SSHDesk, operator: asyncssh.SSHClientConnection) -> int:
    """How many channels the engine says there are, in answer to a command."""
    done = await operator.run("status --json")
    assert done.exit_status == 0, done.stderr
    channels: int = json.loads(str(done.stdout))["channels"]
    return channels


def there() -> tuple[int, int, int]:
    """Descriptors, tasks and processes."""
    return psutil.Process().num_fds(), len(asyncio.all_tasks()), len(psutil.Process().children(recursive=True))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.asyncio(loop_factories=["uvloop"])  # the consoles are processes: the loop matters little
async def test_twenty_consoles_at_once_all_paint_and_leave_nothing(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, consoles=CONSOLES + 1) as desk:
        async with desk.connect(desk.alice) as operator:
            await status(desk, operator)  # what is made once is made
        await until(lambda: not desk.server.attached)
        before = there()
        async with AsyncExitStack() as stack:
            operators = [await stack.enter_async_context(desk.connect(desk.alice)) for _ in range(CONNECTIONS)]
            started = (
                operators[number % CONNECTIONS].create_process(
                    term_type="xterm-256color", term_size=(100, 30), encoding=None
                )
                for number in range(CONSOLES)
            )
            consoles = await asyncio.gather(*started)
            async with asyncio.timeout(STARTED):
                painting = asyncio.gather(*map(paints, consoles))
                await until(lambda: len(psutil.Process().children()) == CONSOLES)
                assert await status(desk, operators[0]) == CONSOLES + 1  # while they start
                await painting
            assert await status(desk, operators[-1]) == CONSOLES + 1
            for number, console in enumerate(consoles):
                if number % 2:
                    console.stdin.write(b"q")
            for number, console in enumerate(consoles):
                if number % 2:
                    assert (await console.wait(check=False, timeout=STARTED)).exit_status == 0
            # The others end with their connections.
        await until(lambda: not (desk.server.consoles or desk.server.attached or desk.sessions))
        await until(lambda: all(now <= then for now, then in zip(there(), before, strict=True)))
