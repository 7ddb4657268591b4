"""Log lines, and the thread that writes them whatever the reader does."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, strategies

from tunnelconsole.daemon import logs
from tunnelconsole.daemon.logs import LibraryHandler, LineWriter, Log, LogFormat, json_line, text_line
from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.events import Crashed, PeerRefused, Repeated
from waiting import until_true

REFUSED = Record(
    7, 1_700_000_000.25, PeerRefused(service="home", peer="192.0.2.7:40112", reason="wrong secret", kind="credentials")
)


@dataclass
class Pipe:
    read_end: int
    write_end: int

    def lines(self) -> list[str]:
        """What is in the pipe."""
        return os.read(self.read_end, 1_000_000).decode().splitlines()

    def fill(self) -> int:
        """Fills the pipe, as when nobody reads; returns how many bytes that took."""
        os.set_blocking(self.write_end, False)
        filled = 0
        try:
            while True:
                filled += os.write(self.write_end, b"x" * 4096)
        except BlockingIOError:
            return filled

    def close(self) -> None:
        for descriptor in (self.read_end, self.write_end):
            try:
                os.close(descriptor)
            except OSError:
                continue  # a test closed it


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe(*os.pipe())
    yield made
    made.close()


def logged(pipe: Pipe, log_format: LogFormat, record: Record) -> list[str]:
    log = Log(pipe.write_end, log_format, "debug")
    log.record(record)
    log.close()
    return pipe.lines()


class TestLines:
    def test_an_event_as_text(self, pipe: Pipe) -> None:
        (line,) = logged(pipe, "text", REFUSED)
        assert line == (
            "2023-11-14T22:13:20.250Z warning peer-refused service=home kind=credentials address=192.0.2.7 "
            'text="refused 192.0.2.7:40112: wrong secret"'
        )

    def test_an_event_as_json(self, pipe: Pipe) -> None:
        (line,) = logged(pipe, "json", REFUSED)
        assert json.loads(line) == {
            "time": "2023-11-14T22:13:20.250Z",
            "level": "warning",
            "event": "peer-refused",
            "service": "home",
            "kind": "credentials",
            "address": "192.0.2.7",
            "text": "refused 192.0.2.7:40112: wrong secret",
        }

    def test_what_happened_more_often_has_its_count_for_programs_too(self, pipe: Pipe) -> None:
        event = Repeated(
            service="home", of="peer-refused", who="192.0.2.7", reason="wrong secret", count=1234, seconds=10.01
        )
        (line,) = logged(pipe, "text", Record(1, 0.0, event))
        assert line.partition("Z ")[2] == (
            "warning repeated service=home "
            'text="1,234 more peer-refused in 10 s from 192.0.2.7: wrong secret" of=peer-refused count=1234'
        )
        (line,) = logged(pipe, "json", Record(1, 0.0, event))
        assert (json.loads(line)["of"], json.loads(line)["count"]) == ("peer-refused", 1234)

    def test_a_crash_has_its_traceback_below_it(self, pipe: Pipe) -> None:
        record = Record(1, 0.0, Crashed.by(ZeroDivisionError("why"), "a task"))
        lines = logged(pipe, "text", record)
        assert lines[0].endswith('error crashed text="a task failed unexpectedly: ZeroDivisionError: why"')
        assert lines[1:] == ["    ZeroDivisionError: why"]

    def test_a_crash_in_json_is_one_line(self, pipe: Pipe) -> None:
        record = Record(1, 0.0, Crashed.by(ZeroDivisionError("why"), "a task"))
        (line,) = logged(pipe, "json", record)
        assert json.loads(line)["traceback"] == "ZeroDivisionError: why\n"

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            ("127.0.0.1:9527", "127.0.0.1:9527"),
            ("", '""'),
            ("two words", '"two words"'),
            ("a=b", '"a=b"'),
            ('say "hi"', r'"say \"hi\""'),
            ("back\\slash", r'"back\\slash"'),
            ("Zürich", '"Zürich"'),
        ],
    )
    def test_a_value_is_quoted_where_it_must_be(self, value: str, written: str) -> None:
        assert text_line("listening", {"service": value}) == f"listening service={written}"

    @pytest.mark.parametrize(
        "hostile", ["\x1b[2J", "a\nready", "\x9b31m", "\u202egnp", "\udc80", "\r", "\x00", "\u2028"]
    )
    def test_nothing_a_peer_sends_moves_the_cursor_or_forges_a_line(self, pipe: Pipe, hostile: str) -> None:
        record = Record(1, 0.0, PeerRefused(peer=hostile, reason=hostile))
        for log_format in ("text", "json"):
            (line,) = logged(pipe, log_format, record)
            assert line.isprintable()
            assert hostile not in line

    @given(strategies.text(strategies.characters()))
    def test_any_text_makes_one_printable_line(self, text: str) -> None:
        assert text_line("event", {"text": text}).isprintable()
        assert json_line("event", {"text": text}).replace("\x7f", "").isprintable()

    def test_a_plain_line_is_written_plainly(self, pipe: Pipe) -> None:
        log = Log(pipe.write_end, "text", "info")
        log.say("tunnelconsole: no\x1b way")
        log.close()
        assert pipe.lines() == [r"tunnelconsole: no\x1b way"]


class TestLevels:
    @pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
    def test_a_level_shows_itself_and_what_is_above(self, pipe: Pipe, level: str, count: int) -> None:
        log = Log(pipe.write_end, "text", level)
        log.write("error", "always")
        for below in ("debug", "info", "warning"):
            log.write(below, below)
        log.close()
        assert len(pipe.lines()) == count

    def test_a_record_below_the_level_is_not_written(self, pipe: Pipe) -> None:
        log = Log(pipe.write_end, "text", "error")
        log.record(REFUSED)
        log.write("error", "the-only-one")
        log.close()
        (line,) = pipe.lines()
        assert line.endswith("the-only-one")


class TestReaders:
    def test_a_reader_that_stands_still_holds_up_nobody_and_is_told_what_it_missed(
        self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "MAX_WAITING", 3)
        filled = pipe.fill()
        log = Log(pipe.write_end, "text", "info")
        log.write("info", "taken-by-the-thread")
        until_true(log._writer._waiting.empty)
        for number in range(5):
            log.write("info", f"number-{number}")
        assert os.read(pipe.read_end, filled) == b"x" * filled
        until_true(log._writer._waiting.empty)
        log.write("info", "later")
        log.close()
        lines = [line.split(" ", 2)[2] for line in pipe.lines()]
        assert [line for line in lines if not line.startswith("log-dropped")] == [
            "taken-by-the-thread",
            "number-0",
            "number-1",
            "number-2",
            "later",
        ]
        (dropped,) = [line for line in lines if line.startswith("log-dropped")]
        assert dropped == 'log-dropped text="2 lines of this log were dropped because nobody took them in time"'

    def test_every_line_is_written_or_counted_whatever_the_readers_pauses(
        self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "MAX_WAITING", 100)
        log = Log(pipe.write_end, "text", "info")
        read, count = "", 0
        for _ in range(5):
            for _ in range(3000):
                count += 1
                log.write("info", f"number-{count}")
            while not log._writer._waiting.empty():
                read += os.read(pipe.read_end, 10_000).decode()
        log.close()
        os.close(pipe.write_end)
        while piece := os.read(pipe.read_end, 100_000):
            read += piece.decode()
        dropped = [int(found) for found in re.findall(r'log-dropped text="(\d+) lines', read)]
        assert dropped
        assert read.count(" info number-") + sum(dropped) == count

    def test_lines_that_a_full_disk_takes_are_counted_as_soon_as_there_is_room(
        self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full, calls = True, 0

        def write(descriptor: int, data: bytes) -> int:
            nonlocal calls
            calls += 1
            if full and not calls % 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return os_write(descriptor, data[:20] if full else data)

        os_write = os.write
        monkeypatch.setattr(os, "write", write)
        log = Log(pipe.write_end, "text", "info")
        for number in range(3):
            log.write("info", f"number-{number}")
        until_true(lambda: log._writer._dropped == 3)
        full = False
        log.close()
        *cut_short, last = pipe.lines()
        assert 'warning log-dropped text="3 lines of this log were dropped' in last
        assert [line[:5] for line in cut_short] == [last[:5]] * len(cut_short)

    def test_closing_does_not_wait_for_a_reader_that_stands_still(
        self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "CLOSE_TIMEOUT", 0.01)
        filled = pipe.fill()
        log = Log(pipe.write_end, "text", "info")
        log.write("info", "stuck")
        log.close()
        assert log._writer._thread.is_alive()
        os.read(pipe.read_end, filled)
        until_true(lambda: not log._writer._thread.is_alive())

    def test_a_broken_pipe_loses_lines_and_nothing_else(self, pipe: Pipe) -> None:
        os.close(pipe.read_end)
        log = Log(pipe.write_end, "text", "info")
        log.write("info", "lost")
        log.close()
        assert not log._writer._thread.is_alive()
        assert log._writer._dropped == 1

    def test_a_stream_that_is_closed_is_written_nothing(self) -> None:
        log = Log(None, "text", "info")
        log.write("info", "lost")
        log.close()
        assert log._writer._waiting.empty()

    def test_a_line_that_cannot_be_made_does_not_end_the_log(self, pipe: Pipe) -> None:
        writer = LineWriter(pipe.write_end, str)
        writer.put(lambda: str(1 // 0))
        writer.put(lambda: "next")
        writer.close()
        failed, following = pipe.lines()
        assert failed.startswith("log-failed ")
        assert "ZeroDivisionError" in failed
        assert following == "next"


def test_what_libraries_say_is_logged_from_warnings_on(pipe: Pipe) -> None:
    log = Log(pipe.write_end, "text", "debug")
    handler = LibraryHandler(log)
    logger = logging.getLogger("tests.a-library")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    logger.info("chatter")
    logger.warning("socket.send() raised %s", "exception")
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError:
        logger.exception("failed")
    log.close()
    lines = [line.partition("Z ")[2] or line for line in pipe.lines()]
    assert lines[:2] == [
        'warning library library=tests.a-library text="socket.send() raised exception"',
        "error library library=tests.a-library text=failed",
    ]
    assert lines[-1] == "    ZeroDivisionError: why"
