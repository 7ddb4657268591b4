"""The routes through other programs, each in its plainest form: TCP in, TCP out, nothing switched on that costs."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from pathlib import Path

from bench.openssh import Keys, program, remote_forward
from bench.processes import Program, free_port, listens, running, wait_until
from bench.route import Route


def _start(stack: ExitStack, folder: Path, *command: str) -> Program:
    return stack.enter_context(running([program(command[0]), *command[1:]], folder))


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
    keys = Keys.make(folder)
    server, public = free_port(), free_port()
    config = keys.folder / "sshd_config"
    config.write_text(
        f"Port {server}\nListenAddress 127.0.0.1\nHostKey {keys.host}\nAuthorizedKeysFile {keys.authorized}\n"
        f"PidFile {keys.folder}/pid\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd, as root, will not run without it
    daemon = _start(stack, keys.folder, "sshd", "-D", "-e", "-f", str(config))
    wait_until(lambda: listens(server), "sshd does not listen")
    return Route(public, [daemon, remote_forward(stack, keys, server, public, target)])


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
    wait_until(lambda: listens(server), "frps does not listen")
    return Route(public, [daemon, _start(stack, folder, "frpc", "-c", str(client_config))])


def open_chisel(stack: ExitStack, folder: Path, target: int) -> Route:
    """chisel, with a reverse port."""
    server, public = free_port(), free_port()
    daemon = _start(stack, folder, "chisel", "server", "--host", "127.0.0.1", "--port", str(server), "--reverse")
    wait_until(lambda: listens(server), "chisel does not listen")
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
    wait_until(lambda: listens(server), "rathole does not listen")
    return Route(public, [daemon, _start(stack, folder, "rathole", "--client", str(client_config))])


BORE_PORT = 7835
"""bore's control port, which it does not let one choose."""


def open_bore(stack: ExitStack, folder: Path, target: int) -> Route:
    """Bore."""
    public = free_port()
    daemon = _start(stack, folder, "bore", "server", "--bind-addr", "127.0.0.1")
    wait_until(lambda: listens(BORE_PORT), "bore does not listen")
    client = _start(stack, folder, "bore", "local", str(target), "--to", "127.0.0.1", "--port", str(public))
    return Route(public, [daemon, client])
