"""The far end of the control socket: answers questions, carries out what is asked, and keeps watchers supplied.

A client that sends garbage is told so and closed; one that reads too slowly is sent nothing until it has caught up, and
is dropped when it does not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from tunnelconsole.control import messages
from tunnelconsole.control.answers import Answers, Told, check_topics
from tunnelconsole.control.auditing import audited, is_change
from tunnelconsole.control.messages import (
    MAX_REQUEST,
    MIN_INTERVAL,
    NOT_JSON,
    PROTOCOL,
    Refused,
    Request,
    Watch,
    encode,
)
from tunnelconsole.control.origins import Origin
from tunnelconsole.control.roles import refusal
from tunnelconsole.control.snapshot import Snapshot
from tunnelconsole.control.steering import ReloadPreview
from tunnelconsole.control.unix_socket import UnixSocket
from tunnelconsole.engine.bus import Reader
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import PeerRefused
from tunnelconsole.engine.node import Role
from tunnelconsole.errors import RequestRefused

MAX_CLIENTS = 64
"""Consoles and commands at once: more than a team has open, few enough that they cannot starve the tunnels. As many
again are told so; beyond that the connection is closed without a word."""

FIRST_REQUEST = 1.0
"""Seconds a client too many has to ask something, so that the refusal is the answer; ours ask at once."""

STALL = 30.0
"""Seconds a client may leave what it was sent unread before it is dropped: a terminal may be stopped for a moment."""


VIEW_SUFFIX = ".view"
"""What is added to the control socket's path for the socket at which nobody can change anything."""


