"""Where a jump server leads, and what it says when it does not."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from jump_peers import YES, ask, framed, home, proof
from loopback import blackhole, hears, nobody, target, told
from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import DestinationPattern
from tunnelconsole.engine.transport import dialer
from tunnelconsole.engine.transport.lookup import Found
from tunnelconsole.engine.units import Duration
from waiting import until


class NameService:
    """Answers every question alike, once it is allowed to.

    :param hosts: the addresses of every name; with none of them, no name is known.
    """

    def __init__(self, *hosts: str) -> None:
        self._hosts = hosts
        self.answers = asyncio.Event()

    async def find(self, host: str, port: int) -> Found:
        await self.answers.wait()
        if not self._hosts:
            raise socket.gaierror(socket.EAI_NONAME, f"{host}: Name or service not known")
        return [(socket.AF_INET, (address, port)) for address in self._hosts]


def names(monkeypatch: pytest.MonkeyPatch, *hosts: str, silent: bool = False) -> NameService:
    """Puts a :class:`NameService` in place of the system's."""
    service = NameService(*hosts)
    if not silent:
        service.answers.set()
    monkeypatch.setattr(dialer, "LOOKUPS", service)
    return service


@pytest.mark.parametrize(
    "wanted",
    [
        "127.0.0.1",
        "127.0.0.1:",
        ":80",
        "127.0.0.1:http",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "::1:80",
        "a b:80",
        "",
        "\0:1",
    ],
)
async def test_a_target_that_is_not_host_and_port_is_refused_with_the_reason(wanted: str) -> None:
    async with home() as at:
        async with at.calling() as caller:
            assert await ask(caller, wanted) == "target must be host:port"
            assert await caller.read_to_end() == b""
        await hears(at.engine, TargetFailed, "target must be host:port")
        await at.serves()


async def test_a_target_that_is_no_text_is_refused() -> None:
    async with home() as at:
        async with at.calling() as caller:
            await caller.send(await proof(caller) + framed(b"\xff" * 255))
            assert await caller.read(1) == YES
            assert await caller.read_to_end() == b"\x01" + framed(b"target must be host:port")
        await hears(at.engine, TargetFailed, "\\xff")


@pytest.mark.parametrize(
    "changes",
    [
        {"allow": ()},
        {"allow": (DestinationPattern("*.example.com:443"),)},
        {"deny": (DestinationPattern("127.0.0.1:*"),)},
        {"deny": (DestinationPattern("*:1-65535"),)},
    ],
    ids=["default", "other names", "denied address", "denied ports"],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_a_denied_target_is_refused_without_being_dialled(changes: dict[str, Any], host: str) -> None:
    async with home(**changes) as at:
        wanted = f"{host}:{at.far.address.port}"
        async with at.calling() as caller:
            assert await ask(caller, wanted) == f"dial tcp {wanted}: not allowed here"
        event = await hears(at.engine, TargetFailed, "not allowed here")
        assert event.target == wanted
        assert not at.far.served


async def test_a_name_is_judged_by_the_address_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "127.0.0.1")
    async with home(allow=(DestinationPattern("*.example.com:*"),)) as at, at.calling() as caller:
        refusal = await ask(caller, f"rebound.example.com:{at.far.address.port}")
        assert refusal.endswith("not allowed here")
        assert not at.far.served


async def test_of_a_names_addresses_only_those_allowed_are_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "127.0.0.2", "127.0.0.1")
    async with target(host="127.0.0.2") as denied, home(allow=(DestinationPattern("127.0.0.1:*"),)) as at:
        async with at.calling() as caller:
            refusal = await ask(caller, f"two.example:{denied.address.port}")
            assert refusal == f"dial tcp 127.0.0.1:{denied.address.port}: connect: connection refused"
        assert not denied.served


async def test_when_a_names_first_address_refuses_the_next_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "127.0.0.2", "127.0.0.1")
    async with home() as at, at.through(f"two.example:{at.far.address.port}") as caller:
        assert await caller.exchange(b"ping") == b"ping"


async def test_when_a_names_first_address_never_answers_the_next_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    with blackhole() as silent:
        names(monkeypatch, silent.host, "127.0.0.2")
        async with home(dial_timeout=Duration(0.05)) as at, at.calling() as caller:
            refusal = await ask(caller, f"two.example:{silent.port}")
            assert refusal == f"dial tcp 127.0.0.2:{silent.port}: connect: connection refused"


async def test_ipv6_targets_are_reached() -> None:
    async with target(host="::1") as far, home() as at, at.through(far.address) as caller:
        assert await caller.exchange(b"ping") == b"ping"


