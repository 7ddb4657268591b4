"""The socket of those who may only look: the engine changes nothing for them, whatever they ask."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from controlled import controlled
from loopback import FREE
from tunnelconsole.control import messages
from tunnelconsole.control.attempts import GetAttempts, PunchAgain
from tunnelconsole.control.bans import BanAddress, LiftBan
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.roles import READING, refusal
from tunnelconsole.control.steering import DrainService, SetLimits
from tunnelconsole.control.tokens import ChangeToken, CreateToken, RevokeToken, RotateToken
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.errors import RequestRefused

STEERING: list[messages.Request] = [
    messages.StartService("edge"),
    messages.StopService("edge"),
    messages.RestartService("edge"),
    DrainService("edge"),
    SetLimits(target="edge", sessions=1),
    messages.KickSession("s1"),
    messages.CloseChannel("c1"),
    messages.SetReceivers("s1", []),
    messages.ReplayExchange("x1"),
    PunchAgain("edge"),
    BanAddress("192.0.2.7", 60.0),
    LiftBan("192.0.2.7"),
    messages.ReloadConfig(),
    messages.StopEngine(),
    CreateToken("alice", {}),
    ChangeToken("alice"),
    RotateToken("alice"),
    RevokeToken("alice"),
]


def test_every_request_there_is_either_reads_or_steers() -> None:
    assert {*READING} | {type(request) for request in STEERING} == set(get_args(messages.Request))
    assert GetAttempts in READING


@pytest.mark.parametrize("request_", STEERING, ids=lambda request: type(request).__name__)
def test_who_may_look_may_not_steer_and_an_operator_may(request_: messages.Request) -> None:
    assert refusal("view", request_) is not None
    assert refusal("operate", request_) is None


def test_secrets_are_for_operators() -> None:
    assert refusal("view", messages.GetExchange("x1")) is None
    assert refusal("view", messages.GetExchange("x1", reveal=True)) is not None
    assert refusal("operate", messages.GetExchange("x1", reveal=True)) is None


async def test_at_the_socket_for_looking_the_engine_changes_nothing(tmp_path: Path) -> None:
    async with Engine({"edge": RelayServerSettings(listen=FREE)}, state_dir=tmp_path / "state") as engine:
        await engine.settled()
        async with controlled(engine, tmp_path):
            assert engine.node.control is not None
            assert await engine.node.control("operate") == tmp_path / "control.sock"
            path = await engine.node.control("view")
            assert await engine.node.control("view") == path
            assert path.stat().st_mode & 0o777 == 0o600
            async with await ControlClient.connect(path) as client:
                with pytest.raises(RequestRefused, match="its role is view"):
                    await client.ask(messages.StopService("edge"))
                assert isinstance(await client.ask(messages.GetServices()), messages.Services)
                assert engine.services["edge"].state == "listening"
            async with await ControlClient.connect(path) as client:
                updates = client.watch(messages.Watch(["services"]))
                assert (await anext(updates)).services
        assert not path.exists()
