"""Joining a channel server, for the client service, the command and a program's own use."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b32encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.server_dialer import ServerDialer, dialer_of
from tunnelconsole.engine.services.token_door import show_token
from tunnelconsole.engine.settings import ServerAddress, SSHSettings, TLSSettings
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.engine.transport.streams import Streams, joined_streams, streams_of
from tunnelconsole.engine.wire.channel import (
    ChannelClientHandshake,
    Joined,
    JoinRefused,
    KeyWanted,
    PasswordRefused,
)
from tunnelconsole.engine.wire.channel_lines import ClientSealing
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.first_bytes import ENOUGH
from tunnelconsole.engine.wire.passphrase import derive_key
from tunnelconsole.engine.wire.token_proof import NONCE_LENGTH, NOT_KNOWN
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

HANDSHAKE_READ = 16 * 1024
"""Bytes read at once during the handshake: all of an answer in one go, and what others send us behind it."""

CONNECT_TIMEOUT = LimitSettings().handshake_timeout
"""Seconds to reach the channel server, and again seconds for its handshake."""


GENERATED_BYTES = 5
"""Random bytes of a chid that is made for a client: eight letters and digits, which nobody guesses in time."""


def new_chid() -> str:
    """A chid for a client that brings none."""
    return f"c-{b32encode(secrets.token_bytes(GENERATED_BYTES)).decode('ascii').lower()}"


class Password:
    """A handshake password, and the key that it makes with the salt of the server's present run."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._salt = b""
        self._key = b""

    async def key(self, salt: bytes) -> bytes:
        """The key for ``salt``; made in a thread, and remembered until the server has another salt."""
        if salt != self._salt:
            self._key, self._salt = await asyncio.to_thread(derive_key, self._text, salt), salt
        return self._key

    def sealing(self) -> ClientSealing:
        """What seals the lines of one handshake."""
        # Only where there is a password: cryptography costs 10 MiB and a tenth of a second.
        from tunnelconsole.engine.wire.sealed_handshake import ClientSealedLines  # noqa: PLC0415

        return ClientSealedLines(secrets.token_bytes)


BROADCAST = "broadcast"
"""The mode of a channel server without a handshake, and to whom its clients send."""

_SAME_MODE = "if the server is in broadcast mode, this end must be too"


@dataclass(frozen=True, slots=True)
class Membership:
    """What a client tells a channel server of itself.

    :param chid: who it wants to be; empty leaves it to the server.
    :param receivers: who gets what it sends; empty for all others.
    :param timeout: seconds without a byte either way after which the server shall close; 0 for what the server has.
    :param token: the secret of a token that it proves; empty for none.
    """

    chid: str = ""
    receivers: tuple[str, ...] = ()
    timeout: float = 0.0
    token: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """Who it is, and to whom it sends."""
        return f"{self.chid} -> {', '.join(self.receivers) or 'all'}"


class Connection(NamedTuple):
    """A connection to a channel server that has let us in."""

    end: End
    chid: str
    """Who we are there; empty in broadcast mode, where nobody is told."""
    early: bytes
    """What others have sent us already."""


async def reach_broadcast(dialer: ServerDialer, token: str, timeout: float) -> Connection:
    """Connects to a channel server in broadcast mode, which says nothing, unless it wants a token.

    :param token: the secret of a token that we prove; empty for none.
    :param timeout: seconds for that.
    :raises CredentialsRefused: the server does not take the token, or is not the one that was pinned.
    :raises ConnectFailed: it cannot be reached.
    """
    end = await dialer.reach("channel server")
    if not token:
        return Connection(end, "", b"")
    try:
        with dialer.judging():
            return Connection(end, "", await show_token(end, token, "channel server", timeout))
    except BaseException:
        end.abort()
        raise


async def reach(dialer: ServerDialer, who: Membership, password: Password | None, timeout: float) -> Connection:
    """Joins the channel server that ``dialer`` dials.

    :param timeout: seconds for the handshake.
    :raises CredentialsRefused: the server does not accept the password, or is not the one that was pinned.
    :raises CertificateRefused: it does not take our certificate.
    :raises ConnectFailed: the server cannot be reached, does not let us in, broke off, or is no channel server.
    :raises ValueError: no client may be ``who``.
    """
    with dialer.judging():
        return await _reach(dialer, who, password, timeout)


async def _reach(dialer: ServerDialer, who: Membership, password: Password | None, timeout: float) -> Connection:
    handshake = ChannelClientHandshake(
        who.chid,
        who.receivers,
        who.timeout,
        None if password is None else password.sealing(),
        new_chid(),
        who.token,
        secrets.token_bytes(NONCE_LENGTH),
    )
    end = await dialer.reach("channel server")
    heard = bytearray()
    try:
        async with asyncio.timeout(timeout):
            return Connection(end, await _shake_hands(end, handshake, password, heard), handshake.leftover)
    except TimeoutError as error:
        end.abort()
        advice = f"{dialer.advice('channel server', 'channel', bytes(heard))}; {_SAME_MODE}"
        if handshake.awaits_greeting:
            raise ConnectFailed(
                f"the channel server did not begin an encrypted handshake within {timeout:g} s",
                f"if it has no handshake_password, leave ours out; {advice}",
            ) from error
        raise ConnectFailed(f"the channel server did not finish its handshake within {timeout:g} s", advice) from error
    except ProtocolError as error:
        end.abort()
        advice = f"{dialer.advice('channel server', 'channel', bytes(heard))}; {_SAME_MODE}"
        raise ConnectFailed(str(error), advice) from error
    except OSError as error:
        end.abort()
        raise ConnectFailed(f"the channel server broke off: {error.strerror or error}") from error
    except BaseException:
        end.abort()
        raise


