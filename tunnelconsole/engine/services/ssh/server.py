"""The SSH server: shows the console to whoever has a key, each on a terminal of its own, and runs its commands.

With ``forward`` it also gives public hostnames and ports (``ssh -R``), and connections to elsewhere (``ssh -L``).

Whoever connects is an :class:`~tunnelconsole.engine.services.ssh.connection.Login`; once a key has been
proven it is a session, and each console or command in it a channel, which is a process of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.rules import Problem, Rule, above_zero, own_host
from tunnelconsole.engine.services.listening import ListeningService, ListeningSettings
from tunnelconsole.engine.services.ports import PortPool
from tunnelconsole.engine.services.service import Service
from tunnelconsole.engine.services.ssh.commands import COMMANDS
from tunnelconsole.engine.services.ssh.events import LoggedIn
from tunnelconsole.engine.services.ssh.factor_rules import SECOND_FACTOR_RULES
from tunnelconsole.engine.services.tunnel.target import TunnelURL
from tunnelconsole.engine.sessions import ANONYMOUS, Channel, Flow, Session
from tunnelconsole.engine.settings import FilePath, PortRange, Secret, TLSSettings
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.tokens.rights import System
from tunnelconsole.engine.transport.dialer import numeric
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.listener import Listener, is_loopback
from tunnelconsole.engine.units import Duration
from tunnelconsole.errors import ListenFailed, RequestRefused

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.connection import Door, Login
    from tunnelconsole.engine.services.ssh.keys import Entry
    from tunnelconsole.engine.services.ssh.public_port import PublicPort

Wanted = TypeVar("Wanted", bound=Service[Any])

LIBRARY = "tunnelconsole.engine.services.ssh.connection"
"""The module with which asyncssh is loaded."""

_PROGRAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,31}")

LOGIN_TIMEOUT = 60.0
"""Seconds to log in: a person may have to compare a fingerprint and type a passphrase. OpenSSH gives 120."""

CONSOLES = 20
"""Consoles and commands at once: each is a process of some 60 MB, and a team has fewer operators."""


def _without_tls(tls: TLSSettings | None) -> list[Problem]:
    return [] if tls is None else [("tls", "SSH brings its own encryption; leave this table out")]


def _usable_programs(programs: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    found = []
    for name, arguments in programs.items():
        if not _PROGRAM_NAME.fullmatch(name):
            found.append((f"programs.{name}", "a program's name is a word of letters, digits, dots and hyphens"))
        elif name in COMMANDS:
            found.append((f"programs.{name}", "there is a command of this name; choose another"))
        elif not arguments or not arguments[0].startswith("/"):
            found.append((f"programs.{name}", 'name the program and its arguments, as ["/bin/bash", "-l"]'))
    return found


def _named_domain(public_url: TunnelURL | None) -> list[Problem]:
    if public_url is None or numeric(public_url.address.host, 0) is None:
        return []
    return [("public_url", "hostnames are given in its domain, and an address has none; name a domain")]


class SSHServerSettings(ListeningSettings, frozen=True, kw_only=True):
    """``kind = "ssh-server"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("tls",), _without_tls),
        own_host("bind"),
        own_host("public_host"),
        Rule(("public_url",), _named_domain),
        Rule(("programs",), _usable_programs),
        above_zero("login_timeout", "nobody logs in in no time"),
        above_zero("consoles", "nobody could open one; console = false says that"),
        *SECOND_FACTOR_RULES,
    )

    authorized_keys: FilePath
    """Who may come in, as in OpenSSH's file of that name; read again whenever it changes."""
    one_time_codes: dict[str, Secret] = msgspec.field(default_factory=dict)
    """By identity, the secret (base32) of the one-time codes that are asked for once its key is proven.

    As soon as anybody is here or in ``passwords``, nobody else comes in but with a key that is ``key-only``.
    """
    passwords: dict[str, Secret] = msgspec.field(default_factory=dict)
    """By identity, the password that is asked for once its key is proven."""
    host_key: FilePath | None = None
    """The private key of this server, Ed25519, that nobody else can read; by default one is made, once."""
    console: bool = True
    """Whether there are consoles and commands."""
    consoles: int = CONSOLES
    """How many of them at once."""
    programs: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Programs of this machine that operators may run, by name: what ``ssh host NAME`` or a subsystem of that name
    starts, as this engine's user; such as a shell, or ``sftp``. Nothing is added to their arguments."""
    forward: bool = False
    """Whether there are public hostnames and ports, and connections to elsewhere."""
    tunnel: str | None = None
    """The tunnel server that gives hostnames; by default the one there is."""
    public_url: TunnelURL | None = None
    """Under which hostnames are given, and as visitors are to write it: where another server is in front of the tunnel
    server; by default ``localhost``, with the tunnel server's own port."""
    ports: PortRange = PortRange(0, 0)
    """Public ports to choose from; any from 1024 on by default."""
    bind: str = "127.0.0.1"
    """The address on which public ports are opened."""
    public_host: str = "localhost"
    """The host that clients are told, before the port."""
    jump: str | None = None
    """The jump server whose allow list says where connections may lead; by default the one there is."""
    post_quantum: bool = False
    """Whether clients are turned away whose key exchange a quantum computer to come could break."""
    login_timeout: Duration = Duration(LOGIN_TIMEOUT)
    """Seconds until a key must have been proven, and what else is asked for given."""


