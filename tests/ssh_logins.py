"""Clients that log in with more than a key: somebody who answers, and somebody who says whatever a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import asyncssh
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

from waiting import PATIENCE

REQUEST, INFO_REQUEST, INFO_RESPONSE = 50, 60, 61
"""Numbers of messages (RFC 4252, section 6; RFC 4256, section 5)."""


class Person(asyncssh.SSHClient):
    """Proves a key, gives one answer after the other, and then gives up.

    :param answers: each for one question; a list of texts where they are not one.
    """

    def __init__(self, *answers: str | list[str]) -> None:
        self._answers = list(answers)
        self.prompts: list[Sequence[tuple[str, bool]]] = []
        """What was asked, and whether the answer was to be shown."""
        self.ways: list[bytes] = []
        """What the server took last, among the ways to log in."""

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connection = conn

    async def kbdint_auth_requested(self) -> str | None:
        self.ways = list(self.connection._auth_methods)
        return "" if self._answers else None

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str]:
        self.prompts.append(prompts)
        answer = self._answers.pop(0)
        return answer if isinstance(answer, list) else [answer]


class Talk:
    """What a client and the server say to each other of logging in, one message at a time.

    Each method gives what the server said to it: ``refused``, ``go on`` (a partial success), ``asked`` with the
    question, ``let in``, or ``cut off``.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        self.username = "ops"
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        self._succeeded = False
        of_client = cast(Any, connection)
        of_client._auth = self
        of_client.try_next_auth = self._has_failed

    def say_key(self, key: asyncssh.SSHKey) -> Awaitable[None]:
        """Proves a key, and does not wait for an answer."""
        (pair,) = asyncssh.load_keypairs([key])
        self.connection._username = self.username
        fields = Boolean(True), String("ssh-ed25519"), String(pair.public_data)
        return self.connection.send_userauth_request(b"publickey", *fields, key=pair)

    def say_ask(self) -> Awaitable[None]:
        """Wants to be asked, and does not wait for that."""
        self.connection._username = self.username
        return self.connection.send_userauth_request(b"keyboard-interactive", String(""), String(""))

    def say_answer(self, *answers: str, number: int | None = None) -> None:
        """Answers, and does not wait for what comes of it.

        :param number: of the answers, when it is not to be right.
        """
        given = UInt32(len(answers) if number is None else number), *(String(answer) for answer in answers)
        self.connection.send_userauth_packet(INFO_RESPONSE, *given)

    async def proves(self, key: asyncssh.SSHKey) -> str:
        await self.say_key(key)
        return await self.hears()

    async def asks(self) -> str:
        await self.say_ask()
        return await self.hears()

    async def answers(self, *answers: str, number: int | None = None) -> str:
        self.say_answer(*answers, number=number)
        return await self.hears()

    async def hears(self) -> str:
        """What the server says next."""
        async with asyncio.timeout(PATIENCE):
            return await self._heard.get()

    def ends(self) -> None:
        """Nothing will be heard any more."""
        self._heard.put_nowait("cut off")

    def _has_failed(self, next_method: bool = False) -> None:
        self._heard.put_nowait("go on" if self._succeeded else "refused")
        self._succeeded = False

    # What asyncssh wants of whoever logs in.

    def auth_failed(self) -> None:
        self._succeeded = False

    def auth_succeeded(self) -> None:
        self._succeeded = True

    def cancel(self) -> None:
        self._heard.put_nowait("let in" if self._succeeded else "cut off")

    def log_received_packet(self, *packet: object) -> None:
        """Nobody reads it."""

    def process_packet(self, number: int, _: int, packet: SSHPacket) -> bool:
        if number != INFO_REQUEST:
            return False
        for _ in range(3):
            packet.get_string()
        assert packet.get_uint32() == 1
        self._heard.put_nowait(f"asked {packet.get_string().decode()}")
        return True


class Stranger(asyncssh.SSHClient):
    """Logs in as a script has it.

    :param script: what it says; it is cut off at its end, unless it was let in.
    """

    def __init__(self, script: Callable[[Talk], Awaitable[None]]) -> None:
        self._script = script
        self._talk: Talk | None = None
        self.has_finished = False
        self.failed: Exception | None = None
        """What was wrong with the script, or with what it heard."""

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        if self._talk is not None:
            self._talk.ends()

    async def public_key_auth_requested(self) -> None:
        self._talk = Talk(self._connection)
        try:
            await self._script(self._talk)
            self.has_finished = True
        except (AssertionError, TimeoutError) as error:
            self.failed = error
        if not self._connection._auth_complete:
            self._connection.abort()
