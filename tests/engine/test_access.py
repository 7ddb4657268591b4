"""Who may come in, and where a jump may lead."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.access import OWN_ADDRESSES_LIFETIME, Clients, Destination, Destinations, plain_address
from tunnelconsole.engine.transport.dialer import resolve

PUBLIC = "203.0.113.7"
"""An address of the documentation's, which is not this host's own."""

HERE = "198.51.100.1"
"""What :func:`own_address` makes an address of this host."""

ANYWHERE = ("0.0.0.0/0:*", "[::/0]:*")


@pytest.fixture(autouse=True)
def own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has one interface, with addresses of each kind."""
    addresses = [HERE, "2001:db8::1", "fe80::1%eth0", "02:00:00:00:00:01"]
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [SimpleNamespace(address=text) for text in addresses]})


def permits(
    address: str, *, host: str = "", port: int = 443, allow: Sequence[str] = (), deny: Sequence[str] = ()
) -> bool:
    """Whether ``host``, the address itself unless given, may be dialled at ``address``."""
    return Destinations(allow, deny).permit(host or address, address, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "example.com",
        "example.com:",
        "example.com:http",
        "example.com:0",
        "example.com:65536",
        "example.com:443-80",
        "example.com:-443",
        "example.com:443-",
        "example.com:1-2-3",
        "example.com:٤٤٣",
        "::1:443",
        "fd00::/8:443",
        "[]:443",
        "[example.com]:443",
        "[fd00::]/8:443",
        "10.0.0.0/33:443",
        "10.0.0/8:443",
        ".:443",
        " example.com:443",
        "example.com :443",
        f"{'ü' * 70}.example:443",
    ],
)
def test_what_is_no_destination_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r'^".*" (is not a destination|has|does not name).*[;"]') as caught:
        Destination(text)
    assert f'"{text}"' in str(caught.value)


@pytest.mark.parametrize("text", ["10.0.*:*", "10.0.0.256:*", "10.0.0:*", "2130706433:*", "192.168.?.1:22"])
def test_numbers_that_are_no_address_are_refused_rather_than_taken_for_a_name_nobody_has(text: str) -> None:
    with pytest.raises(ValueError, match="does not name a network"):
        Destination(text)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("*:443", [443], [1, 442, 444, 65535]),
        ("*:8000-8002", [8000, 8001, 8002], [7999, 8003]),
        ("*:443-443", [443], [442, 444]),
        ("*:*", [1, 65535], []),
        ("*:1-65535", [1, 65535], []),
    ],
)
def test_ports_are_one_a_range_or_all(pattern: str, inside: list[int], outside: list[int]) -> None:
    rule = Destination(pattern)
    assert [port for port in inside + outside if rule.covers_port(port)] == inside


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        ("www.example.com:*", ["www.example.com", "WWW.Example.COM", "www.example.com."], ["example.com", "a.example"]),
        ("*.example.com:*", ["www.example.com", "a.b.example.com"], ["example.com", "badexample.com", "example.com.x"]),
        ("WWW.example.com.:*", ["www.example.com", "www.example.com."], ["www.example.org"]),
        ("node?.example:*", ["node1.example"], ["node12.example", "node.example"]),
        ("*.bücher.example:*", ["www.xn--bcher-kva.example"], ["www.bucher.example"]),
    ],
)
def test_names_match_without_regard_to_case_and_to_the_last_dot(
    pattern: str, names: list[str], others: list[str]
) -> None:
    assert [host for host in names + others if permits(PUBLIC, host=host, allow=(pattern,))] == names
    assert [host for host in names + others if not permits(PUBLIC, host=host, deny=(pattern,))] == names


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (
            "10.0.0.0/8:*",
            ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"],
            ["11.0.0.0", "::a00:1"],
        ),
        ("10.1.2.3/8:*", ["10.9.9.9"], ["11.0.0.0"]),
        (f"{PUBLIC}:*", [PUBLIC, f"::ffff:{PUBLIC}"], ["203.0.113.8", "2001:db8:1::1"]),
        ("[fd00::/8]:*", ["fd12::1", "fdff::"], ["fe00::1", "10.0.0.1"]),
        ("[2001:db8:1::5]:*", ["2001:db8:1::5"], ["2001:db8:1::6"]),
        ("[::ffff:10.0.0.0/104]:*", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.0"]),
        ("[64:ff9b::10.1.2.3]:*", ["10.1.2.3", "64:ff9b::10.1.2.3"], ["10.1.2.4"]),
    ],
)
def test_networks_hold_the_addresses_that_they_reach_however_those_are_written(
    pattern: str, inside: list[str], outside: list[str]
) -> None:
    assert [text for text in inside + outside if Destination(pattern).contains(plain_address(text))] == inside
    assert [text for text in inside + outside if not permits(text, allow=ANYWHERE, deny=(pattern,))] == inside


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "0.0.0.0",
        "::",
        HERE,
        "2001:db8::1",
        "fe80::1",
        "169.254.169.254",
        "fe80::2%eth0",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
        "::ffff:127.0.0.1",
        f"::ffff:{HERE}",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::127.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2002:7f00:1::5",
        "2002:a9fe:a9fe::1",
        "2002:c633:6401::1",
        "2002:0:0::1",
        "2001:0:cb00:7107:8000:0:80ff:fffe",
        "2001:0:cb00:7107:8000:0:5601:5601",
        "2001:0:cb00:7107:8000:0:39cc:9bfe",
        "2001:0:7f00:1:8000:0:34ff:8ef8",
    ],
)
class TestAnAddressThatIsClosedByDefault:
    def test_is_not_dialled_without_allow(self, address: str) -> None:
        assert not permits(address)

    def test_is_not_opened_by_the_pattern_of_a_name_that_points_at_it(self, address: str) -> None:
        assert not permits(address, host="rebound.example.com", allow=("*.example.com:*", "*.*:*"))

    def test_is_not_opened_by_a_pattern_of_names_that_its_text_fits(self, address: str) -> None:
        assert not permits(address, allow=("*.*:*", "?*:*", "*[0-9]:*"))

    def test_is_opened_by_a_pattern_of_its_own(self, address: str) -> None:
        assert permits(address, allow=ANYWHERE)
        assert permits(address, allow=("*:*",))

    def test_stays_closed_where_it_is_denied_as_well(self, address: str) -> None:
        assert not permits(address, allow=("*:*",), deny=ANYWHERE)


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC,
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "2a00::1",
        "fd00::1",
        "2002:cb00:7107::1",
        "2001:0:cb00:7107:8000:0:34ff:8ef8",
    ],
)
def test_any_other_address_is_open_by_default(address: str) -> None:
    assert permits(address)


