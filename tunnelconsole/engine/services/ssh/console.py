"""One console or command in a session: a channel of SSH at one side, a process of its own at the other."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.packet import SSHPacket

from tunnelconsole.engine.audit import Actor, Outcome
from tunnelconsole.engine.services.ssh.board import Board
from tunnelconsole.engine.services.ssh.commands import asks_for_change, read_command
from tunnelconsole.engine.services.ssh.program import Program
from tunnelconsole.engine.services.ssh.terminal import LEAVE_SCREEN, Terminal, environment, passed_on, size, terminal
from tunnelconsole.errors import RequestRefused, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.connection import Login

FAILED = 1
"""Exit code of what was refused."""

LONGEST_LABEL = 64
"""Characters of a command that are shown."""

TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes the terminal on standard input the one that controls a process, and runs a program in its place."""

RUN_COMMAND = "run-command"
"""In the audit trail, a command that was refused before it was begun."""

RUN_PROGRAM = "run-program"
"""In the audit trail, a program of the settings."""

NO_TERMINAL = RequestRefused("the console needs a terminal", "use ssh -t, or name a command such as status --json")
"""For who asks for the console without one."""

NO_TERMINAL_FOR_THIS_KEY = RequestRefused(
    "the console needs a terminal, which this key may not have", "name a command such as status --json"
)
"""For who can have none."""


class SessionChannel(asyncssh.SSHServerChannel[bytes]):
    """asyncssh's channel, which would keep every variable that a client sends: here those that count, and no others."""

    def _process_env_request(self, packet: SSHPacket) -> bool:
        accepted = super()._process_env_request(packet)
        self._env = {name: value for name, value in self._env.items() if passed_on(name, value)}
        return accepted


