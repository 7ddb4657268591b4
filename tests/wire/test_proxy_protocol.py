"""The PROXY protocol's headers, by the examples of its document, by HAProxy, and by whoever is hostile."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.proxy_protocol import (
    MAX_V1,
    MAX_V2,
    Endpoint,
    ProxyHeader,
    Told,
    Version,
    encode_proxy_header,
)
from wire_transcripts import every_split

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

VISITOR, EDGE = Endpoint("203.0.113.7", 56324), Endpoint("198.51.100.2", 443)
VISITOR6, EDGE6 = Endpoint("2001:db8::7", 56324), Endpoint("2001:db8::2", 443)
NOBODY = Told(None, None)

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.2 56324 443\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::2 56324 443\r\n"
V2 = SIGNATURE + bytes.fromhex("2111000c cb007107 c6336402 dc04 01bb")
V2_IPV6 = SIGNATURE + bytes.fromhex(
    "21210024 20010db8000000000000000000000007 20010db8000000000000000000000002 dc0401bb"
)
ALPN = b"\x01\x00\x02h2"
"""What may stand behind the addresses: its type, its length, and what it is about."""

V2_MORE = SIGNATURE + bytes.fromhex("21110011 cb007107 c6336402 dc04 01bb") + ALPN
V2_LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def read(*pieces: bytes) -> tuple[Told | None, bytes]:
    """What a header tells, and what comes behind it."""
    header, rest = ProxyHeader(), b""
    for piece in pieces:
        rest += piece[header.receive_data(piece) :]
    return header.told, rest


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (V1, Told(VISITOR, EDGE)),
        (V1_IPV6, Told(VISITOR6, EDGE6)),
        (b"PROXY UNKNOWN\r\n", NOBODY),
        (b"PROXY UNKNOWN ffff:f:f:f:f:f:f:f ffff:f:f:f:f:f:f:f 65535 65535\r\n", NOBODY),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 0 443\r\n", Told(Endpoint("203.0.113.7", 0), EDGE)),
        (V2, Told(VISITOR, EDGE)),
        (V2_IPV6, Told(VISITOR6, EDGE6)),
        (V2_MORE, Told(VISITOR, EDGE)),
        (V2_LOCAL, NOBODY),
        (SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12), NOBODY),
        (SIGNATURE + b"\x21\x00\x00\x05" + ALPN, NOBODY),
        (SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12), NOBODY),
        (SIGNATURE + b"\x21\x31\x00\xd8" + b"/run/a.sock".ljust(216, b"\0"), NOBODY),
    ],
    ids=[
        "v1",
        "v1 IPv6",
        "v1 unknown",
        "v1 unknown with more",
        "v1 without a port",
        "v2",
        "v2 IPv6",
        "v2 with more",
        "v2 of the proxy itself",
        "v2 of the proxy itself with addresses",
        "v2 unspecified",
        "v2 datagrams",
        "v2 Unix sockets",
    ],
)
def test_a_header_is_read_in_any_pieces_and_what_comes_behind_it_is_left(header: bytes, told: Told) -> None:
    behind = b"\x16\x03\x01 and what not\r\n"
    for pieces in every_split(header + behind):
        assert read(*pieces) == (told, behind)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (b"GET / HTTP/1.1\r\n", "did not begin"),
        (b"\x16\x03\x01\x02\x00", "did not begin"),
        (b"PROXX", "did not begin"),
        (SIGNATURE[:-1] + b"\r", "did not begin"),
        (b"PROXY \r\n", "two addresses"),
        (b"PROXY TCP4\r\n", "two addresses"),
        (b"PROXY TCP4  203.0.113.7 198.51.100.2 1 2\r\n", "two addresses"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 1 2 \r\n", "two addresses"),
        (b"PROXY UDP4 203.0.113.7 198.51.100.2 1 2\r\n", "two addresses"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 1 2\n", "LF alone"),
        (b"PROXY TCP4 2001:db8::7 198.51.100.2 1 2\r\n", "none of IPv4"),
        (b"PROXY TCP6 203.0.113.7 2001:db8::7 1 2\r\n", "none of IPv6"),
        (b"PROXY TCP4 203.0.113.007 198.51.100.2 1 2\r\n", "none of IPv4"),
        (b"PROXY TCP4 gate.example.net 198.51.100.2 1 2\r\n", "none of IPv4"),
        (b"PROXY TCP6 fe80::1%lo 2001:db8::7 1 2\r\n", "none of IPv6"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 65536 2\r\n", "0 to 65535"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 -1 2\r\n", "0 to 65535"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 1 \r\n", "0 to 65535"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 01 2\r\n", "begins with 0"),
        (b"PROXY TCP4 203.0.113.7\xa0198.51.100.2 1 2\r\n", "not ASCII"),
        (SIGNATURE + b"\x11\x11\x00\x0c", "0x11"),
        (SIGNATURE + b"\x22\x11\x00\x0c", "0x22"),
        (SIGNATURE + b"\x21\x41\x00\x0c", "0x41"),
        (SIGNATURE + b"\x21\x13\x00\x0c", "0x13"),
        (SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11), "11 bytes for two addresses that take 12"),
        (SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12), "12 bytes for two addresses that take 36"),
    ],
)
def test_what_is_no_header_is_refused_in_any_pieces(said: bytes, wrong: str) -> None:
    for pieces in every_split(said):
        with pytest.raises(ProtocolError, match=wrong):
            read(*pieces)


def test_cve_2021_23351_a_line_without_an_end_is_read_to_the_longest_header_and_no_further() -> None:
    header = ProxyHeader()
    for letter in (b"PROXY UNKNOWN " + b"a" * MAX_V1)[: MAX_V1 - 1]:
        assert header.receive_data(bytes((letter,))) == 1
    with pytest.raises(ProtocolError, match=f"no end within {MAX_V1} bytes"):
        header.receive_data(b"a")


def test_a_line_of_the_greatest_length_is_a_header() -> None:
    longest = b"PROXY UNKNOWN ".ljust(MAX_V1 - 2, b"a") + b"\r\n"
    assert read(longest) == (NOBODY, b"")
    with pytest.raises(ProtocolError, match="no end"):
        read(longest.replace(b"\r\n", b"a\r\n"))


def test_a_block_that_says_it_is_too_long_is_refused_before_it_has_come() -> None:
    most = MAX_V2 - len(SIGNATURE) - 4
    at_most = SIGNATURE + b"\x21\x11" + most.to_bytes(2, "big") + bytes(most)
    assert read(at_most) == (Told(Endpoint("0.0.0.0", 0), Endpoint("0.0.0.0", 0)), b"")
    with pytest.raises(ProtocolError, match=f"{MAX_V2 + 1} bytes; at most {MAX_V2}"):
        read(SIGNATURE + b"\x21\x11" + (most + 1).to_bytes(2, "big"))


@pytest.mark.parametrize("header", [V1, V2, V2_LOCAL])
def test_an_end_before_a_header_is_complete_is_an_error(header: bytes) -> None:
    for length in range(len(header)):
        reader = ProxyHeader()
        reader.receive_data(header[:length])
        assert reader.begun == bool(length)
        with pytest.raises(ProtocolError, match="before its PROXY header was complete"):
            reader.receive_eof()


VERSIONS: st.SearchStrategy[Version] = st.sampled_from(("v1", "v2"))
PORTS = st.integers(0, 65535)


@given(VERSIONS, st.sampled_from((4, 6)), st.data(), st.binary(max_size=20))
def test_what_is_written_is_read_again(version: Version, family: int, data: st.DataObject, behind: bytes) -> None:
    hosts = st.ip_addresses(v=4 if family == 4 else 6).filter(lambda host: getattr(host, "ipv4_mapped", None) is None)
    source, destination = (Endpoint(str(data.draw(hosts)), data.draw(PORTS)) for _ in range(2))
    header = encode_proxy_header(version, source, destination)
    assert read(header + behind) == (Told(source, destination), behind)
    if version == "v1":
        assert len(header) <= MAX_V1


@pytest.mark.parametrize(
    ("version", "source", "destination", "header"),
    [
        ("v1", VISITOR, EDGE, V1),
        ("v1", VISITOR6, EDGE6, V1_IPV6),
        ("v2", VISITOR, EDGE, V2),
        ("v2", VISITOR6, EDGE6, V2_IPV6),
        ("v1", None, EDGE, b"PROXY UNKNOWN\r\n"),
        ("v2", None, EDGE, V2_LOCAL),
    ],
)
def test_headers_are_written_as_the_document_has_them(
    version: Version, source: Endpoint | None, destination: Endpoint, header: bytes
) -> None:
    assert encode_proxy_header(version, source, destination) == header


def test_an_ipv4_address_inside_ipv6_is_told_as_what_it_is_and_read_so() -> None:
    inside = Endpoint("::ffff:203.0.113.7", 56324)
    assert encode_proxy_header("v1", inside, EDGE) == V1
    prefix = bytes(10) + b"\xff\xff"
    binary = prefix + bytes((203, 0, 113, 7)) + prefix + bytes((198, 51, 100, 2)) + bytes.fromhex("dc0401bb")
    for header in (
        b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:198.51.100.2 56324 443\r\n",
        SIGNATURE + b"\x21\x21\x00\x24" + binary,
    ):
        assert read(header) == (Told(VISITOR, EDGE), b"")


@pytest.mark.parametrize("destination", [EDGE6, None])
def test_a_destination_that_cannot_be_told_does_not_hide_the_source(destination: Endpoint | None) -> None:
    for version in ("v1", "v2"):
        told, _ = read(encode_proxy_header(version, VISITOR, destination))
        assert told is not None
        assert told.source == VISITOR
        assert told.destination is not None
        assert ipaddress.ip_address(told.destination.host).is_unspecified


@pytest.mark.parametrize("source", [Endpoint("gate.example.net", 1), Endpoint("203.0.113.7", 65536)])
def test_what_is_no_address_cannot_be_written(source: Endpoint) -> None:
    for version in ("v1", "v2"):
        with pytest.raises(ValueError, match=r"gate|65536"):
            encode_proxy_header(version, source, EDGE)


BEGINNINGS = st.sampled_from((b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00", V1, V2_MORE))


@given(BEGINNINGS, st.lists(st.binary(max_size=200), max_size=8))
def test_whatever_comes_is_a_header_an_error_or_not_enough(beginning: bytes, pieces: list[bytes]) -> None:
    header = ProxyHeader()
    with suppress(ProtocolError):
        for piece in (beginning, *pieces):
            before = header.told
            taken = header.receive_data(piece)
            assert 0 <= taken <= len(piece)
            if before is not None:
                assert taken == 0
            elif header.told is None:
                assert taken == len(piece)


@given(BEGINNINGS, st.binary(max_size=300))
def test_where_the_pieces_are_cut_changes_nothing(beginning: bytes, more: bytes) -> None:
    whole = beginning + more

    def outcome(*pieces: bytes) -> tuple[Told | None, bytes] | str:
        try:
            return read(*pieces)
        except ProtocolError as error:
            return str(error)

    assert outcome(whole) == outcome(*(whole[at : at + 1] for at in range(len(whole))))