class SSHServer(ListeningService[SSHServerSettings]):
    """Serves OpenSSH's client and any other."""

    kind = "ssh-server"

    def __init__(self, name: str, settings: SSHServerSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self.consoles = 0
        """Consoles and commands that run, or are about to."""
        self._door: Door | None = None
        self.logins: set[Login] = set()
        """Those who have connected and not logged in yet."""
        self.connections: set[Login] = set()
        """Those who have logged in."""
        self.ports = PortPool(settings.bind, settings.ports)
        self.public_ports: dict[int, PublicPort] = {}
        self._opens_beyond = False
        """Whether public ports are opened where others than this machine come to."""
        self.opening = 0
        """Channels of forwards that are about to be: visitors and connections that wait for their other end."""

    async def prepare(self) -> None:
        if self.settings.forward:
            try:
                self._opens_beyond = not is_loopback(await self.ports.check())
            except ListenFailed as error:
                raise self.blame("bind", error) from error
        # Loaded in a thread: it takes long enough for every tunnel to notice.
        library = await asyncio.to_thread(import_module, LIBRARY)
        self._door = library.Door(self)
        self.notes["fingerprint"] = self._door.fingerprint

    def listening(self, listener: Listener, address: str = "") -> None:
        super().listening(listener, address)
        self.exposed |= self._opens_beyond

    def refresh(self) -> None:
        if self._door is not None:
            self._door.keys.read()

    @property
    def own_host_key(self) -> Path:
        """Where the host key is that this server has made for itself."""
        return self.node.state_dir / "ssh" / f"{self.name}.key"

    def stop_accepting(self) -> None:
        super().stop_accepting()
        for login in list(self.logins):
            login.turn_away("the service stops", tell=False)
        for login in list(self.connections):
            login.places.stop_accepting()

    def newcomer(self, end: End, peer: str, place: Place) -> None:
        if self._door is None or not isinstance(end, SocketEnd):
            raise TypeError("an SSH server takes TCP sockets, and only once it has its keys")
        login = self._door.login(peer, place)
        self.logins.add(login)
        task = self.tasks.start(login.take(end.socket), f"newcomer {peer}")
        task.add_done_callback(lambda _: end.close())  # where it never ran: cancelled before its first step

    def left_login(self, login: Login) -> None:
        """Counts somebody no more among those who are logging in."""
        self.logins.discard(login)

    def let_in(self, login: Login, entry: Entry) -> Session:
        """Registers who has proven the key of ``entry``."""
        grant = self.grant_of(entry)
        session = self.open_session(login.peer, login.end, identity=entry.identity, grant=grant)
        self.connections.add(login)
        self.node.bus.publish(
            LoggedIn(
                service=self.name,
                session=session.id,
                peer=login.peer,
                identity=session.identity,
                role=entry.role if entry.console else "forward",
                key=entry.fingerprint,
            )
        )
        return session

    def left(self, login: Login, session: Session, cause: str) -> None:
        """The connection of somebody who had logged in is over."""
        self.connections.discard(login)
        self.close_session(session, cause)

    def check_forward(self, entry: Entry) -> None:
        """Makes sure that something is forwarded here for a key.

        :raises RequestRefused: nothing is, and why.
        """
        if not self.settings.forward:
            raise RequestRefused("this server forwards nothing", "forward = true in its table would change that")
        if not entry.forward.permitted:
            raise RequestRefused("this key may forward nothing", "the options in its line say so")

    def find_running(self, kind: type[Wanted], key: str, name: str | None) -> Wanted:
        """The service of another kind that this one leads to.

        :param key: of the settings, which names it.
        :param name: what that key says; None for the only one there is.
        :raises RequestRefused: there is none, there are several, or it does not run.
        """
        found = {each: service for each, service in self.node.services().items() if isinstance(service, kind)}
        if name is None and len(found) > 1:
            raise RequestRefused(f"there are several services of kind {kind.kind}", f"name one in {self.name}.{key}")
        if name is None and found:
            (name,) = found
        if name is None or name not in found:
            wanted = f"no {kind.kind} {name}" if name else f"no {kind.kind}"
            raise RequestRefused(f"there is {wanted} here", "add one to the configuration of this engine")
        if found[name].state != "listening":
            raise RequestRefused(f"the {kind.kind} {name} does not run", f"it is {found[name].state}; start it")
        return found[name]

    def give_way(self, port: int, login: Login) -> None:
        """Has a connection that is older, with the same key, leave a public port: it may be broken without knowing."""
        holder = self.public_ports.get(port)
        if holder is not None and holder.login is not login and holder.login.entry.key == login.entry.key:
            holder.end("the same key came back and took its place")

    def open_console(self, session: Session, label: str, flow: Flow) -> Channel:
        """Registers a console or command as a channel.

        It counts for nobody who waits for channels to finish: a console never does by itself.
        """
        return self.node.sessions.open_channel(session, label, flow, self.settings.limits.idle_timeout)

    def close_console(self, channel: Channel, cause: str) -> None:
        """Counts its last bytes and forgets it."""
        self.node.sessions.close_channel(channel, cause)

    def grant_of(self, entry: Entry) -> Grant | None:
        """What the token gives that a key stands for; None where it stands for none."""
        return self.node.tokens.vouched(entry.token, entry.key) if entry.token else None

    def token_refuses(self, entry: Entry, peer: str) -> str:
        """Why a key opens nothing for ``peer`` now because of the token that it stands for; "" when it does."""
        if not entry.token:
            return "its line names no token, and one is needed here" if self.settings.require_token else ""
        grant = self.grant_of(entry)
        if grant is None:
            return f"there is no token {entry.token[:64]}, for which its line stands"
        return self.node.tokens.refuses(grant, None, peer)

    def no_session(self, login: Login) -> str:
        """Why somebody who has proven a key can have no further session now; "" when it can."""
        whole = login.proof.whole
        if whole is None:
            return self.no_room(login.peer, ANONYMOUS, None, new_session=True, new_channel=False)
        return self.no_room(login.peer, whole.identity, self.grant_of(whole), new_session=True, new_channel=False)

    def check_token(self, entry: Entry, system: System, peer: str) -> Grant | None:
        """What the token gives that a key stands for, for one of the systems.

        :raises RequestRefused: it is not for that, or not any more.
        """
        if reason := self.token_refuses(entry, peer):
            raise RequestRefused(reason)
        grant = self.grant_of(entry)
        if grant is not None and (reason := grant.refuses(system, peer)):
            raise RequestRefused(reason)
        return grant

    def no_console(self) -> str:
        """Why there can be no further console or command now; "" when there can."""
        if not self.settings.console:
            return "this server has no console: console = false"
        if self.consoles >= self.settings.consoles:
            return f"the limit of {self.settings.consoles} consoles and commands is reached"
        return self.gate.refuses(new_session=False, new_channel=True)

    def _count(self) -> tuple[int, int]:
        return len(self.attached), self.consoles + self.channels + self.opening