SIX_TO_FOUR, TEREDO = "2002:a01:203::1", "2001:0:cb00:7107:8000:0:f5fe:fdfc"
"""Addresses that lead through 10.1.2.3."""


@pytest.mark.parametrize("address", [SIX_TO_FOUR, TEREDO])
def test_a_tunnel_through_a_denied_address_is_denied_and_one_through_an_allowed_address_is_not_allowed_by_that(
    address: str,
) -> None:
    assert permits(address)
    assert not permits(address, deny=("10.0.0.0/8:*",))
    assert not permits(address, allow=("*:*",), deny=("10.1.2.3:443",))
    assert not permits(address, allow=("10.0.0.0/8:*",))
    assert permits(address, allow=("[2000::/3]:*",))


@pytest.mark.parametrize("literal", ["2130706433", "0177.0.0.1", "0x7f000001", "127.1", "localhost"])
async def test_what_the_resolver_turns_into_loopback_is_judged_as_loopback(literal: str) -> None:
    addresses = [address.host for address in await resolve(literal, 443)]
    assert addresses
    assert not any(permits(address, host=literal) for address in addresses)
    assert not any(permits(address, host=literal, allow=("*.*:*", "?*:*")) for address in addresses)
    assert not any(permits(address, host=literal, allow=("*:*",), deny=("localhost:*",)) for address in addresses)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_localhost_means_every_address_of_loopback(address: str) -> None:
    assert permits(address, allow=("localhost:443",))
    assert permits(address, host="localhost", allow=("Localhost.:443",))
    assert not permits(address, port=80, allow=("localhost:443",))
    assert not permits(address, host="anything.example", allow=("*:*",), deny=("localhost:*",))


def test_localhost_opens_no_other_address_of_this_host() -> None:
    assert not permits(HERE, host="localhost", allow=("localhost:*",))


