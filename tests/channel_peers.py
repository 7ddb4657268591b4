"""Channel clients by hand, and our channel server on loopback."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from loopback import FREE, PATIENCE, Caller, address_of, calling, running
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.channel.party import Party
from tunnelconsole.engine.services.channel.server import ChannelServer, ChannelServerSettings
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.wire.channel import ChannelClientHandshake, ClientEvent, KeyWanted
from tunnelconsole.engine.wire.passphrase import derive_key
from tunnelconsole.engine.wire.sealed_handshake import ClientSealedLines

ALL: tuple[str, ...] = ()
"""Receivers of a client that sends to all others."""

_SERVER = ChannelServerSettings(listen=FREE)


def channel_server(**changes: Any) -> ChannelServerSettings:
    """A channel server on loopback with these settings changed."""
    return msgspec.structs.replace(_SERVER, **changes)


def hs1(chid: str = "ch0") -> bytes:
    """The first line of a client."""
    return b'{"req":"hs1","chid":"%s"}\n' % chid.encode()


def hs2(chid: str = "ch0") -> bytes:
    """What the server answers."""
    return b'{"chid":"%s","rsp":"hs2"}\n' % chid.encode()


def hs3(*receivers: str, **more: object) -> bytes:
    """The second line of a client."""
    return json.dumps({"req": "hs3", "recvers": receivers, **more}).encode() + b"\n"


OK = b'{"result":"OK","rsp":"hs4"}\n'


def failed(answer: bytes) -> str:
    """The reason in the last line of a server that refused."""
    fields = json.loads(answer.splitlines()[-1])
    assert (fields["rsp"], fields["result"]) == ("hs4", "FAIL")
    return str(fields["desc"])


async def join(caller: Caller, chid: str, receivers: Sequence[str] = ALL, **more: object) -> None:
    """Goes through a server's handshake."""
    await caller.send(hs1(chid))
    assert await caller.read(len(hs2(chid))) == hs2(chid)
    await caller.send(hs3(*receivers, **more))
    assert await caller.read(len(OK)) == OK


@dataclass
class At:
    """A running channel server named ``hub``."""

    engine: Engine
    address: str

    @property
    def service(self) -> ChannelServer:
        service = self.engine.services["hub"]
        assert isinstance(service, ChannelServer)
        return service

    def party(self, chid: str) -> Party:
        """A client as the server sees it."""
        return self.service.hub.routes.present[chid]

    @property
    def chids(self) -> list[str]:
        """Who is there, in the order in which they came."""
        return [party.chid for party in self.service.hub.parties]

    def calling(self, from_host: str = "127.0.0.1") -> AbstractAsyncContextManager[Caller]:
        """Somebody who has connected and said nothing yet."""
        return calling(self.address, from_host)

    @asynccontextmanager
    async def client(
        self, chid: str, receivers: Sequence[str] = ALL, *, from_host: str = "127.0.0.1", **more: object
    ) -> AsyncIterator[Caller]:
        """A client that has been let in."""
        async with self.calling(from_host) as caller:
            await join(caller, chid, receivers, **more)
            yield caller

    @asynccontextmanager
    async def tls_client(self, chid: str, receivers: Sequence[str] = ALL) -> AsyncIterator[Caller]:
        """A client over TLS that believes any certificate."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        where = HostPort.parse(self.address)
        reader, writer = await asyncio.open_connection(where.host, where.port, ssl=context)
        caller = Caller(reader, writer)
        try:
            await join(caller, chid, receivers)
            yield caller
        finally:
            writer.transport.abort()  # an orderly end would wait for the server's, which still has something to send

    async def serves(self) -> None:
        """Proves that two newcomers can talk."""
        async with self.client("serves-a", ["serves-b"]) as one, self.client("serves-b", ["serves-a"]) as other:
            await one.send(b"ping")
            assert await other.read(4) == b"ping"


@asynccontextmanager
async def hub(**changes: Any) -> AsyncIterator[At]:
    """A channel server with these settings changed."""
    async with running(hub=channel_server(**changes)) as engine:
        yield At(engine, address_of(engine, "hub"))


async def join_sealed(caller: Caller, password: str, chid: str, receivers: Sequence[str] = ALL) -> list[ClientEvent]:
    """Goes through an encrypted handshake; returns what our own client made of it, without the key's part."""
    handshake = ChannelClientHandshake(chid, receivers, 0.0, ClientSealedLines(secrets.token_bytes))
    events: list[ClientEvent] = []
    async with asyncio.timeout(PATIENCE):
        while not events:
            line = b""
            while not line.endswith(b"\n"):
                line += await caller.read(1)
            for event in handshake.receive_data(line):
                if isinstance(event, KeyWanted):
                    handshake.use_key(await asyncio.to_thread(derive_key, password.encode(), event.salt))
                else:
                    events.append(event)
            await caller.send(handshake.data_to_send())
    return events
