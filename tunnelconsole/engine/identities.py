"""Who somebody is, and by what it was proved: of one name, a certificate, a token and a secret are three identities.

People see names. Whatever is decided by who somebody is goes by :func:`holder_of`, so that a certificate's subject is
never taken for the name of a token, of a secret or of a room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self

if TYPE_CHECKING:
    from tunnelconsole.engine.tokens.grants import Grant

ANONYMOUS: Final = "anonymous"
"""The identity of a remote party that was not asked who it is."""

OTHERS: Final = "others"
"""Stands for identities together, where there is no room for each."""

Proof = Literal["", "secret", "certificate", "token"]
"""What proves a name: ``secret`` for passwords, keys and rooms of the settings; "" for nobody's name."""

Holder = tuple[str, ...]
"""Whom a name belongs to: its proof and itself. Empty for nobody."""


class Identity(str):
    """A name with its proof.

    As text it is the name alone, and equal to any text of that name: compare :func:`holder_of` in place of it.

    :param certificate: the client certificate in DER that let its holder in, whatever else proves the name.
    """

    __slots__ = ("certificate", "proof")
    certificate: bytes
    proof: Proof

    def __new__(cls, name: str, proof: Proof, certificate: bytes = b"") -> Self:
        made = super().__new__(cls, name)
        made.proof = proof
        made.certificate = certificate
        return made


def holder_of(identity: str, grant: Grant | None = None) -> Holder:
    """Whom an identity belongs to; empty for one that nobody has proved.

    :param identity: one without a proof of its own was proved by what the settings have.
    :param grant: what was proved, if that was a token.
    """
    if grant is not None:
        return ("token", grant.identity)
    proof: Proof = identity.proof if isinstance(identity, Identity) else "secret"
    return (proof, str(identity)) if proof and identity != ANONYMOUS else ()


def certificate_of(identity: str) -> bytes:
    """The client certificate (DER) that let somebody in; empty where none was asked for."""
    return identity.certificate if isinstance(identity, Identity) else b""
