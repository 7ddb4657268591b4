"""Somebody in the demonstration who has nothing but an SSH client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

KEY_NAME = "heidi.key"
"""The file of this visitor's private key, in the demonstration's folder."""

OPERATORS = "operators"
"""The file that says who may come in, beside it."""

HOST_KEY = Path("ssh") / "ssh.key"
"""The key that the demonstration's SSH server makes for itself, below its state folder, which is the same."""

Address = tuple[str, int]


def make_keys(folder: Path) -> None:
    """Makes a key that may forward and nothing else, and the file that says so."""
    # Not with asyncssh, which takes a third of a second to load.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    private = folder / KEY_NAME
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    operators = folder / OPERATORS
    operators.touch(mode=0o600)
    operators.write_text(f'role="forward" {public} heidi\n')


@asynccontextmanager
async def sharing(folder: Path, server: Address, shop: Address, desk: Address) -> AsyncIterator[list[int]]:
    """Shares a web service as ``garden.localhost``, a desk on a public port, and reaches the desk from here.

    That is ``ssh -R`` and ``ssh -L``; gives the two ports.

    :raises ConnectionResetError: the connection broke, or was refused.
    """
    import asyncssh  # noqa: PLC0415 - see above

    host_key = asyncssh.read_private_key(folder / HOST_KEY).convert_to_public()
    try:
        async with asyncssh.connect(
            *server,
            config=None,
            username="heidi",
            client_keys=[folder / KEY_NAME],
            known_hosts=([host_key], [], []),
            agent_path=None,
        ) as connection:
            await connection.forward_remote_port("garden", 80, *shop)
            public = await connection.forward_remote_port("", 0, *desk)
            own = await connection.forward_local_port("127.0.0.1", 0, *desk)
            yield [public.get_port(), own.get_port()]
    except asyncssh.Error as error:
        raise ConnectionResetError(str(error)) from error
