"""curl through a jump client and a jump server to a real web server: every way in, with and without TLS."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed import Daemon, Program
from origins import HELLO, HeldOrigin, WebOrigin, web_origin
from ports import steady_port

pytestmark = [pytest.mark.e2e, pytest.mark.system("curl")]

SECRET = "only alice knows this"

SERVERS = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{plain}"
allow = ["localhost:*"]
secrets = {{ alice = "{secret}", bob = "another" }}

[service.sealed]
kind = "jump-server"
listen = "127.0.0.1:{sealed}"
allow = ["localhost:*"]
secrets = {{ alice = "{secret}", bob = "another" }}
tls = {{}}
"""

CLIENTS = """
[service.socks-{way}]
kind = "jump-client"
server = "127.0.0.1:{port}"
secret = "{secret}"
listen = "127.0.0.1:0"
{tls}

[service.http-{way}]
kind = "jump-client"
server = "127.0.0.1:{port}"
secret = "{secret}"
listen = "127.0.0.1:0"
proxy = "http"
{tls}

[service.fixed-{way}]
kind = "jump-client"
server = "127.0.0.1:{port}"
secret = "{secret}"
listen = "127.0.0.1:0"
target = "{target}"
{tls}
"""


class Road:
    """Two daemons, servers in one and clients in the other, and a web server beyond them on IPv4 and on IPv6."""

    def __init__(self, program: Program, origin: WebOrigin, origin6: WebOrigin) -> None:
        self.program = program
        self.origin = origin
        self.origin6 = origin6
        ports = {"plain": steady_port(), "sealed": steady_port()}
        self.servers = program.daemon(SERVERS.format(secret=SECRET, **ports))
        fingerprint = self.servers.service("sealed")["notes"]["fingerprint"]
        tls = {"plain": "", "sealed": f'tls = {{ fingerprint = "{fingerprint}" }}'}
        self.clients: Daemon = program.daemon(
            "".join(
                CLIENTS.format(way=way, port=port, secret=SECRET, target=origin.address, tls=tls[way])
                for way, port in ports.items()
            )
        )

    def curl(self, *arguments: str) -> str:
        """What curl prints."""
        done = self.program.run_other(["curl", "--silent", "--show-error", "--max-time", "15", *arguments])
        return done.ok()


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("e")
    program = Program(folder)
    try:
        with web_origin(folder / "o") as origin, web_origin(folder / "o6", "::1") as origin6:
            yield Road(program, origin, origin6)
    finally:
        program.close()


@pytest.fixture(params=["plain", "sealed"])
def way(request: pytest.FixtureRequest) -> str:
    """Whether jump client and server speak in the clear, or inside TLS with the certificate pinned."""
    return str(request.param)


def test_a_page_comes_through_socks5_by_a_name_that_the_far_end_resolves(road: Road, way: str) -> None:
    proxy = road.clients.address(f"socks-{way}")
    assert road.curl("--socks5-hostname", proxy, f"http://localhost:{road.origin.port}/hello") == HELLO


def test_a_page_comes_through_socks5_by_ipv4_address(road: Road, way: str) -> None:
    proxy = road.clients.address(f"socks-{way}")
    assert road.curl("--socks5", proxy, f"http://{road.origin.address}/hello") == HELLO


def test_a_page_comes_through_socks5_by_ipv6_address(road: Road, way: str) -> None:
    proxy = road.clients.address(f"socks-{way}")
    assert road.curl("--socks5", proxy, f"http://{road.origin6.address}/hello") == HELLO


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_page_comes_through_the_connect_proxy(road: Road, way: str, host: str) -> None:
    proxy = road.clients.address(f"http-{way}")
    port = road.origin6.port if host == "[::1]" else road.origin.port
    assert road.curl("--proxytunnel", "--proxy", f"http://{proxy}", f"http://{host}:{port}/hello") == HELLO


def test_a_page_comes_through_a_fixed_target(road: Road, way: str) -> None:
    assert road.curl(f"http://{road.clients.address(f'fixed-{way}')}/hello") == HELLO


def test_a_large_file_arrives_intact(road: Road, way: str, tmp_path: Path) -> None:
    proxy = road.clients.address(f"socks-{way}")
    road.curl("--socks5-hostname", proxy, "--output", str(tmp_path / "big"), f"http://{road.origin.address}/big")
    assert hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest() == road.origin.digest


def test_sixteen_pages_at_once_come_through_one_proxy(road: Road, way: str) -> None:
    proxy = road.clients.address(f"socks-{way}")
    urls = [f"http://localhost:{road.origin.port}/hello"] * 16
    assert road.curl("--parallel", "--socks5-hostname", proxy, *urls) == HELLO * 16


def test_curl_is_told_that_nobody_listens_at_the_target(road: Road, way: str) -> None:
    done = road.program.run_other(
        ["curl", "-sS", "--socks5-hostname", road.clients.address(f"socks-{way}"), "http://localhost:1/"]
    )
    assert done.code == 97  # CURLE_PROXY: the proxy's own answer, here "connection refused"


def test_the_server_sees_who_comes_by_name_and_where_they_go(road: Road, way: str) -> None:
    with HeldOrigin() as held:
        proxy = road.clients.address(f"socks-{way}")
        curl = road.program.start_other(["curl", "-sS", "--socks5-hostname", proxy, f"http://localhost:{held.port}/"])
        answer = held.request()
        (channel,) = [row for row in road.servers.json("channels") if row["label"] == f"localhost:{held.port}"]
        (session,) = [row for row in road.servers.json("sessions") if row["id"] == channel["session"]]
        assert (session["identity"], session["service"]) == ("alice", "home" if way == "plain" else "sealed")
        answer.begin(len(HELLO))
        answer.send(HELLO.encode())
        assert (curl.returns(), curl.out) == (0, HELLO)
