"""``host:port`` as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.hostport import check_host, format_host_port, parse_host_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("www.example.com:443", ("www.example.com", 443)),
        ("localhost:1", ("localhost", 1)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("[::1]:80", ("::1", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("my_host-2.local.:22", ("my_host-2.local.", 22)),
    ],
)
def test_a_host_and_a_port_are_split_at_the_last_colon(text: str, expected: tuple[str, int]) -> None:
    assert parse_host_port(text) == expected


def test_a_name_beyond_ascii_comes_in_its_idna_form() -> None:
    assert parse_host_port("bücher.example:80") == ("xn--bcher-kva.example", 80)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no port"),
        ("www.example.com", "has no port"),
        (":80", "host is empty"),
        ("host:", "is not a number"),
        ("host:http", "is not a number"),
        ("host:+80", "is not a number"),
        ("host:٣", "is not a number"),
        ("host:0", "not between 1 and 65535"),
        ("host:65536", "not between 1 and 65535"),
        ("host:" + "9" * 5000, "not between 1 and 65535"),
        ("::1:80", "in brackets"),
        ("[::1]", "in brackets"),
        ("[::g]:80", "not an IPv6 address"),
        ("[]:80", "not an IPv6 address"),
        ("[fe80::1% x]:80", "not an IPv6 address"),
        ("[1.2.3.4]:80", "not an IPv6 address"),
        ("http://host:80", "too many colons"),
        ("user@host:22", "not a host name"),
        ("ho st:80", "not a host name"),
        ("host\n:80", "not a host name"),
        ("host\x00:80", "not a host name"),
        ("a..b:80", "each part between dots"),
        (".:80", "each part between dots"),
        ("a" * 64 + ".com:80", "each part between dots"),
        ("a." * 127 + "aa:80", "at most 253"),
        ("ü" * 64 + ":80", "not an international host name"),
        # A full-width slash, which IDNA turns into a plain one.
        ("a\uff0fb:80", "not an international host name"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_host_port(text)


def test_an_ipv6_address_is_a_host_without_brackets() -> None:
    assert check_host("::1") == "::1"


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_that_is_written_is_read_again(address: object, port: int) -> None:
    assert parse_host_port(format_host_port(str(address), port)) == (str(address), port)


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        host, port = parse_host_port(text)
    except ValueError:
        return
    # What was accepted is a host that the resolver takes, and stays what it is.
    assert parse_host_port(format_host_port(host, port)) == (host, port)
    host.encode("idna")
