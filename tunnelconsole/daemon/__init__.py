"""The engine without a console: in the foreground, for a service manager, a container, or a console that stands apart.

On standard output it prints one line per service once each has listened, connected or failed to, one for the metrics
where they are served, and then ``ready``::

    listening service=home kind=jump-server address=127.0.0.1:9527
    metrics address=127.0.0.1:9520
    ready

The log of events is on standard error; with ``log_format = "json"`` both are JSON, one object per line. SIGTERM and
SIGINT drain and stop, a second one stops at once; SIGHUP reads the configuration again.

``TUNNELCONSOLE_LOOP=asyncio`` in the environment runs it on Python's own event loop where uvloop is installed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from tunnelconsole import __version__
from tunnelconsole.config import Config, EngineSettings, load
from tunnelconsole.control.figures import counted
from tunnelconsole.control.previewing import preview
from tunnelconsole.control.server import ControlServer
from tunnelconsole.control.steering import ReloadPreview
from tunnelconsole.daemon.logs import LibraryHandler, LineWriter, Log, json_line, text_line
from tunnelconsole.daemon.observing import Observing
from tunnelconsole.daemon.readiness import Readiness
from tunnelconsole.engine.audit import SIGNAL, Outcome, accounted_for, difference
from tunnelconsole.engine.engine import Engine, Supervised
from tunnelconsole.engine.events import ConfigRefused, ConfigReloaded, Crashed
from tunnelconsole.engine.transport.descriptors import raise_limit
from tunnelconsole.errors import ConfigError, ListenFailed, NotPrivate, RequestRefused, TunnelConsoleError
from tunnelconsole.log_file import VARIABLE as LOG_VARIABLE
from tunnelconsole.log_file import Rotation

SETTLE_TIMEOUT = 5.0
"""Seconds that services may take until ``ready`` is said without them: a server far away must not hold up the rest."""

HURRY_TIMEOUT = 2.0
"""Seconds that a stop at once may take; what has not ended by then ends with the process."""

YOUNG_OBJECTS = 10_000
"""Objects made between two looks of the garbage collector. A connection makes some dozens that live as long as it
does, so the default of 700 has the collector look at all young ones several times during one burst."""

LIVE = ("drain", "log_level", "metrics")
"""Keys of ``[engine]`` that a reload puts in force."""

AT_START = ("state_dir", "control", "log_format")
"""Keys of ``[engine]`` that only a start puts in force."""

LOOP_VARIABLE = "TUNNELCONSOLE_LOOP"
"""The environment variable that names the event loop; ``asyncio`` is the only value with a meaning."""


def run(
    config_path: Path | None,
    *,
    socket: Path | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
) -> int:
    """Runs an engine until it is told to stop; returns the exit code.

    :param config_path: as for :func:`tunnelconsole.config.load`.
    :param socket: the control socket, in place of the configuration's.
    :param log_level: in place of the configuration's.
    :param log_format: ``text`` or ``json``, in place of the configuration's.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    given = {"control": socket, "log_level": log_level, "log_format": log_format}
    try:
        daemon = Daemon(config_path, {key: value for key, value in given.items() if value is not None})
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"tunnelconsole: {problem}\n")
        return 1
    raise_limit()
    gc.freeze()  # what the modules are made of stays for good, and need never be looked at again
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(daemon.main())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop to run on: uvloop where it is installed, unless :data:`LOOP_VARIABLE` says otherwise."""
    if os.environ.get(LOOP_VARIABLE) == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class Daemon:
    """One engine, its control socket, its log and its signals.

    :param path: of the configuration, or None for the default one.
    :param given: ``[engine]`` settings that the command line sets, whatever the configuration says.
    :raises ConfigError: the configuration is wrong.
    """

    def __init__(self, path: Path | None, given: dict[str, Any]) -> None:
        self._path = path
        self._given = given
        self._config = self._read()
        settings = self._config.engine
        self._running = settings
        self._log = Log(_descriptor(sys.stderr), settings.log_format, settings.log_level, _rotation())
        self._output = LineWriter(_descriptor(sys.stdout), lambda count: f"dropped count={count}")
        self._readiness = Readiness(self._not_told)
        self._reloading = asyncio.Lock()
        self._engine = Engine(self._config.services, state_dir=settings.state_dir, drain=settings.drain)
        self._observing = Observing(self._engine)
        self._control = ControlServer(
            self._engine,
            settings.control,
            version=__version__,
            config=self._config_in_force,
            reload=self.reload,
            stop=self.stop,
            preview=self.preview,
        )

    def _read(self) -> Config:
        config = load(self._path)
        self._path = config.path or self._path  # a file that was there once and has gone is a mistake from now on
        return msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, **self._given))

    def _config_in_force(self) -> str:
        return "" if self._config.path is None else os.fsencode(self._config.path).decode(errors="replace")

    async def main(self) -> int:
        """Starts, runs and stops; returns the exit code."""
        loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[str] = loop.create_future()
        self._hurry: asyncio.Future[None] = loop.create_future()
        self._library = LibraryHandler(self._log)
        logging.getLogger().addHandler(self._library)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_by_signal, number.name)
        try:
            return await self._run()
        finally:
            await self._observing.close()
            await self._control.close()
            logging.getLogger().removeHandler(self._library)
            self._output.close()
            self._log.close()

    async def _run(self) -> int:
        try:
            self._control.claim()
            await self._observing.prepare(self._running.metrics)
            await self._engine.start()
        except (ListenFailed, NotPrivate) as error:
            return self._cannot_start(str(error))
        except OSError as error:
            return self._cannot_start(
                f"the state cannot be kept in {self._running.state_dir}: {error.strerror or error}"
            )
        self._warn()
        node = self._engine.node
        for record in node.bus.recent():
            self._log.record(record)
        node.bus.listen(self._log.record)
        node.loop.set_exception_handler(self._loop_failed)
        self._tasks = node.tasks_of("daemon")
        node.loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
        await self._observing.apply(self._running.metrics)
        await self._control.serve()
        await self._settle()
        failed = [_why_not_listening(supervised) for supervised in self._engine.supervised.values()]
        if any(failed):
            await self._engine.stop(drain=0.0, cause="a service cannot listen")
            return self._cannot_start("; ".join(filter(None, failed)))
        if not self._stop.done():
            self._announce()
        await self._stopped(await self._stop)
        return 0

    async def _settle(self) -> None:
        """Waits until each service has come to something, or enough time has passed, or all is to stop."""
        settling = self._tasks.start(self._engine.settled(), "settling")
        await asyncio.wait({settling, self._stop}, timeout=SETTLE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        settling.cancel()

    def _announce(self) -> None:
        """Says that the engine is ready, to whoever reads its output and to the service manager."""
        for supervised in self._engine.supervised.values():
            self._say(*_standing(supervised))
        if self._engine.node.metrics:
            self._say("metrics", {"address": self._engine.node.metrics})
        self._say("ready", {})
        self._ready()
        self._stay_alive()

    async def _stopped(self, cause: str) -> None:
        """Drains and stops; at once, as soon as somebody is in a hurry."""
        drain = 0.0 if self._hurry.done() else self._engine.drain
        self._readiness.stopping(drain)
        stopping = self._tasks.start(self._engine.stop(drain=drain, cause=cause), "stopping")
        await asyncio.wait({stopping, self._hurry}, return_when=asyncio.FIRST_COMPLETED)
        with accounted_for():
            for session in list(self._engine.node.sessions.sessions):
                self._engine.kick(session, "stopped at once")
        await asyncio.wait({stopping}, timeout=HURRY_TIMEOUT)

    def stop(self, cause: str) -> None:
        """Drains and stops; asked a second time, stops at once."""
        if not self._stop.done():
            self._stop.set_result(cause)
        elif not self._hurry.done():
            self._hurry.set_result(None)

    def _stop_by_signal(self, name: str) -> None:
        if self._control.serving:
            how = "the engine stops at once" if self._stop.done() else "the engine drains and stops"
            self._engine.audit.record(SIGNAL, "stop-engine", name, "done", how)
        self.stop(f"by {name}")

    def _reload_by_signal(self) -> None:
        self._tasks.start(self._reload_quietly(), "reload")

    async def _reload_quietly(self) -> None:
        before: dict[str, object] = dict(self._engine.supervised)
        outcome: Outcome = "broken off"
        text = "the engine ended before it was done"
        try:
            with accounted_for():
                text = await self.reload()
            outcome = "done"
            if changed := difference(before, self._engine.supervised):
                text = f"{text}; {changed}"
        except TunnelConsoleError as error:  # an event has told it, and nobody waits for an answer
            outcome, text = "refused", "; ".join(error.problems if isinstance(error, ConfigError) else [str(error)])
        finally:
            self._engine.audit.record(SIGNAL, "reload-config", "SIGHUP", outcome, text)

    async def reload(self) -> str:
        """Reads the configuration again and applies what changed; says what that was.

        :raises ConfigError: it is wrong; nothing has changed.
        :raises RequestRefused: the engine is stopping, or cannot read a file again; nothing has changed.
        """
        if self._stop.done():
            raise RequestRefused("the engine is stopping")
        bus = self._engine.node.bus
        async with self._reloading:
            self._readiness.reloading()
            try:
                config = await asyncio.to_thread(self._read)
                await self._observing.prepare(config.engine.metrics)
                done = [await self._engine.apply(config.services), *self._apply_engine(config.engine)]
                done += await self._observing.apply(config.engine.metrics)
            except TunnelConsoleError as error:
                problems = error.problems if isinstance(error, ConfigError) else [str(error)]
                bus.publish(ConfigRefused(reason="; ".join(problems)))
                raise
            finally:
                await self._observing.discard()
                self._ready()
            self._config = config
            self._warn()
            summary = "; ".join(done)
            bus.publish(ConfigReloaded(summary=summary))
            return summary

    async def preview(self) -> ReloadPreview:
        """Reads the configuration, and says what a reload would do now."""
        try:
            config = await asyncio.to_thread(self._read)
        except ConfigError as error:
            return ReloadPreview(problems=error.problems)
        found = preview(self._engine, config.services)
        running, wanted = self._running, config.engine
        return msgspec.structs.replace(
            found,
            engine=[key for key in LIVE if getattr(running, key) != getattr(wanted, key)],
            restart=[key for key in AT_START if getattr(running, key) != getattr(wanted, key)],
            warnings=list(config.warnings),
        )

    def _apply_engine(self, wanted: EngineSettings) -> list[str]:
        """Applies what can be changed while the engine runs, and says of the rest that it needs a new start."""
        running = self._running
        self._running = msgspec.structs.replace(
            running, drain=wanted.drain, log_level=wanted.log_level, metrics=wanted.metrics
        )
        self._engine.drain = wanted.drain
        self._log.level = wanted.log_level
        waiting = [f"engine.{key}" for key in AT_START if getattr(running, key) != getattr(wanted, key)]
        return [f"{', '.join(waiting)} will change when the engine is started again"] if waiting else []

    def _warn(self) -> None:
        """Logs what the user should know of the configuration in force."""
        for sentence in self._config.warnings:
            self._log.write("warning", "config-warning", text=sentence)

    def _ready(self) -> None:
        services = self._engine.services.values()
        failed = sum(service.state == "failed" for service in services)
        self._readiness.ready(f"{counted(len(services), 'service')}, {failed} failed")

    def _stay_alive(self) -> None:
        """Tells the service manager again and again that the loop turns, where it wants to know."""
        if self._readiness.alive_interval:
            self._readiness.alive()
            self._engine.node.loop.call_later(self._readiness.alive_interval, self._stay_alive)

    def _not_told(self, text: str) -> None:
        self._log.write("warning", "manager-not-told", text=text)

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback, which nobody can catch: an event, and the loop goes on."""
        error = context.get("exception") or RuntimeError(context.get("message", "unknown"))
        self._engine.node.bus.publish(Crashed.by(error, f"the event loop: {context.get('message', '')}"))

    def _cannot_start(self, reason: str) -> int:
        if self._running.log_format == "json":
            self._log.write("error", "start-failed", text=reason)
        else:
            self._log.say(f"tunnelconsole: {reason}")
        return 1

    def _say(self, word: str, fields: dict[str, str]) -> None:
        """One line of the contract on standard output."""
        line = (json_line if self._running.log_format == "json" else text_line)(word, fields)
        self._output.put(lambda: line)


