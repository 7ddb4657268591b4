"""Dialling through an SSH host, a real one: what gets through, and what is said when nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

import system_tools
from damaged_keys import damaged_rsa_line
from installed import Program
from loopback import BULK, FREE, Target, nobody, target
from ssh_gate import Gate, gate_in
from sshd import TOOLS
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.services.server_dialer import dialer_of
from tunnelconsole.engine.services.ssh.server import SSHServerSettings
from tunnelconsole.engine.settings import (
    DestinationPattern,
    FilePath,
    Fingerprint,
    HostPort,
    Secret,
    ServerAddress,
    SSHSettings,
    TLSSettings,
)
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, HostKeyRejected
from waiting import Standstill, until

pytestmark = pytest.mark.system(*TOOLS)

SECRET = Secret("only for this test")
TWENTY_MB = BULK * 3 + bytes(2_000_000)
PIECE = 64 * 1024
DISCONNECT = 1
"""Number of a message (RFC 4253, section 11.1)."""


@asynccontextmanager
async def dialled(gate: Gate, where: HostPort, settings: SSHSettings | None = None) -> AsyncIterator[End]:
    """A connection to ``where`` through the gate."""
    async with dialer_of(gate.to(where), None, None, settings or gate.settings(), 10.0) as dialer:
        end = await dialer.dial()
        try:
            yield end
        finally:
            end.close()


async def refusal(gate: Gate, where: HostPort, settings: SSHSettings | None = None) -> Exception:
    """Why there is no connection."""
    with pytest.raises((ConnectFailed, CredentialsRefused)) as caught:
        async with dialled(gate, where, settings):
            pass
    return caught.value


async def to_end(end: End) -> bytes:
    """All that comes, until the end."""
    pieces = []
    async with asyncio.timeout(30):
        while piece := await receive(end):
            pieces.append(piece)
    return b"".join(pieces)


# What is dialled.


async def test_bytes_and_both_half_closes_get_through(gate: Gate) -> None:
    async with target() as server, dialled(gate, server.address) as end:
        assert end.path == "ssh"
        reading = asyncio.gather(to_end(end))
        await send_all(end, BULK)
        end.send_eof()
        assert (await reading)[0] == BULK


async def test_what_was_written_before_a_close_arrives(gate: Gate) -> None:
    got = bytearray()

    async def collect(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            got.extend(data)

    async with target(collect) as server:
        async with dialled(gate, server.address) as end:
            await send_all(end, BULK)
        await until(lambda: bytes(got) == BULK)


async def test_all_connections_share_one_login_even_those_that_come_at_once(gate: Gate) -> None:
    async with target() as server, dialer_of(gate.to(server.address), None, None, gate.settings(), 10.0) as dialer:
        ends = await asyncio.gather(*(dialer.dial() for _ in range(5)))
        await until(lambda: server.open == 5)
        assert len({process.ppid() for process in gate.sshd.connections} - {_own(gate)}) <= 1
        for end in ends:
            end.close()
        await until(lambda: not server.open)


def _own(gate: Gate) -> int:
    return gate.sshd.pid


async def test_a_name_is_looked_up_by_the_ssh_host(gate: Gate) -> None:
    error = await refusal(gate, HostPort("no-such-host.invalid", 80))
    assert "would not connect to no-such-host.invalid:80" in str(error)


async def test_a_slow_reader_holds_its_sender_up(gate: Gate) -> None:
    taken = asyncio.Event()
    sent = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taken.wait()
        await reader.readexactly(len(TWENTY_MB))
        writer.write(b"all of it")
        await writer.drain()

    async def send(end: End) -> None:
        nonlocal sent
        for start in range(0, len(TWENTY_MB), PIECE):
            await send_all(end, TWENTY_MB[start : start + PIECE])
            sent += PIECE

    async with target(slow) as server, dialled(gate, server.address) as end:
        sending = asyncio.gather(send(end))
        await until(lambda: sent)
        await until(Standstill(lambda: sent))
        assert sent < len(TWENTY_MB) // 2, "it vanished into buffers"
        taken.set()
        await sending
        assert await receive(end) == b"all of it"


async def test_who_does_not_read_holds_the_server_up(gate: Gate) -> None:
    sent = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for start in range(0, len(TWENTY_MB), PIECE):
            writer.write(TWENTY_MB[start : start + PIECE])
            await writer.drain()
            sent += PIECE

    async with target(pour) as server, dialled(gate, server.address) as end:
        await until(lambda: sent)
        await until(Standstill(lambda: sent))
        assert sent < len(TWENTY_MB)
        assert await to_end(end) == TWENTY_MB


async def test_a_connection_that_is_lost_with_its_ssh_host_is_a_reset_and_no_end(tmp_path: Path) -> None:
    with gate_in(tmp_path) as gate:
        async with target() as server, dialled(gate, server.address) as end:
            await send_all(end, b"half of")
            assert await receive(end) == b"half of"
            gate.sshd.is_killed()
            with pytest.raises(ConnectionResetError):
                await to_end(end)


async def test_a_connection_that_is_lost_while_nobody_reads_it_is_a_reset_too(tmp_path: Path) -> None:
    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    with gate_in(tmp_path) as gate:
        async with target(pour) as server, dialled(gate, server.address) as end:
            await receive(end)
            gate.sshd.is_killed()
            with pytest.raises(ConnectionResetError):
                await to_end(end)


async def test_a_dial_over_a_connection_that_is_just_gone_logs_in_again(gate: Gate) -> None:
    async with target() as server, dialer_of(gate.to(server.address), None, None, gate.settings(), 10.0) as dialer:
        first = await dialer.dial()
        gate.sshd.connections_are_killed()
        second = await dialer.dial()
        await send_all(second, b"here")
        assert await receive(second) == b"here"
        first.close()
        second.close()


# What is said when there is none.


async def test_a_host_that_is_not_known_is_told_with_its_fingerprint_and_how_to_know_it(
    gate: Gate, tmp_path: Path
) -> None:
    error = await refusal(gate, nobody(), gate.settings(known_hosts=tmp_path / "none"))
    assert isinstance(error, HostKeyRejected)
    assert f"the SSH host {gate.sshd.address} is not known" in error.message
    assert gate.sshd.fingerprint in error.message
    assert f"ssh-keyscan -p {gate.sshd.port} 127.0.0.1 >> {tmp_path}/none" in error.hint


async def test_a_host_with_another_key_than_the_known_one_is_refused(gate: Gate, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{gate.sshd.port} {other.export_public_key().decode()}")
    error = await refusal(gate, nobody(), gate.settings(known_hosts=known))
    assert isinstance(error, HostKeyRejected)
    assert f"another key than the known one: {gate.sshd.fingerprint} (ssh-ed25519)" in error.message
    assert other.get_fingerprint() in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{gate.sshd.port}' -f {known}" in error.hint


async def test_a_key_that_is_known_of_the_address_alone_proves_nothing_of_a_name(gate: Gate, tmp_path: Path) -> None:
    via = f"ssh://localhost:{gate.sshd.port}"  # which is 127.0.0.1, and that one's key is known
    gate.url, kept = via, gate.url
    try:
        error = await refusal(gate, nobody())
    finally:
        gate.url = kept
    assert "is not known" in str(error)


async def test_a_key_that_is_revoked_is_refused(gate: Gate, tmp_path: Path) -> None:
    known = tmp_path / "known"
    line = gate.sshd.known_hosts.read_text().splitlines()[1]
    known.write_text(f"{line}\n@revoked {line}\n")
    assert "Host key is revoked" in str(await refusal(gate, nobody(), gate.settings(known_hosts=known)))


async def test_lines_that_nobody_can_read_do_not_hide_the_others(gate: Gate, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"# hosts\n|1|broken\nnonsense\n\n{gate.sshd.known_hosts.read_text()}")
    async with target() as server, dialled(gate, server.address, gate.settings(known_hosts=known)):
        pass


async def test_damaged_keys_of_other_hosts_do_not_matter_and_one_of_this_host_is_told(
    gate: Gate, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    damaged = [f"{name} {damaged_rsa_line()}\n" for name in ("other", "gate*,127.1", "@revoked here")]
    known.write_text("".join(damaged) + gate.sshd.known_hosts.read_text())
    async with target() as server, dialled(gate, server.address, gate.settings(known_hosts=known)):
        pass
    known.write_text("".join(damaged) + f"[127.0.0.1]:{gate.sshd.port} {damaged_rsa_line()}\n")
    error = await refusal(gate, nobody(), gate.settings(known_hosts=known))
    assert isinstance(error, HostKeyRejected)
    assert f"the known one cannot be read (line 4 of {known})" in error.message


async def test_a_key_that_the_host_does_not_want_is_told_with_the_user_and_what_to_do(
    gate: Gate, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    stranger.chmod(0o600)
    error = await refusal(gate, nobody(), gate.settings(identity=stranger))
    assert isinstance(error, CredentialsRefused)
    assert f"{gate.url} refused our key (user " in str(error)
    assert "authorized_keys" in str(error)


async def test_without_any_key_that_is_told(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    settings = SSHSettings(known_hosts=FilePath(gate.sshd.known_hosts))
    assert "there is none to show" in str(await refusal(gate, nobody(), settings))


async def test_the_users_own_key_and_known_hosts_are_found_in_the_home_folder(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    own = tmp_path / ".ssh"
    own.mkdir()
    (own / "id_ed25519").write_bytes(gate.sshd.identity.read_bytes())
    (own / "id_ed25519").chmod(0o600)
    (own / "known_hosts").write_bytes(gate.sshd.known_hosts.read_bytes())
    async with target() as server, dialled(gate, server.address, SSHSettings()) as end:
        await send_all(end, b"here")
        assert await receive(end) == b"here"


async def test_an_own_key_that_others_can_read_is_passed_over_and_told_where_nothing_else_worked(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    own = tmp_path / ".ssh"
    own.mkdir()
    key, other = own / "id_ed25519", own / "id_ecdsa"
    key.write_bytes(gate.sshd.identity.read_bytes())
    key.chmod(0o644)
    other.write_text("nonsense")
    other.chmod(0o600)
    settings = SSHSettings(known_hosts=FilePath(gate.sshd.known_hosts))
    error = await refusal(gate, nobody(), settings)
    assert isinstance(error, CredentialsRefused)
    assert "there is none to show" in error.message
    assert f"passed over: others can read {key} (mode 0644); run: chmod 600 {key}" in error.message
    assert f"passed over: {other} cannot be used: " in error.message
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(own / "id_rsa")
    (own / "id_rsa").chmod(0o600)
    refused = str(await refusal(gate, nobody(), settings))
    assert "refused our key" in refused
    assert f"others can read {key}" in refused
    key.chmod(0o600)
    async with target() as server, dialled(gate, server.address, settings):
        pass


async def test_what_an_ssh_host_says_at_the_end_is_final_by_its_kind_and_not_by_its_words() -> None:
    async def said(error: asyncssh.DisconnectError) -> type[Exception]:
        async def busy(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fields = UInt32(error.code) + String(error.reason) + String("")
            payload = bytes([DISCONNECT]) + fields
            padding = 16 - (5 + len(payload)) % 8
            writer.write(b"SSH-2.0-Busy\r\n" + UInt32(1 + len(payload) + padding) + bytes([padding]) + payload)
            writer.write(bytes(padding))
            await writer.drain()

        async with target(busy) as server:
            with pytest.raises((ConnectFailed, CredentialsRefused)) as caught:
                await _dial_through(server)
            assert error.reason in str(caught.value)
            return caught.type

    assert await said(asyncssh.DisconnectError(11, "authentication service is restarting")) is ConnectFailed
    assert await said(asyncssh.DisconnectError(2, "Too many authentication failures")) is CredentialsRefused
    assert await said(asyncssh.DisconnectError(14, "you have no way in")) is CredentialsRefused
    assert await said(asyncssh.DisconnectError(15, "no such user")) is CredentialsRefused


async def test_an_encrypted_key_needs_its_passphrase_which_is_never_shown(gate: Gate, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    key = asyncssh.read_private_key(gate.sshd.identity)
    key.write_private_key(sealed, passphrase="open sesame", rounds=50)  # with fewer bcrypt warns
    sealed.chmod(0o600)
    given = gate.settings(identity=sealed)
    assert f"the private key {sealed} is encrypted" in str(await refusal(gate, nobody(), given))
    wrong = SSHSettings(identity=given.identity, known_hosts=given.known_hosts, passphrase=Secret("open barley"))
    error = str(await refusal(gate, nobody(), wrong))
    assert f"the private key {sealed} cannot be used" in error
    assert "barley" not in error
    right = SSHSettings(identity=given.identity, known_hosts=given.known_hosts, passphrase=Secret("open sesame"))
    async with target() as server, dialled(gate, server.address, right):
        pass


@pytest.mark.parametrize(("mode", "said"), [(0o640, "others can read the private key"), (None, "No such file")])
async def test_a_key_that_others_can_read_or_that_is_not_there_is_not_used(
    gate: Gate, tmp_path: Path, mode: int | None, said: str
) -> None:
    key = tmp_path / "key"
    if mode is not None:
        key.write_bytes(gate.sshd.identity.read_bytes())
        key.chmod(mode)
    assert said in str(await refusal(gate, nobody(), gate.settings(identity=key)))


async def test_a_server_that_is_not_there_is_the_ssh_hosts_to_tell(gate: Gate) -> None:
    closed = nobody()
    error = await refusal(gate, closed)
    assert f"the SSH host {gate.sshd.address} would not connect to {closed}: Connection refused" in str(error)
    assert "is the server running there" in str(error)


async def test_an_ssh_host_that_forwards_nothing_is_told_so(tmp_path: Path) -> None:
    with gate_in(tmp_path, "AllowTcpForwarding no\n") as gate:
        error = await refusal(gate, nobody())
        assert "administratively prohibited" in str(error)
        assert "AllowTcpForwarding" in str(error)


async def test_an_ssh_host_that_is_not_there_is_told_by_its_address(tmp_path: Path) -> None:
    with gate_in(tmp_path) as gate:
        gate.sshd.is_killed()
        error = await refusal(gate, nobody())
        assert f"cannot reach the SSH host {gate.sshd.address}: dial tcp" in str(error)


async def test_something_else_than_an_ssh_server_is_told_so() -> None:
    async def web(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with target(web) as server:
        with pytest.raises(ConnectFailed, match=r"cannot reach the SSH host .*is there an SSH server at that port"):
            await _dial_through(server)


async def _dial_through(host: Target, timeout: float = 10.0) -> None:
    where = ServerAddress.parse(f"ssh://ops@{host.address}/127.0.0.1:1")
    async with dialer_of(where, None, None, None, timeout) as dialer:
        await dialer.dial()


async def test_an_ssh_host_that_says_nothing_is_given_up_after_the_time_for_it_all() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with target(silent) as server:
        with pytest.raises(ConnectFailed, match=r"the SSH host .* did not let us in within 0\.2 s"):
            await _dial_through(server, 0.2)


async def test_a_server_that_takes_too_long_is_given_up_and_its_channel_with_it(gate: Gate) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    pinned = TLSSettings(fingerprint=Fingerprint("ab" * 32))
    async with (
        target(silent) as server,
        dialer_of(gate.to(server.address), None, pinned, gate.settings(), 1.0) as dialer,
    ):
        with pytest.raises(ConnectFailed, match="the server did not answer within 1 s"):
            await dialer.dial()
        await until(lambda: server.served == 1 and not server.open)


@pytest.mark.system("ssh-agent", "ssh-add")
async def test_an_agent_proves_who_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    agent = tmp_path / "agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    program = Program(tmp_path)
    try:
        gate = Gate(program)
        settings = SSHSettings(known_hosts=FilePath(gate.sshd.known_hosts))
        program.start_other([system_tools.path_of("ssh-agent"), "-D", "-a", str(agent)])
        await until(agent.exists)
        async with target() as server:
            assert "there is none to show" in str(await refusal(gate, server.address, settings))
            add = [system_tools.path_of("ssh-add"), "-q", str(gate.sshd.identity)]
            program.run_other(add, env={"SSH_AUTH_SOCK": str(agent)}).ok()
            async with dialled(gate, server.address, settings):
                pass
    finally:
        program.close()


async def test_an_ssh_server_of_ours_is_an_ssh_host_too(gate: Gate, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(gate.sshd.identity.with_suffix(".pub").read_text())
    keys.chmod(0o600)
    services = {
        "ssh": SSHServerSettings(listen=FREE, authorized_keys=FilePath(keys), forward=True),
        "home": JumpServerSettings(listen=FREE, secret=Secret("s"), allow=(DestinationPattern("127.0.0.1:*"),)),
    }
    async with Engine(services, state_dir=tmp_path / "state") as engine, target() as server:
        await engine.settled()
        where = HostPort.parse(engine.services["ssh"].address)
        own = asyncssh.read_private_key(tmp_path / "state" / "ssh" / "ssh.key").export_public_key().decode()
        known = tmp_path / "known"
        known.write_text(f"[{where.host}]:{where.port} {own}")
        address = ServerAddress.parse(f"ssh://ops@{where}/{server.address}")
        async with dialer_of(address, None, None, gate.settings(known_hosts=known), 10.0) as dialer:
            end = await dialer.dial()
            reading = asyncio.gather(to_end(end))
            await send_all(end, BULK)
            end.send_eof()
            assert (await reading)[0] == BULK
            end.close()
