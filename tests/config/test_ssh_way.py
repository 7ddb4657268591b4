"""Clients that go through an SSH host, in a configuration: what may be said, and each mistake at its key path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnelconsole.config import Report, examine
from tunnelconsole.engine.services.jump.client import JumpClientSettings
from tunnelconsole.engine.services.relay.client import RelayClientSettings
from tunnelconsole.engine.services.tunnel.client import TunnelClientSettings
from tunnelconsole.engine.settings import ServerAddress, SSHHost, via_of

GATE = SSHHost("gate.example.net", 22, "ops")

KINDS = {
    "jump-client": 'secret = "s"\nlisten = "127.0.0.1:0"\n',
    "relay-client": 'target = "127.0.0.1:22"\n',
    "channel-client": 'chid = "desk"\nreceivers = ["me"]\ntarget = "127.0.0.1:22"\n',
    "tunnel-client": 'target = "3000"\n',
    "punch-client": 'room = "desk"\nsecret = "s"\ntarget = "127.0.0.1:22"\n',
}


def report(tmp_path: Path, kind: str, server: str, more: str = "") -> Report:
    """What is said of a client."""
    path = tmp_path / "config.toml"
    path.write_text(f'version = 1\n[service.x]\nkind = "{kind}"\nserver = "{server}"\n{KINDS[kind]}{more}')
    path.chmod(0o600)
    return examine(path)


def problem(tmp_path: Path, kind: str, server: str, more: str = "") -> str:
    """The one mistake."""
    (found,) = report(tmp_path, kind, server, more).problems
    return found


def settings(found: Report) -> object:
    """Those of the client, of which nothing is wrong."""
    assert found.config is not None, found.problems
    return found.config.services["x"]


@pytest.mark.parametrize("kind", ["jump-client", "relay-client", "channel-client"])
def test_a_server_is_named_as_the_ssh_host_calls_it(tmp_path: Path, kind: str) -> None:
    client = settings(report(tmp_path, kind, "ssh://ops@Gate.example.net/127.0.0.1:7000"))
    assert getattr(client, "server") == ServerAddress("127.0.0.1", 7000, GATE)  # noqa: B009 of any kind


def test_a_tunnels_url_stays_the_public_one(tmp_path: Path) -> None:
    client = settings(report(tmp_path, "tunnel-client", "ssh://ops@gate.example.net:22/http://app.example.net:8080"))
    assert isinstance(client, TunnelClientSettings)
    assert str(client.server) == "http://app.example.net:8080"
    assert client.server.address == ServerAddress("app.example.net", 8080, GATE)


def test_connect_may_lead_through_an_ssh_host(tmp_path: Path) -> None:
    client = settings(
        report(tmp_path, "tunnel-client", "http://app.example.net", 'connect = "ssh://ops@gate.example.net/[::1]:80"')
    )
    assert isinstance(client, TunnelClientSettings)
    assert client.connect is not None
    assert (str(client.connect), via_of(client.connect)) == ("[::1]:80", GATE)


def test_the_table_says_how_we_prove_ourselves_and_know_the_host(tmp_path: Path) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "phrase").write_text("open sesame\n")
    (tmp_path / "phrase").chmod(0o600)
    table = '[service.x.ssh]\nidentity = "key"\nknown_hosts = "known"\npassphrase_file = "phrase"\n'
    client = settings(report(tmp_path, "relay-client", "ssh://gate/127.0.0.1:7000", table))
    assert isinstance(client, RelayClientSettings)
    assert client.ssh is not None
    assert (client.ssh.identity, client.ssh.known_hosts) == (str(tmp_path / "key"), str(tmp_path / "known"))
    assert client.ssh.passphrase == "open sesame"
    assert "sesame" not in repr(client)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("ssh://ops@gate.example.net", "names no server behind ssh://ops@gate.example.net:22; write"),
        ("ssh://ops@gate.example.net/", "names no server behind"),
        ("ssh://ops:hush@gate.example.net/127.0.0.1:7000", "takes no password in ssh://user@host; use a key"),
        ("ssh://gate:x/127.0.0.1:7000", "the port 'x' is not a number"),
        ("ssh://gate/127.0.0.1:7000/path", "has a path behind it"),
        ("ssh://gate/127.0.0.1", "has no port"),
        ("ssh://gate/ssh://other/127.0.0.1:7000", "goes through one SSH host, not through several"),
    ],
)
def test_a_server_that_cannot_be_is_told_at_its_key(tmp_path: Path, server: str, said: str) -> None:
    found = problem(tmp_path, "relay-client", server)
    assert found.startswith("service.x.server: ")
    assert said in found
    assert "hush" not in found


def test_a_path_behind_a_tunnels_url_is_told(tmp_path: Path) -> None:
    found = problem(tmp_path, "tunnel-client", "ssh://gate/http://app.example.net/path")
    assert "without a path" in found


def test_a_punch_client_says_why_it_goes_through_no_ssh_host(tmp_path: Path) -> None:
    for key, more in (("server", ""), ("connect", 'connect = "ssh://gate/127.0.0.1:7900"')):
        server = "meet.example.net:7900" if more else "ssh://gate/127.0.0.1:7900"
        found = problem(tmp_path, "punch-client", server, more)
        assert found.startswith(f"service.x.{key}: a rendezvous is not reached through ssh://: it has to see our NAT")


def test_a_target_goes_through_no_ssh_host(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'version = 1\n[service.x]\nkind = "relay-client"\nserver = "a:1"\ntarget = "ssh://gate/127.0.0.1:22"\n'
    )
    (found,) = examine(path).problems
    assert found.startswith("service.x.target: ")


def test_two_ways_are_one_too_many(tmp_path: Path) -> None:
    found = problem(tmp_path, "jump-client", "ssh://gate/127.0.0.1:7000", 'connect = "127.0.0.1:7000"\n')
    assert found.startswith("service.x.server: connect says how it is reached")


@pytest.mark.parametrize("kind", ["jump-client", "relay-client", "channel-client"])
def test_an_ssh_table_without_an_ssh_host_is_a_mistake(tmp_path: Path, kind: str) -> None:
    found = problem(tmp_path, kind, "127.0.0.1:7000", "[service.x.ssh]\n")
    assert found.startswith("service.x.ssh: nothing here goes through an SSH host")


@pytest.mark.parametrize("kind", ["punch-client"])
def test_other_clients_have_no_such_table(tmp_path: Path, kind: str) -> None:
    assert "service.x.ssh: unknown key" in problem(tmp_path, kind, "127.0.0.1:7000", "[service.x.ssh]\n")


def test_files_that_others_can_read_or_change_are_refused(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "key").chmod(0o640)
    (tmp_path / "known").touch()
    (tmp_path / "known").chmod(0o666)
    table = '[service.x.ssh]\nidentity = "key"\nknown_hosts = "known"\n'
    key, known = report(tmp_path, "relay-client", "ssh://gate/127.0.0.1:7000", table).problems
    assert key.startswith(f"service.x.ssh.identity: others can read {tmp_path / 'key'} (mode 0640); run: chmod 600")
    assert known.startswith(f"service.x.ssh.known_hosts: others can write {tmp_path / 'known'}")


def test_a_key_that_is_not_there_is_told_and_known_hosts_may_come_later(tmp_path: Path) -> None:
    table = '[service.x.ssh]\nidentity = "key"\nknown_hosts = "known"\n'
    found = problem(tmp_path, "relay-client", "ssh://gate/127.0.0.1:7000", table)
    assert found == f"service.x.ssh.identity: cannot read {tmp_path / 'key'}: No such file or directory"


def test_a_listener_of_the_same_port_is_not_the_server_behind_an_ssh_host(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'version = 1\n[service.x]\nkind = "jump-client"\nsecret = "s"\nlisten = "127.0.0.1:9527"\n'
        'server = "ssh://gate/127.0.0.1:9527"\n'
    )
    path.chmod(0o600)
    assert isinstance(settings(examine(path)), JumpClientSettings)
