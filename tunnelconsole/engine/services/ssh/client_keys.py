"""The private keys that a client shows an SSH host, each only where nobody else can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import asyncssh

from tunnelconsole.engine.private_files import OTHERS_ANYTHING, file_exposed
from tunnelconsole.engine.services.ssh.public_keys import damage_told
from tunnelconsole.engine.settings import Secret
from tunnelconsole.errors import CredentialsRefused

MEND_KEY: Final = "name one with ssh.identity, or a command's --identity"
"""What to do where no key is let in."""

OWN_KEYS: Final = ("id_ed25519_sk", "id_ecdsa_sk", "id_ed25519", "id_ecdsa", "id_rsa")
"""Files in ~/.ssh that are looked for where none is named, those of security keys first: OpenSSH's names."""


def named_key(identity: Path, passphrase: Secret | None) -> list[asyncssh.SSHKeyPair]:
    """The key in the file that the settings name. Decrypting one takes its time: call it in a thread.

    :raises CredentialsRefused: it cannot be used, or is not ours alone.
    """
    try:
        what, mend = file_exposed(identity, identity.stat(), OTHERS_ANYTHING, f"the private key {identity}")
        if what:
            raise CredentialsRefused(what, f"run: {mend}")
        with damage_told():
            return list(asyncssh.load_keypairs([str(identity)], passphrase))
    except OSError as error:
        raise CredentialsRefused(
            f"the private key {identity} cannot be read: {error.strerror or error}", MEND_KEY
        ) from error
    except ValueError as error:
        if str(error).startswith("Passphrase"):
            raise CredentialsRefused(
                f"the private key {identity} is encrypted",
                "give ssh.passphrase_file, or leave identity out and let an agent hold the key",
            ) from error
        raise CredentialsRefused(f"the private key {identity} cannot be used: {error}", MEND_KEY) from error


def own_keys(passphrase: Secret | None) -> tuple[list[asyncssh.SSHKeyPair], list[str]]:
    """The user's own keys, and a sentence for each that is passed over. Call it in a thread.

    A key that is encrypted is passed over silently: that is what an agent is for.
    """
    found: list[asyncssh.SSHKeyPair] = []
    passed_over: list[str] = []
    for path in (Path("~/.ssh").expanduser() / name for name in OWN_KEYS):
        try:
            what, mend = file_exposed(path, path.stat(), OTHERS_ANYTHING)
            if what:
                passed_over.append(f"{what}; run: {mend}")
                continue
            with damage_told():
                found += asyncssh.load_keypairs([str(path)], passphrase, ignore_encrypted=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            passed_over.append(f"{path} cannot be read: {error.strerror or error}")
        except ValueError as error:
            passed_over.append(f"{path} cannot be used: {error}")
    return found, passed_over