def _standing(supervised: Supervised) -> tuple[str, dict[str, str]]:
    """A service's state, and what is worth saying about it."""
    service = supervised.service
    fields = {"service": service.name, "kind": service.kind}
    if service.address:
        fields["address"] = service.address
        if "http" in service.notes:
            fields["http"] = service.notes["http"]
    if service.error:
        fields["error"] = service.error
    if "fingerprint" in service.notes:
        fields["fingerprint"] = service.notes["fingerprint"]
    return service.state, fields


def _why_not_listening(supervised: Supervised) -> str:
    """Why a service that has to listen never has; "" when it has, or has not to, or has not tried yet."""
    listens_by_now = supervised.service.state in ("listening", "connected")
    if listens_by_now or not isinstance(supervised.error, ListenFailed):
        return ""
    return f"service {supervised.service.name}: {supervised.error}"


def _rotation() -> Rotation | None:
    """What keeps the log small, where whoever started this program has named its file."""
    path = os.environ.pop(LOG_VARIABLE, "")
    descriptors = [number for number in map(_descriptor, (sys.stderr, sys.stdout)) if number is not None]
    return Rotation(Path(path), descriptors) if path and descriptors else None


def _descriptor(stream: TextIO | None) -> int | None:
    """The descriptor of a standard stream; None where it was closed before this program was started."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
