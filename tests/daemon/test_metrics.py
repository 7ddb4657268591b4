"""The metrics of a daemon, as Prometheus reads them."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from echo import EchoServer, connect
from installed import Daemon, Program
from measured import Samples, parsed, value
from waiting import until_true

pytestmark = pytest.mark.e2e

RELAY = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:0"
"""

ON = 'metrics = "127.0.0.1:0"'


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    made = Program(tmp_path_factory.mktemp("d"))
    yield made
    made.close()


def metrics_address(daemon: Daemon) -> str:
    """Where they are, as the daemon has said at its start."""
    (line,) = [line for line in daemon.process.out.splitlines() if line.startswith("metrics ")]
    return line.removeprefix("metrics address=")


def got(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def scraped(daemon: Daemon) -> Samples:
    status, text = got(metrics_address(daemon), "/metrics")
    assert status == 200
    return parsed(text)


def test_a_scrape_tells_what_the_commands_tell(program: Program) -> None:
    echo = EchoServer()
    edge = program.daemon(RELAY, engine=ON)
    backend = f'[service.back]\nkind = "relay-client"\nserver = "{edge.address("edge")}"\ntarget = "{echo.address}"\n'
    client = program.daemon(backend, engine=ON)
    assert edge.json("status")["metrics"] == metrics_address(edge)
    assert got(metrics_address(client), "/readyz") == (200, "ready\n")
    with connect(client.address("back")) as visitor:
        visitor.sendall(b"x" * 1000)
        assert len(visitor.recv(1000, 0x100)) == 1000  # MSG_WAITALL
        until_true(lambda: value(scraped(client), "tunnelconsole_bytes_total", service="back", direction="in") == 1000)
        samples = scraped(edge)
        assert value(samples, "tunnelconsole_sessions", service="edge") == 1
        assert value(samples, "tunnelconsole_channels", service="edge") == 1
        assert value(samples, "tunnelconsole_handshakes_total", service="edge") == 1
    echo.close()


def test_without_the_setting_nothing_listens(program: Program) -> None:
    daemon = program.daemon(RELAY)
    assert "metrics" not in daemon.process.out
    assert daemon.json("status")["metrics"] == ""


def test_an_engine_that_drains_says_so_until_it_is_over(program: Program) -> None:
    echo = EchoServer()
    edge = program.daemon(RELAY)
    backend = f'[service.back]\nkind = "relay-client"\nserver = "{edge.address("edge")}"\ntarget = "{echo.address}"\n'
    daemon = program.daemon(backend, engine=ON)
    address = metrics_address(daemon)
    with connect(daemon.address("back")) as visitor:
        visitor.sendall(b"x")
        assert visitor.recv(1) == b"x"
        daemon.process.sends(signal.SIGTERM)
        until_true(lambda: got(address, "/readyz") == (503, "the engine is stopping\n"))
        assert got(address, "/healthz") == (200, "ok\n")
    assert daemon.process.returns() == 0
    echo.close()


def test_a_port_in_use_is_an_error_at_the_start_that_names_its_key(program: Program) -> None:
    edge = program.daemon(RELAY)
    daemon = Daemon(program, RELAY, f'metrics = "{edge.address("edge")}"')
    daemon.launch()
    assert daemon.process.returns() == 1
    assert "Address already in use" in daemon.process.err
    assert "in engine.metrics" in daemon.process.err
    assert not daemon.process.out


class TestReloading:
    def test_it_opens_moves_and_closes_the_listener(self, program: Program) -> None:
        daemon = program.daemon(RELAY)
        since = daemon.service("edge")["since"]
        daemon.configure(RELAY, ON)
        done = daemon.ask("reload").ok()
        first: str = daemon.json("status")["metrics"]
        assert f"metrics at {first}" in done
        assert got(first, "/readyz") == (200, "ready\n")
        daemon.configure(RELAY, 'metrics = "0.0.0.0:0"')
        daemon.ask("reload").ok()
        second = daemon.json("status")["metrics"].replace("0.0.0.0", "127.0.0.1")
        assert got(second, "/healthz") == (200, "ok\n")
        assert "/metrics, beyond loopback" in daemon.ask("status").ok()
        with pytest.raises(urllib.error.URLError, match="refused"):
            got(first, "/healthz")
        daemon.configure(RELAY, "")
        assert "no metrics any more" in daemon.ask("reload").ok()
        assert daemon.json("status")["metrics"] == ""
        assert daemon.service("edge")["since"] == since

    def test_a_place_that_cannot_be_had_changes_nothing(self, program: Program) -> None:
        daemon = program.daemon(RELAY, engine=ON)
        before = metrics_address(daemon)
        daemon.configure(RELAY.replace("edge", "other"), f'metrics = "{daemon.address("edge")}"')
        refused = daemon.ask("reload")
        assert refused.code == 1
        assert "in engine.metrics" in refused.err
        assert daemon.service("edge")["state"] == "listening"
        assert got(before, "/healthz") == (200, "ok\n")
