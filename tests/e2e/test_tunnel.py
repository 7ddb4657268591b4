"""curl, wrk and a WebSocket library through a tunnel client and server to nginx: HTTP, HTTPS, and whoever is killed."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from installed import Daemon, Process, Program
from ports import steady_port
from system_tools import path_of
from tls_programs import certificate
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("curl", "nginx")]

HOST = "app.example.net"
PAGE = "hello from nginx\n"

HUGE = 1 << 30
"""Bytes of a page of which most has not left its service when somebody is killed, whatever sockets may hold."""

UPLOAD = 1_000_000
"""Bytes of a request of which half is sent when somebody is killed."""

NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/www;
        location = /put {{ dav_methods PUT; alias {folder}/www/stored; create_full_put_path on; }}
        location = /who {{ return 200 "$http_x_forwarded_for $http_x_forwarded_proto $host"; }}
    }}
}}
"""

SERVER = """
[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:{secure}"
listen_http = "127.0.0.1:{plain}"
certificate = "{certificate}"
key = "{key}"
"""

CLIENT = """
[service.app]
kind = "tunnel-client"
server = "{scheme}://{host}:{port}"
connect = "127.0.0.1:{port}"
target = "127.0.0.1:{target}"
native = {native}
{tls}
"""


class Site:
    """A tunnel server, a client in a daemon of its own, and nginx behind it."""

    def __init__(self, program: Program, *, scheme: str, native: bool) -> None:
        self.program = program
        self.folder = program.folder
        self.scheme = scheme
        self.port = steady_port()
        (self.folder / "www").mkdir()
        (self.folder / "www" / "index.html").write_text(PAGE)
        self.big = os.urandom(1024) * 8192
        (self.folder / "www" / "big").write_bytes(self.big)
        with (self.folder / "www" / "huge").open("wb") as file:
            file.truncate(HUGE)  # it takes no room: nothing was written to it
        user = "user root;" if os.geteuid() == 0 else ""  # else its worker is nobody, who may not read our folder
        program.write("nginx.conf", NGINX.format(folder=self.folder, port=self.port, user=user), 0o644)
        self.nginx: Process = self.start_nginx()
        self.crt, key = certificate(HOST)
        ports = {"secure": steady_port(), "plain": steady_port()}
        self.server: Daemon = program.daemon(SERVER.format(certificate=self.crt, key=key, **ports))
        self.public = ports["secure" if scheme == "https" else "plain"]
        self.client: Daemon = program.daemon(
            CLIENT.format(
                scheme=scheme,
                host=HOST,
                port=self.public,
                target=self.port,
                native=str(native).lower(),
                tls=f'tls = {{ ca = "{self.crt}" }}' if scheme == "https" else "",
            )
        )

    def start_nginx(self) -> Process:
        return self.program.start_other([path_of("nginx"), "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf"])

    def curl(self, path: str, *arguments: str) -> str:
        """What curl prints of a page."""
        own = [
            "--silent",
            "--show-error",
            "--max-time",
            "15",
            "--connect-to",
            f"{HOST}::127.0.0.1:",
            "--cacert",
            str(self.crt),
        ]
        return self.program.run_other(["curl", *own, f"{self.url}{path}", *arguments]).ok()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.public}"

    def visits(self, request: str, begin: bytes = b"") -> socket.socket:
        """A visitor's connection, on which a request has been sent."""
        sock = socket.create_connection(("127.0.0.1", self.public), timeout=30)
        if self.scheme == "https":
            sock = ssl.create_default_context(cafile=str(self.crt)).wrap_socket(sock, server_hostname=HOST)
        sock.sendall(f"{request} HTTP/1.1\r\nHost: {HOST}\r\n".encode() + begin)
        return sock

    def uploads(self) -> list[Path]:
        """Files in which nginx keeps what has come of uploads."""
        return list((self.folder / "body").glob("*"))

    def comes_back(self) -> None:
        """Waits until the page is there again."""
        until_true(lambda: self.curl("/") == PAGE)


