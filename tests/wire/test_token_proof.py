"""A token is proved without being shown, split anywhere, and nothing else proves it."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.token_proof import (
    ID_LENGTH,
    MAGIC,
    NOBODYS,
    NONCE_LENGTH,
    PROOF_LENGTH,
    Proof,
    ProofClient,
    ProofServer,
    is_key,
    is_proof,
    is_secret,
    make_proof,
    make_secret,
    make_verifier,
    secret_id,
    secret_key,
)

SECRET = "tc_" + "A" * 43
CLIENT_NONCE, SERVER_NONCE = bytes(range(16)), bytes(range(16, 32))


def proved(server: ProofServer, data: bytes, step: int = 1_000) -> Proof | None:
    """What a server has heard once it has got all of ``data``, ``step`` bytes at a time."""
    found = None
    for start in range(0, len(data), step):
        found = server.receive_data(data[start : start + step]) or found
    return found


def claim(secret: str = SECRET) -> bytes:
    return MAGIC + secret_id(secret) + CLIENT_NONCE


def test_a_secret_has_its_prefix_and_256_bits_and_no_two_are_alike() -> None:
    one, other = make_secret(secrets.token_bytes), make_secret(secrets.token_bytes)
    assert one.startswith("tc_")
    assert len(one) == 46
    assert one != other
    assert is_secret(one)


@pytest.mark.parametrize("text", ["", "tc_", "tc_" + "A" * 42, "tc_" + "A" * 44, "xx_" + "A" * 43, SECRET + "\n"])
def test_what_has_another_form_is_no_secret(text: str) -> None:
    assert not is_secret(text)


def test_what_is_computed_is_what_the_document_says() -> None:
    assert secret_id(SECRET).hex() == "ec98d8fafc5e59aaee5129293f6d6f7b"
    assert make_verifier(SECRET).hex() == "bb93868df8ae3828fd8e3d1f20fbe5be8315b82d8120ea5b922addc8064b2358"
    assert make_proof(SECRET, CLIENT_NONCE, SERVER_NONCE).hex() == (
        "8968f879090e1c4dc048438ca60c08dc1eaceac1486d8a52c81dfc9a2153c7b7"
    )


def test_a_proof_holds_for_its_own_verifier_and_nonces_alone() -> None:
    verifier, named = make_verifier(SECRET), secret_id(SECRET)
    proof = make_proof(SECRET, CLIENT_NONCE, SERVER_NONCE)
    assert is_proof(verifier, named, CLIENT_NONCE, SERVER_NONCE, proof)
    assert not is_proof(verifier, named, CLIENT_NONCE, CLIENT_NONCE, proof)
    assert not is_proof(verifier, named, SERVER_NONCE, SERVER_NONCE, proof)
    assert not is_proof(verifier, bytes(ID_LENGTH), CLIENT_NONCE, SERVER_NONCE, proof)
    assert not is_proof(make_verifier("tc_" + "B" * 43), named, CLIENT_NONCE, SERVER_NONCE, proof)
    assert not is_proof(NOBODYS, named, CLIENT_NONCE, SERVER_NONCE, proof)


@given(st.binary(max_size=2 * PROOF_LENGTH))
def test_nothing_else_is_a_proof(proof: bytes) -> None:
    assert not is_proof(make_verifier(SECRET), secret_id(SECRET), CLIENT_NONCE, SERVER_NONCE, proof)


def test_who_has_the_verifier_alone_cannot_prove_the_token() -> None:
    """What a copy of the store gives away opens nothing."""
    verifier = make_verifier(SECRET)
    assert not is_key(verifier, verifier)
    assert is_key(verifier, secret_key(SECRET))


@pytest.mark.parametrize("step", [1, 7, 1_000])
def test_both_ends_understand_each_other_split_anywhere(step: int) -> None:
    client, server = ProofClient(SECRET, CLIENT_NONCE), ProofServer(SERVER_NONCE)
    assert proved(server, client.data_to_send(), step) is None
    assert not client.receive_data(server.data_to_send())
    proof = proved(server, client.data_to_send() + b"the protocol", step)
    assert proof is not None
    assert proof.holds(make_verifier(SECRET))
    assert server.leftover == b"the protocol"
    server.accept()
    assert client.receive_data(server.data_to_send() + b"its answer")
    assert client.accepted
    assert client.leftover == b"its answer"


@pytest.mark.parametrize("step", [1, 1_000])
def test_a_refusal_comes_with_its_reason(step: int) -> None:
    client, server = ProofClient(SECRET, CLIENT_NONCE), ProofServer(SERVER_NONCE)
    server.refuse("the token is not known here")
    answer = SERVER_NONCE + server.data_to_send()
    decided = [client.receive_data(answer[start : start + step]) for start in range(0, len(answer), step)]
    assert decided[-1]
    assert not any(decided[:-1])
    assert client.refusal == "the token is not known here"
    assert not client.accepted


@pytest.mark.parametrize("length", range(1, len(MAGIC) + 1))
def test_who_begins_with_something_else_is_told_apart_at_the_first_byte_that_differs(length: int) -> None:
    server = ProofServer(SERVER_NONCE)
    begun = MAGIC[: length - 1] + b"?"
    with pytest.raises(ProtocolError, match="does not begin with a token"):
        server.receive_data(begun)


@given(st.binary(max_size=200))
def test_whatever_comes_a_server_hears_a_proof_or_says_what_is_wrong(data: bytes) -> None:
    server = ProofServer(SERVER_NONCE)
    try:
        proof = server.receive_data(data)
    except ProtocolError:
        return
    assert proof is None or not proof.holds(make_verifier(SECRET))


def test_an_end_that_comes_too_soon_is_an_error_at_both() -> None:
    with pytest.raises(ProtocolError, match="closed before it had proved"):
        ProofServer(SERVER_NONCE).receive_eof()
    with pytest.raises(ProtocolError, match="does it take tokens"):
        ProofClient(SECRET, CLIENT_NONCE).receive_eof()


def test_a_server_that_answers_something_else_is_no_server_of_ours() -> None:
    client = ProofClient(SECRET, CLIENT_NONCE)
    with pytest.raises(ProtocolError, match="is it an original"):
        client.receive_data(bytes(NONCE_LENGTH) + b"H")


def test_neither_what_is_claimed_nor_the_proof_shows_the_secret() -> None:
    client = ProofClient(SECRET, CLIENT_NONCE)
    said = client.data_to_send()
    client.receive_data(SERVER_NONCE)
    said += client.data_to_send()
    assert said.startswith(claim())
    assert SECRET.encode() not in said
    assert secret_key(SECRET) not in said