async def _shake_hands(end: End, handshake: ChannelClientHandshake, password: Password | None, heard: bytearray) -> str:
    """Goes through the handshake; returns the chid that we are.

    :param heard: takes the beginning of what the server says, so that it is known when this fails.
    """
    while True:
        await send_all(end, handshake.data_to_send())
        data = await receive(end, HANDSHAKE_READ)
        heard += data[: max(0, ENOUGH - len(heard))]
        if not data:
            handshake.receive_eof()
        for event in handshake.receive_data(data):
            match event:
                case KeyWanted(salt) if password is not None:
                    handshake.use_key(await password.key(salt))
                case PasswordRefused(reason):
                    hint = "check the handshake password" if password is not None else "give the handshake password"
                    raise CredentialsRefused(f"the channel server refused us: {reason}", hint)
                case JoinRefused(reason) if reason == NOT_KNOWN:
                    raise CredentialsRefused(f"the channel server refused us: {reason}", "check the token")
                case JoinRefused(reason):
                    raise ConnectFailed(f"the channel server did not let us in: {reason}")
                case Joined(chid):
                    return chid


@asynccontextmanager
async def connect(
    server: str,
    chid: str,
    *,
    receivers: Sequence[str] = (),
    key: str = "",
    password: str = "",
    token: str = "",
    tls: TLSSettings | None = None,
    ssh: SSHSettings | None = None,
    connect_to: str | None = None,
    timeout: float = CONNECT_TIMEOUT,
) -> AsyncIterator[Streams]:
    """A connection to a channel server as asyncio streams, closed at the end of the block.

    What is written goes to the receivers, what is read was sent by those whose receiver we are. With a ``key`` the two
    ends are a pair: what is written waits until the other has come, the end of either is told to the other, and a
    connection on which bytes were changed, repeated or left out raises ConnectionResetError from the reader, as one
    that breaks does. The other end confirms what it has received, and the end of the block waits for that.

    :param server: the channel server, ``host:port``; ``ssh://user@host:port/host:port`` through an SSH host.
    :param chid: who we are there; empty leaves it to the server.
    :param receivers: the chids of those who get what we write; none for all others.
    :param key: encrypts what is written, end to end; the other end has the same, and each is a receiver of the other.
    :param password: the server's handshake password.
    :param token: what to prove to the server.
    :param tls: settings when the server's listener is a TLS one.
    :param ssh: settings for the SSH host on the way.
    :param connect_to: the address to dial when it is not the one that ``server`` names.
    :param timeout: seconds to reach the server, again for its handshake, and at the end for the other side to take what
        was written and not yet delivered.
    :raises ConnectionResetError: with a ``key``, at the end of the block: the other end has not confirmed that it has
        all that was written.
    :raises CredentialsRefused: the server does not accept the password, or the SSH host does not let us in.
    :raises ConnectFailed: the server cannot be reached, or does not let us in.
    :raises ValueError: an address is not ``host:port``, or a chid is none.
    """
    if isinstance(receivers, str):
        raise ValueError(f"receivers is a list of chids, such as [{receivers!r}]")
    who = Membership(chid, tuple(receivers), token=token)
    async with _dialer(server, connect_to, tls, ssh, timeout) as dialer:
        connection = await reach(dialer, who, Password(password) if password else None, timeout)
        async with _streams(connection, key, timeout) as streams:
            yield streams


@asynccontextmanager
async def broadcast(
    server: str,
    *,
    key: str = "",
    token: str = "",
    tls: TLSSettings | None = None,
    ssh: SSHSettings | None = None,
    connect_to: str | None = None,
    timeout: float = CONNECT_TIMEOUT,
) -> AsyncIterator[Streams]:
    """A connection to a channel server in broadcast mode as asyncio streams, closed at the end of the block.

    What is written goes to everybody else who is connected then, what is read was sent by any of them. Nothing tells
    that the server is in another mode: what is read is then its refusal, or nothing.

    :param server: the channel server, ``host:port``; ``ssh://user@host:port/host:port`` through an SSH host.
    :param key: encrypts what is written, end to end, as in :func:`connect`: of those who send there are two, both with
        the same key.
    :param token: what to prove to the server.
    :param tls: settings when the server's listener is a TLS one.
    :param ssh: settings for the SSH host on the way.
    :param connect_to: the address to dial when it is not the one that ``server`` names.
    :param timeout: seconds to reach the server, and at the end for the other side to take what was written and not yet
        delivered.
    :raises CredentialsRefused: the server is not the one that was pinned, or the SSH host does not let us in.
    :raises ConnectFailed: the server cannot be reached.
    :raises ValueError: an address is not ``host:port``.
    """
    async with _dialer(server, connect_to, tls, ssh, timeout) as dialer:
        connection = await reach_broadcast(dialer, token, timeout)
        async with _streams(connection, key, timeout) as streams:
            yield streams


def _dialer(
    server: str, connect_to: str | None, tls: TLSSettings | None, ssh: SSHSettings | None, timeout: float
) -> AbstractAsyncContextManager[ServerDialer]:
    dialled = ServerAddress.parse(connect_to) if connect_to else None
    return dialer_of(ServerAddress.parse(server), dialled, tls, ssh, timeout)


@asynccontextmanager
async def _streams(connection: Connection, key: str, timeout: float) -> AsyncIterator[Streams]:
    """The streams of a connection, sealed when there is a key."""
    if not key:
        async with streams_of(connection.end, connection.early, timeout) as streams:
            yield streams
        return
    # Only where there is a key: see Password.sealing.
    from tunnelconsole.engine.services.channel.sealed_join import sealed_join  # noqa: PLC0415

    async with joined_streams(sealed_join(connection.end, key, connection.early), timeout) as streams:
        yield streams
