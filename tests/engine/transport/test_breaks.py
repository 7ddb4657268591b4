"""Watching for breaks: told of a reset, and of nothing that goes before it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tcp import Program, connected
from tunnelconsole.engine.transport.breaks import BreakWatch
from waiting import until


class Watched:
    """A connection whose far side is watched for a break."""

    def __init__(self, watch: BreakWatch, also: Callable[[], None] = lambda: None) -> None:
        near, self.sock = connected()
        self.remote = Program(near)
        self.told: list[OSError] = []
        self._watch = watch
        self._also = also
        watch.add(self.sock.fileno(), self._broken)

    def _broken(self, error: OSError) -> None:
        self.told.append(error)
        self._also()

    def close(self) -> None:
        self._watch.remove(self.sock.fileno())
        self.sock.close()
        self.remote.close()


def open_files() -> int:
    """Descriptors of any kind that this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


async def test_a_reset_is_told_once_and_neither_bytes_nor_an_end_are() -> None:
    watched = Watched(BreakWatch(asyncio.get_running_loop()))
    await watched.remote.send(b"unread")
    await watched.remote.half_close()
    await until(lambda: watched.sock.recv(16) == b"unread")
    assert watched.sock.recv(16) == b""
    assert not watched.told
    watched.remote.reset()
    await until(lambda: watched.told)
    assert not isinstance(watched.told[0], BlockingIOError)
    assert watched.told[0].errno in {errno.ECONNRESET, errno.EPIPE}
    watched.close()
    assert len(watched.told) == 1


async def test_who_has_closed_is_told_of_when_something_is_sent_to_it() -> None:
    watched = Watched(BreakWatch(asyncio.get_running_loop()))
    watched.remote.close()
    await until(lambda: watched.sock.recv(16) == b"")
    assert not watched.told
    watched.sock.send(b"anybody?")
    await until(lambda: watched.told)
    watched.close()


@pytest.mark.parametrize("first", [0, 1])
async def test_one_that_is_removed_while_another_is_told_is_not_told_any_more(first: int) -> None:
    watch = BreakWatch(asyncio.get_running_loop())
    both: list[Watched] = []

    def drop_all() -> None:
        for watched in both:
            watch.remove(watched.sock.fileno())

    both += [Watched(watch, drop_all), Watched(watch, drop_all)]
    for watched in (both[first], both[1 - first]):
        watched.remote.reset()
    await until(lambda: any(watched.told for watched in both))
    assert sum(len(watched.told) for watched in both) == 1
    for watched in both:
        watched.close()


async def test_where_nothing_is_watched_no_descriptor_is_open() -> None:
    before = open_files()
    watch = BreakWatch(asyncio.get_running_loop())
    broken, stays = Watched(watch), Watched(watch)
    broken.remote.reset()
    await until(lambda: broken.told)
    broken.close()
    stays.close()
    assert open_files() == before
    again = Watched(watch)
    again.remote.reset()
    await until(lambda: again.told)
    again.close()