class ConsoleSession(asyncssh.SSHServerSession[bytes]):
    """What asyncssh tells of one channel.

    :param login: whose it is.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._terminal: Terminal | None = None
        self._command: str | None = None
        self._subsystem = ""
        self._program: Program | None = None
        self._serving: asyncio.Task[None] | None = None
        self._board: Board | None = None
        self._held: set[str] = set()
        self._early = bytearray()
        """What came before there was a program to read it; a window at the most."""
        self._ended = False
        """Whether the client sends no more."""

    @property
    def runs_program(self) -> bool:
        """Whether the console or a command runs, rather than nothing, or a board of public addresses."""
        return self._serving is not None and self._board is None

    # what is asked for

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        if not self._login.entry.terminal:
            self._login.refuse("it asked for a terminal, which its key may not have")
            return False
        self._terminal = terminal(term_type, term_size[0], term_size[1])
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._subsystem = subsystem
        return True  # so that it can be told why not

    def session_started(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()  # until there is somebody to read
            self._serving = self._login.server.tasks.start(self._serve(self._channel), f"console {self._login.peer}")

    # what is done

    async def _serve(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        code = FAILED
        try:
            if self._command is None and not self._subsystem and self._login.places.asked:
                code = await self._show_places(channel)
            else:
                code = await self._run(channel)
        except TunnelConsoleError as error:
            self._login.refuse(error.message)
            if not channel.is_closing():
                channel.write_stderr(f"tunnelconsole: {error}\r\n".encode())
        finally:  # whatever has failed: a client waits for this
            if not channel.is_closing():
                if self._terminal is not None and code < 0:
                    channel.write(LEAVE_SCREEN)  # it was killed, and could not do that
                channel.exit(code if code >= 0 else 128 - code)

    async def _show_places(self, channel: asyncssh.SSHServerChannel[bytes]) -> int:
        """Shows the public addresses that this connection has, until its owner has had enough of them."""
        board = self._board = Board(channel, terminal=self._terminal is not None)
        for reason in self._held:
            board.hold(reason)
        channel.resume_reading()
        self._login.places.put_up(board)
        try:
            if self._login.places:
                await board.over.wait()
                return 0
            return FAILED
        finally:
            self._login.places.take_down(board)

    async def _run(self, channel: asyncssh.SSHServerChannel[bytes]) -> int:
        """Runs what was asked for to its end, and gives its exit code.

        :raises TunnelConsoleError: that is not to be had.
        """
        server = self._login.server
        if not self._login.entry.console:
            raise RequestRefused("this key may only forward: its role is forward", "use ssh -N, or -R")
        with self._audited_if_refused():
            given = self._given_program()
            words = [given] if given else self._words()
            if full := server.no_console():
                raise RequestRefused(full)
        server.consoles += 1
        try:
            arguments = self._command_line(given) if given else await self._arguments(words)
            with server.node.operators.behind(self._actor.who) as behind:

                def begun(pid: int) -> None:
                    behind(pid)
                    if given:
                        self._audit(RUN_PROGRAM, given, "done", f"from {self._login.peer}")

                sent = channel.get_environment_bytes()
                variables = environment(os.environ, sent, self._terminal, self._login.peer)
                say, loop, own = self._say, server.node.loop, bool(given)
                program = Program(loop, arguments, variables, self._terminal, say, takes_input=own, begun=begun)
                return await self._to_its_end(channel, program, " ".join(words)[:LONGEST_LABEL] or "console")
        except OSError as error:
            what = f"the program {given}" if given else "the console"
            raise RequestRefused(f"{what} cannot be started: {error.strerror or error}") from error
        finally:
            server.consoles -= 1

    async def _to_its_end(self, channel: asyncssh.SSHServerChannel[bytes], program: Program, label: str) -> int:
        """Runs a program as a channel of the session, and gives its exit code.

        :raises OSError: it cannot be started.
        """
        server = self._login.server
        opened = server.open_console(self._login.session, label, program)
        self._program = program
        try:
            for reason in self._held:
                program.hold(reason)
            if self._early and not program.feed(bytes(self._early), self._fed):
                channel.pause_reading()
            else:
                channel.resume_reading()
            if self._ended:
                program.end_input()
            return await program.run()
        finally:
            self._program = None
            server.close_console(opened, program.cause)

    @property
    def _actor(self) -> Actor:
        """Who it is that has logged in, for the audit trail."""
        entry = self._login.entry
        who = "" if entry.identity == entry.fingerprint else f"{entry.identity} "
        return Actor(f"ssh {who}{entry.fingerprint}", "ssh")

    def _audit(self, action: str, object_: str, outcome: Outcome, text: str) -> None:
        self._login.server.node.audit.record(self._actor, action, object_, outcome, text)

    @contextmanager
    def _audited_if_refused(self) -> Iterator[None]:
        """Has what would change something, and is refused, in the audit trail."""
        try:
            yield
        except RequestRefused as error:
            asked = (self._subsystem or self._command or "").strip()
            if asked in self._login.server.settings.programs:
                self._audit(RUN_PROGRAM, asked, "refused", error.message)
            elif not self._subsystem and asks_for_change(asked):
                self._audit(RUN_COMMAND, asked, "refused", error.message)
            raise

    def _given_program(self) -> str:
        """The program of the settings that was asked for; "" where it was something else.

        :raises RequestRefused: it is not for this key.
        """
        name = self._subsystem or (self._command or "").strip()
        if name not in self._login.server.settings.programs:
            return ""
        if self._login.entry.role != "operate":
            raise RequestRefused(f"{name} is for operators, and this key may only look: its role is view")
        return name

    def _words(self) -> list[str]:
        """The command that was asked for; empty for the console.

        :raises RequestRefused: it cannot be had.
        """
        if self._subsystem:
            raise RequestRefused(
                f"there is no {self._subsystem[:32]!r} here: no files and no other subsystem",
                "ssh without a command shows the console",
            )
        if self._command is not None:
            return read_command(self._command, self._login.entry.role)
        if self._terminal is None:
            raise NO_TERMINAL if self._login.entry.terminal else NO_TERMINAL_FOR_THIS_KEY
        return []

    def _command_line(self, given: str) -> list[str]:
        """That of a program of the settings; on a terminal it is to have that for its own, for Ctrl-C and its jobs."""
        arguments = list(self._login.server.settings.programs[given])
        return arguments if self._terminal is None else [sys.executable, "-P", "-c", TAKE_TERMINAL, *arguments]

    async def _arguments(self, words: list[str]) -> list[str]:
        """The command line of the process; nobody but this program ever reads it.

        :raises TunnelConsoleError: there is no control socket for it.
        """
        node, role = self._login.server.node, self._login.entry.role
        if node.control is None:
            raise RequestRefused("this engine has no control socket, and so no console")
        path = await node.control(role)
        program = [sys.executable, "-P", "-m", "tunnelconsole", "--socket", str(path)]
        return [*program, *(words or ["attach", "--role", role, "--no-files"])]

    def _say(self, data: bytes, *, aside: bool) -> None:
        """Passes on what the process writes; ``aside`` for standard error."""
        channel = self._channel
        if channel is None or channel.is_closing():
            return
        if aside:
            channel.write_stderr(data)
        else:
            channel.write(data)

    # what the client does meanwhile

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._board is not None:
            self._board.typed(data)
        elif self._program is None:  # asyncssh reads from the moment that something is asked for
            self._early += data
            self._pause_reading()
        elif not self._program.feed(data, self._fed):
            self._pause_reading()

    def _pause_reading(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()

    def _fed(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.resume_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self._program is not None:
            self._program.end_input()
        return True  # it still wants to read

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._program is not None:
            self._program.resize(*size(width, height))
        elif self._terminal is not None:
            self._terminal = terminal(self._terminal.kind, width, height)

    def pause_writing(self) -> None:
        self.hold("channel")

    def resume_writing(self) -> None:
        self.go_on("channel")

    def hold(self, reason: str) -> None:
        """Lets the process wait with what it writes, because nobody reads."""
        self._held.add(reason)
        if self._board is not None:
            self._board.hold(reason)
        if self._program is not None:
            self._program.hold(reason)

    def go_on(self, reason: str) -> None:
        """Takes back one reason to wait."""
        self._held.discard(reason)
        if self._board is not None:
            self._board.go_on(reason)
        if self._program is not None:
            self._program.go_on(reason)

    def end(self, reason: str) -> None:
        """Leaves the client's terminal as it was found, says why, and ends the process."""
        channel = self._channel
        if channel is not None and not channel.is_closing():
            if self._terminal is not None and self._program is not None:
                channel.write(LEAVE_SCREEN)
            channel.write_stderr(f"tunnelconsole: {reason}\r\n".encode())
            channel.exit(FAILED)
        if self._program is not None:
            self._program.abort(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self._login.consoles.discard(self)
        self._channel = None
        if self._board is not None:
            self._board.over.set()
        elif self._program is not None:
            self._program.abort("")
        elif self._serving is not None:
            self._serving.cancel()
