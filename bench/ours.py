"""The routes through TunnelConsole: the installed program, started as a user starts it."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.openssh import Keys, remote_forward
from bench.processes import BenchError, Program, free_port, memory, running, wait_until
from bench.route import Route

COMMAND_TIME = 30.0
"""Seconds one command of ours may take."""

READY_TIME = 30.0
"""Seconds until a daemon of ours must have said ``ready``."""


TUNNELS_TIME = 120.0
"""Seconds until all tunnels whose memory is measured must be there."""


def tunnelconsole_command() -> list[str]:
    """The installed program that belongs to this interpreter."""
    return [str(Path(sys.executable).with_name("tunnelconsole"))]


def start_daemon(
    stack: ExitStack, folder: Path, name: str, services: str, environment: Mapping[str, str] | None = None
) -> tuple[Program, Path]:
    """Starts a daemon of ours with these services, and waits until it says that it is ready."""
    home = folder / f"{name}-{secrets.token_hex(4)}"
    home.mkdir()
    config = home / "config.toml"
    config.write_text(
        f'version = 1\n\n[engine]\nstate_dir = "{home}"\ncontrol = "{home}/control.sock"\nlog_level = "warning"\n'
        f"{services}"
    )
    config.chmod(0o600)
    daemon = stack.enter_context(
        running([*tunnelconsole_command(), "--daemon", "-c", str(config)], home, environment, read_output=True)
    )
    line = ""
    while line != "ready":  # before it, one line for each service that listens
        line = daemon.read_line(READY_TIME)
    return daemon, config


def service_address(config: Path, service: str) -> str:
    """Where a service can be reached, as the running engine reports it; empty while it cannot."""
    answer = subprocess.run(
        [*tunnelconsole_command(), "services", "--json", "-c", str(config)],
        capture_output=True,
        check=False,
        timeout=COMMAND_TIME,
    )
    if answer.returncode != 0:
        raise BenchError(f"`tunnelconsole services` failed: {answer.stderr.decode(errors='replace').strip()}")
    for row in json.loads(answer.stdout):
        if row["name"] == service:
            return str(row["address"])
    raise BenchError(f"the engine has no service named {service}")


def service_port(config: Path, service: str) -> int:
    """The port where a service can be reached, once it can."""
    found: list[str] = []

    def has_address() -> bool:
        found[:] = [service_address(config, service)]
        return bool(found[0])

    wait_until(has_address, f"the service {service} has no address")
    return int(found[0].rpartition(":")[2])


JUMP_SERVER = """
[service.jump]
kind = "jump-server"
listen = "127.0.0.1:0"
secret = "{secret}"
allow = ["127.0.0.1:*"]
"""

JUMP_CLIENT = """
[service.client]
kind = "jump-client"
server = "127.0.0.1:{server}"
secret = "{secret}"
listen = "127.0.0.1:0"
target = "127.0.0.1:{target}"
"""

RELAY_SERVER = """
[service.relay]
kind = "relay-server"
listen = "127.0.0.1:0"
ports = "0"
bind = "127.0.0.1"
public_host = "127.0.0.1"
"""

RELAY_CLIENT = """
[service.backend]
kind = "relay-client"
server = "127.0.0.1:{server}"
target = "127.0.0.1:{target}"
native = {native}
"""


CHANNEL_SERVER = """
[service.hub]
kind = "channel-server"
listen = "127.0.0.1:0"
"""

TUNNEL_SERVER = """
[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:0"
"""

TUNNEL_CLIENT = """
[service.app]
kind = "tunnel-client"
server = "http://{host}:{server}"
connect = "127.0.0.1:{server}"
target = "127.0.0.1:{target}"
native = {native}
"""

TUNNEL_HOST = "app.localhost"
"""The public hostname of the tunnel that is measured."""

SSH_SERVICE = "bench-ssh"
"""Its name: the demonstration has an ssh-server too."""

SSH_SERVER = """
[service.bench-ssh]
kind = "ssh-server"
listen = "127.0.0.1:0"
authorized_keys = "{keys}"
host_key = "{host}"
{more}
"""

SSH_FORWARD = """
forward = true
ports = "{port}-{port}"
bind = "127.0.0.1"
"""

FAN = 8
"""Receivers of one sender."""


def open_jump(stack: ExitStack, folder: Path, target: int) -> Route:
    """Our jump server; the load generator is the client."""
    secret = secrets.token_hex(16)
    daemon, config = start_daemon(stack, folder, "jump", JUMP_SERVER.format(secret=secret))
    handshake = {"JUMP_TARGET": f"127.0.0.1:{target}", "JUMP_SECRET": secret}
    return Route(service_port(config, "jump"), [daemon], handshake, config)


def open_jump_with_client(stack: ExitStack, folder: Path, target: int) -> Route:
    """Our jump client with a fixed target, and behind it our jump server: two daemons."""
    secret = secrets.token_hex(16)
    server, config = start_daemon(stack, folder, "jump", JUMP_SERVER.format(secret=secret))
    port = service_port(config, "jump")
    settings = JUMP_CLIENT.format(server=port, secret=secret, target=target)
    client, config = start_daemon(stack, folder, "jump-client", settings)
    return Route(service_port(config, "client"), [server, client], config=config)


def _open_relay(stack: ExitStack, folder: Path, target: int, *, native: bool) -> Route:
    server, config = start_daemon(stack, folder, "relay", RELAY_SERVER)
    port = service_port(config, "relay")
    settings = RELAY_CLIENT.format(server=port, target=target, native=str(native).lower())
    client, config = start_daemon(stack, folder, "relay-client", settings)
    return Route(service_port(config, "backend"), [server, client], config=config)


def open_relay_native(stack: ExitStack, folder: Path, target: int) -> Route:
    """Our relay between two ends of ours: a data connection for each visitor."""
    return _open_relay(stack, folder, target, native=True)


def open_relay_yamux(stack: ExitStack, folder: Path, target: int) -> Route:
    """Our relay as the original speaks it: all visitors in one yamux session."""
    return _open_relay(stack, folder, target, native=False)


def open_channel(stack: ExitStack, folder: Path, _target: int) -> Route:
    """Our channel server, from one client to one other; the load generator is both."""
    return _open_hub(stack, folder, 1)


def open_fan(stack: ExitStack, folder: Path, _target: int) -> Route:
    """Our channel server, from one client to :data:`FAN` others."""
    return _open_hub(stack, folder, FAN)


def _open_hub(stack: ExitStack, folder: Path, receivers: int) -> Route:
    daemon, config = start_daemon(stack, folder, "hub", CHANNEL_SERVER)
    return Route(service_port(config, "hub"), [daemon], config=config, speaks="channel", receivers=receivers)


def _open_tunnel(stack: ExitStack, folder: Path, target: int, *, native: bool) -> Route:
    server, config = start_daemon(stack, folder, "tunnel", TUNNEL_SERVER)
    port = service_port(config, "web")
    settings = TUNNEL_CLIENT.format(host=TUNNEL_HOST, server=port, target=target, native=str(native).lower())
    client, config = start_daemon(stack, folder, "tunnel-client", settings)
    return Route(port, [server, client], config=config, speaks="http", host=TUNNEL_HOST)


def open_tunnel_native(stack: ExitStack, folder: Path, target: int) -> Route:
    """Our tunnel between two ends of ours: requests go over data connections."""
    return _open_tunnel(stack, folder, target, native=True)


def open_tunnel_yamux(stack: ExitStack, folder: Path, target: int) -> Route:
    """Our tunnel as the original speaks it."""
    return _open_tunnel(stack, folder, target, native=False)


def open_ssh_forward(stack: ExitStack, folder: Path, target: int) -> Route:
    """Our ssh-server with OpenSSH's client, as :func:`bench.peers.open_ssh` has it with OpenSSH's own server."""
    keys = Keys.make(folder)
    public = free_port()
    settings = SSH_SERVER.format(keys=keys.authorized, host=keys.host, more=SSH_FORWARD.format(port=public))
    daemon, config = start_daemon(stack, folder, "ssh", settings)
    client = remote_forward(stack, keys, service_port(config, SSH_SERVICE), public, target)
    return Route(public, [daemon, client], config=config)


def tunnel_memory(folder: Path, target: int, count: int) -> float:
    """Bytes of a tunnel server's memory for each of ``count`` tunnels that our clients hold, with their defaults.

    :raises BenchError: not all of them connect.
    """
    with ExitStack() as stack:
        server, config = start_daemon(stack, folder, "tunnels", TUNNEL_SERVER)
        port = service_port(config, "web")
        client = TUNNEL_CLIENT.replace("service.app", "service.app{number}").replace("{host}", "app{number}.localhost")
        services = "".join(
            client.format(number=number, server=port, target=target, native="true") for number in range(count)
        )
        before = memory([server])
        start_daemon(stack, folder, "tunnel-clients", services)
        wait_until(lambda: _sessions(config) == count, f"not all of {count} tunnels came up", within=TUNNELS_TIME)
        return (memory([server]) - before) / count


def _sessions(config: Path) -> int:
    answer = subprocess.run(
        [*tunnelconsole_command(), "status", "--json", "-c", str(config)],
        capture_output=True,
        check=True,
        timeout=COMMAND_TIME,
    )
    return int(json.loads(answer.stdout)["sessions"])
