"""Who a name belongs to."""

from __future__ import annotations

import pytest

from tunnelconsole.engine.identities import ANONYMOUS, Identity, certificate_of, holder_of
from tunnelconsole.engine.tokens.grants import Grant, Token
from tunnelconsole.engine.tokens.rights import TokenRights


def test_of_one_name_a_certificate_a_token_and_a_secret_are_three() -> None:
    grant = Grant(Token("alice", TokenRights(), 0.0), b"")
    holders = [holder_of(Identity("alice", "certificate", b"der")), holder_of("alice", grant), holder_of("alice")]
    assert len(set(holders)) == 3
    assert holder_of("alice") == holder_of(Identity("alice", "secret"))


@pytest.mark.parametrize("nobody", [ANONYMOUS, Identity(ANONYMOUS, ""), Identity("alice", "")])
def test_what_nobody_has_proved_belongs_to_nobody(nobody: str) -> None:
    assert holder_of(nobody) == ()


def test_the_certificate_that_let_somebody_in_goes_with_whatever_else_proves_the_name() -> None:
    assert certificate_of(Identity("alice", "secret", b"der")) == b"der"
    assert certificate_of("alice") == b""
