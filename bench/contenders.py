"""Who is measured, in the table's order."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench import openssh, ours, peers
from bench.route import Contender, Route


def open_direct(_stack: ExitStack, _folder: Path, target: int) -> Route:
    """No relay at all: what all others are compared with."""
    return Route(target)


SSHD, OUR_SSH = "ssh -R", "ssh -R to ours"
"""The same client with two servers: OpenSSH's and ours."""

CONTENDERS = (
    Contender("direct", open_direct),
    Contender("jump", ours.open_jump),
    Contender("jump with its client", ours.open_jump_with_client),
    Contender("relay, native", ours.open_relay_native),
    Contender("relay, yamux", ours.open_relay_yamux),
    Contender("channel, one to one", ours.open_channel),
    Contender(f"channel, one to {ours.FAN}", ours.open_fan),
    Contender("tunnel, native", ours.open_tunnel_native),
    Contender("tunnel, yamux", ours.open_tunnel_yamux),
    Contender("haproxy", peers.open_haproxy, ("haproxy",)),
    Contender("socat", peers.open_socat, ("socat",), most_held=200),  # a process for each: more says nothing new
    Contender(OUR_SSH, ours.open_ssh_forward, openssh.NEEDS, most_held=1000, ours=True),
    Contender(SSHD, peers.open_ssh, ("ssh", "ssh-keygen", "sshd")),
    Contender("frp", peers.open_frp, ("frps", "frpc")),
    Contender("chisel", peers.open_chisel, ("chisel",)),
    Contender("rathole", peers.open_rathole, ("rathole",)),
    Contender("bore", peers.open_bore, ("bore",)),
)
"""All contenders, in the table's order; the first is what the others are compared with."""
