"""The table of HTTP cases through whole servers and clients: over HTTP and HTTPS, in one piece and byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from loopback import PATIENCE, running, target
from tls_programs import certificate
from tunnel_peers import HOST, Visitor, Web, tunnel_client, visiting, web
from tunnelconsole.engine.settings import FilePath, TLSSettings
from waiting import until
from wire.http.cases import PASSED, REFUSED, Passed, Refused, merged

LONG = 3000
"""Bytes of a request from which it is not sent byte by byte."""


class Service:
    """Plays the service's side of a case."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._case: Passed | None = None
        self._answered = 0
        self.got: list[bytes] = []

    def play(self, case: Passed | None) -> None:
        """From now on answers as this case wants; None: nobody is to come."""
        self._case = case
        self._answered = 0
        self.got = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = b""
        while data := await reader.read(1 << 16):
            case = self._case
            if case is None or self._answered >= len(case.steps):
                self.got.append(data)
                continue
            step = case.steps[self._answered]
            got += data
            if merged(got) == step.forwarded_from("127.0.0.1", self._scheme):
                self.got.append(got)
                got = b""
                self._answered += 1
                writer.write(step.response)
                if case.service_closes and self._answered == len(case.steps):
                    return
        if got:
            self.got.append(got)

    def describe(self) -> str:
        case = self._case
        wanted = [step.forwarded_from("127.0.0.1", self._scheme) for step in case.steps] if case else []
        return f"the service got {self.got}, and should have got {wanted}"


class Stage:
    """A server, a client, the service behind it, and visitors of theirs."""

    def __init__(self, at: Web, service: Service, context: ssl.SSLContext | None) -> None:
        self._web = at
        self.service = service
        self._context = context

    @asynccontextmanager
    async def visiting(self) -> AsyncIterator[Visitor]:
        async with visiting(self._web.address, HOST, self._context) as visitor:
            yield visitor

    async def rests(self) -> None:
        """Waits until nothing is under way."""
        await until(lambda: not self._web.service.visitors)
        await until(lambda: not any(backend.load for backend in self._web.service.backends))


@asynccontextmanager
async def stage(way: str, scheme: str) -> AsyncIterator[Stage]:
    """A :class:`Stage` whose client is of one kind, and whose visitors come by one scheme; every host leads there."""
    files = certificate(HOST)
    context = ssl.create_default_context(cafile=str(files[0])) if scheme == "https" else None
    secure = {"certificate": FilePath(files[0]), "key": FilePath(files[1])} if context else {}
    async with AsyncExitStack() as stack:
        service = Service(scheme)
        far = await stack.enter_async_context(target(service.serve))
        at = await stack.enter_async_context(web(**secure))
        if way == "original":
            await stack.enter_async_context(at.original(far.address, context=context))
        else:
            tls = TLSSettings(ca=FilePath(files[0])) if context else None
            client = tunnel_client(at.address, far.address, scheme=scheme, native=way == "native", tls=tls)
            await stack.enter_async_context(running(app=client))
        (backend,) = await until(lambda: at.service.backends)
        await until(lambda: at.service.attached)
        at.service.routes.find = lambda _host: backend.tunnel  # type: ignore[assignment, method-assign]
        yield Stage(at, service, context)


async def send(visitor: Visitor, request: bytes, *, bytewise: bool) -> None:
    for piece in [request[at : at + 1] for at in range(len(request))] if bytewise else [request]:
        await visitor.send(piece)
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


async def passes(at: Stage, case: Passed, *, bytewise: bool) -> None:
    at.service.play(case)
    async with at.visiting() as visitor:
        await send(visitor, case.request, bytewise=bytewise)
        got = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while merged(got) != case.answer:
                    piece = await visitor.read_some()
                    assert piece, (case.name, got, case.answer, at.service.describe())
                    got += piece
                if case.closes:
                    assert await visitor.ends() == b"", case.name
        except TimeoutError:
            raise AssertionError((case.name, got, case.answer, at.service.describe())) from None
    await at.rests()


async def is_refused(at: Stage, case: Refused, *, bytewise: bool) -> None:
    at.service.play(None)
    async with at.visiting() as visitor:
        with suppress(ConnectionError):  # refused before all of it was sent
            await send(visitor, case.request, bytewise=bytewise)
        answer = await visitor.ends()
        assert answer.startswith(f"HTTP/1.1 {case.status} ".encode()), (case.name, answer)
        assert b"\r\nConnection: close\r\n" in answer
    await at.rests()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("way", ["original", "yamux", "native"])
async def test_every_case_in_one_piece_passes_or_is_refused(way: str, scheme: str) -> None:
    async with stage(way, scheme) as at:
        for case in PASSED:
            await passes(at, case, bytewise=False)
        for refused in REFUSED:
            await is_refused(at, refused, bytewise=False)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_factories=["uvloop"])  # how the loops differ shows in one piece too, in far less time
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("way", ["original", "yamux", "native"])
async def test_every_case_byte_by_byte_passes_or_is_refused(way: str, scheme: str) -> None:
    async with stage(way, scheme) as at:
        for case in PASSED:
            await passes(at, case, bytewise=len(case.request) < LONG)
        for refused in REFUSED:
            await is_refused(at, refused, bytewise=len(refused.request) < LONG)
