"""The engine: runs services, starts them again when they fail, and is the one writer of all state.

Embed it::

    settings = JumpServerSettings(listen=ListenAddress("127.0.0.1", 0), secret=Secret("superBigSecret"))
    async with Engine({"home": settings}) as engine:
        await engine.settled()
        print(engine.services["home"].address)
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunnelconsole.engine.audit import ENGINE, AuditTrail, by_program, user
from tunnelconsole.engine.backoff import LONGEST_DELAY, LONGEST_DELAY_FOR_A_PLACE, Backoff
from tunnelconsole.engine.changes import Plan, plan
from tunnelconsole.engine.events import (
    Crashed,
    EngineStopping,
    ServiceFailed,
    ServiceRetrying,
    ServiceStopped,
)
from tunnelconsole.engine.keeping import Keeper
from tunnelconsole.engine.live_limits import LimitChange, change_limits, repace_token
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.certificate_pair import CertificateWatch
from tunnelconsole.engine.services.kinds import make_service
from tunnelconsole.engine.services.service import Service, ServiceSettings
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.settings import DEFAULT_DRAIN
from tunnelconsole.engine.steering_events import DrainCut, ServiceDraining, named
from tunnelconsole.engine.store import StoredEvent
from tunnelconsole.engine.supervised import LONGEST_DRAIN, Supervised, failing, until_set
from tunnelconsole.engine.ticking import keep_ticking
from tunnelconsole.engine.tokens.register import Tokens
from tunnelconsole.errors import CredentialsRefused, HostTaken, RequestRefused, TunnelConsoleError

__all__ = ["Engine", "Supervised"]


class Engine:
    """Runs services on the loop it is started on.

    :param services: settings by service name.
    :param state_dir: the folder for what must survive a restart; None keeps nothing (a temporary folder).
    :param drain: seconds channels may take to finish when something stops.
    """

    def __init__(
        self,
        services: Mapping[str, ServiceSettings] | None = None,
        *,
        state_dir: Path | None = None,
        drain: float = DEFAULT_DRAIN,
    ) -> None:
        self._wanted = dict(services or {})
        self._state_dir = state_dir
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.drain = drain
        self.started_at = time.time()
        self.draining = False
        self._stopped = False
        self.supervised: dict[str, Supervised] = {}
        self.earlier_events: Sequence[StoredEvent] = ()
        """Warnings and errors of earlier runs, oldest first."""
        self._node: Node | None = None
        self._retiring: set[Service[Any]] = set()
        self._steering = asyncio.Lock()

    @property
    def node(self) -> Node:
        """The registers of this engine.

        :raises RuntimeError: the engine has not been started.
        """
        if self._node is None:
            raise RuntimeError("the engine has not been started; use `async with Engine(...)`")
        return self._node

    @property
    def audit(self) -> AuditTrail:
        """Who had this engine do what.

        :raises RuntimeError: the engine has not been started.
        """
        return self.node.audit

    @property
    def tokens(self) -> Tokens:
        """The credentials of clients, which may be made, changed and taken away while it runs.

        :raises RuntimeError: the engine has not been started.
        """
        return self.node.tokens

    @property
    def services(self) -> dict[str, Service[Any]]:
        """The services by name."""
        return {name: supervised.service for name, supervised in self.supervised.items()}

    @property
    def running(self) -> list[Service[Any]]:
        """The services, and those that have been replaced or removed and still carry something."""
        return [*self.services.values(), *self._retiring]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(drain=0.0, cause="the program that embeds it is done")

    async def start(self) -> None:
        """Opens the state and starts every enabled service; returns before they have connected.

        State that cannot be opened is an event, and the engine goes on without.

        :raises NotPrivate: others could change what is in the state folder.
        :raises OSError: a temporary folder cannot be made.
        :raises ValueError: a service's settings are wrong.
        """
        if self._state_dir is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tunnelconsole-")
            self._state_dir = Path(self._scratch.name)
        node = self._node = Node(self._state_dir)
        node.services = lambda: self.services
        node.tokens.rate_changed = lambda token: repace_token(token, self.running)
        self._tasks = node.tasks_of("engine")
        self._keeper = Keeper(node, self._state_dir)
        try:
            services = [make_service(name, settings, node) for name, settings in self._wanted.items()]
        except ValueError:
            self._forget_scratch()
            raise
        await self._keeper.start()
        started = f"started by {user(os.geteuid())}"
        self.audit.record(ENGINE, "start-engine", f"process {os.getpid()}", "done", started)
        self.earlier_events = self._keeper.earlier_events
        self._tasks.start(keep_ticking(node), "meters")
        self._tasks.start(CertificateWatch(node, lambda: self.running).run(), "certificates")
        for service in services:
            self._add(service)

    async def settled(self) -> None:
        """Waits until every running service has listened, connected, or failed to, for the first time."""
        for supervised in list(self.supervised.values()):
            if supervised.task is not None:
                await supervised.service.settled.wait()

    async def failing(self, names: Iterable[str], within: float) -> list[str]:
        """Why those of these services do not run that cannot, but for what they connect to, which may come yet.

        :param within: seconds that their first start may take; what is not known by then is not told.
        """
        return await failing([self.supervised[name] for name in names if name in self.supervised], within)

    def _add(self, service: Service[Any]) -> None:
        supervised = self.supervised[service.name] = Supervised(service)
        if service.settings.enabled:
            self._launch(supervised)

    def _launch(self, supervised: Supervised) -> None:
        supervised.service.enter("starting")
        supervised.task = self._tasks.start(self._supervise(supervised), f"service {supervised.service.name}")

    async def _supervise(self, supervised: Supervised) -> None:
        service = supervised.service
        backoff = Backoff()
        while True:
            supervised.retry_at = None
            error = supervised.error = await self._run_once(service)
            worked = time.time() - service.since if service.state in ("listening", "connected") else 0.0
            service.address = ""
            if supervised.ending:
                return
            if isinstance(error, CredentialsRefused):
                service.enter("failed", str(error))
                service.settled.set()
                self.node.bus.publish(ServiceFailed(service=service.name, error=str(error)))
                service.cut_all("the service failed")
                return
            backoff.worked_for(worked)  # the time in which it only tried to connect is none of it
            delay = backoff.next(LONGEST_DELAY_FOR_A_PLACE if isinstance(error, HostTaken) else LONGEST_DELAY)
            supervised.retry_at = time.time() + delay
            supervised.restarts += 1
            text = str(error) if isinstance(error, TunnelConsoleError | OSError) else f"{type(error).__name__}: {error}"
            service.enter("backoff", text)
            self.node.bus.publish(ServiceRetrying(service=service.name, error=text, delay=delay))
            await asyncio.sleep(delay)
            service.enter("starting")

    async def _run_once(self, service: Service[Any]) -> Exception:
        """Runs a service until it ends, and returns why; cancellation goes through."""
        try:
            await service.run()
        except (TunnelConsoleError, OSError) as error:
            return error
        except Exception as error:  # noqa: BLE001 - one service's fault must not end the others
            self.node.bus.publish(Crashed.by(error, f"service {service.name}", service.name))
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return RuntimeError("something it waited for was cancelled")
        return RuntimeError("the service ended by itself")

    @by_program("start-service")
    async def start_service(self, name: str) -> None:
        """Starts a stopped or failed service; one in backoff is tried at once, one that drains is taken back.

        :raises RequestRefused: there is no such service, or it runs already.
        """
        async with self._steer():
            supervised = self._find(name)
            drains, task = supervised.drain is not None, supervised.task
            if not drains and task is not None and not task.done() and supervised.state != "backoff":
                raise RequestRefused(f"service {name} is {supervised.state} already")
            await self._halt(supervised, "started again", drain=math.inf if drains else 0.0)
            self._replace(name, supervised)

    @by_program("stop-service")
    async def stop_service(self, name: str) -> None:
        """Stops a service at once, with every session of it.

        :raises RequestRefused: there is no such service, or it is stopped already.
        """
        async with self._steer():
            supervised = self._find(name)
            if supervised.service.state == "stopped":
                raise RequestRefused(f"service {name} is stopped already")
            await self._halt(supervised, "by hand", drain=0.0)

    @by_program("drain-service")
    async def drain_service(self, name: str, seconds: float | None = None) -> str:
        """Has a service take nothing new and stop once it carries nothing more; returns what was done.

        :meth:`start_service` takes that back, :meth:`stop_service` does not wait, and another call sets another time.

        :param seconds: after which what is left is cut; None for :attr:`drain`.
        :raises RequestRefused: there is no such service, it does not run, or the time is none.
        """
        seconds = self.drain if seconds is None else seconds
        if not 0 <= seconds <= LONGEST_DRAIN:
            raise RequestRefused(f"a drain of {seconds:g} s is not possible", f"give 0 to {LONGEST_DRAIN:g} seconds")
        async with self._steer():
            supervised = self._find(name)
            service = supervised.service
            if service.state == "stopped":
                raise RequestRefused(f"service {name} is stopped already")
            supervised.leave_drain()
            await self._take_nothing_new(supervised)
            supervised.drain_ends = time.time() + seconds
            supervised.drain = self._tasks.start(self._drain(supervised, seconds), f"drain of {name}")
            begun = ServiceDraining(service=name, channels=service.channels, seconds=seconds)
            self.node.bus.publish(begun)
        return f"service {name}: {begun.text()}"

    async def _drain(self, supervised: Supervised, seconds: float) -> None:
        service = supervised.service
        await until_set([service.drained], seconds)
        async with self._steering:
            if service.channels:
                left = [session for session in service.attached if session.channels]
                who = named(f"{session.identity} from {session.peer}" for session in left)
                self.node.bus.publish(
                    DrainCut(service=service.name, channels=service.channels, seconds=seconds, who=who)
                )
            await self._halt(supervised, "drained", drain=0.0)

    @by_program("restart-service")
    async def restart_service(self, name: str) -> None:
        """Stops a service at once and starts it again.

        :raises RequestRefused: there is no such service.
        """
        async with self._steer():
            supervised = self._find(name)
            await self._halt(supervised, "restarted by hand", drain=0.0)
            self._replace(name, supervised)

    @asynccontextmanager
    async def _steer(self) -> AsyncIterator[None]:
        """One change to the services at a time, and none any more once the engine stops."""
        async with self._steering:
            if self.draining:
                raise RequestRefused("the engine is stopping", "start it again and repeat this")
            yield

    def _replace(self, name: str, supervised: Supervised) -> None:
        fresh = Supervised(make_service(name, supervised.service.settings, self.node))
        fresh.restarts = supervised.restarts
        self.supervised[name] = fresh
        self._launch(fresh)

    @by_program("kick-session")
    def kick(self, session_id: str, reason: str = "kicked by an operator") -> str:
        """Ends a session; returns its peer.

        :raises RequestRefused: there is no such session.
        """
        session = self._session(session_id)
        session.end(reason)
        return session.peer

    @by_program("set-receivers")
    def set_receivers(self, session_id: str, receivers: Sequence[str]) -> str:
        """Has a client of a channel server send to others from now on; returns what was done, in one sentence.

        :param receivers: their chids; none for all others.
        :raises RequestRefused: there is no such session, it is of another kind, or these receivers cannot be.
        """
        session = self._session(session_id)
        for service in self.running:
            if session in service.attached:
                return service.set_receivers(session, receivers)
        raise RequestRefused(f"session {session_id} is about to end", "list the sessions again")

    @by_program("set-limits")
    def set_limits(self, target: str, change: LimitChange) -> str:
        """Changes the limits of a service, or of a session by its id, for open channels too; returns what is in force.

        :raises RequestRefused: there is neither, or it cannot be.
        """
        return change_limits(target, change, self.services, self.running)

    @by_program("punch-again")
    def punch_again(self, name: str) -> str:
        """Has a punch client look for a direct way at once; returns what was done, in one sentence.

        :raises RequestRefused: there is no such service, it is of another kind, or it would be of no use now.
        """
        return self._find(name).service.punch_again()

    def _session(self, session_id: str) -> Session:
        session = self.node.sessions.sessions.get(session_id)
        if session is None:
            raise RequestRefused(f"there is no session {session_id}", "it may have ended; list the sessions again")
        return session

    @by_program("close-channel")
    def close_channel(self, channel_id: str, reason: str = "closed by an operator") -> str:
        """Cuts a channel; returns its label.

        :raises RequestRefused: there is no such channel.
        """
        channel = self.node.sessions.channels.get(channel_id)
        if channel is None:
            raise RequestRefused(f"there is no channel {channel_id}", "it may have ended; list the channels again")
        channel.flow.abort(reason)
        return channel.label

    @by_program("reload-config")
    async def apply(self, services: Mapping[str, ServiceSettings]) -> str:
        """Makes these the services: only those whose settings changed are touched.

        A service that can take its new settings in place goes on. Another that changed, or that went, takes nothing new
        from now on; its channels may finish while its successor runs already. Returns what was done, in a few words.

        :raises RequestRefused: the engine is stopping, settings are wrong, or a file that a service reads again cannot
            be read; every service is as it was then.
        """
        async with self._steer():
            return await self._apply(services)

    async def _apply(self, services: Mapping[str, ServiceSettings]) -> str:
        planned = self.plan(services)
        fresh = [self._make(name, services[name]) for name in planned.replaced + planned.added]
        for name in planned.in_place:
            self._make(name, services[name])  # to see that it can be made
        for name in planned.kept + planned.in_place:  # first, so that what is refused has touched nothing
            try:
                self.supervised[name].service.refresh()
            except OSError as error:
                raise RequestRefused(f"service {name} cannot read its files again: {error}") from error
        for name in planned.in_place:
            self.supervised[name].service.take(services[name])
            self.supervised[name].service.part_by(services[name])
        for name in planned.removed + planned.replaced:
            supervised = self.supervised.pop(name)
            cause = "its settings changed" if name in planned.replaced else "removed"
            await self._halt(supervised, cause, drain=self.drain)
            if name in planned.replaced:
                supervised.service.part_by(services[name])
        for service in fresh:
            self._add(service)
        self._wanted = dict(services)
        self.supervised = {name: self.supervised[name] for name in services}
        return planned.summary

    def plan(self, services: Mapping[str, ServiceSettings]) -> Plan:
        """What :meth:`apply` would do with these now."""
        return plan(self.supervised, services)

    def _make(self, name: str, settings: ServiceSettings) -> Service[Any]:
        try:
            return make_service(name, settings, self.node)
        except ValueError as error:
            raise RequestRefused(f"the settings of service {name} are wrong: {error}") from error

    async def stop(self, *, drain: float | None = None, cause: str = "asked to") -> None:
        """Stops taking newcomers, lets channels finish for ``drain`` seconds, then ends everything.

        Called again, it waits until the first call is done.
        """
        self.draining = True
        async with self._steering:  # a change that is under way is made to its end first
            if not self._stopped:
                await self._stop(self.drain if drain is None else drain, cause)
                self._stopped = True

    async def _stop(self, drain: float, cause: str) -> None:
        node = self.node
        node.bus.publish(EngineStopping(cause=cause, channels=len(node.sessions.channels)))
        for supervised in self.supervised.values():
            await self._take_nothing_new(supervised)
        drained = [service.drained for service in (*self.services.values(), *self._retiring)]
        await until_set([*drained, node.farewells.over], drain)
        for supervised in self.supervised.values():
            await self._halt(supervised, "the engine stops", drain=0.0)
        for service in list(self._retiring):
            service.cut_all("the engine stops")
        await self._tasks.close()
        await asyncio.sleep(0)  # pumps that were cut report their end on the next turn of the loop
        node.bus.tell_repeated(early=True)
        self.audit.tell_refused(early=True)
        self.audit.record(ENGINE, "stop-engine", f"process {os.getpid()}", "done", f"stopped: {cause}")
        await self._keeper.close()
        node.farewells.close()
        node.plane.close()
        self._forget_scratch()

    def _forget_scratch(self) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()

    async def _take_nothing_new(self, supervised: Supervised) -> None:
        """From now on a service lets nobody in, and is not started again when its run ends."""
        supervised.ending = True
        service = supervised.service
        with self.node.contain(f"service {service.name}, told to take nobody new,", service.name):
            service.stop_accepting()
        if service.state not in ("listening", "connected"):  # it would be only now
            await self._end_task(supervised.task)

    async def _halt(self, supervised: Supervised, cause: str, *, drain: float) -> None:
        """Ends a service: what it still carries is cut, or with ``drain`` finishes in the background."""
        service, task = supervised.service, supervised.task
        supervised.leave_drain()
        was_running = service.state != "stopped"
        await self._take_nothing_new(supervised)
        if drain and service.channels:
            self._retiring.add(service)
            self._tasks.start(self._retire(supervised, cause, drain), f"drain of {service.name}")
        else:
            await self._end_task(task)
            service.cut_all(cause)
            await service.tasks.close()
        supervised.retry_at = None
        service.address = ""
        service.enter("stopped")
        service.settled.set()
        if was_running:
            self.node.bus.publish(ServiceStopped(service=service.name, cause=cause))

    async def _retire(self, supervised: Supervised, cause: str, drain: float) -> None:
        service = supervised.service
        try:
            await until_set([service.drained], drain)
        finally:
            await self._end_task(supervised.task)
            service.cut_all(f"{cause}, and it did not finish in time")
            await service.tasks.close()
            self._retiring.discard(service)

    async def _end_task(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _find(self, name: str) -> Supervised:
        if name not in self.supervised:
            known = ", ".join(sorted(self.supervised)) or "none"
            raise RequestRefused(f"there is no service {name}", f"services are: {known}")
        return self.supervised[name]
