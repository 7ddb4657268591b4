"""Tunnel clients and servers by hand, local web services, visitors, and ours on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from loopback import FREE, PATIENCE, Caller, Target, address_of, calling, running, target
from relay_peers import YamuxPeer
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.tunnel.client import TunnelClient, TunnelClientSettings
from tunnelconsole.engine.services.tunnel.client_backend import ClientBackend
from tunnelconsole.engine.services.tunnel.server import TunnelServer, TunnelServerSettings
from tunnelconsole.engine.services.tunnel.target import Target as TunnelTarget
from tunnelconsole.engine.services.tunnel.target import TunnelURL
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.wire.http.body import Kind, decoder_of, request_framing, response_framing
from tunnelconsole.engine.wire.http.head import HeadReader, RequestHead, ResponseHead, parse_request, parse_response
from tunnelconsole.engine.wire.http.service import MAX_SERVICE_FIELDS, MAX_SERVICE_HEAD
from tunnelconsole.engine.wire.tunnel_lines import GREETING, GREETING_ANSWER
from waiting import until
from yamux_frames import ACK, DATA, FIN, SYN, WINDOW, data, frame

HOST = "app.example.net"

ESTABLISHED = b"HTTP/1.1 200 gotunnel established\n\n"


class Seen(NamedTuple):
    """A request as the local service got it."""

    head: RequestHead
    body: bytes

    def value(self, name: str) -> str:
        """Of a field of its head."""
        return self.head.values[name.lower()]


class Got(NamedTuple):
    """A response as a visitor got it."""

    head: ResponseHead
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status


Answer = Callable[[Seen], bytes | Iterable[bytes]]


def ok(body: bytes = b"hello\n", *fields: str) -> bytes:
    """A whole response."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def say_where(seen: Seen) -> bytes:
    """Answers what was asked for."""
    return ok(f"{seen.head.method} {seen.head.target} of {len(seen.body)}".encode())


class Service:
    """A local web service that remembers its requests.

    :param answer: makes the response to each, in one piece or in several.
    """

    def __init__(self, answer: Answer = say_where) -> None:
        self._answer = answer
        self.seen: list[Seen] = []
        self.connections = 0

    def answer_with(self, answer: Answer) -> None:
        """Answers otherwise from now on."""
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        heads, rest = HeadReader(request=True, max_head=MAX_SERVICE_HEAD), b""
        while True:
            found = heads.receive_data(rest) if rest else None
            while found is None:
                received = await reader.read(1 << 16)
                if not received:
                    return
                found = heads.receive_data(received)
            head = parse_request(found[0], max_fields=MAX_SERVICE_FIELDS)
            body, rest = await read_body(reader, decoder_of(request_framing(head), 400), found[1])
            seen = Seen(head, body)
            self.seen.append(seen)
            answer = self._answer(seen)
            for piece in [answer] if isinstance(answer, bytes) else answer:
                writer.write(piece)
                await writer.drain()
            if b"connection: close" in (answer if isinstance(answer, bytes) else b"").lower():
                return


async def read_body(reader: asyncio.StreamReader, decoder: Any, begun: bytes) -> tuple[bytes, bytes]:
    """A message's body, and what came behind it."""
    if decoder is None:
        return b"", begun
    body = b""
    received = begun
    while True:
        pieces, done, rest = decoder.receive_data(received)
        body += b"".join(pieces)
        if done:
            return body, rest
        received = await reader.read(1 << 16)
        if not received:
            raise ConnectionResetError("the message is not complete")


class Visitor:
    """A visitor with a connection that it keeps."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str = HOST) -> None:
        self._reader = reader
        self.writer = writer
        self._host = host
        self._rest = b""

    async def send(self, request: bytes) -> None:
        self.writer.write(request)
        await self.writer.drain()

    async def response(self, method: str = "GET") -> Got:
        """The next final response; those before it are left out."""
        async with asyncio.timeout(PATIENCE):
            while True:
                heads = HeadReader(request=False)
                found = heads.receive_data(self._rest) if self._rest else None
                while found is None:
                    received = await self._reader.read(1 << 16)
                    if not received:
                        raise ConnectionResetError("closed without a response")
                    found = heads.receive_data(received)
                head, self._rest = parse_response(found[0]), found[1]
                if head.status >= 200 or head.status == 101:
                    break
            if head.status == 101:
                return Got(head, b"")
            framing = response_framing(method, head)
            if framing.kind is Kind.UNTIL_CLOSE:
                body = self._rest + await self._reader.read()
                self._rest = b""
            else:
                body, self._rest = await read_body(self._reader, decoder_of(framing, 502), self._rest)
            return Got(head, body)

    async def get(self, path: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> Got:
        """The response to one request."""
        length = [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT") else []
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", *length, *fields, "", ""]
        await self.send("\r\n".join(lines).encode() + body)
        return await self.response(method)

    async def read(self, count: int) -> bytes:
        """Raw bytes."""
        async with asyncio.timeout(PATIENCE):
            taken, self._rest = self._rest[:count], self._rest[count:]
            return taken + await self._reader.readexactly(count - len(taken))

    async def read_some(self) -> bytes:
        """What is there, once there is something; b"" at the end."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read(1 << 16)

    async def ends(self) -> bytes:
        """All until the connection's orderly end."""
        async with asyncio.timeout(PATIENCE):
            return self._rest + await self._reader.read()

    async def is_cut(self) -> bool:
        """Waits for the end; True when it was a reset."""
        try:
            await self.ends()
        except ConnectionResetError:
            return True
        return False


