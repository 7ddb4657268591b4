"""Log lines: made of events, as text or as JSON, and written by a thread so that no reader can hold up the loop.

As text, ``key=value`` after the time, the level and what happened; values with spaces are quoted::

    2025-11-20T03:12:45.678Z info service-stopped service=home text="stopped: by a command"

As JSON, one object per line with the same keys, and ``time``, ``level`` and ``event``. Either way nothing that a peer
sent can move the cursor or forge a line: what is not printable is escaped.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.events import Crashed, PeerRefused, Repeated
from tunnelconsole.log_file import Rotation

LogFormat = Literal["text", "json"]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Levels by weight, as in :mod:`logging`; a log shows those of its own level and above."""

MAX_WAITING = 10_000
"""Lines that may wait for a slow reader, about 2 MB; beyond that they are counted and dropped."""

CLOSE_TIMEOUT = 1.0
"""Seconds that lines may take to be written when the program ends; a reader that stands still loses them."""


def text_line(event: str, fields: Mapping[str, object]) -> str:
    """``event key=value key="value with spaces"``."""
    return " ".join([event, *(f"{key}={_value(value)}" for key, value in fields.items())])


def json_line(event: str, fields: Mapping[str, object]) -> str:
    """One JSON object in ASCII: ``event`` first, then the fields."""
    return json.dumps({"event": event, **fields}, default=str)


def _value(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and text.isascii() and not set(text) & set(' "=\\'):
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else character.encode("unicode_escape").decode()


class LineWriter:
    """Writes lines to a descriptor, in order, from a thread of its own.

    A descriptor that cannot be written, such as a broken pipe or a full disk, loses lines and nothing else.

    :param descriptor: where to; None writes nothing.
    :param dropped: makes the line that says how many were dropped.
    :param prepare: called in the thread before each line; a line that it returns is written first.
    """

    def __init__(
        self, descriptor: int | None, dropped: Callable[[int], str], prepare: Callable[[], str] = lambda: ""
    ) -> None:
        self._descriptor = descriptor
        self._dropped_line = dropped
        self._prepare = prepare
        self._cut_short = False
        self._waiting: queue.SimpleQueue[Callable[[], str] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        if descriptor is not None:
            self._thread.start()

    def put(self, line: Callable[[], str]) -> None:
        """Queues a line; ``line`` makes it, without its end, when its turn comes, in the writer's thread."""
        if self._descriptor is None:
            return
        if self._waiting.qsize() >= MAX_WAITING:
            self._count_dropped(1)
        else:
            self._waiting.put(line)

    def close(self) -> None:
        """Writes what waits, for :data:`CLOSE_TIMEOUT` at most."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(CLOSE_TIMEOUT)

    def _count_dropped(self, count: int) -> None:
        with self._lock:
            self._dropped += count

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            if said := self._prepare():
                self._write_line(partial(str, said))
            self._tell_dropped()
            self._write_line(line)
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped and not self._write_line(partial(self._dropped_line, dropped)):
            self._count_dropped(dropped - 1)  # the line that would have told them has counted itself

    def _write_line(self, line: Callable[[], str]) -> bool:
        """Writes a line; False when it could not be, and is counted."""
        try:
            self._write((b"\n" if self._cut_short else b"") + _encoded(line))
        except OSError:
            self._count_dropped(1)  # told once the descriptor can be written again
            return False
        return True

    def _write(self, data: bytes) -> None:
        descriptor = -1 if self._descriptor is None else self._descriptor
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # somebody else made the terminal or pipe non-blocking
                select.select([], [descriptor], [])
            except OSError:
                self._cut_short = self._cut_short or 0 < len(rest) < len(data)
                raise
        self._cut_short = False


def _encoded(line: Callable[[], str]) -> bytes:
    try:
        text = line()
    except Exception:  # noqa: BLE001 - one bad line must not end the log
        text = text_line("log-failed", {"text": traceback.format_exc()})
    return text.encode(errors="backslashreplace") + b"\n"


class Log:
    """The log of an engine.

    :param descriptor: where lines go; None writes nothing.
    :param log_format: ``text`` or ``json``.
    :param level: the least level that is written.
    :param rotation: keeps the file from growing without end, where the descriptor is one's.
    """

    def __init__(
        self, descriptor: int | None, log_format: LogFormat, level: str, rotation: Rotation | None = None
    ) -> None:
        self.format = log_format
        self.level = level
        self._rotation = rotation
        self._writer = LineWriter(descriptor, self._dropped, self._rotate)

    def write(self, level: str, event: str, **fields: object) -> None:
        """Logs what happened just now, unless its level is too low; a ``traceback`` may have many lines."""
        if LEVELS[level] >= LEVELS[self.level]:
            self._writer.put(partial(self._line, time.time(), level, event, fields))

    def say(self, line: str) -> None:
        """Writes a line as it is, but for what is not printable."""
        self._writer.put(lambda: "".join(map(_escaped, line)))

    def record(self, record: Record) -> None:
        """Logs an event of the bus."""
        if LEVELS[record.event.level] >= LEVELS[self.level]:
            self._writer.put(partial(self._record_line, record))

    def close(self) -> None:
        """Writes what waits, and ends."""
        self._writer.close()

    def _record_line(self, record: Record) -> str:
        event = record.event
        where = {"service": event.service, "session": event.session, "channel": event.channel}
        where["identity"] = record.identity
        fields: dict[str, object] = {key: value for key, value in where.items() if value}
        if isinstance(event, PeerRefused):  # before the text, which may quote strangers: see docs/fail2ban
            fields |= {"kind": event.kind, "address": event.address}
        fields["text"] = event.text()
        if isinstance(event, Repeated):
            fields |= {"of": event.of, "count": event.count}
        if isinstance(event, Crashed) and event.trace:
            fields["traceback"] = event.trace
        return self._line(record.time, event.level, event.type, fields)

    def _line(self, when: float, level: str, event: str, fields: Mapping[str, object]) -> str:
        moment = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self.format == "json":
            return json.dumps({"time": moment, "level": level, "event": event, **fields}, default=str)
        rest = dict(fields)
        trace = str(rest.pop("traceback", ""))
        lines = [f"{moment} {level} {text_line(event, rest)}"]
        lines += [f"    {''.join(map(_escaped, line))}" for line in trace.splitlines()]
        return "\n".join(lines)

    def _rotate(self) -> str:
        """Moves the log aside when it is large; returns the line that says why that is not possible, or ""."""
        try:
            if self._rotation is not None:
                self._rotation.rotate_if_large()
        except OSError as error:
            text = f"the log is large and cannot be moved aside: {error.strerror or error}"
            return self._line(time.time(), "warning", "log-not-rotated", {"text": text})
        return ""

    def _dropped(self, count: int) -> str:
        text = f"{count} lines of this log were dropped because nobody took them in time"
        return self._line(time.time(), "warning", "log-dropped", {"text": text})


class LibraryHandler(logging.Handler):
    """Brings into the log what libraries say through :mod:`logging`, from warnings on."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"library": record.name, "text": record.getMessage()}
        if record.exc_info and record.exc_info[1]:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        self._log.write("error" if record.levelno >= logging.ERROR else "warning", "library", **fields)
