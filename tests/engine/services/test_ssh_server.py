"""The SSH server to clients that behave, and to others that do not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import asyncssh
import psutil
import pytest
from asyncssh.packet import Boolean, String, UInt32

from loopback import calling
from ssh_peers import SSHDesk, line_of, new_key, ssh_desk
from tunnelconsole.engine.events import PeerRefused
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.ssh.connection import MOST_OPEN
from tunnelconsole.engine.services.ssh.events import LoggedIn, RefusedRequest
from tunnelconsole.engine.services.ssh.proof import MOST_OFFERS
from tunnelconsole.engine.settings import FilePath
from tunnelconsole.engine.units import Duration
from waiting import until

OPEN, REQUEST = 90, 80
"""Numbers of messages (RFC 4250, section 4.1.2): open a channel, a request to the server."""


class Early(asyncssh.SSHClient):
    """A client that sends a packet of its own while it logs in.

    :param packet: the message's number, and what follows it.
    :param key: with which it logs in then.
    """

    def __init__(self, key: asyncssh.SSHKey, *packet: Any) -> None:
        self._key: asyncssh.SSHKey | None = key
        self._packet = packet
        self.has_sent = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def public_key_auth_requested(self) -> asyncssh.SSHKey | None:
        key, self._key = self._key, None
        if key is not None:
            self._connection._auth_complete = True  # else it would keep the packet until then
            self._connection.send_packet(*self._packet)
            self._connection._auth_complete = False
            self.has_sent = True
        return key


async def is_refused(desk: SSHDesk, key: asyncssh.SSHKey, **options: Any) -> None:
    """Tries to log in, and is turned away."""
    with pytest.raises((asyncssh.Error, OSError)):
        async with desk.connect(key, **options):
            raise AssertionError("it was let in")
    await until(lambda: not desk.server.logins)
    assert desk.sessions == []


async def test_a_command_answers_with_its_document_and_its_exit_code(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        done = await connection.run("sessions --json")
        (row,) = json.loads(str(done.stdout))
        assert (row["identity"], row["kind"], row["service"]) == ("alice", "ssh-server", "ssh")
        assert done.exit_status == 0
        failed = await connection.run("kick s99")
        assert failed.exit_status == 1
        assert "there is no session s99" in str(failed.stderr)
        (told,) = desk.told(LoggedIn)
        assert told.startswith("alice logged in from 127.0.0.1:")
        assert " as operate with SHA256:" in told


async def test_who_may_only_look_looks_and_is_told_why_nothing_else(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.viola) as connection:
        assert (await connection.run("services")).exit_status == 0
        refused = await connection.run("stop ssh")
        assert refused.exit_status == 1
        assert "its role is view" in str(refused.stderr)
        assert desk.server.state == "listening"
        (told,) = desk.told(RefusedRequest)
        assert told.startswith("refused viola from 127.0.0.1:")


async def test_an_operator_steers(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.viola), desk.connect(desk.alice) as connection:
        session = next(key for key, each in desk.engine.node.sessions.sessions.items() if each.identity == "viola")
        assert (await connection.run(f"kick {session}")).exit_status == 0
        await until(lambda: desk.sessions == ["alice"])


async def test_a_key_that_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk:
        await is_refused(desk, new_key("mallory"))
        (told,) = desk.told(PeerRefused)
        assert "none of its keys is in authorized_keys" in told


@pytest.mark.parametrize(
    ("option", "why"), [('expiry-time="20200101"', "has expired"), ('from="10.0.0.0/8"', "from its address")]
)
async def test_a_key_that_may_not_come_now_or_from_here_is_refused(tmp_path: Path, option: str, why: str) -> None:
    async with ssh_desk(tmp_path) as desk:
        desk.write_keys(f"{option} {line_of(desk.alice)}")
        await is_refused(desk, desk.alice)
        (told,) = desk.told(PeerRefused)
        assert "the key of alice" in told
        assert why in told


async def test_a_key_that_is_taken_out_of_the_file_opens_nothing_any_more(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk:
        async with desk.connect(desk.alice):
            desk.write_keys(line_of(desk.viola))
        await until(lambda: desk.sessions == [])
        await is_refused(desk, desk.alice)


@pytest.mark.parametrize("options", [{"preferred_auth": "password", "password": "x"}, {"preferred_auth": "none"}])
async def test_there_is_no_way_in_but_a_key(tmp_path: Path, options: dict[str, Any]) -> None:
    async with ssh_desk(tmp_path) as desk:
        await is_refused(desk, desk.alice, **options)


async def test_a_key_that_was_offered_is_not_one_that_was_proven(tmp_path: Path) -> None:
    """CVE-2024-45337 of x/crypto: an offer of another's key, then a proof of one's own."""
    async with ssh_desk(tmp_path) as desk:
        (pretended,) = asyncssh.load_keypairs([desk.viola])
        pretended.public_data = desk.alice.public_data  # offered as alice's, and signed by viola's
        await is_refused(desk, desk.alice, client_keys=[pretended])
        async with desk.connect(desk.viola, client_keys=[pretended, desk.viola]) as connection:
            await until(lambda: desk.sessions == ["viola"])
            assert (await connection.run("reload")).exit_status == 1


@pytest.mark.parametrize(
    "packet",
    [
        (OPEN, String("session"), UInt32(0), UInt32(65536), UInt32(32768)),
        (OPEN, String("direct-tcpip"), UInt32(0), UInt32(65536), UInt32(32768)),
        (REQUEST, String("tcpip-forward"), Boolean(True), String("127.0.0.1"), UInt32(0)),
    ],
)
async def test_what_is_asked_before_a_key_is_proven_is_refused(tmp_path: Path, packet: tuple[Any, ...]) -> None:
    """CVE-2018-7749 of asyncssh: requests served before authentication."""
    async with ssh_desk(tmp_path) as desk:
        early = Early(desk.alice, *packet)
        await is_refused(desk, desk.alice, client_keys=None, client_factory=lambda: early)
        assert early.has_sent
        assert desk.server.consoles == 0
        (told,) = desk.told(PeerRefused)
        assert "before authentication was complete" in told


async def test_who_offers_key_after_key_is_turned_away(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk:
        await is_refused(desk, desk.alice, client_keys=[new_key("x") for _ in range(MOST_OFFERS)] + [desk.alice])
        (told,) = desk.told(PeerRefused)
        assert f"more than {MOST_OFFERS} keys" in told


async def test_nothing_is_forwarded_and_it_is_said(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="forwards nothing"):
            await connection.open_connection("127.0.0.1", 22)
        with pytest.raises(asyncssh.ChannelOpenError, match="forwards TCP and nothing else"):
            await connection.open_unix_connection("/run/x")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 22)
        assert len(desk.told(RefusedRequest)) == 3
        assert (await connection.run("status")).exit_status == 0


async def test_there_are_no_files_and_no_shell(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        with pytest.raises(asyncssh.SFTPError):
            await connection.start_sftp_client()
        for command in ("sh", "scp -f /etc/passwd", "cat /etc/passwd", ""):
            done = await connection.run(command)
            assert done.exit_status == 1
            assert "tunnelconsole: " in str(done.stderr)


async def test_the_console_needs_a_terminal_and_restrict_allows_none(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk:
        desk.write_keys(f"restrict {line_of(desk.alice)}")
        async with desk.connect(desk.alice) as connection:
            done = await connection.run(None)
            assert "needs a terminal" in str(done.stderr)
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.run(None, term_type="xterm")
            assert (await connection.run("status")).exit_status == 0


async def test_without_a_console_there_is_none(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, console=False) as desk, desk.connect(desk.alice) as connection:
        assert "console = false" in str((await connection.run("status")).stderr)


async def test_so_many_consoles_and_commands_and_no_more(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, consoles=1) as desk, desk.connect(desk.alice) as connection:
        async with await connection.create_process("events --follow --json"):
            await until(lambda: desk.server.consoles == 1)
            refused = await connection.run("status")
            assert "the limit of 1 consoles" in str(refused.stderr)
        await until(lambda: desk.server.consoles == 0)
        assert (await connection.run("status")).exit_status == 0


async def test_so_many_sessions_and_no_more(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, limits=LimitSettings(sessions=1)) as desk, desk.connect(desk.alice):
        await until(lambda: desk.sessions == ["alice"])
        async with desk.connect(desk.viola) as connection:
            await connection.wait_closed()
        assert desk.sessions == ["alice"]
        assert "the limit of 1 sessions" in desk.told(PeerRefused)[0]


async def test_a_flood_of_channels_in_one_connection_is_refused(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        opened = [connection.create_process("events --follow") for _ in range(MOST_OPEN + 5)]
        found = await asyncio.gather(*opened, return_exceptions=True)
        refused = [each for each in found if isinstance(each, asyncssh.ChannelOpenError)]
        assert len(refused) == 5


async def test_a_kick_ends_the_session_and_says_so(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        process = await connection.create_process("events --follow --json")
        await until(lambda: desk.server.consoles == 1 and desk.engine.node.sessions.channels)
        (session,) = desk.engine.node.sessions.sessions
        desk.engine.kick(session)
        assert "kicked by an operator" in await process.stderr.read()
        await until(lambda: desk.sessions == [] and desk.server.consoles == 0)
        await until(lambda: not desk.engine.node.sessions.channels)


async def test_a_client_that_breaks_off_leaves_nothing_running(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk:
        async with desk.connect(desk.alice) as connection:
            await connection.create_process("events --follow --json", term_type="xterm")
            await until(lambda: desk.engine.node.sessions.channels)
            connection.abort()
        await until(lambda: desk.sessions == [] and desk.server.consoles == 0)


async def test_forty_sessions_that_come_and_go_leave_nothing(tmp_path: Path) -> None:
    def there() -> tuple[int, int, int]:
        """Descriptors, terminals included, tasks, and processes."""
        return psutil.Process().num_fds(), len(asyncio.all_tasks()), len(psutil.Process().children())

    async def come_and_go(desk: SSHDesk, number: int) -> None:
        async with desk.connect(desk.alice if number % 2 else desk.viola) as connection:
            process = await connection.create_process(term_type="xterm", term_size=(80, 24), encoding=None)
            await until(lambda: desk.server.consoles == 1)
            if number % 8 == 0:
                await process.stdout.read(1)  # it runs
            if number % 3:
                connection.abort()
        await until(lambda: desk.server.consoles == 0)

    async with ssh_desk(tmp_path) as desk:
        await come_and_go(desk, 0)  # what is made once is made
        await until(lambda: not desk.server.attached)
        before = there()
        for number in range(40):
            await come_and_go(desk, number)
        sessions = desk.engine.node.sessions
        await until(lambda: not (sessions.sessions or sessions.channels or desk.server.attached or desk.server.logins))
        await until(lambda: all(now <= then for now, then in zip(there(), before, strict=True)))
        assert len(desk.told(LoggedIn)) == 41


async def test_who_asks_without_end_and_reads_nothing_is_not_answered_without_end(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        transport = cast(asyncio.Transport, connection._transport)  # can be told to read no more
        await until(lambda: desk.server.attached)
        (session,) = desk.server.attached
        login = session.end.__self__  # type: ignore[attr-defined]
        below = login.connection.below
        transport.pause_reading()
        for _ in range(200):
            for _ in range(500):
                connection.send_packet(REQUEST, String("what?" + "?" * 100), Boolean(True))
            if transport.get_write_buffer_size():
                break
            await asyncio.sleep(0)  # noqa: TID251 - lets the server take it
        assert below.get_write_buffer_size() < 1024 * 1024
        connection.abort()
        await until(lambda: desk.sessions == [])


async def test_a_service_that_stops_ends_its_sessions(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk, desk.connect(desk.alice) as connection:
        await connection.create_process("events --follow --json")
        await until(lambda: desk.engine.node.sessions.channels)
        await desk.engine.stop_service("ssh")
        await connection.wait_closed()
        await until(lambda: desk.sessions == [] and not desk.engine.node.sessions.channels)


async def test_a_silent_newcomer_is_turned_away_in_time(tmp_path: Path) -> None:
    limits = LimitSettings(handshake_timeout=Duration(0.1))
    async with ssh_desk(tmp_path, limits=limits) as desk, calling(desk.server.address) as caller:
        assert (await caller.read(8)) == b"SSH-2.0-"
        await until(lambda: desk.told(PeerRefused))
        assert "said nothing of SSH" in desk.told(PeerRefused)[0]


async def test_who_would_wait_too_long_for_a_login_is_turned_away_with_the_reason(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk:
        door = desk.server._door
        assert door is not None
        while door.throttle.begin("127.0.0.1") is not None:
            pass
        async with calling(desk.server.address) as caller:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await caller.read(8)
        (told,) = desk.told(PeerRefused)
        assert "too many logins at once from its address" in told
        assert not desk.server.logins


async def test_without_the_file_of_keys_it_does_not_listen(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, authorized_keys=FilePath(str(tmp_path / "none"))) as desk:
        assert desk.server.state == "backoff"
        assert "cannot be read: No such file" in (desk.server.error or "")
        assert "service.ssh.authorized_keys" in (desk.server.error or "")