@pytest.mark.parametrize(("address", "loopback"), [("0.0.0.0", "127.0.0.0/8"), ("::", "[::1]")])
def test_the_unspecified_address_leads_to_loopback_and_is_denied_with_it(address: str, loopback: str) -> None:
    assert not permits(address, allow=("*:*",), deny=(f"{loopback}:*",))
    assert permits(address, allow=(f"{loopback}:*",))


def test_deny_wins_over_allow_by_name_by_address_and_by_port() -> None:
    allow = ("*.example.com:*", "203.0.113.0/24:*")
    assert permits(PUBLIC, host="www.example.com", allow=allow)
    assert not permits(PUBLIC, host="www.example.com", allow=allow, deny=("www.example.com:*",))
    assert not permits(PUBLIC, host="www.example.com", allow=allow, deny=(f"{PUBLIC}:*",))
    assert not permits(PUBLIC, host="www.example.com", allow=allow, deny=("*:443",))
    assert permits(PUBLIC, host="www.example.com", port=80, allow=allow, deny=("*:443",))


def test_deny_alone_leaves_the_default_in_force() -> None:
    assert permits(PUBLIC, deny=("10.0.0.0/8:*",))
    assert not permits("127.0.0.1", deny=("10.0.0.0/8:*",))


def test_allow_closes_all_that_it_does_not_name() -> None:
    assert not permits(PUBLIC, allow=("*.example.com:*",))
    assert not permits(PUBLIC, host="www.example.com", port=80, allow=("*.example.com:443",))


def test_this_hosts_addresses_are_read_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    destinations = Destinations((), ())
    assert destinations.permit(PUBLIC, PUBLIC, 443)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth1": [SimpleNamespace(address=PUBLIC)]})
    now = OWN_ADDRESSES_LIFETIME
    assert destinations.permit(PUBLIC, PUBLIC, 443)
    now += 0.1
    assert not destinations.permit(PUBLIC, PUBLIC, 443)


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6_is_judged_as_ipv4(address: object) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        assert plain_address(f"{prefix}{address}") == address


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_is_refused_in_a_sentence(text: str) -> None:
    try:
        rule = Destination(text)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = f'"{rule.text}"'
    assert f'"{text}"' in refusal


@pytest.mark.parametrize("text", ["", "example.com", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "[::1]", "*"])
def test_what_is_no_network_of_clients_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r'is not a network; write one as "192\.168\.0\.0/16"'):
        Clients([text], [])


@pytest.mark.parametrize(
    ("allow", "deny", "inside", "outside"),
    [
        ([], [], ["192.0.2.1:5", "[2001:db8::1]:5"], []),
        (["192.0.2.0/24"], [], ["192.0.2.1:5", "[::ffff:192.0.2.1]:5"], ["192.0.3.1:5", "[2001:db8::1]:5"]),
        ([], ["192.0.2.0/24"], ["192.0.3.1:5", "[2001:db8::1]:5"], ["192.0.2.1:5", "[::ffff:192.0.2.1]:5"]),
        (["192.0.0.0/8"], ["192.0.2.7"], ["192.0.2.1:5"], ["192.0.2.7:5"]),
        (["2001:db8::/32"], ["2001:db8::7"], ["[2001:db8::1]:5"], ["[2001:db8::7]:5", "192.0.2.1:5"]),
        (["fe80::/10"], [], ["[fe80::1%eth0]:5"], ["[2001:db8::1]:5"]),
        (["::ffff:192.0.2.0/120"], [], ["192.0.2.1:5", "[::ffff:192.0.2.1]:5"], ["192.0.3.1:5"]),
        (["0.0.0.0/0"], [], ["192.0.2.1:5"], ["[2001:db8::1]:5"]),
    ],
)
def test_clients_are_judged_by_their_network_and_deny_wins(
    allow: list[str], deny: list[str], inside: list[str], outside: list[str]
) -> None:
    clients = Clients(allow, deny)
    assert [peer for peer in inside + outside if clients.permit(peer)] == inside


def test_the_peers_of_a_listener_for_both_families_are_judged_by_their_ipv4_address() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])),
    ):
        sock, peer = server.accept()
        sock.close()
    assert peer[0] == "::ffff:127.0.0.1"
    assert not Clients([], ["127.0.0.0/8"]).permit(f"[{peer[0]}]:{peer[1]}")
