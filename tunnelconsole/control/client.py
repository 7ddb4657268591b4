"""The near end of the control socket: one question and one answer at a time, or a stream of updates."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tunnelconsole.control import messages
from tunnelconsole.control.audit import Means
from tunnelconsole.errors import EngineUnreachable, RequestRefused

ANSWER_TIMEOUT = 10.0
"""Seconds the engine may take for one answer; a busy engine with 5,000 channels needs well under one."""


def answers(path: Path) -> bool:
    """Whether an engine listens on this control socket; does not wait."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except (BlockingIOError, PermissionError):
            return True  # more wait there than fit in; or it is another user's, and the client that attaches says so
        except OSError:
            return False
    return True


class ControlClient:
    """A connection to a running engine.

    Use one client for questions and another for :meth:`watch`: a connection that watches carries nothing else.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path, means: Means = "command"
    ) -> None:
        self._means: Means = means
        self._reader = reader
        self._writer = writer
        self._path = path
        self._last_id = 0

    @classmethod
    async def connect(cls, path: Path, means: Means = "command") -> ControlClient:
        """Connects to the control socket at ``path``.

        :param means: what asks, for the audit trail.

        :raises EngineUnreachable: nothing answers there, or the socket belongs to another user.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=messages.MAX_ANSWER)
        except PermissionError as error:
            raise EngineUnreachable(
                f"the engine's control socket {path} belongs to another user",
                "run this as the user who runs the engine",
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise EngineUnreachable(
                f"no engine is running at {path}", "start one with: tunnelconsole --daemon"
            ) from error
        except OSError as error:
            raise EngineUnreachable(
                f"the engine's control socket {path} cannot be reached: {error.strerror or error}",
                "name another with --socket",
            ) from error
        return cls(reader, writer, path, means)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; safe to call twice."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # the engine went first; there is nothing left to close

    async def ask(self, request: messages.Request) -> messages.Reply:
        """Sends one request and waits for its answer.

        :raises RequestRefused: the engine refused it; the message says why.
        :raises EngineUnreachable: the engine went away or did not answer within :data:`ANSWER_TIMEOUT`.
        """
        ask_id = await self._send(request)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await self._receive()
        except TimeoutError as error:
            raise EngineUnreachable(
                f"the engine at {self._path} did not answer within {ANSWER_TIMEOUT:g} seconds",
                "it may be overloaded or stopped; look at its log",
            ) from error
        if answer.id != ask_id:
            raise EngineUnreachable(f"the engine at {self._path} answered another question", "reconnect")
        if isinstance(answer.reply, messages.Refused):
            raise RequestRefused(answer.reply.message, answer.reply.hint)
        return answer.reply

    async def watch(self, request: messages.Watch) -> AsyncIterator[messages.Update]:
        """Yields an update at each tick, until the engine goes away.

        :raises RequestRefused: the engine does not know a topic.
        :raises EngineUnreachable: the engine went away.
        """
        await self._send(request)
        while True:
            answer = await self._receive()
            if isinstance(answer.reply, messages.Update):
                yield answer.reply
            elif isinstance(answer.reply, messages.Refused):
                raise RequestRefused(answer.reply.message, answer.reply.hint)

    async def change_watch(self, request: messages.Watch) -> None:
        """Replaces what a running :meth:`watch` asks for."""
        await self._send(request)

    async def _send(self, request: messages.Request) -> int:
        self._last_id += 1
        ask = messages.Ask(self._last_id, request, means=self._means)
        self._writer.write(messages.encode(ask) + b"\n")
        try:
            await self._writer.drain()
        except OSError as error:
            raise self._gone() from error
        return self._last_id

    async def _receive(self) -> messages.Answer:
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as error:
            raise self._gone() from error
        if not line.endswith(b"\n"):
            raise self._gone()
        try:
            return messages.decode_answer(line)
        except messages.NOT_JSON as error:
            raise EngineUnreachable(
                f"the engine at {self._path} speaks another version of the control protocol",
                "restart the engine so that both are the same version",
            ) from error

    def _gone(self) -> EngineUnreachable:
        if answers(self._path):
            return EngineUnreachable(
                f"the engine at {self._path} runs, but ended this connection",
                "too many consoles may be attached, or this one read nothing for a while; look at the engine's log",
            )
        return EngineUnreachable(f"the engine at {self._path} went away", "look at its log, then attach again")