async def test_a_target_that_refuses_is_told_in_the_words_of_go() -> None:
    closed = nobody()
    async with home() as at:
        async with at.calling() as caller:
            assert await ask(caller, closed) == f"dial tcp {closed}: connect: connection refused"
            assert await caller.read_to_end() == b""
        event = await hears(at.engine, TargetFailed, "connection refused")
        assert (event.peer, event.target) == (caller.name, str(closed))
        await at.serves()


async def test_a_name_that_does_not_resolve_is_told_and_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch)
    async with home() as at:
        async with at.calling() as caller:
            assert await ask(caller, "nowhere.example:80") == "dial tcp: lookup nowhere.example: no such host"
        await hears(at.engine, TargetFailed, "no such host")
        await at.serves()


async def test_a_name_service_that_does_not_answer_is_told_and_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, silent=True)
    async with home(dial_timeout=Duration(0.05)) as at:
        async with at.calling() as caller:
            assert await ask(caller, "slow.example:80") == "dial tcp: lookup slow.example: i/o timeout"
        await hears(at.engine, TargetFailed, "i/o timeout")
        await at.serves()


async def test_a_target_that_never_answers_is_told_and_an_event() -> None:
    with blackhole() as silent:
        async with home(dial_timeout=Duration(0.05)) as at:
            async with at.calling() as caller:
                assert await ask(caller, silent) == f"dial tcp {silent}: i/o timeout"
            await hears(at.engine, TargetFailed, "i/o timeout")
            await at.serves()


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENETUNREACH, "network is unreachable"), (errno.EHOSTUNREACH, "no route to host")],
)
async def test_an_unreachable_target_is_told_and_an_event(
    monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    async with home() as at:
        async with at.calling() as caller:
            said = await proof(caller)
            monkeypatch.setattr(socket.socket, "connect_ex", lambda _socket, _address: code)
            await caller.send(said + framed(b"127.0.0.1:80"))
            reason = f"dial tcp 127.0.0.1:80: connect: {words}"
            assert await caller.read_to_end() == YES + b"\x01" + framed(reason.encode())
        await hears(at.engine, TargetFailed, words)


async def test_a_reason_longer_than_a_frame_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch)
    name = ".".join(["a" * 60] * 4)
    async with home() as at, at.calling() as caller:
        refusal = await ask(caller, f"{name}:80")
        assert refusal == f"dial tcp: lookup {name}: no such host"[:255]


async def test_the_time_for_the_handshake_does_not_run_while_a_name_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = names(monkeypatch, "127.0.0.1", silent=True)
    async with home() as at, at.calling() as caller:
        await caller.send(await proof(caller) + framed(f"slow.example:{at.far.address.port}".encode()))
        await until(lambda: len(at.service.tasks))
        (admission,) = at.service.admissions
        assert admission._timer.cancelled()
        service.answers.set()
        assert await caller.read(2) == YES + YES


async def test_those_whose_targets_are_looked_up_at_the_same_time_do_not_exceed_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = names(monkeypatch, "127.0.0.1", silent=True)
    async with home(limits=LimitSettings(sessions=1)) as at:

        async def newcomer() -> str:
            async with at.calling() as caller:
                refusal = await ask(caller, f"slow.example:{at.far.address.port}")
                answered.append(refusal)
                await until(lambda: len(answered) == 3)
                return refusal

        async def answer_all_at_once() -> None:
            await until(lambda: len(at.service.tasks) == 3)
            service.answers.set()

        answered: list[str] = []
        await asyncio.gather(newcomer(), newcomer(), newcomer(), answer_all_at_once())
        assert sorted(answered) == ["", *["the limit of 1 sessions is reached"] * 2]
        assert len(told(at.engine, TargetFailed)) == 2


async def test_a_client_that_leaves_while_its_target_is_looked_up_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = names(monkeypatch, "127.0.0.1", silent=True)
    async with home() as at:
        async with at.calling() as caller:
            await caller.send(await proof(caller) + framed(f"slow.example:{at.far.address.port}".encode()))
            await until(lambda: len(at.service.tasks))
            caller.reset()
        service.answers.set()
        await until(lambda: not len(at.service.tasks) and not at.service.attached and not at.far.open)


async def test_a_stopped_service_gives_up_look_ups_and_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, silent=True)
    with blackhole() as silent:
        async with home() as at, at.calling() as asking, at.calling() as dialling:
            await asking.send(await proof(asking) + framed(b"slow.example:80"))
            await dialling.send(await proof(dialling) + framed(str(silent).encode()))
            await until(lambda: len(at.service.tasks))
            assert await dialling.read(1) == YES
            await at.engine.stop_service("home")
            assert await asking.broken()
            assert await dialling.broken()
            assert not len(at.service.tasks)
