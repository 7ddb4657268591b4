"""What is offered to the other side of an SSH connection, as server and as client: modern algorithms, no others."""

from __future__ import annotations

from collections.abc import Iterable

from asyncssh.kex import get_kex_algs

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
"""With which a user's key may be proven: none with SHA-1."""

HOST_KEYS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
"""With which an SSH host may prove its own."""


def known_key_exchanges(wanted: Iterable[str]) -> list[str]:
    """Those of the wanted that this machine's cryptography has."""
    known = {name.decode() for name in get_kex_algs()}
    return [name for name in wanted if name in known]
