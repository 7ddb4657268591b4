"""Newcomers leave some descriptors to whoever must look after the engine."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys

import pytest

from loopback import nobody
from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.descriptors import RESERVE
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.listener import listen
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.errors import ConnectFailed, ListenFailed


@pytest.mark.parametrize(
    ("allowed", "ceiling"),
    [
        (1_048_576, 1_048_576 - RESERVE),
        (1024, 1024 - RESERVE),
        (256, 192),
        (20, 15),
        (resource.RLIM_INFINITY, sys.maxsize - RESERVE),
    ],
)
def test_the_reserve_is_small_and_where_few_are_allowed_smaller(
    monkeypatch: pytest.MonkeyPatch, allowed: int, ceiling: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, allowed))
    assert descriptors.ceiling() == ceiling


def test_the_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_that_the_system_will_not_raise_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "setrlimit", refused)
    descriptors.raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_there_is_one_to_spare_until_the_reserve_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.dup(0)
    os.close(free)
    monkeypatch.setattr(descriptors, "ceiling", lambda: free + 1)
    assert descriptors.spare(0)
    monkeypatch.setattr(descriptors, "ceiling", lambda: free)
    assert not descriptors.spare(0)
    assert os.dup(0) == free
    os.close(free)


def test_without_any_descriptor_there_is_none_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", refused)
    assert not descriptors.spare(0)


def test_it_is_said_how_to_allow_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert descriptors.exhausted().strerror == (
        "896 of 1024 descriptors are in use, and the others are kept for consoles and commands; "
        "allow more with LimitNOFILE= of the systemd unit, or with ulimit -n"
    )


@pytest.fixture
def only_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "ceiling", lambda: 0)


@pytest.mark.usefixtures("only_the_reserve")
async def test_a_target_is_not_dialled_with_a_descriptor_of_the_reserve() -> None:
    address = nobody()
    with pytest.raises(ConnectFailed, match=f"dial tcp {address}: socket: too many open files"):
        await dial(address.host, address.port)


@pytest.mark.usefixtures("only_the_reserve")
async def test_no_port_is_opened_with_a_descriptor_of_the_reserve() -> None:
    with pytest.raises(ListenFailed, match=r"Too many open files; .* allow more with LimitNOFILE="):
        await listen("127.0.0.1", 0, lambda sock, peer: sock.close(), lambda error: None)


@pytest.mark.usefixtures("only_the_reserve")
async def test_no_pipe_is_made_with_descriptors_of_the_reserve() -> None:
    class Direction:
        def release_if_idle(self) -> None: ...

    plane = Plane(asyncio.get_running_loop())
    assert plane.borrow(Direction()) is None
    assert plane.pipes == 0
    plane.close()
