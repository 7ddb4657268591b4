"""Which algorithms are offered, as server and as client: those that are known to be good, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from asyncssh.kex import get_kex_algs

from tunnelconsole.errors import ListenFailed

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.server import SSHServerSettings

POST_QUANTUM = ("mlkem768x25519-sha256",)
"""Key exchanges that are safe from quantum computers to come (OpenSSH from 9.9 on). asyncssh adds strict key exchange
(CVE-2023-48795) to each by itself."""

KEY_EXCHANGES = (*POST_QUANTUM, "curve25519-sha256", "curve25519-sha256@libssh.org")
"""The others are what every OpenSSH since 2014 has."""

CIPHERS = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com")
"""Those that CVE-2023-48795 cannot touch, even where a client knows no strict key exchange."""

MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
"""Named because there must be one; the ciphers have their own."""

SIGNATURES = (
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
"""With which a key may be proven: none with SHA-1."""

HOST_KEYS = tuple(name for name in SIGNATURES if not name.startswith("sk-"))
"""With which an SSH host may prove its own: no host has to touch its key."""


def known_key_exchanges(wanted: Iterable[str] = KEY_EXCHANGES) -> list[str]:
    """Those of the wanted that this machine's cryptography has."""
    known = {name.decode() for name in get_kex_algs()}
    return [name for name in wanted if name in known]


def key_exchanges(service: str, settings: SSHServerSettings) -> list[str]:
    """What is offered, as far as this machine's cryptography has it.

    :raises ListenFailed: it has none that are wanted.
    """
    wanted = POST_QUANTUM if settings.post_quantum else KEY_EXCHANGES
    offered = known_key_exchanges(wanted)
    if not offered:
        raise ListenFailed(
            f"the cryptography package here has no {' or '.join(wanted)}",
            f"upgrade it, or leave out service.{service}.post_quantum",
        )
    return offered