@pytest.fixture(scope="module", params=["http-native", "http-yamux", "https-native"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    scheme, _, way = request.param.partition("-")
    program = Program(tmp_path_factory.mktemp("e"))
    try:
        made = Site(program, scheme=scheme, native=way == "native")
        made.comes_back()
        yield made
    finally:
        program.close()


def test_the_public_url_is_on_one_line_of_standard_output(site: Site) -> None:
    assert site.client.address("app") == site.url


def test_pages_come_with_what_the_service_said_of_them(site: Site) -> None:
    head = site.curl("/", "--include")
    assert head.startswith("HTTP/1.1 200 OK")
    assert re.search(r"^Server: nginx", head, re.MULTILINE)
    assert head.endswith(PAGE)
    assert site.curl("/", "--head").startswith("HTTP/1.1 200 OK")
    assert "404 Not Found" in site.curl("/missing", "--include")


def test_the_service_is_told_who_the_visitor_is(site: Site) -> None:
    assert site.curl("/who", "--header", "X-Forwarded-For: 192.0.2.7") == f"127.0.0.1 {site.scheme} {HOST}"


def test_large_files_arrive_intact_both_ways(site: Site, tmp_path: Path) -> None:
    site.curl("/big", "--output", str(tmp_path / "big"))
    assert hashlib.sha256((tmp_path / "big").read_bytes()).digest() == hashlib.sha256(site.big).digest()
    for way in (["--header", "Transfer-Encoding: chunked"], []):
        (site.folder / "www" / "stored").unlink(missing_ok=True)
        site.curl("/put", "--upload-file", str(tmp_path / "big"), *way)
        assert (site.folder / "www" / "stored").read_bytes() == site.big


def test_a_host_without_a_tunnel_is_404(site: Site) -> None:
    assert "404" in site.curl("/", "--insecure", "--header", "Host: other.example.net", "--include")


@pytest.mark.system("wrk")
def test_thousands_of_requests_on_kept_connections_are_all_answered(site: Site) -> None:
    url = f"{site.scheme}://127.0.0.1:{site.public}/"
    command = [path_of("wrk"), "-t1", "-c16", "-d1s", "-H", f"Host: {HOST}", url]
    said = site.program.run_other(command).ok()
    found = re.search(r"(\d+) requests in", said)
    assert found is not None
    assert int(found[1]) > 100
    assert "Non-2xx" not in said
    assert "Socket errors" not in said


def rest(sock: socket.socket) -> tuple[bytes, int]:
    """The first bytes that come until a connection ends in whatever way, and how many come in all."""
    first, count = b"", 0
    with sock, suppress(ConnectionError, ssl.SSLError):
        while data := sock.recv(1 << 20):
            first = first or data
            count += len(data)
    return first, count


@pytest.mark.parametrize("what", ["client", "server", "nginx"])
def test_whoever_is_killed_in_the_middle_leaves_nothing_that_looks_complete(site: Site, what: str) -> None:
    answered = site.visits("GET /huge", b"\r\n")
    assert answered.recv(12) == b"HTTP/1.1 200"
    before = set(site.uploads())
    uploading = site.visits("PUT /put", f"Content-Length: {UPLOAD}\r\n\r\n".encode() + bytes(UPLOAD // 2))
    until_true(lambda: set(site.uploads()) - before)  # else it may go to whoever comes next, who waits for the rest
    match what:
        case "client":
            site.client.is_killed()
            site.client.start()
        case "server":
            site.server.is_killed()
            site.server.start()
        case _:
            site.nginx.sends(signal.SIGTERM)
            site.nginx.returns()
            site.nginx = site.start_nginx()
    _, count = rest(answered)
    assert count < HUGE
    first, _ = rest(uploading)
    assert first[:12] in (b"", b"HTTP/1.1 502", b"HTTP/1.1 404"), first  # 404 where it came just after the client went
    site.comes_back()


@pytest.mark.parametrize("what", ["client", "server", "nginx"])
def test_whoever_is_killed_comes_back_and_with_it_the_page(site: Site, what: str) -> None:
    match what:
        case "client":
            site.client.is_killed()
            assert "404" in site.curl("/", "--include")
            site.client.start()
        case "server":
            site.server.is_killed()
            site.server.start()
            site.client.reaches("app", "connected")
        case _:
            site.nginx.sends(signal.SIGTERM)
            site.nginx.returns()
            refused = site.curl("/", "--include")
            assert refused.startswith("HTTP/1.1 502")
            assert "its local service refuses connections" in refused
            site.nginx = site.start_nginx()
    site.comes_back()


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@pytest.fixture
def echoing(site: Site) -> Iterator[Server]:
    """A WebSocket service in place of nginx."""
    site.nginx.sends(signal.SIGTERM)
    site.nginx.returns()
    with serve(_echo, "127.0.0.1", site.port, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            site.nginx = site.start_nginx()
            site.comes_back()


@pytest.mark.usefixtures("echoing")
def test_a_websocket_carries_messages_of_every_size_both_ways_until_somebody_is_killed(site: Site) -> None:
    scheme = "wss" if site.scheme == "https" else "ws"
    context = ssl.create_default_context(cafile=str(site.crt)) if scheme == "wss" else None
    sock = socket.create_connection(("127.0.0.1", site.public))
    with connect(f"{scheme}://{HOST}:{site.public}/ws", sock=sock, ssl=context, max_size=None) as websocket:
        for size in (0, 1, 125, 126, 65_535, 65_536, 1_000_000):
            message = os.urandom(size)
            websocket.send(message)
            assert websocket.recv(timeout=10) == message
        websocket.send("text")
        assert websocket.recv(timeout=10) == "text"
        site.client.is_killed()
        with pytest.raises(ConnectionClosedError):
            websocket.recv(timeout=10)
    site.client.start()
