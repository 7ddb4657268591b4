"""What is loaded when: the engine runs without the console's framework, and importing the package costs nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ports import steady_port

FRAMEWORK = ("textual", "rich")

AS_A_DAEMON = """
import sys
from tunnelconsole.cli import main
try:
    main()
finally:
    print("loaded:", *sorted(sys.modules))
"""

CONFIG = """
version = 1

[engine]
state_dir = "{folder}"
control = "{folder}/control.sock"

[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
secret = "only for this test"

[service.via-home]
kind = "jump-client"
server = "{server}"
listen = "127.0.0.1:{port}"
target = "127.0.0.1:1"
secret = "only for this test"
"""


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_the_daemons_module_does_not_load_the_consoles_framework() -> None:
    assert _loaded_by("import tunnelconsole.daemon").isdisjoint(FRAMEWORK)


def _loaded_by_a_daemon(tmp_path: Path, server: str) -> set[str]:
    """What a daemon has loaded once a program has come to its jump client."""
    config, port = tmp_path / "config.toml", steady_port()
    config.write_text(CONFIG.format(folder=tmp_path, server=server, port=port))
    config.chmod(0o600)
    command = [sys.executable, "-c", AS_A_DAEMON, "--daemon", "-c", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        said = iter(daemon.stdout.readline, "")
        try:
            assert any(line == "ready\n" for line in said)
            with socket.create_connection(("127.0.0.1", port)) as program, suppress(ConnectionResetError):
                assert program.recv(1) == b""
            daemon.send_signal(signal.SIGTERM)
            loaded = [line for line in said if line.startswith("loaded: ")]
        finally:
            daemon.kill()
    assert len(loaded) == 1
    return set(loaded[0].split())


def test_a_daemon_that_has_served_has_not_loaded_the_consoles_framework(tmp_path: Path) -> None:
    loaded = _loaded_by_a_daemon(tmp_path, "127.0.0.1:1")
    assert loaded.isdisjoint({*FRAMEWORK, "asyncssh"})  # no SSH server runs there, and no client needs one
    assert not any(name.partition(".")[0] == "prometheus_client" for name in loaded)  # nor are there metrics


def test_a_client_that_goes_through_an_ssh_host_loads_what_it_needs_for_that(tmp_path: Path) -> None:
    assert "asyncssh" in _loaded_by_a_daemon(tmp_path, "ssh://127.0.0.1:1/127.0.0.1:1")


def test_every_kind_of_service_is_known_without_loading_ciphers() -> None:
    assert "cryptography" not in _loaded_by("import tunnelconsole.engine.services.kinds")


def test_importing_the_package_loads_no_other_module_of_it_and_no_dependency() -> None:
    loaded = _loaded_by("import tunnelconsole") - _loaded_by("pass")
    assert {name for name in loaded if name.startswith("tunnelconsole.")} == set()
    assert loaded.isdisjoint(
        {"asyncio", "click", "cryptography", "msgspec", "psutil", "structlog", "textual", "uvloop"}
    )
