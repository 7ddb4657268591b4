"""What settings are made of: each reads itself, or says what is wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.settings import (
    DestinationPattern,
    FilePath,
    Fingerprint,
    HostPort,
    ListenAddress,
    NetworkPattern,
    PortRange,
    Secret,
)

DIGITS = "0123456789abcdef" * 4


class Credentials(msgspec.Struct):
    """Settings with a secret among them."""

    secret: Secret
    secrets: dict[str, Secret]


def test_a_secret_is_hidden_wherever_settings_are_shown() -> None:
    settings = Credentials(secret=Secret("superBigSecret"), secrets={"alice": Secret("superBigSecret")})
    for shown in (repr(settings), f"{settings}", f"{settings.secret!r}", repr(copy.deepcopy(settings))):
        assert "superBig" not in shown
        assert "********" in shown


def test_the_repr_of_a_secret_does_not_tell_its_length() -> None:
    assert repr(Secret("")) == repr(Secret("x" * 100))


def test_a_secret_is_the_text_it_hides() -> None:
    assert Secret("superBigSecret").encode() == b"superBigSecret"
    assert Secret("a") == "a"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("home.secret", "/etc/tc/home.secret"), ("./a/b", "/etc/tc/a/b"), ("/run/x", "/run/x"), ("~/x", "/home/me/x")],
)
def test_a_path_starts_at_the_configurations_folder(written: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert FilePath(written).resolve(Path("/etc/tc")) == meant


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("home.example.net:9527", "home.example.net", 9527),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, host: str, port: int) -> None:
    for kind in (HostPort, ListenAddress):
        address = kind.parse(text)
        assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text", ["", "home", ":80", "home:", "home:http", "home:65536", "::1:80", "http://home:80", "a b:80"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    for kind in (HostPort, ListenAddress):
        with pytest.raises(ValueError, match=r"port|host|IPv6"):
            kind.parse(text)


@pytest.mark.parametrize(
    ("text", "host"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("localhost:0", "localhost")]
)
def test_port_0_is_for_listening_only(text: str, host: str) -> None:
    address = ListenAddress.parse(text)
    assert (address.host, address.port, str(address)) == (host, 0, text)
    with pytest.raises(ValueError, match="is not between 1 and 65535"):
        HostPort.parse(text)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("7001-7020", 7001, 7020), ("7001", 7001, 7001), ("0", 0, 0), ("1-65535", 1, 65535), ("7001-7001", 7001, 7001)],
)
def test_port_ranges(text: str, first: int, last: int) -> None:
    assert PortRange.parse(text) == PortRange(first, last)


@pytest.mark.parametrize(
    "text",
    ["", "-", "a", "7001-", "-7001", "7001-7020-7030", "7020-7001", "0-10", "65536", "1-65536", "7001, 7002", "٧"],
)
def test_what_is_no_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a range of ports") as caught:
        PortRange.parse(text)
    assert str(caught.value).startswith(f'"{text}"')


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_a_range_of_ports_goes_upwards(first: int, last: int) -> None:
    text = f"{first}-{last}"
    if first <= last:
        assert PortRange.parse(text) == PortRange(first, last)
    else:
        with pytest.raises(ValueError, match="is not a range of ports"):
            PortRange.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        DIGITS.upper(),
        f"sha256:{DIGITS}",
        f"SHA256:{DIGITS}",
        ":".join(DIGITS[i : i + 2] for i in range(0, 64, 2)),
    ],
)
def test_a_fingerprint_may_be_written_as_any_tool_does(text: str) -> None:
    assert Fingerprint.parse(text) == DIGITS


@pytest.mark.parametrize("text", ["", DIGITS[:-1], f"{DIGITS}0", f"g{DIGITS[1:]}", f"sha1:{DIGITS}"])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        Fingerprint.parse(text)


def test_patterns_are_kept_as_written_and_checked() -> None:
    assert DestinationPattern.parse("*.example.com:443") == "*.example.com:443"
    assert NetworkPattern.parse("192.168.0.0/16") == "192.168.0.0/16"
    with pytest.raises(ValueError, match="is not a destination"):
        DestinationPattern.parse("*.example.com")
    with pytest.raises(ValueError, match="is not a network"):
        NetworkPattern.parse("*.example.com")
