"""Reasons as labels: few words, whatever was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.metrics.reasons import FAILURE_REASONS, REFUSAL_REASONS, failure, refusal


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("wrong secret", "credentials"),
        ("the token is not known here", "credentials"),
        ("a tunnel needs a token here", "credentials"),
        ("its key belongs to no client that is here", "credentials"),
        ("none of its keys is in authorized_keys", "credentials"),
        ("its address is not in clients_allow, or is in clients_deny", "address"),
        ("too many connections are inside their handshake", "limit"),
        ("its place is given to others: its address has the most connections inside their handshake", "limit"),
        ("the limit of 5 sessions is reached", "limit"),
        ("its backend takes no more visitors", "limit"),
        ("room desk is full: two are in it already", "limit"),
        ("its address has 8 seats already", "limit"),
        ("it is too far behind to be given streams", "limit"),
        ("the key of alice may not be used from its address", "address"),
        ("the key of alice has expired", "credentials"),
        ("the token may not be used from this address", "address"),
        ("the token's limit of 3 sessions is reached", "limit"),
        ("the token's 5 bytes of today are used up", "limit"),
        ("the token is not for jump", "not_allowed"),
        ("no handshake within 10 s", "timeout"),
        ("it did not say where to go within 10 s", "timeout"),
        ("it spoke plain HTTP to a TLS listener; set [service.NAME.tls] on the client", "tls"),
        ("the TLS handshake failed: unknown ca", "tls"),
        ("it came by HTTP, and this is HTTPS", "tls"),
        ("it broke off during the handshake: Connection reset by peer", "left"),
        ("the client closed before its request for a tunnel was complete", "left"),
        ("it closed before it asked for a port", "left"),
        ("the client closed a data connection before its key was complete", "left"),
        ("it asked for a terminal, which its key may not have", "not_allowed"),
        ("chid desk is taken", "not_allowed"),
        ("the host app.example.net is reserved for somebody else", "not_allowed"),
        ("the head has more than 32768 bytes", "protocol"),
        ("the client speaks SOCKS4, this listener is an HTTP proxy", "protocol"),
        ("the remote sent a yamux frame of version 7; only 0 is known", "protocol"),
        ("its PROXY header is not ASCII", "protocol"),
        ("the remote sent a yamux go-away with unknown code 7", "protocol"),
        ("what nobody thought of", "other"),
    ],
)
def test_who_is_turned_away_is_so_for_one_of_a_few_reasons(sentence: str, word: str) -> None:
    assert refusal(sentence) == word


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("dial tcp 192.0.2.1:1: connect: connection refused", "refused"),
        ("dial tcp 192.0.2.1:1: i/o timeout", "timeout"),
        ("Connection timed out", "timeout"),
        ("connect: network is unreachable", "unreachable"),
        ("no route to host", "unreachable"),
        ("lookup nowhere.invalid: no such host", "name"),
        ("127.0.0.1:22 is not allowed", "not_allowed"),
        ("what nobody thought of", "other"),
    ],
)
def test_a_target_is_not_reached_for_one_of_a_few_reasons(sentence: str, word: str) -> None:
    assert failure(sentence) == word


@given(st.text())
def test_whatever_is_said_is_one_of_the_words(sentence: str) -> None:
    assert refusal(sentence) in REFUSAL_REASONS
    assert failure(sentence) in FAILURE_REASONS
