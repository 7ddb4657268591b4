"""How a client reaches its server: the address, an SSH host on the way, TLS; and what all clients that do so share."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tunnelconsole.engine.node import Node
from tunnelconsole.engine.private_files import OTHERS_ANYTHING, file_exposed
from tunnelconsole.engine.rules import Problem, Rule, broken
from tunnelconsole.engine.services.certificate_pair import reason_of
from tunnelconsole.engine.services.service import Service, ServiceSettings
from tunnelconsole.engine.settings import HostPort, ServerAddress, SSHHost, SSHSettings, TLSSettings, via_of
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.bridge import BridgedEnd, BridgedTLSEnd
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.tls import (
    SHOW_ONE,
    NotTLS,
    TLSEnd,
    check_fingerprint,
    client_context,
    complete_handshake,
    explain,
    no_passphrase,
)
from tunnelconsole.engine.wire.first_bytes import TLS, spoken_by
from tunnelconsole.errors import CertificateRefused, CertificateRejected, ConnectFailed

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.outbound import Outbound

LIBRARY: Final = "tunnelconsole.engine.services.ssh.outbound"
"""The module with which asyncssh is loaded."""

_TLS_ON = "set [service.NAME.tls] on this client, or give a command --tls"


def through(address: HostPort) -> str:
    """The SSH host through which an address is reached, as the end of a sentence; empty for none."""
    via = via_of(address)
    return f" via {via}" if via is not None else ""


class SSHWay:
    """The way through an SSH host: one connection for all that is dialled; asyncssh is loaded with the first.

    :param host: the SSH host.
    :param settings: how we prove ourselves to it, and know it.
    :param tasks: whose the connection is; it ends with them.
    """

    def __init__(self, host: SSHHost, settings: SSHSettings | None, tasks: Tasks) -> None:
        self._host = host
        self._settings = settings or SSHSettings()
        self._tasks = tasks
        self._outbound: Outbound | None = None

    @property
    def undone(self) -> str:
        """What the SSH host has not done yet, for the error of who has waited too long for a dial."""
        return self._outbound.undone if self._outbound is not None else f"no way through {self._host}"

    async def dial(self, host: str, port: int) -> BridgedEnd:
        """A connection from the SSH host; see :meth:`Outbound.dial`."""
        return await (self._outbound or await self._load()).dial(host, port)

    async def _load(self) -> Outbound:
        # In a thread: it takes long enough for every tunnel to notice.
        library = await asyncio.to_thread(import_module, LIBRARY)
        if self._outbound is None:  # else somebody else was faster
            self._outbound = library.Outbound(self._host, self._settings, self._tasks)
        return self._outbound


def ssh_rules(address_of: Callable[..., HostPort] = lambda server: server) -> tuple[Rule, ...]:
    """What must hold of a client's ``server``, ``connect`` and ``ssh``.

    :param address_of: the address in what ``server`` is.
    """

    def one_way(server: object, connect: HostPort | None) -> list[Problem]:
        if connect is not None and via_of(address_of(server)) is not None:
            return [("server", "connect says how it is reached: write ssh:// there, and here only who is at the end")]
        return []

    def wanted(server: object, connect: HostPort | None, ssh: SSHSettings | None) -> list[Problem]:
        if ssh is not None and via_of(connect or address_of(server)) is None:
            return [
                ("ssh", "nothing here goes through an SSH host: write ssh:// before server, or leave this table out")
            ]
        return []

    return Rule(("server", "connect"), one_way), Rule(("server", "connect", "ssh"), wanted)


class ClientSettings(ServiceSettings, frozen=True, kw_only=True):
    """What clients have that may reach their server through an SSH host."""

    connect: ServerAddress | HostPort | None = None
    """The address to dial when it is not the one that ``server`` names."""
    ssh: SSHSettings | None = None
    """How we prove ourselves to the SSH host on the way, and know it."""


C = TypeVar("C", bound=ClientSettings)


class ClientService(Service[C]):
    """A client that may reach its server through an SSH host.

    :param server: its address.
    :param secure: whether it speaks TLS, though there is no ``tls`` table.
    """

    def __init__(self, name: str, settings: C, node: Node, server: HostPort, *, secure: bool = False) -> None:
        super().__init__(name, settings, node)
        self._dialled = settings.connect or server
        via = via_of(self._dialled)
        self._secure = secure or settings.tls is not None
        self.way = SSHWay(via, settings.ssh, self.tasks) if via is not None else None
        """Through the SSH host, for all connections of this service; None where there is none."""
        if via is not None:
            self.notes["via"] = str(via)

    @property
    def through(self) -> str:
        """The SSH host on the way, as the end of a sentence; empty for none."""
        return through(self._dialled)

    @property
    def shows_breaks(self) -> bool:
        """Whether a connection of ours that breaks looks broken to the server.

        An SSH host closes what it has opened for us in order, whatever happened to us: SSH has no reset. TLS has an
        end that only we can send.
        """
        return self.way is None or self._secure

    def connected(self, server: object, address: str) -> None:
        super().connected(f"{server}{self.through}", address)


@asynccontextmanager
async def dialer_of(
    server: HostPort, connect: HostPort | None, tls: TLSSettings | None, ssh: SSHSettings | None, timeout: float
) -> AsyncIterator[ServerDialer]:
    """A dialer for who is no service; what was dialled through an SSH host ends with the block.

    :raises ConnectFailed: the file of the authorities to trust cannot be used.
    :raises ValueError: there are settings for an SSH host, and none on the way; or two ways.
    """
    settings = {"server": server, "connect": connect, "ssh": ssh}
    if problems := broken(ssh_rules(), settings):
        raise ValueError("; ".join(f"{key}: {sentence}" for key, sentence in problems))
    tasks = Tasks("client", _unexpected)
    via = via_of(connect or server)
    way = SSHWay(via, ssh, tasks) if via is not None else None
    try:
        yield ServerDialer(server, connect, tls, timeout, way=way)
    finally:
        await tasks.close()


def _unexpected(task: str, error: BaseException) -> None:
    """What no error of ours is about; the loop's own handler shows it."""
    asyncio.get_running_loop().call_exception_handler({"message": f"{task} failed", "exception": error})


