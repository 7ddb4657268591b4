"""What a token may do is written as in the configuration, kept as JSON, and judged name by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tunnelconsole.engine.tokens.rights import MAX_PATTERNS, TokenRights, decode_rights, encode_rights

EVERY_RIGHT: dict[str, Any] = {
    "kinds": ["jump", "relay"],
    "hosts": ["*.example.com"],
    "ports": ["7001-7010", "9000"],
    "chids": ["desk-*"],
    "rooms": ["lab"],
    "destinations": ["*:443", "10.0.0.0/8:*"],
    "clients": ["192.0.2.0/24"],
    "rate": "1MB/s",
    "sessions": 3,
    "channels": 20,
    "requests": 2.5,
    "bytes_per_day": "1GB",
    "one_time": True,
}


def test_they_are_the_same_after_they_were_kept() -> None:
    rights = decode_rights(EVERY_RIGHT)
    assert decode_rights(msgspec.json.decode(msgspec.json.encode(encode_rights(rights)))) == rights


def test_what_limits_nothing_is_not_kept() -> None:
    assert encode_rights(TokenRights()) == {}
    assert decode_rights({}) == TokenRights()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"host": ["a.example.com"]}, "unknown field host"),
        ({"kinds": ["ssh"]}, "^kinds: 'ssh' is not a system that takes tokens: jump"),
        ({"hosts": ["a b"]}, "^hosts: .* is not a host"),
        ({"hosts": "a.example.com"}, "Expected array"),
        ({"ports": ["0"]}, "leave ports out for any"),
        ({"ports": ["70000"]}, "^ports: .* is not a range of ports"),
        ({"destinations": ["example.com"]}, "is not a destination"),
        ({"clients": ["everywhere"]}, "is not a network"),
        ({"rate": "0MB/s"}, "^rate: .* lets nothing through"),
        ({"rate": -1}, "is not a Rate"),
        ({"bytes_per_day": -1}, "is not a Size"),
        ({"sessions": "many"}, "^sessions: a whole number is expected"),
        ({"sessions": -1}, "sessions: must be 0 or more"),
        ({"requests": "nan"}, "requests: must be 0 or more"),
        ({"requests": "inf"}, "requests: must be 0 or more"),
        ({"requests": -0.5}, "requests: must be 0 or more"),
        ({"chids": ["a"] * (MAX_PATTERNS + 1)}, f"chids: at most {MAX_PATTERNS}"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_rights(given)


@pytest.mark.parametrize(
    ("right", "given", "granted", "denied"),
    [
        ("hosts", ["*.example.com"], ("app.example.com",), ("example.com",)),
        ("ports", ["7001-7010", "9000"], (7001,), (9001,)),
        ("ports", ["7001-7010", "9000"], (9000,), (7000,)),
        ("chids", ["desk-*"], ("desk-1",), ("desk",)),
        ("rooms", ["lab"], ("lab",), ("laboratory",)),
        ("destinations", ["10.0.0.0/8:22"], ("a", "10.1.2.3", 22), ("a", "10.1.2.3", 23)),
        ("clients", ["192.0.2.0/24"], ("192.0.2.7:5000",), ("192.0.3.7:5000",)),
        ("clients", ["2001:db8::/32"], ("[2001:db8::1]:5000",), ("192.0.2.7:5000",)),
    ],
)
def test_what_is_named_is_granted_and_nothing_else(
    right: str, given: list[str], granted: tuple[Any, ...], denied: tuple[Any, ...]
) -> None:
    judge = f"grants_{right.removesuffix('s')}"
    limited, free = decode_rights({right: given}), TokenRights()
    assert getattr(limited, judge)(*granted)
    assert not getattr(limited, judge)(*denied)
    assert getattr(free, judge)(*denied)
