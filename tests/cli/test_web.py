"""The commands about web services behind tunnels: a one-line client, and the requests that came."""

from __future__ import annotations

import http.client
import json
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from complaint import is_one_line
from installed import Daemon, Program
from ports import split, steady_port
from waiting import until_true

TOKEN = "only-for-these-tests"

HOST = "app.example.net"

SERVICES = """
[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:{port}"

[service.app]
kind = "tunnel-client"
server = "http://{host}:{port}"
connect = "127.0.0.1:{port}"
target = "{origin}"

[service.guarded]
kind = "tunnel-server"
listen = "127.0.0.1:0"
tokens = {{ alice = "{token}" }}

[service.quiet]
kind = "tunnel-server"
listen = "127.0.0.1:0"
"""


class Handler(BaseHTTPRequestHandler):
    """Answers what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = f"{self.command} {self.path} at {self.headers['Host']} with {body.decode()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Set-Cookie", "sid=hush")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@dataclass
class Node:
    """A daemon with a tunnel server, and a client of it that leads to an origin."""

    daemon: Daemon
    port: int
    origin: str

    def get(self, path: str = "/", host: str = "", body: str = "", address: str = "", **fields: str) -> str:
        """What a visitor gets."""
        connection = http.client.HTTPConnection(*split(address or f"127.0.0.1:{self.port}"), timeout=10)
        head = {
            "Host": host or f"{HOST}:{self.port}",
            **{name.replace("_", "-"): text for name, text in fields.items()},
        }
        connection.request("POST" if body else "GET", path, body or None, head)
        answer = connection.getresponse().read().decode()
        connection.close()
        return answer

    def rows(self, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.daemon.json("requests", *options)
        return found

    def visited(self, path: str, **more: str) -> dict[str, Any]:
        """A visitor's request, as a row of the server."""
        self.get(path, **more)
        shown = path.partition("?")[0]
        return until_true(
            lambda: [row for row in self.rows("--service", "web") if row["target"].partition("?")[0] == shown]
        )[-1]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("web"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def node(program: Program) -> Iterator[Node]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        port, origin = steady_port(), f"127.0.0.1:{server.server_address[1]}"
        daemon = program.daemon(SERVICES.format(port=port, host=HOST, origin=origin, token=TOKEN))
        daemon.reaches("app", "connected")
        yield Node(daemon, port, origin)
        daemon.stops()
        server.shutdown()
        thread.join()


# http


def test_http_prints_the_public_url_on_one_line_and_leads_visitors_to_the_service(program: Program, node: Node) -> None:
    url = f"http://one.example.net:{node.port}"
    port = node.origin.rpartition(":")[2]
    command = program.start("http", port, "--server", url, "--connect", f"127.0.0.1:{node.port}")
    command.says("forwarding")
    assert command.out == f"forwarding {url} -> localhost:{port}\n"
    assert node.get("/x", host="one.example.net") == "GET /x at one.example.net with \n"
    command.sends(signal.SIGINT)
    assert command.returns() == 0
    assert command.err == ""


def test_http_tells_programs_in_json_and_the_service_another_host(program: Program, node: Node) -> None:
    url = f"http://two.example.net:{node.port}"
    options = ["--connect", f"127.0.0.1:{node.port}", "--host-header", "inner.example:81", "--json"]
    command = program.start("http", node.origin, "--server", url, *options)
    command.says("}\n")
    assert json.loads(command.out) == {"address": url, "target": node.origin}
    assert "at inner.example:81 with" in node.get("/", host="two.example.net")
    command.sends(signal.SIGTERM)
    assert command.returns() == 0


def test_http_serves_a_folder(program: Program, node: Node) -> None:
    (program.folder / "site").mkdir()
    program.write("site/page.txt", "a page\n", mode=0o644)
    url = f"http://three.example.net:{node.port}"
    command = program.start("http", "--folder", "site", "--server", url, "--connect", f"127.0.0.1:{node.port}")
    command.says("forwarding")
    assert command.out == f"forwarding {url} -> {program.folder}/site\n"
    assert node.get("/page.txt", host="three.example.net") == "a page\n"
    command.sends(signal.SIGINT)
    assert command.returns() == 0


def test_http_connects_again_when_the_server_comes_back(program: Program, node: Node) -> None:
    url = f"http://four.example.net:{node.port}"
    command = program.start("http", node.origin, "--server", url, "--connect", f"127.0.0.1:{node.port}")
    command.says("forwarding")
    node.daemon.ask("restart", "web").ok()
    command.says("as before")
    assert command.out.count("forwarding") == 1
    assert node.get("/back", host="four.example.net") == "GET /back at four.example.net with \n"
    command.sends(signal.SIGINT)
    assert command.returns() == 0
    node.daemon.reaches("app", "connected")


def test_http_takes_the_token_from_a_file_or_the_environment(program: Program, node: Node) -> None:
    address = node.daemon.address("guarded")
    where = ("--server", f"http://five.example.net:{split(address)[1]}", "--connect", address)
    file = program.write("token", f"{TOKEN}\n")
    for options, variable in (["--token-file", str(file)], ""), ([], TOKEN):
        command = program.start("http", node.origin, *where, *options, env={"TUNNELCONSOLE_TOKEN": variable})
        command.says("forwarding")
        assert "GET / at" in node.get("/", host="five.example.net", address=address)
        command.sends(signal.SIGINT)
        assert command.returns() == 0


def test_http_says_how_to_do_without_tls_and_who_cannot_be_reached(program: Program, node: Node) -> None:
    where = ("--connect", f"127.0.0.1:{node.port}", "--fingerprint", "ab" * 32)
    command = program.start("http", node.origin, "--server", f"https://a.example.net:{node.port}", *where)
    until_true(lambda: "begin the URL with http://" in command.err)
    command.sends(signal.SIGINT)
    assert command.returns() == 0
    gone = program.start("http", node.origin, "--server", "http://a.example.net", "--connect", "127.0.0.1:1")
    until_true(lambda: "cannot reach the tunnel server 127.0.0.1:1: " in gone.err)
    gone.sends(signal.SIGINT)
    assert gone.returns() == 0


@pytest.mark.parametrize("token", ["", "guessed"])
def test_http_gives_up_when_it_is_refused(program: Program, node: Node, token: str) -> None:
    address = node.daemon.address("guarded")
    where = ("--server", f"http://six.example.net:{split(address)[1]}", "--connect", address)
    answer = program.run("http", node.origin, *where, env={"TUNNELCONSOLE_TOKEN": token})
    assert answer.code == 1
    assert answer.out == ""
    assert answer.err == (
        "tunnelconsole: the tunnel server refused the tunnel: the token is not known here; see its administrator\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--server", "http://a.example"], "give either TARGET or --folder"),
        (["80", "--folder", ".", "--server", "http://a.example"], "give either TARGET or --folder"),
        (["./x", "--server", "http://a.example"], "a folder is given with --folder"),
        (["80", "--server", "a.example:80"], "is not the URL of a tunnel"),
        (["80", "--server", "http://a.example", "--host-header", "a b"], "--host-header: is not a host name"),
        (
            ["80", "--server", "http://a.example", "--fingerprint", "ab" * 32],
            "for a server whose URL begins with https",
        ),
        (["80", "--server", "http://a.example", "--token-file", "nowhere"], "--token-file"),
    ],
)
def test_http_says_what_is_wrong_with_its_words(program: Program, words: list[str], said: str) -> None:
    answer = program.run("http", *words)
    assert answer.code in (1, 2)
    assert is_one_line(answer.err)
    assert said in answer.err