class ControlServer:
    """The control socket of a running engine.

    Consoles that may only look get a socket of their own, made when the first of them comes: whatever is asked there,
    the engine changes nothing.

    :param engine: need not be started before :meth:`serve`.
    :param path: of the socket.
    :param version: of this program.
    :param config: gives the path of the configuration in force, or "".
    :param reload: reads the configuration again and says what was done.
    :param stop: asks the engine's owner to drain and stop it; told the cause.
    :param preview: reads the configuration and says what a reload would do; None where there is nothing to be read.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        *,
        version: str,
        config: Callable[[], str],
        reload: Callable[[], Awaitable[str]],
        stop: Callable[[str], None],
        preview: Callable[[], Awaitable[ReloadPreview]] | None = None,
    ) -> None:
        self.engine = engine
        self._path = path
        self._version = version
        self._config = config
        self._reload = reload
        self._stop = stop
        self._preview = preview
        self._place: UnixSocket | None = None
        self._server: asyncio.Server | None = None
        self._view_place: UnixSocket | None = None
        self._view_server: asyncio.Server | None = None
        self._clients: set[_Client] = set()

    @property
    def serving(self) -> bool:
        """Whether it answers: the engine has been started, and does not end yet."""
        return self._server is not None

    def claim(self) -> UnixSocket:
        """Takes the socket's place, so that no second engine can; clients wait until :meth:`serve`.

        :raises ListenFailed: an engine runs there already, or the place cannot be written.
        :raises NotPrivate: others could put something else in its place.
        """
        self._place = UnixSocket(self._path)
        return self._place

    async def serve(self) -> None:
        """Begins to answer, once the engine has been started; claims the place unless that was done.

        :raises ListenFailed: see :meth:`claim`.
        """
        place = self._place or self.claim()
        self._snapshot = Snapshot(self.engine, self._version, self._config)
        self.answers = Answers(self.engine, self._snapshot, self._reload, self._stop, self._preview)
        self.tasks = self.engine.node.tasks_of("control")
        self._server = await self._answer(place, "operate")
        self.engine.node.control = self.socket_for

    async def socket_for(self, role: Role) -> Path:
        """The socket for consoles of a role, which belongs to the engine's user alone.

        :raises ListenFailed: the one for those who may only look cannot be made.
        :raises NotPrivate: others could put something else in its place.
        """
        if role == "operate":
            return self._path
        if self._view_place is None:
            self._view_place = UnixSocket(Path(f"{self._path}{VIEW_SUFFIX}"))
            self._view_server = await self._answer(self._view_place, role)
        return self._view_place.path

    async def _answer(self, place: UnixSocket, role: Role) -> asyncio.Server:
        connected = partial(self._connected, role)
        return await asyncio.start_unix_server(connected, sock=place.socket, limit=MAX_REQUEST)

    async def close(self) -> None:
        """Takes no more clients, ends those there are, and removes the socket; safe to call twice."""
        if self._view_server is not None:
            self._view_server.close()
            self._view_server = None
        if self._view_place is not None:
            self._view_place.close()
        if self._server is not None:
            self.engine.node.control = None
            self._server.close()
            self._server = None
            await self.tasks.close()
            for client in list(self._clients):  # whose task had not begun
                client.hang_up()
            self._snapshot.close()
        if self._place is not None:
            self._place.close()

    def _connected(self, role: Role, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        origin = Origin(writer.get_extra_info("socket"), self.engine.node.operators)
        client = _Client(self, role, origin, reader, writer)
        uid = origin.uid
        if uid not in (None, 0, os.geteuid()):
            reason = "the control socket is for the user who runs the engine, and for root"
            self.engine.node.bus.publish(PeerRefused(peer=f"user {uid}", reason=reason, kind="not_allowed"))
            client.refuse(Refused(reason))
        elif len(self._clients) >= 2 * MAX_CLIENTS:
            writer.transport.abort()
        else:
            crowded = len(self._clients) >= MAX_CLIENTS
            self._clients.add(client)
            self.tasks.start(self._run(client, crowded), "client")

    async def _run(self, client: _Client, crowded: bool) -> None:
        try:
            if crowded:
                reason = f"{MAX_CLIENTS} consoles and commands are attached already"
                self.engine.node.bus.publish(PeerRefused(peer="a console", reason=reason, kind="limit"))
                await client.turn_away(Refused(reason, "close some of them"))
            else:
                await client.serve()
        finally:
            self._clients.discard(client)


class _Client:
    """One console or command.

    A question is answered before the next is read, so a client that asks and does not read holds up itself only.
    """

    def __init__(
        self,
        server: ControlServer,
        role: Role,
        origin: Origin,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._server = server
        self._role = role
        self._origin = origin
        self._engine = server.engine
        self._reader = reader
        self._writer = writer
        self._watch: Watch | None = None
        self._watch_id = 0
        self._watch_changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._events: Reader | None = None
        self._told = Told()
        self._all_taken = time.monotonic()

    async def serve(self) -> None:
        """Serves the client until it goes away or is refused."""
        try:
            while await self._serve_one():
                continue
        except TimeoutError:
            self._drop()
        except OSError:
            return  # the client went away; nobody is left to tell
        finally:
            if self._watching is not None:
                self._watching.cancel()
            if self._events is not None:
                self._events.close()
            self._writer.close()

    async def _serve_one(self) -> bool:
        """Answers one request; False when there is to be no further one."""
        await asyncio.sleep(0)  # a client that asks without end gets one answer per turn of the loop
        try:
            line = await self._reader.readline()
        except ValueError:  # what StreamReader.readline makes of a line beyond its limit
            self.refuse(Refused(f"a request is one line of at most {MAX_REQUEST} bytes"))
            return False
        if not line.endswith(b"\n"):
            return False
        try:
            ask = messages.decode_ask(line)
        except NOT_JSON as error:
            self.refuse(_unreadable(line, error), _head(line).id)
            return False
        if ask.protocol != PROTOCOL:
            self.refuse(_other_version(ask.protocol), ask.id)
            return False
        if is_change(ask.request):
            await self._send(ask.id, await audited(self._engine, self._origin, ask, self._reply))
            return True
        if not isinstance(ask.request, Watch):
            await self._send(ask.id, await self._reply(ask.request))
            return True
        try:
            self._start_watch(ask.id, ask.request)
        except RequestRefused as error:
            await self._send(ask.id, Refused(error.message, error.hint))
        return True

    async def _reply(self, request: Request) -> object:
        return refusal(self._role, request) or await self._server.answers.answer(request)

    async def turn_away(self, refusal: Refused) -> None:
        """Refuses the client as the answer to its first request, so that it is told by its own question's number."""
        line = b""
        try:
            async with asyncio.timeout(FIRST_REQUEST):
                line = await self._reader.readline()
        except (OSError, ValueError):
            self._writer.transport.abort()
        self.refuse(refusal, _head(line).id)

    def refuse(self, refusal: Refused, ask_id: int = 0) -> None:
        """Tells why, and hangs up."""
        self._writer.write(_line(ask_id, refusal))
        self.hang_up()

    def hang_up(self) -> None:
        """Ends the connection once all that was written has been taken; safe to call twice."""
        self._writer.close()

    async def _send(self, ask_id: int, reply: object) -> None:
        """Sends an answer and waits until the client has taken most of it.

        :raises TimeoutError: it does not.
        :raises OSError: it went away.
        """
        self._writer.write(_line(ask_id, reply))
        async with asyncio.timeout(STALL):
            await self._writer.drain()

    def _start_watch(self, ask_id: int, request: Watch) -> None:
        """Begins to send updates, or changes what they hold.

        :raises RequestRefused: a topic is unknown.
        """
        check_topics(request.topics)
        if "events" in request.topics:
            self._events = self._events or self._engine.node.bus.reader()
        elif self._events is not None:
            self._events.close()
            self._events = None
        self._watch, self._watch_id = request, ask_id
        self._watch_changed.set()
        if self._watching is None:
            self._watching = self._server.tasks.start(self._send_updates(), "watch")

    async def _send_updates(self) -> None:
        try:
            while self._watch is not None and not self._writer.is_closing():
                self._watch_changed.clear()
                await self._send_update(self._watch)
                await asyncio.sleep(MIN_INTERVAL)
                await self._until_due(self._server.answers.interval(self._watch) - MIN_INTERVAL)
        finally:
            self._writer.close()

    async def _send_update(self, watch: Watch) -> None:
        """Sends an update, unless the client has not taken the last one yet."""
        now = time.monotonic()
        if not self._writer.transport.get_write_buffer_size():
            self._all_taken = now
            update = await self._server.answers.update(watch, self._events, self._told)
            self._writer.write(_line(self._watch_id, update))
        elif now - self._all_taken > STALL:
            self._drop()

    async def _until_due(self, seconds: float) -> None:
        """Waits; no longer, once the watch has been replaced."""
        try:
            async with asyncio.timeout(seconds):
                await self._watch_changed.wait()
        except TimeoutError:
            return

    def _drop(self) -> None:
        """Ends a client that leaves unread what it was sent."""
        self._engine.node.bus.publish(
            PeerRefused(peer="a console", reason=f"it read nothing for {STALL:g} s", kind="timeout")
        )
        self._writer.transport.abort()


class _Head(msgspec.Struct):
    """As much of a request as can be read of one from another version."""

    id: int = 0
    protocol: int = PROTOCOL


def _head(line: bytes) -> _Head:
    try:
        return msgspec.json.decode(line, type=_Head)
    except NOT_JSON:
        return _Head()


def _unreadable(line: bytes, error: Exception) -> Refused:
    protocol = _head(line).protocol
    if protocol != PROTOCOL:
        return _other_version(protocol)
    return Refused(
        f"this is not a request: {error}", "a request is one line of JSON, as in tunnelconsole.control.messages"
    )


def _other_version(protocol: int) -> Refused:
    return Refused(
        f"the engine speaks version {PROTOCOL} of the control protocol, and you version {protocol}",
        "restart the engine so that both are the same version",
    )


def _line(ask_id: int, reply: object) -> bytes:
    return encode({"id": ask_id, "reply": reply}) + b"\n"
