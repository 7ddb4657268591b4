"""Proving a token before the protocol, at both ends; see :mod:`tunnelconsole.engine.wire.token_proof`."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.settings import Secret
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.tokens.register import Tokens
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.engine.wire.errors import NotAllowed, ProtocolError, WrongCredentials
from tunnelconsole.engine.wire.token_proof import MAGIC, NONCE_LENGTH, NOT_KNOWN, ProofClient, ProofServer, is_secret
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

READ: Final = 4096
"""Bytes read at once: all that is said before the protocol, and more."""


def _usable_token(token: Secret | None) -> list[Problem]:
    if token is None or is_secret(token):
        return []
    return [("token", 'is not a token: one has 46 characters, of which the first are "tc_"')]


TOKEN_RULE: Final = Rule(("token",), _usable_token)
"""For the key ``token`` of clients that prove one."""


class TokenRefused(WrongCredentials):
    """Nobody knows the token; the newcomer has been told."""


class TokenBarred(NotAllowed):
    """The token is not good here; the newcomer has been told."""


def begins_with_token(first: bytes) -> bool:
    """Whether somebody who has said this may be about to prove a token."""
    return bool(first) and MAGIC.startswith(first[: len(MAGIC)])


async def hear_token(end: End, tokens: Tokens, first: bytes) -> tuple[Grant, ProofServer]:
    """Hears the proof that begins with ``first``; returns what it shows, and what is to be answered.

    :raises TokenRefused: it shows nothing; the answer is on its way.
    :raises TokenBarred: it is not known whom it shows; the answer is on its way.
    :raises ProtocolError: it is no proof.
    :raises OSError: the connection is broken.
    """
    handshake = ProofServer(secrets.token_bytes(NONCE_LENGTH))
    proof = handshake.receive_data(first)
    while proof is None:
        await send_all(end, handshake.data_to_send())
        data = await receive(end, READ)
        if not data:
            handshake.receive_eof()
        proof = handshake.receive_data(data)
    try:
        grant = tokens.prove(proof)
    except NotAllowed as error:
        await turn_down(end, handshake, str(error))
        raise TokenBarred(str(error)) from error
    if grant is None:
        await turn_down(end, handshake, NOT_KNOWN)
        raise TokenRefused(NOT_KNOWN)
    return grant, handshake


async def let_pass(end: End, handshake: ProofServer) -> bytes:
    """Says yes; returns what came behind the proof.

    :raises OSError: the connection is broken.
    """
    handshake.accept()
    await send_all(end, handshake.data_to_send())
    return handshake.leftover


async def turn_down(end: End, handshake: ProofServer, reason: str) -> None:
    """Says no, and why.

    :raises OSError: the connection is broken.
    """
    handshake.refuse(reason)
    await send_all(end, handshake.data_to_send())


async def show_token(end: End, secret: str, what: str, within: float) -> bytes:
    """Proves a token to a server; returns what it said behind its yes.

    :param what: the server is, for people: ``relay server edge.example.net:7000``.
    :param within: seconds that it may take.
    :raises CredentialsRefused: the server does not know the token.
    :raises ConnectFailed: the token is not good there now, or the server does not answer, or is none that takes tokens.
    """
    handshake = ProofClient(secret, secrets.token_bytes(NONCE_LENGTH))
    try:
        async with asyncio.timeout(within):
            decided = False
            while not decided:
                await send_all(end, handshake.data_to_send())
                data = await receive(end, READ)
                if not data:
                    handshake.receive_eof()
                decided = handshake.receive_data(data)
    except TimeoutError as error:
        raise ConnectFailed(f"the {what} did not answer our token within {within:g} s") from error
    except ProtocolError as error:
        raise ConnectFailed(f"the {what} did not take our token: {error}") from error
    except OSError as error:
        raise ConnectFailed(f"lost the {what} while it looked at our token: {error.strerror or error}") from error
    if handshake.refusal == NOT_KNOWN:
        raise CredentialsRefused(f"the {what} does not let us in: {handshake.refusal}", "check the token")
    if handshake.refusal is not None:
        raise ConnectFailed(f"the {what} does not let us in: {handshake.refusal}")
    return handshake.leftover
