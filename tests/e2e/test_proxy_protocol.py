"""HAProxy in front and nginx behind, with a relay and a tunnel in between: nginx still knows who has come."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from installed import Daemon, Program
from ports import steady_port
from system_tools import path_of
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("curl", "haproxy", "nginx")]

PROXY, VISITOR = "127.0.0.3", "127.0.0.9"

HOST = "app.example.net"

NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        location / {{ return 200 "$proxy_protocol_addr $http_x_forwarded_for"; }}
    }}
}}
"""

HAPROXY = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""

LISTEN = """
listen l{port}
  bind 127.0.0.1:{port}
  source {proxy}
  server it {to} {options}
"""

OPTIONS = ("send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,crc32c,unique-id")
"""Version 1, version 2, and version 2 with more behind the addresses."""

SERVICES = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"
public_host = "127.0.0.1"
proxy_protocol_from = ["{proxy}"]

[service.shop]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "127.0.0.1:{nginx}"
send_proxy = "{version}"

[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:{web}"
proxy_protocol_from = ["{proxy}"]

[service.app]
kind = "tunnel-client"
server = "http://{host}:{web}"
connect = "127.0.0.1:{web}"
target = "127.0.0.1:{nginx}"
send_proxy = "{version}"
health_check = "http"
"""


class Chain:
    """Of all the programs, in the order in which they are needed."""

    def __init__(self, program: Program, version: str) -> None:
        self.program = program
        nginx, edge, self.web = steady_port(), steady_port(), steady_port()
        self.nginx, self.edge = f"127.0.0.1:{nginx}", f"127.0.0.1:{edge}"
        user = "user root;" if os.geteuid() == 0 else ""  # else its worker is nobody, who may not read our folder
        program.write("nginx.conf", NGINX.format(folder=program.folder, port=nginx, user=user), 0o644)
        folder = str(program.folder)
        program.start_other([path_of("nginx"), "-p", folder, "-c", f"{folder}/nginx.conf"])
        tables = SERVICES.format(edge=edge, web=self.web, nginx=nginx, host=HOST, proxy=PROXY, version=version)
        self.daemon: Daemon = program.daemon(tables)
        self.public = self.daemon.address("shop")
        self.to_relay, self.to_web = ([steady_port() for _ in OPTIONS] for _ in range(2))
        listens = [
            LISTEN.format(port=port, proxy=PROXY, to=to, options=options)
            for ports, to in ((self.to_relay, self.public), (self.to_web, f"127.0.0.1:{self.web}"))
            for port, options in zip(ports, OPTIONS, strict=True)
        ]
        program.write("haproxy.cfg", HAPROXY + "".join(listens))
        program.start_other([path_of("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"])
        for port in (self.to_relay[-1], self.to_web[-1]):
            self.waits_for(port)

    def waits_for(self, port: int) -> None:
        """Until visitors are led through this port of HAProxy, and over data connections, which come a moment later."""
        until_true(lambda: self.curl(f"127.0.0.1:{port}").startswith(VISITOR))

    def curl(self, where: str, *arguments: str, from_host: str = VISITOR) -> str:
        """What curl prints of the page there; "" where there is none."""
        own = ["--silent", "--max-time", "15", "--interface", from_host, "--header", f"Host: {HOST}"]
        return self.program.run_other(["curl", *own, f"http://{where}/", *arguments]).out


@pytest.fixture(scope="module", params=["v1", "v2"])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    program = Program(tmp_path_factory.mktemp("e"))
    try:
        yield Chain(program, request.param)
    finally:
        program.close()


def test_a_visitor_of_haproxy_is_known_to_nginx_behind_a_relay(chain: Chain) -> None:
    assert [chain.curl(f"127.0.0.1:{port}") for port in chain.to_relay] == [f"{VISITOR} "] * len(OPTIONS)


def test_a_visitor_of_haproxy_is_known_to_nginx_behind_a_tunnel_in_both_ways(chain: Chain) -> None:
    told = f"{VISITOR} {VISITOR}"
    assert [chain.curl(f"127.0.0.1:{port}") for port in chain.to_web] == [told] * len(OPTIONS)


def test_who_comes_without_the_proxy_is_known_too_and_brings_no_header(chain: Chain) -> None:
    assert chain.curl(chain.public) == f"{VISITOR} "
    assert chain.curl(f"127.0.0.1:{chain.web}") == f"{VISITOR} {VISITOR}"
    assert "400 Bad Request" in chain.curl(f"127.0.0.1:{chain.web}", "--haproxy-protocol", from_host="127.0.0.8")


def test_curl_in_the_proxys_place_has_to_bring_one(chain: Chain) -> None:
    where = f"127.0.0.1:{chain.web}"
    assert chain.curl(where, "--haproxy-protocol", from_host=PROXY) == f"{PROXY} {PROXY}"
    assert chain.curl(where, from_host=PROXY) == ""
    until_true(lambda: f"refused {PROXY}:" in chain.daemon.process.err)


def test_a_command_tells_its_target_too(chain: Chain) -> None:
    command = chain.program.start("tcp", chain.nginx, "--server", chain.edge, "--send-proxy", "v2")
    until_true(lambda: " -> " in command.out)
    public = command.out.split()[1].removeprefix("tcp://")
    until_true(lambda: chain.curl(public) == f"{VISITOR} ")  # the first may come before there are data connections
    web = chain.program.run("http", "--folder", ".", "--server", f"http://{HOST}", "--send-proxy", "v1")
    assert web.code == 2
    assert "--send-proxy: is for services, and target is a folder" in web.err