def context_of(tls: TLSSettings) -> ssl.SSLContext:
    """What a client's settings ask for.

    :raises ConnectFailed: a file cannot be used, or others can read the private key.
    """
    try:
        context = client_context(Path(tls.ca) if tls.ca else None, tls.fingerprint or "")
    except OSError as error:
        raise ConnectFailed(
            f"the authorities in {tls.ca} cannot be used: {reason_of(error)}", "tls.ca names a PEM file"
        ) from error
    if tls.certificate is None and tls.key is None:
        return context
    if tls.certificate is None or tls.key is None:
        raise ConnectFailed("a client certificate needs its private key, and that the certificate", "set both in tls")
    key = Path(tls.key)
    try:
        exposed, mend = file_exposed(key, key.stat(), OTHERS_ANYTHING)
        if not exposed:
            context.load_cert_chain(tls.certificate, key, no_passphrase)
    except OSError as error:
        raise ConnectFailed(
            f"the client certificate {tls.certificate} with key {tls.key} cannot be used: {reason_of(error)}",
            "tls.certificate and tls.key name PEM files that belong together",
        ) from error
    if exposed:
        raise ConnectFailed(exposed, mend)
    return context


class ServerDialer:
    """A client's way to its server: the address, ``connect`` in its place, TLS, and the time for it all.

    :param way: through the SSH host of the address that is dialled; needed where there is one.
    :param without_tls: how this client is told to do without TLS.
    :raises ConnectFailed: the file of the authorities to trust cannot be used.
    """

    def __init__(
        self,
        server: HostPort,
        connect: HostPort | None,
        tls: TLSSettings | None,
        timeout: float,
        *,
        way: SSHWay | None = None,
        without_tls: str = "leave tls out at this client",
    ) -> None:
        self._without_tls = without_tls
        self._server = server
        self._address = connect or server
        self._way = way
        self._tls = tls
        self._timeout = timeout
        self._not_taken = ""
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            self._context = context_of(tls)

    def advice(self, what: str, speaks: str, first: bytes) -> str:
        """What to do about somebody who does not answer as the server does.

        :param what: the server is.
        :param speaks: the usual name of what it speaks, as in :func:`~tunnelconsole.engine.wire.first_bytes.spoken_by`.
        :param first: the first bytes of who answers; empty when nothing came.
        """
        spoken = spoken_by(first)
        if self._tls is None and spoken == TLS:
            return f"the server speaks TLS: {_TLS_ON}"
        if self._tls is None and not first:
            return f"if its listener is a TLS one, {_TLS_ON}; else, is there a {what} at {self._where}?"
        seen = f"what answers there speaks {spoken}; " if spoken not in ("", speaks) else ""
        return f"{seen}is there a {what} at {self._where}?"

    @contextmanager
    def judging(self) -> Iterator[None]:
        """For what is done with a connection: where the server has refused our certificate, that is why it failed.

        In TLS 1.3 a client hears of it with the first that it reads, when it believes to be connected.

        :raises CertificateRefused: in place of the error with which the block failed.
        """
        try:
            yield
        except (ConnectFailed, OSError) as error:
            if self._not_taken:
                raise CertificateRefused(f"{self._where}: {self._not_taken}", SHOW_ONE) from error
            raise

    def _hear_refusal(self, words: str) -> None:
        self._not_taken = words

    @property
    def _where(self) -> str:
        """The address that is dialled, and from where."""
        return f"{self._address}{through(self._address)}"

    async def reach(self, what: str) -> End:
        """As :meth:`dial`, and what goes wrong tells whom it was about: other addresses are dialled too.

        :param what: the server is.
        """
        try:
            return await self.dial()
        except CertificateRejected:
            raise  # it is about nobody else
        except ConnectFailed as error:
            raise ConnectFailed(f"cannot reach the {what} {self._where}: {error.message}", error.hint) from error

    async def dial(self) -> End:
        """A connection to the server, TLS done.

        :raises ConnectFailed: it cannot be reached.
        :raises CredentialsRefused: its certificate is not the pinned one, or the SSH host does not let us in.
        """
        plain: SocketEnd | BridgedEnd | None = None
        self._not_taken = ""
        try:
            async with asyncio.timeout(self._timeout):
                plain = await self._dial_plain()
                if self._context is None or self._tls is None:
                    return plain
                if self._tls.certificate is not None:  # files that were renewed since
                    self._context = context_of(self._tls)
                return await self._secure(plain, self._context, self._tls)
        except TimeoutError as error:
            undone = "the server did not answer" if plain or self._way is None else self._way.undone
            raise ConnectFailed(f"{undone} within {self._timeout:g} s") from error

    async def _dial_plain(self) -> SocketEnd | BridgedEnd:
        host, port = self._address.host, self._address.port
        if self._way is not None:
            return await self._way.dial(host, port)
        if via := via_of(self._address):
            raise ValueError(f"{self._address} is reached through {via}, and there is no way through it")
        return await dial(host, port)

    async def _secure(self, plain: SocketEnd | BridgedEnd, context: ssl.SSLContext, tls: TLSSettings) -> TLSEnd:
        name = self._server.host
        if isinstance(plain, BridgedEnd):
            end: TLSEnd = BridgedTLSEnd(plain, context, server_side=False, server_name=name)
        else:
            end = TLSEnd(plain.socket, context, server_side=False, server_name=name)
        end.not_taken = self._hear_refusal
        try:
            await complete_handshake(end)
            if tls.fingerprint:
                check_fingerprint(end, tls.fingerprint)
        except (ssl.SSLError, NotTLS) as error:
            end.abort()
            raise explain(error, self._without_tls) from error
        except OSError as error:
            end.abort()
            raise ConnectFailed(f"the server broke off the TLS handshake: {error.strerror or error}") from error
        except BaseException:
            end.abort()
            raise
        return end
