"""The engine alone, run as service managers and containers run it."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import uvloop

from echo import EchoServer, connect, echoed
from installed import Daemon, Program, descriptors_allowed, few_descriptors
from tunnelconsole import daemon as daemon_module
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.messages import StopEngine
from tunnelconsole.engine.services.kinds import KINDS
from waiting import until_true

pytestmark = pytest.mark.e2e

JUMP = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
secret = "superBigSecret"
"""

OTHER = JUMP.replace("service.home", "service.other")

RELAY = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{port}"
"""

BACKEND = """
[service.edge-echo]
kind = "relay-client"
server = "{edge}"
target = "{target}"
"""

IMPATIENT = """
import pathlib, sys
from tunnelconsole import daemon
daemon.SETTLE_TIMEOUT = 0.1
sys.exit(daemon.run(pathlib.Path(sys.argv[1])))
"""

FAILING_CALLBACK = """
import asyncio, pathlib, sys
from tunnelconsole import daemon

def fail():
    raise ZeroDivisionError("on purpose")

class Failing(daemon.Daemon):
    def _announce(self):
        super()._announce()
        asyncio.get_running_loop().call_soon(fail)

daemon.Daemon = Failing
sys.exit(daemon.run(pathlib.Path(sys.argv[1])))
"""


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The installed program in a folder of its own; whatever is started with it ends with the test."""
    made = Program(tmp_path_factory.mktemp("d"))
    yield made
    made.close()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def relay(program: Program, echo: EchoServer) -> Daemon:
    """A daemon whose service ``edge-echo`` leads to ``echo``."""
    server = program.daemon(RELAY.format(port=0))
    return program.daemon(BACKEND.format(edge=server.address("edge"), target=echo.address))


