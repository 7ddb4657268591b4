"""The routes through other programs, each in its plainest form: TCP in, TCP out, nothing switched on that costs."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from bench.processes import BenchError, Program, free_port, running, wait_until
from bench.route import ADMIN_PATH, Route

KEYGEN_TIME = 30.0
"""Seconds ssh-keygen may take."""


def _program(name: str) -> str:
    path = shutil.which(name, path=ADMIN_PATH)
    if path is None:
        raise BenchError(f"{name} is not installed")
    return path


def _start(stack: ExitStack, folder: Path, *command: str) -> Program:
    return stack.enter_context(running([_program(command[0]), *command[1:]], folder))


def open_haproxy(stack: ExitStack, folder: Path, target: int) -> Route:
    """haproxy, forwarding TCP."""
    port = free_port()
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(
        f"""
global
    maxconn 8000
defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
listen bench
    bind 127.0.0.1:{port}
    server sink 127.0.0.1:{target}
"""
    )
    return Route(port, [_start(stack, folder, "haproxy", "-db", "-f", str(config))])


def open_socat(stack: ExitStack, folder: Path, target: int) -> Route:
    """socat, with a process for each connection."""
    port = free_port()
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=1024,nodelay"
    return Route(port, [_start(stack, folder, "socat", listen, f"TCP:127.0.0.1:{target},nodelay")])


def open_ssh(stack: ExitStack, folder: Path, target: int) -> Route:
    """``ssh -R`` to an sshd of its own, both with keys made for this run."""
    home = folder / f"ssh-{secrets.token_hex(4)}"
    home.mkdir(mode=0o700)
    for key in ("host", "user"):
        command = [_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(home / key)]
        subprocess.run(command, check=True, timeout=KEYGEN_TIME, capture_output=True)
    (home / "authorized_keys").write_text((home / "user.pub").read_text())
    server, public = free_port(), free_port()
    (home / "sshd_config").write_text(
        f"Port {server}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized_keys\n"
        f"PidFile {home}/pid\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd, as root, will not run without it
    daemon = _start(stack, home, "sshd", "-D", "-e", "-f", str(home / "sshd_config"))
    wait_until(lambda: _listens(server), "sshd does not listen")
    known = (home / "host.pub").read_text()
    (home / "known_hosts").write_text(f"[127.0.0.1]:{server} {known}")
    options = (
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={home}/known_hosts",
        "ExitOnForwardFailure=yes",
        "BatchMode=yes",
    )
    client = _start(
        stack,
        home,
        *("ssh", "-F", "none", "-N", "-i", str(home / "user"), "-p", str(server)),
        *(word for option in options for word in ("-o", option)),
        *("-R", f"127.0.0.1:{public}:127.0.0.1:{target}", "127.0.0.1"),
    )
    return Route(public, [daemon, client])


def open_frp(stack: ExitStack, folder: Path, target: int) -> Route:
    """frp: frps and frpc."""
    server, public = free_port(), free_port()
    server_config, client_config = folder / f"frps-{server}.toml", folder / f"frpc-{server}.toml"
    server_config.write_text(f'bindAddr = "127.0.0.1"\nproxyBindAddr = "127.0.0.1"\nbindPort = {server}\n')
    client_config.write_text(
        f'serverAddr = "127.0.0.1"\nserverPort = {server}\n\n[[proxies]]\nname = "bench"\ntype = "tcp"\n'
        f'localIP = "127.0.0.1"\nlocalPort = {target}\nremotePort = {public}\n'
    )
    daemon = _start(stack, folder, "frps", "-c", str(server_config))
    wait_until(lambda: _listens(server), "frps does not listen")
    return Route(public, [daemon, _start(stack, folder, "frpc", "-c", str(client_config))])


def open_chisel(stack: ExitStack, folder: Path, target: int) -> Route:
    """chisel, with a reverse port."""
    server, public = free_port(), free_port()
    daemon = _start(stack, folder, "chisel", "server", "--host", "127.0.0.1", "--port", str(server), "--reverse")
    wait_until(lambda: _listens(server), "chisel does not listen")
    reverse = f"R:127.0.0.1:{public}:127.0.0.1:{target}"
    return Route(public, [daemon, _start(stack, folder, "chisel", "client", f"http://127.0.0.1:{server}", reverse)])


def open_rathole(stack: ExitStack, folder: Path, target: int) -> Route:
    """rathole, over TCP."""
    server, public = free_port(), free_port()
    token = secrets.token_hex(16)
    server_config, client_config = folder / f"rathole-server-{server}.toml", folder / f"rathole-client-{server}.toml"
    server_config.write_text(
        f'[server]\nbind_addr = "127.0.0.1:{server}"\ndefault_token = "{token}"\n\n'
        f'[server.services.bench]\nbind_addr = "127.0.0.1:{public}"\n'
    )
    client_config.write_text(
        f'[client]\nremote_addr = "127.0.0.1:{server}"\ndefault_token = "{token}"\n\n'
        f'[client.services.bench]\nlocal_addr = "127.0.0.1:{target}"\n'
    )
    daemon = _start(stack, folder, "rathole", "--server", str(server_config))
    wait_until(lambda: _listens(server), "rathole does not listen")
    return Route(public, [daemon, _start(stack, folder, "rathole", "--client", str(client_config))])


BORE_PORT = 7835
"""bore's control port, which it does not let one choose."""


def open_bore(stack: ExitStack, folder: Path, target: int) -> Route:
    """Bore."""
    public = free_port()
    daemon = _start(stack, folder, "bore", "server", "--bind-addr", "127.0.0.1")
    wait_until(lambda: _listens(BORE_PORT), "bore does not listen")
    client = _start(stack, folder, "bore", "local", str(target), "--to", "127.0.0.1", "--port", str(public))
    return Route(public, [daemon, client])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
