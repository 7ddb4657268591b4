"""Whatever the other end offers, nobody is dialled who may be somebody else."""

from __future__ import annotations

import dataclasses
import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.punch import MAX_SEALED, MAX_SEEN
from tunnelconsole.engine.wire.punch_nat import Filtering, Mapping, Nat
from tunnelconsole.engine.wire.punch_offer import (
    LOWEST_PORT,
    MAX_CANDIDATES,
    MAX_IPV6,
    MAX_ROUND,
    Candidate,
    Kind,
    Mode,
    Offer,
    Surroundings,
    encode_offer,
    judge,
    parse_offer,
)
from tunnelconsole.engine.wire.punch_room import RoomKey

THEIRS = "203.0.113.2"
OURS = "198.51.100.2"
SERVER = "192.0.2.10"
HOME = ipaddress.ip_network("192.168.1.0/24")
NONCE = "0123456789abcdef" * 2
APART = Surroundings(
    seen_theirs=[THEIRS],
    seen_ours={OURS},
    networks=[HOME],
    ours=["192.168.1.5:40000", f"{OURS}:40000"],
    rendezvous={SERVER, "192.0.2.11"},
)
TOGETHER = dataclasses.replace(APART, seen_theirs=[OURS])
ON_ONE_HOST = dataclasses.replace(APART, seen_theirs=["127.0.0.1"], seen_ours={"127.0.0.1"})
OFFER = Offer(nonce=NONCE, mode=Mode.OPENS)


def host(address: str) -> Candidate:
    return Candidate(Kind.HOST, address)


def why(address: str, around: Surroundings = APART, kind: Kind = Kind.HOST) -> str:
    """Why a candidate is not dialled; empty when it is."""
    (judged,) = judge([Candidate(kind, address)], around)
    return judged.rejected


@pytest.mark.parametrize(
    ("address", "around"),
    [
        (f"{THEIRS}:40000", APART),
        (f"{THEIRS}:{LOWEST_PORT}", APART),
        ("192.168.1.77:40000", APART),
        ("10.9.9.9:40000", TOGETHER),
        ("100.64.0.7:40000", TOGETHER),
        (f"{OURS}:40001", TOGETHER),
        ("[2001:db8::7]:40000", APART),
        ("[fd00::7]:40000", TOGETHER),
        ("127.0.0.1:40000", ON_ONE_HOST),
    ],
)
def test_what_is_the_other_side_s_is_dialled(address: str, around: Surroundings) -> None:
    assert why(address, around) == ""


@pytest.mark.parametrize(
    ("address", "around", "words"),
    [
        ("127.0.0.1:40000", APART, "loopback"),
        ("127.0.0.1:40000", TOGETHER, "loopback"),
        ("127.0.0.9:40000", ON_ONE_HOST, "loopback"),
        ("[::1]:40000", ON_ONE_HOST, "loopback"),
        ("0.0.0.0:40000", APART, "no host's address"),
        ("[::]:40000", APART, "no host's address"),
        ("224.0.0.1:40000", APART, "no host's address"),
        ("[ff02::1]:40000", APART, "no host's address"),
        ("255.255.255.255:40000", APART, "no host's address"),
        ("169.254.169.254:40000", TOGETHER, "link-local"),
        ("[fe80::1]:40000", TOGETHER, "link-local"),
        ("[fe80::1%eth0]:40000", TOGETHER, "link-local"),
        (f"{SERVER}:7900", APART, "rendezvous"),
        ("192.0.2.11:40000", APART, "rendezvous"),
        ("192.168.1.5:40000", APART, "our own"),
        (f"{OURS}:40000", TOGETHER, "our own"),
        (f"{THEIRS}:22", APART, "below 1024"),
        (f"{THEIRS}:1023", APART, "below 1024"),
        ("192.168.1.1:443", APART, "below 1024"),
        ("192.168.2.1:40000", APART, "private network that is not ours"),
        ("10.0.0.1:40000", APART, "private network that is not ours"),
        ("172.31.0.1:40000", APART, "private network that is not ours"),
        ("100.64.0.7:40000", APART, "private network that is not ours"),
        ("[fd00::7]:40000", APART, "private network that is not ours"),
        ("203.0.113.3:40000", APART, "not seen the other side there"),
        ("8.8.8.8:40000", TOGETHER, "not seen the other side there"),
        ("[::ffff:203.0.113.2]:40000", APART, "hides an IPv4 address"),
        ("[::ffff:8.8.8.8]:40000", APART, "hides an IPv4 address"),
        ("[2002:808:808::1]:40000", APART, "hides an IPv4 address"),
        ("[2001:0:808:808::1]:40000", APART, "hides an IPv4 address"),
        ("[64:ff9b::808:808]:40000", APART, "hides an IPv4 address"),
        ("[64:ff9b:1::808:808]:40000", APART, "hides an IPv4 address"),
        ("victim.example:40000", APART, "no numeric address"),
        (f"{THEIRS}:0", APART, "no numeric address"),
        (f"{THEIRS}:65536", APART, "no numeric address"),
        (THEIRS, APART, "no numeric address"),
        ("", APART, "no numeric address"),
        ("203.0.113.02:40000", APART, "no numeric address"),
        ("3405803778:40000", APART, "no numeric address"),
    ],
)
def test_what_may_be_somebody_else_s_is_not_dialled(address: str, around: Surroundings, words: str) -> None:
    assert words in why(address, around)


def test_the_rendezvous_is_dialled_where_the_other_side_is_on_its_host() -> None:
    around = dataclasses.replace(APART, seen_theirs=[SERVER])
    assert why(f"{SERVER}:40000", around, Kind.MAPPED) == ""