def test_http_says_that_a_token_is_none_without_repeating_it(program: Program) -> None:
    answer = program.run("http", "80", "--server", "http://a.example", env={"TUNNELCONSOLE_TOKEN": "hush hush"})
    assert answer.code == 2
    assert is_one_line(answer.err)
    assert "--token-file, or TUNNELCONSOLE_TOKEN: holds a blank or a character beyond ASCII" in answer.err
    assert "hush" not in answer.err


# requests


def test_requests_are_rows_without_their_secrets(node: Node) -> None:
    row = node.visited("/rows?page=2&token=hush", body="a=b", Cookie="sid=hush")
    assert row["target"] == "/rows?page=2&token=[hidden]"
    assert (row["service"], row["host"], row["method"], row["status"]) == ("web", HOST, "POST", 200)
    assert (row["request_bytes"], row["error"], row["replay_of"]) == (3, "", "")
    assert row["response_bytes"] > 20
    assert 0 < row["seconds_to_answer"] <= row["seconds"]
    assert re.fullmatch(r"x\d+", row["id"])
    assert {"web", "app"} <= {found["service"] for found in node.rows()}
    table = node.daemon.ask("requests", "--service", "web", "-n", "1").ok()
    heading, line = table.splitlines()
    assert heading.split()[:4] == ["ID", "TIME", "SERVICE", "STATUS"]
    assert row["target"] in line
    assert "hush" not in table


def test_a_service_without_requests_says_so(node: Node) -> None:
    answer = node.daemon.ask("requests", "--service", "quiet")
    assert (answer.ok(), answer.err) == ("", "no requests: nobody has come through quiet yet\n")


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_a_service_that_there_is_not_is_refused(node: Node, options: list[str]) -> None:
    answer = node.daemon.ask("requests", "--service", "nobody", *options)
    assert answer.code == 1
    assert is_one_line(answer.err)


def test_requests_are_followed_as_they_end(program: Program, node: Node) -> None:
    node.visited("/before")
    command = program.start(
        "requests", "--follow", "--json", "--service", "web", "-n", "1", "--socket", str(node.daemon.control)
    )
    command.says("/before")
    node.get("/after?key=hush")
    command.says("/after")
    rows = [json.loads(line) for line in command.out.splitlines()]
    assert [row["target"] for row in rows] == ["/before", "/after?key=[hidden]"]
    command.sends(signal.SIGINT)
    assert command.returns() == 130