@asynccontextmanager
async def visiting(
    address: str, host: str = HOST, context: ssl.SSLContext | None = None, from_host: str = "127.0.0.1"
) -> AsyncIterator[Visitor]:
    """A visitor of the server at ``address`` who wants ``host``."""
    where = HostPort.parse(address)
    reader, writer = await asyncio.open_connection(
        where.host, where.port, ssl=context, server_hostname=host if context else None, local_addr=(from_host, 0)
    )
    try:
        yield Visitor(reader, writer, host)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@dataclass
class Web:
    """A running tunnel server named ``web``."""

    engine: Engine
    address: str

    @property
    def service(self) -> TunnelServer:
        service = self.engine.services["web"]
        assert isinstance(service, TunnelServer)
        return service

    def calling(self) -> Any:
        """A newcomer who has said nothing yet."""
        return calling(self.address)

    def visiting(self, host: str = HOST, **more: Any) -> Any:
        """A visitor."""
        return visiting(self.address, host, **more)

    @asynccontextmanager
    async def asking(self, host: str = HOST, *fields: str) -> AsyncIterator[tuple[Caller, bytes]]:
        """A client that has asked for a tunnel, and the head of the answer."""
        async with self.calling() as caller:
            lines = ["CONNECT /_connectPath HTTP/1.1", f"Host: {host}", *fields, "", ""]
            await caller.send("\r\n".join(lines).encode())
            yield caller, await caller.read(12)

    @asynccontextmanager
    async def original(
        self,
        service: HostPort | None = None,
        host: str = HOST,
        fields: Iterable[str] = (),
        context: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Original]:
        """An attached client that does as the original's does."""
        where = HostPort.parse(self.address)
        reader, writer = await asyncio.open_connection(
            where.host, where.port, ssl=context, server_hostname=host if context else None
        )
        client = Original(YamuxPeer(reader, writer), service)
        try:
            lines = ["CONNECT /_connectPath HTTP/1.1", f"Host: {host}", *fields, "", ""]
            writer.write("\r\n".join(lines).encode())
            assert await reader.readexactly(len(ESTABLISHED)) == ESTABLISHED
            await client.greet()
            task = asyncio.get_running_loop().create_task(client.serve()) if service else None
            yield client
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        finally:
            writer.close()
            await client.close()