def test_an_address_counts_once_however_it_is_written() -> None:
    judged = judge([host("[2001:db8::7]:40000"), host("[2001:0db8:0:0::7]:40000")], APART)
    assert [entry.candidate.address for entry in judged] == ["[2001:db8::7]:40000"]


def test_of_addresses_that_nobody_vouches_for_a_few_are_dialled() -> None:
    judged = judge([host(f"[2001:db8::{number}]:40000") for number in range(1, 6)], APART)
    assert [entry.rejected for entry in judged] == ["", ""] + [f"more than {MAX_IPV6} IPv6 addresses"] * 3


def test_ten_thousand_addresses_are_no_more_than_a_few() -> None:
    offered = [host(f"192.168.1.{number % 250 + 1}:{2000 + number}") for number in range(10_000)]
    judged = judge(offered, APART)
    assert sum(not entry.rejected for entry in judged) == MAX_CANDIDATES
    assert judged[-1].rejected == f"more than {MAX_CANDIDATES} addresses"


def test_an_offer_of_ten_thousand_addresses_is_none() -> None:
    text = encode_offer(
        msgspec.structs.replace(OFFER, candidates=tuple(host(f"192.168.1.1:{port}") for port in range(2000, 12_000)))
    )
    with pytest.raises(ProtocolError, match="is no offer"):
        parse_offer(text)


@pytest.mark.parametrize("kind", [Kind.MAPPED, Kind.PREDICTED])
@pytest.mark.parametrize("address", ["192.168.1.77:40000", "[2001:db8::7]:40000"])
def test_ports_are_guessed_only_where_the_rendezvous_has_seen_the_other_side(kind: Kind, address: str) -> None:
    (judged,) = judge([Candidate(kind, address)], APART)
    assert judged.candidate.kind is Kind.HOST
    (seen,) = judge([Candidate(kind, f"{THEIRS}:40000")], APART)
    assert seen.candidate.kind is kind


def test_no_more_of_what_the_rendezvous_says_is_believed_than_it_may_say() -> None:
    seen = [f"203.0.113.{number}" for number in range(1, MAX_SEEN + 2)]
    around = dataclasses.replace(APART, seen_theirs=seen)
    assert [why(f"{each}:40000", around) == "" for each in seen] == [True] * MAX_SEEN + [False]


HOSTS = st.one_of(
    st.ip_addresses(), st.ip_addresses(network="192.168.0.0/16"), st.ip_addresses(network="203.0.113.0/29")
)
CANDIDATES = st.builds(
    Candidate,
    st.sampled_from(Kind),
    st.builds(format_host_port, HOSTS.map(str), st.integers(1, 65535)) | st.text(max_size=64),
)


@given(st.lists(CANDIDATES, max_size=40))
def test_only_what_the_rules_name_is_ever_dialled(candidates: list[Candidate]) -> None:
    kept = [entry.candidate for entry in judge(candidates, APART) if not entry.rejected]
    assert len(kept) <= MAX_CANDIDATES
    assert len({candidate.address for candidate in kept}) == len(kept)
    for candidate in kept:
        name, port = candidate.host_port
        ip = ipaddress.ip_address(name)
        assert port >= LOWEST_PORT
        assert name == THEIRS or ip in HOME or ip.version == 6
    assert sum(":" in candidate.host_port[0] for candidate in kept) <= MAX_IPV6


OFFERS = st.builds(
    Offer,
    nonce=st.binary(min_size=16, max_size=16).map(bytes.hex),
    link=st.just("") | st.binary(min_size=16, max_size=16).map(bytes.hex),
    mode=st.sampled_from(Mode),
    nat=st.builds(Nat, mapping=st.sampled_from(Mapping), filtering=st.sampled_from(Filtering), refuses=st.booleans()),
    candidates=st.lists(st.builds(Candidate, st.sampled_from(Kind), st.just(f"{THEIRS}:1")), max_size=20).map(tuple),
    round=st.integers(0, MAX_ROUND),
    relay=st.booleans(),
)


@given(OFFERS)
def test_an_offer_is_read_as_it_was_written(offer: Offer) -> None:
    assert parse_offer(encode_offer(offer)) == offer


def test_the_longest_offer_fits_into_what_may_be_said() -> None:
    longest = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"
    offer = msgspec.structs.replace(OFFER, candidates=(Candidate(Kind.PREDICTED, longest),) * MAX_CANDIDATES)
    assert len(RoomKey("desk", bytes(32)).seal(encode_offer(offer), lambda _: bytes(12))) < MAX_SEALED / 2


@given(st.binary(max_size=200))
def test_noise_is_no_offer(noise: bytes) -> None:
    with pytest.raises(ProtocolError, match="is no offer"):
        parse_offer(noise)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"nonce":"short","mode":"opens"}',
        f'{{"nonce":"{NONCE}","mode":"sings"}}'.encode(),
        f'{{"nonce":"{NONCE}","mode":"opens","link":"{NONCE[1:]}"}}'.encode(),
        f'{{"nonce":"{NONCE}","mode":"opens","round":{MAX_ROUND + 1}}}'.encode(),
        f'{{"nonce":"{NONCE}","mode":"opens","round":-1}}'.encode(),
        f'{{"nonce":"{NONCE}","mode":"opens","candidates":[{{"kind":"host","address":"{"1" * 65}"}}]}}'.encode(),
        f'{{"nonce":"{NONCE}","mode":"opens","candidates":[{{"kind":"host","address":"\\u001b[2J"}}]}}'.encode(),
    ],
)
def test_what_no_end_offers_is_a_protocol_error(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="is no offer"):
        parse_offer(text)