def test_followed_requests_are_lines_for_people(program: Program, node: Node) -> None:
    command = program.start("requests", "-f", "-n", "1", "--service", "web", "--socket", str(node.daemon.control))
    node.get("/line")
    command.says("/line")
    assert re.search(
        r"^x\d+ +\d{4}-\d\d-\d\d .*  web  +200  .*  GET  +app\.example\.net  +/line$", command.out, re.MULTILINE
    )
    command.sends(signal.SIGINT)
    assert command.returns() == 130


# one request


def test_a_request_is_printed_whole_its_secrets_only_when_asked_for(node: Node) -> None:
    key = node.visited("/whole?token=hush", body="user=me", Authorization="Bearer hush")["id"]
    answer = node.daemon.ask("request", key)
    assert f"url      http://{HOST}:{node.port}/whole?token=[hidden]\n" in answer.ok()
    assert "\nPOST /whole?token=[hidden] HTTP/1.1\n" in answer.out
    assert "\nAuthorization: Bearer [hidden]\n" in answer.out
    assert "\n\nuser=me\n" in answer.out
    assert "\nHTTP/1.1 200 OK\n" in answer.out
    assert "\nSet-Cookie: sid=[hidden]\n" in answer.out
    assert "hush" not in answer.out  # though the service repeats the path in its answer
    assert answer.err == "tunnelconsole: 4 secrets hidden; --reveal shows what is\n"
    revealed = node.daemon.ask("request", key, "--reveal")
    assert "\nAuthorization: Bearer hush\n" in revealed.ok()
    assert revealed.err == ""


def test_a_request_is_a_document(node: Node) -> None:
    key = node.visited("/document", Authorization="Bearer hush")["id"]
    document = node.daemon.json("request", key)
    assert set(document) == {"row", "url", "request", "response", "hidden", "revealed"}
    assert document["row"]["id"] == key
    assert ["Authorization", "Bearer [hidden]"] in document["request"]["fields"]
    assert node.daemon.json("request", key, "--reveal")["hidden"] == 0


@pytest.mark.system("curl", "sh")
def test_a_request_is_a_command_that_sends_it_again(node: Node) -> None:
    row = node.visited("/curl?a=b&c='d'", body="it's\n100%", Authorization="Bearer hush")
    command = node.daemon.ask("request", row["id"], "--curl", "--reveal").ok()
    resolve = f"--resolve {HOST}:{node.port}:127.0.0.1 "
    done = subprocess.run(
        ["sh", "-c", command.replace("curl ", f"curl -sS {resolve}", 1)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"POST /curl?a=b&c='d' at {HOST}:{node.port} with it's\n100%\n"


def test_a_request_is_saved_as_an_archive_once(node: Node, tmp_path: Path) -> None:
    key = node.visited("/har", Authorization="Bearer hush")["id"]
    path = tmp_path / "one.har"
    assert node.daemon.ask("request", key, "--har", str(path)).ok() == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "hush" not in path.read_text().partition('"response"')[0]
    assert json.loads(path.read_text())["log"]["entries"][0]["request"]["url"].endswith("/har")
    again = node.daemon.ask("request", key, "--har", str(path))
    assert again.code == 1
    assert is_one_line(again.err)
    assert "File exists" in again.err
    printed = node.daemon.ask("request", key, "--har", "-", "--reveal")
    assert "Bearer hush" in printed.ok()


@pytest.mark.parametrize("options", [["--curl", "--har", "-"], ["--curl", "--json"], ["--har", "-", "--json"]])
def test_options_that_exclude_each_other_are_wrong_usage(node: Node, options: list[str]) -> None:
    answer = node.daemon.ask("request", "x1", *options)
    assert answer.code == 2
    assert is_one_line(answer.err)


@pytest.mark.parametrize("command", ["request", "replay"])
def test_a_request_that_is_not_kept_is_told(node: Node, command: str) -> None:
    answer = node.daemon.ask(command, "x99999999")
    assert answer.code == 1
    assert answer.err == (
        "tunnelconsole: there is no request x99999999; only the last of each tunnel are kept; list them again\n"
    )


# replay


def test_a_replay_sends_a_request_again_and_shows_what_comes_of_it(node: Node) -> None:
    row = node.visited("/twice", body="the same", Authorization="Bearer hush")
    answer = node.daemon.ask("replay", row["id"])
    assert re.search(rf"^request  x\d+, through web, a replay of {row['id']}$", answer.ok(), re.MULTILINE)
    assert answer.out.endswith(f"POST /twice at {HOST}:{node.port} with the same\n")
    assert "Bearer [hidden]" in answer.out
    rows = [found for found in node.rows("--service", "web") if found["target"] == "/twice"]
    assert [found["replay_of"] for found in rows] == ["", row["id"]]