class Original:
    """The original's client: opens a stream for each visitor, dials its service, and pipes.

    :param service: where it leads; None for one that does what a test tells it.
    """

    def __init__(self, peer: YamuxPeer, service: HostPort | None) -> None:
        self.peer = peer
        self._service = service
        self._next = 3
        self._streams: dict[int, asyncio.StreamWriter] = {}
        self._windows: dict[int, int] = {}
        self._opened = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def greet(self) -> None:
        await self.peer.send(frame(WINDOW, SYN, 1), data(1, GREETING))
        assert await self.peer.read(1, len(GREETING_ANSWER)) == GREETING_ANSWER

    async def visitor(self) -> int:
        """Waits until a visitor is told of, and opens a stream for it."""
        line = (await self.peer.find(0, 1)).payload
        assert line in (b'{"Type":1,"Action":5}\n', b'{"Type":3,"Action":5}\n')
        return await self.open()

    async def open(self) -> int:
        stream_id, self._next = self._next, self._next + 2
        await self.peer.send(frame(WINDOW, SYN, stream_id))
        return stream_id

    async def serve(self) -> None:
        """Does as the original until the server leaves."""
        while (found := await self.peer.next()) is not None:
            if found.kind == 0 and found.stream_id == 1:
                for _ in range(found.payload.count(b"\n")):
                    stream_id = await self.open()
                    task = asyncio.get_running_loop().create_task(self._dial(stream_id))
                    self._tasks.add(task)
                    await task
            elif found.kind == 0 and found.stream_id in self._streams:
                self._streams[found.stream_id].write(found.payload)
                await self.peer.send(frame(WINDOW, 0, found.stream_id, len(found.payload)))
            elif found.kind == WINDOW and found.stream_id in self._windows:
                async with self._opened:
                    self._windows[found.stream_id] += found.length
                    self._opened.notify_all()
            if found.flags & FIN and (writer := self._streams.get(found.stream_id)) is not None:
                writer.write_eof()

    async def _dial(self, stream_id: int) -> None:
        assert self._service is not None
        try:
            reader, writer = await asyncio.open_connection(self._service.host, self._service.port)
        except OSError:
            await self.peer.send(frame(WINDOW, FIN, stream_id))
            return
        self._streams[stream_id] = writer
        self._windows[stream_id] = 262_144

        async def pipe() -> None:
            while piece := await reader.read(1 << 15):
                async with self._opened:
                    await self._opened.wait_for(lambda: self._windows[stream_id] >= len(piece))
                    self._windows[stream_id] -= len(piece)
                await self.peer.send(data(stream_id, piece))
            await self.peer.send(frame(WINDOW, FIN, stream_id))

        self._tasks.add(asyncio.get_running_loop().create_task(pipe()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._streams.values():
            writer.close()


def tunnel_server(**changes: Any) -> TunnelServerSettings:
    """A tunnel server on loopback."""
    return TunnelServerSettings(**{"listen": FREE, **changes})


@asynccontextmanager
async def web(**changes: Any) -> AsyncIterator[Web]:
    """A tunnel server with these settings changed."""
    async with running(web=tunnel_server(**changes)) as engine:
        service = engine.services["web"]
        assert service.state == "listening", service.error
        yield Web(engine, address_of(engine, "web"))


def tunnel_client(server: str | HostPort, where: str | HostPort, **changes: Any) -> TunnelClientSettings:
    """A client of the server at this address that leads to ``where``."""
    at = HostPort.parse(server) if isinstance(server, str) else server
    settings = {
        "server": TunnelURL.parse(f"{changes.pop('scheme', 'http')}://{changes.pop('host', HOST)}:{at.port}"),
        "connect": at,
        "target": TunnelTarget.parse(str(where)),
    }
    return TunnelClientSettings(**{**settings, **changes})


@dataclass
class App:
    """A running tunnel client named ``app``, the service it leads to, and the server that it is attached to."""

    engine: Engine
    web: Web
    far: Target
    local: Service

    @property
    def service(self) -> TunnelClient:
        service = self.engine.services["app"]
        assert isinstance(service, TunnelClient)
        return service

    def visiting(self, **more: Any) -> Any:
        """A visitor."""
        return self.web.visiting(**more)


@asynccontextmanager
async def app_at(at: Web, answer: Answer = say_where, **changes: Any) -> AsyncIterator[App]:
    """A tunnel client of a server that runs already, connected, with these settings changed."""
    local = Service(answer)
    handler = changes.pop("handler", local.serve)
    async with target(handler) as far, running(app=tunnel_client(at.address, far.address, **changes)) as engine:
        app = App(engine, at, far, local)
        assert app.service.state == "connected", app.service.error
        if app.service.settings.native and at.service.settings.native and app.service.settings.spare_connections:
            await until(lambda: any(isinstance(each, ClientBackend) and each._spare for each in at.service.backends))
        yield app


@asynccontextmanager
async def app(answer: Answer = say_where, server: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[App]:
    """A tunnel client with these settings changed, at a server with ``server`` changed."""
    async with web(**(server or {})) as at, app_at(at, answer, **changes) as made:
        yield made


class TunnelHost:
    """A tunnel server by hand, as the original's: it says yes to whoever asks, unless it has another answer.

    :param answer: what it says to a client's request.
    """

    def __init__(self, answer: bytes = ESTABLISHED) -> None:
        self._answer = answer
        self._clients: asyncio.Queue[YamuxPeer] = asyncio.Queue()
        self.asked: list[RequestHead] = []
        self.released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = HeadReader(request=True).receive_data(await reader.readuntil(b"\r\n\r\n"))
        assert found is not None
        self.asked.append(parse_request(found[0]))
        writer.write(self._answer)
        if self._answer != ESTABLISHED:
            return
        peer = YamuxPeer(reader, writer)
        await peer.find(WINDOW, 1, SYN)
        assert await peer.read(1, len(GREETING)) == GREETING
        await peer.send(frame(WINDOW, ACK, 1), data(1, GREETING_ANSWER))
        self._clients.put_nowait(peer)
        await self.released.wait()

    async def client(self) -> YamuxPeer:
        """The next client that has greeted."""
        async with asyncio.timeout(PATIENCE):
            return await self._clients.get()


async def stream_of_visitor(peer: YamuxPeer, *, websocket: bool = False) -> int:
    """Tells a client of a visitor, and returns the stream that it opens."""
    await peer.send(data(1, b'{"Type":%d,"Action":5}\n' % (3 if websocket else 1)))
    stream_id = (await peer.find(WINDOW, flags=SYN)).stream_id
    await peer.send(frame(WINDOW, ACK, stream_id))
    return stream_id


async def visit_over(peer: YamuxPeer, request: bytes) -> bytes:
    """What a client answers to a visitor's request, all until it closes the stream or the answer's length is there."""
    stream_id = await stream_of_visitor(peer)
    await peer.send(data(stream_id, request))
    answer = b""
    while True:
        found = await peer.find(DATA, stream_id)
        answer += found.payload
        head, _, body = answer.partition(b"\r\n\r\n")
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if lengths and len(body) >= int(lengths[0].split(b":")[1]):
            break
    await peer.send(frame(WINDOW, FIN, stream_id))
    await peer.find(WINDOW, stream_id, FIN)
    return answer