class TestWhatItSays:
    def test_one_line_per_service_and_then_ready(self, program: Program) -> None:
        daemon = program.daemon(JUMP + RELAY.format(port=0))
        home, edge, ready = daemon.process.out.splitlines()
        assert home == f"listening service=home kind=jump-server address={daemon.address('home')}"
        assert edge == f"listening service=edge kind=relay-server address={daemon.address('edge')}"
        assert ready == "ready"

    def test_where_visitors_come_without_tls_is_said_too(self, program: Program) -> None:
        text = '[service.web]\nkind = "tunnel-server"\nlisten = "127.0.0.1:0"\nlisten_http = "127.0.0.1:0"\ntls = {}\n'
        daemon = program.daemon(text)
        (row,) = daemon.json("services")
        assert f"address={row['address']} http={row['notes']['http']} " in daemon.process.out

    def test_the_same_as_json(self, program: Program) -> None:
        daemon = Daemon(program, JUMP, 'log_format = "json"')
        daemon.launch()
        until_true(lambda: daemon.process.out.count("\n") == 2)
        home, ready = map(json.loads, daemon.process.out.splitlines())
        assert ready == {"event": "ready"}
        assert (home["event"], home["service"], home["kind"]) == ("listening", "home", "jump-server")
        assert home["address"].startswith("127.0.0.1:")
        daemon.stops()
        log = [json.loads(line) for line in daemon.process.err.splitlines()]
        told = [row["event"] for row in log if row["event"] != "audited"]
        assert told == ["service-listening", "engine-stopping", "service-stopped"]
        assert {row["level"] for row in log} == {"info"}

    def test_a_client_says_where_it_can_be_reached(self, relay: Daemon) -> None:
        assert relay.process.out.splitlines()[0].startswith("connected service=edge-echo kind=relay-client address=")

    def test_a_client_whose_server_is_away_says_why(self, program: Program, echo: EchoServer) -> None:
        daemon = program.daemon(BACKEND.format(edge="127.0.0.1:1", target=echo.address))
        line, ready = daemon.process.out.splitlines()
        assert line.startswith('backoff service=edge-echo kind=relay-client error="')
        assert "refused" in line
        assert ready == "ready"

    def test_a_service_that_is_not_enabled_says_so(self, program: Program) -> None:
        daemon = program.daemon(JUMP + "enabled = false\n")
        assert daemon.process.out.splitlines() == ["stopped service=home kind=jump-server", "ready"]

    def test_a_certificate_of_its_own_is_named_by_its_fingerprint(self, program: Program) -> None:
        daemon = program.daemon(JUMP + "tls = {}\n")
        fingerprint = daemon.service("home")["notes"]["fingerprint"]
        assert len(fingerprint) == 64
        assert daemon.process.out.splitlines()[0].endswith(f" fingerprint={fingerprint}")

    def test_the_log_shows_what_its_level_lets_through(self, program: Program) -> None:
        daemon = program.daemon(JUMP, engine='log_level = "debug"')
        with connect(daemon.address("home")) as visitor:
            visitor.sendall(b"garbage that is no handshake" * 100)
            daemon.process.says("peer-refused")
        quiet = program.daemon(JUMP, engine='log_level = "error"')
        quiet.stops()
        assert quiet.process.err == ""

    def test_the_command_line_overrules_the_configuration(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        control = daemon.folder / "elsewhere.sock"
        daemon.process = program.start(
            *("--daemon", "-c", str(daemon.config), "--socket", str(control), "--log-format", "json")
        )
        daemon.process.says('{"event": "ready"}')
        assert control.exists()
        assert not daemon.control.exists()

    def test_a_server_that_does_not_answer_holds_up_nobody(self, program: Program, echo: EchoServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            daemon = Daemon(program, BACKEND.format(edge=address, target=echo.address))
            daemon.process = program.start_other([sys.executable, "-c", IMPATIENT, str(daemon.config)])
            daemon.process.says("ready\n")
        assert daemon.process.out == "connecting service=edge-echo kind=relay-client\nready\n"

    def test_an_engine_without_a_configuration_is_ready_at_once(self, program: Program) -> None:
        process = program.start("--daemon")
        process.says("ready\n")
        assert json.loads(program.run("status", "--json").ok())["services"] == 0
        process.says(f"there is no configuration at {program.folder / 'config/tunnelconsole/config.toml'}: write one")

    def test_secrets_that_others_can_read_are_warned_of_at_the_start_and_at_a_reload(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        daemon.config.chmod(0o644)
        daemon.start()
        warning = f'warning config-warning text="{daemon.config}: holds secrets'
        daemon.process.says(warning)
        daemon.ask("reload").ok()
        until_true(lambda: daemon.process.err.count(warning) == 2)
        assert f"run: chmod 600 {daemon.config}" in daemon.process.err


class TestWhatItRefuses:
    def test_every_mistake_in_the_configuration_is_printed(self, program: Program) -> None:
        daemon = Daemon(program, JUMP.replace("secret =", "secrt =") + OTHER.replace("kind =", "knd ="))
        daemon.launch()
        assert daemon.process.returns() == 1
        assert daemon.process.err.splitlines() == [
            'tunnelconsole: service.home.secrt: unknown key; did you mean "secret"?',
            f"tunnelconsole: service.other.kind: missing; the kinds are {', '.join(KINDS)}",
        ]

    def test_a_port_in_use_ends_it_with_the_reason(self, program: Program, echo: EchoServer) -> None:
        daemon = Daemon(program, OTHER + RELAY.format(port=echo.address.rpartition(":")[2]))
        daemon.launch()
        assert daemon.process.returns() == 1
        assert daemon.process.err.splitlines()[-1] == (
            f"tunnelconsole: service edge: cannot listen on {echo.address}: Address already in use; "
            "another program has this port; stop it or choose another port in service.edge.listen"
        )
        assert "ready" not in daemon.process.out
        assert not daemon.control.exists()

    def test_a_second_engine_is_refused_and_the_first_goes_on(self, program: Program) -> None:
        daemon = program.daemon(JUMP)
        second = program.start("--daemon", "-c", str(daemon.config))
        assert second.returns() == 1
        assert second.err.startswith(f"tunnelconsole: an engine runs already at {daemon.control}")
        assert daemon.service("home")["state"] == "listening"

    def test_a_killed_engine_is_in_nobodys_way(self, program: Program) -> None:
        daemon = program.daemon(JUMP)
        daemon.is_killed()
        assert daemon.control.exists()
        daemon.start()
        assert daemon.service("home")["state"] == "listening"

    def test_a_state_that_others_could_change_ends_it_before_it_keeps_anything(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        (daemon.folder / "state").mkdir()
        (daemon.folder / "state").chmod(0o777)
        daemon.launch()
        assert daemon.process.returns() == 1
        folder = daemon.folder / "state"
        assert daemon.process.err.splitlines()[-1] == (
            f"tunnelconsole: others can write the folder {folder} (mode 0777), and so lead what is kept there astray; "
            f"close it with: chmod go-w {folder}; or name another folder"
        )
        assert not list(folder.iterdir())
        assert not daemon.control.exists()

    def test_a_state_that_cannot_be_kept_is_said_and_stops_nothing(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        (daemon.folder / "state").write_text("a file where a folder should be")
        daemon.start()
        daemon.process.says("store-failed")

    def test_refused_credentials_fail_one_service_and_not_the_engine(self, program: Program, echo: EchoServer) -> None:
        server = program.daemon(RELAY.format(port=0) + "tls = {}\n")
        wrong = f'tls = {{ fingerprint = "{"00" * 32}" }}\n'
        daemon = program.daemon(BACKEND.format(edge=server.address("edge"), target=echo.address) + wrong + JUMP)
        assert daemon.process.out.startswith("failed service=edge-echo kind=relay-client error=")
        assert daemon.service("home")["state"] == "listening"
        assert daemon.json("status")["faults"] == 1


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_it_in_order(self, program: Program, number: signal.Signals) -> None:
        daemon = program.daemon(JUMP)
        daemon.process.sends(number)
        assert daemon.process.returns() == 0
        assert f"stopping (by {number.name})" in daemon.process.err
        assert not daemon.control.exists()

    def test_channels_may_finish_and_no_new_ones_begin(self, relay: Daemon) -> None:
        address = relay.address("edge-echo")
        with connect(address) as visitor:
            assert echoed(visitor, b"before") == b"before"
            relay.process.sends(signal.SIGTERM)
            until_true(lambda: relay.json("status")["draining"])
            assert echoed(visitor, b"meanwhile") == b"meanwhile"
        assert relay.process.returns() == 0

    def test_what_does_not_finish_is_cut_when_the_time_is_over(self, program: Program, echo: EchoServer) -> None:
        server = program.daemon(RELAY.format(port=0))
        backend = BACKEND.format(edge=server.address("edge"), target=echo.address)
        relay = program.daemon(backend, engine='drain = "100ms"')
        with connect(relay.address("edge-echo")) as visitor:
            assert echoed(visitor, b"before") == b"before"
            assert relay.stops() == 0

    def test_a_second_signal_stops_it_at_once(self, relay: Daemon) -> None:
        with connect(relay.address("edge-echo")) as visitor:
            assert echoed(visitor, b"before") == b"before"
            relay.process.sends(signal.SIGTERM)
            until_true(lambda: relay.json("status")["draining"])
            relay.process.sends(signal.SIGTERM)
            assert relay.process.returns(within=8) == 0

    def test_a_signal_while_services_still_connect_stops_it_too(self, program: Program, echo: EchoServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            daemon = Daemon(program, BACKEND.format(edge=address, target=echo.address))
            daemon.launch()
            silent.settimeout(10)
            silent.accept()[0].close()
            assert daemon.stops() == 0

    def test_it_can_be_stopped_over_the_control_socket(self, program: Program) -> None:
        async def stop() -> None:
            async with await ControlClient.connect(daemon.control) as client:
                await client.ask(StopEngine())

        daemon = program.daemon(JUMP)
        asyncio.run(stop())
        assert daemon.process.returns() == 0
        assert "stopping (asked over the control socket)" in daemon.process.err


class TestReloading:
    def hang_up(self, daemon: Daemon, expected: str) -> None:
        before = daemon.process.err.count("config-re")
        daemon.process.sends(signal.SIGHUP)
        until_true(lambda: daemon.process.err.count("config-re") > before)
        assert expected in daemon.process.err

    def test_only_what_changed_is_touched(self, program: Program) -> None:
        daemon = program.daemon(JUMP + OTHER)
        before = {name: daemon.service(name) for name in ("home", "other")}
        daemon.configure(JUMP + OTHER.replace("superBigSecret", "anotherSecret") + RELAY.format(port=0))
        self.hang_up(daemon, "configuration read again: 1 added, 1 changed, 0 removed, 1 untouched")
        daemon.reaches("edge", "listening")
        other = daemon.reaches("other", "listening")
        assert daemon.service("home") | {"rate_in": 0} == before["home"] | {"rate_in": 0}
        assert other["since"] > before["other"]["since"]

    def test_a_wrong_configuration_is_refused_and_the_old_one_stays(self, program: Program) -> None:
        daemon = program.daemon(JUMP)
        before = daemon.service("home")
        daemon.configure(JUMP.replace("127.0.0.1:0", "nowhere") + 'secrt = "x"\n')
        self.hang_up(daemon, "the new configuration is refused, the old one stays: service.home.secrt: unknown key")
        assert daemon.service("home") == before
        refused = daemon.ask("reload")
        assert refused.code == 1
        assert "service.home.secrt" in refused.err
        assert "service.home.listen" in refused.err

    def test_a_configuration_that_has_gone_is_refused(self, program: Program) -> None:
        daemon = program.daemon(JUMP)
        daemon.config.unlink()
        self.hang_up(daemon, "cannot be read: No such file or directory")
        assert daemon.service("home")["state"] == "listening"

    def test_what_needs_a_new_start_is_said_and_the_rest_is_done(self, program: Program) -> None:
        daemon = program.daemon(JUMP)
        daemon.configure(JUMP, 'log_level = "error"\nlog_format = "json"')
        done = daemon.ask("reload").ok()
        assert "engine.log_format will change when the engine is started again" in done
        daemon.configure(JUMP, 'log_level = "info"')
        self.hang_up(daemon, "configuration read again")
        assert daemon.process.err.count("config-reloaded") == 1

    def test_a_secret_in_a_file_is_read_again(self, program: Program) -> None:
        text = JUMP.replace('secret = "superBigSecret"', 'secret_file = "home.secret"')
        daemon = Daemon(program, text)
        secret = daemon.folder / "home.secret"
        secret.write_text("first\n")
        secret.chmod(0o600)
        daemon.start()
        secret.write_text("second\n")
        self.hang_up(daemon, "0 added, 1 changed")


class TestTheServiceManager:
    @pytest.fixture
    def manager(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(tmp_path_factory.mktemp("n") / "notify"))
            sock.settimeout(10)
            yield sock

    def test_is_told_of_each_step(self, program: Program, manager: socket.socket) -> None:
        daemon = Daemon(program, JUMP)
        daemon.launch({"NOTIFY_SOCKET": manager.getsockname()})
        assert manager.recv(4096) == b"READY=1\nSTATUS=1 service, 0 failed"
        assert daemon.service("home")["state"] == "listening"
        daemon.process.sends(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096).startswith(b"READY=1")
        daemon.process.sends(signal.SIGTERM)
        assert manager.recv(4096).startswith(b"STOPPING=1")
        assert daemon.process.returns() == 0

    def test_is_told_that_the_engine_lives(self, program: Program, manager: socket.socket) -> None:
        Daemon(program, JUMP).launch({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "20000"})
        assert manager.recv(4096).startswith(b"READY=1")
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3


class TestAnUnfriendlyWorld:
    def test_closed_output_stops_nothing(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        shell = f'exec "{program.path}" --daemon -c "{daemon.config}" <&- >&- 2>&-'
        daemon.process = program.start_other(["/bin/sh", "-c", shell])
        until_true(lambda: daemon.control.exists() and daemon.ask("services").code == 0)
        assert daemon.reaches("home", "listening")
        assert daemon.stops() == 0

    def test_a_reader_that_goes_away_stops_nothing(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        command = [program.path, "--daemon", "-c", str(daemon.config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=program.env) as process:
            assert process.stdout is not None
            process.stdout.close()
            until_true(lambda: daemon.control.exists() and daemon.ask("services").code == 0)
            assert daemon.reaches("home", "listening")
            process.terminate()
            assert process.wait(10) == 0

    def test_a_fault_in_a_callback_is_an_event_with_its_traceback(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        daemon.process = program.start_other([sys.executable, "-c", FAILING_CALLBACK, str(daemon.config)])
        daemon.process.says("ZeroDivisionError: on purpose")
        daemon.process.says("    Traceback (most recent call last):")
        assert "crashed" in [event["type"] for event in daemon.json("events")]
        assert daemon.service("home")["state"] == "listening"

    def test_no_secret_is_ever_said(self, program: Program) -> None:
        daemon = program.daemon(JUMP, engine='log_level = "debug"')
        daemon.configure(JUMP.replace('"superBigSecret"', '["superBigSecret"]'))
        daemon.ask("reload")
        daemon.stops()
        assert "superBigSecret" not in daemon.process.said


class TestFloods:
    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_a_flood_of_refused_peers_is_a_few_lines_and_the_last_of_them_is_counted(
        self, program: Program, log_format: str
    ) -> None:
        daemon = Daemon(program, JUMP + 'clients_deny = ["127.0.0.0/8"]\n', f'log_format = "{log_format}"')
        daemon.launch()
        daemon.process.says("ready")
        address = daemon.reaches("home", "listening")["address"]
        for _ in range(300):
            with connect(address) as visitor:
                assert visitor.recv(1) == b""
        assert daemon.stops() == 0
        if log_format == "json":
            rows = [json.loads(line) for line in daemon.process.err.splitlines()]
            told = [row for row in rows if row["event"] == "peer-refused"]
            counts = [row["count"] for row in rows if row["event"] == "repeated"]
        else:
            lines = daemon.process.err.splitlines()
            told = [line for line in lines if re.search(r' peer-refused .*"refused 127\.0\.0\.1:\d+: ', line)]
            counts = [int(line.rpartition(" count=")[2]) for line in lines if " warning repeated " in line]
        assert len(told) + sum(counts) == 300
        assert len(told) + len(counts) < 50


class TestItsProcess:
    def test_it_may_have_as_many_descriptors_as_the_system_allows(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        daemon.process = program.start_other(few_descriptors(program.path, "--daemon", "-c", str(daemon.config)))
        until_true(lambda: daemon.ready or not daemon.process.running)
        assert daemon.ready, daemon.process.said
        assert descriptors_allowed(daemon.process) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        assert daemon.stops() == 0

    def test_it_runs_on_uvloop_unless_told_otherwise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(daemon_module.LOOP_VARIABLE, raising=False)
        assert daemon_module.loop_factory() is uvloop.new_event_loop
        monkeypatch.setenv(daemon_module.LOOP_VARIABLE, "asyncio")
        assert daemon_module.loop_factory() is asyncio.new_event_loop
        monkeypatch.delenv(daemon_module.LOOP_VARIABLE)
        monkeypatch.setitem(sys.modules, "uvloop", None)
        assert daemon_module.loop_factory() is asyncio.new_event_loop

    def test_it_does_the_same_on_pythons_own_loop(self, program: Program) -> None:
        daemon = Daemon(program, JUMP)
        daemon.start({daemon_module.LOOP_VARIABLE: "asyncio"})
        assert daemon.service("home")["state"] == "listening"
        assert daemon.stops() == 0
