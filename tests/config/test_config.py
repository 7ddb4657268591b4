"""The configuration file: what it may say, and what is said about each mistake in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings, strategies

from tls_programs import certificate
from tunnelconsole import config
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.jump.client import JumpClientSettings
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.engine.services.ssh.server import SSHServerSettings
from tunnelconsole.engine.settings import ListenAddress, PortRange
from tunnelconsole.engine.units import Duration, Rate
from tunnelconsole.errors import ConfigError

HOME = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:9527"
secret = "superBigSecret"
"""

EDGE = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:7000"
"""

VIA_HOME = """
[service.via-home]
kind = "jump-client"
server = "{server}"
secret = "superBigSecret"
listen = "{listen}"
"""

DESIGNED = """
version = 1

[engine]
state_dir = "state"
control = "/run/tunnelconsole.sock"
log_format = "text"
log_level = "info"
drain = "30s"

[service.home]
kind = "jump-server"
listen = "127.0.0.1:9527"
secret = "superBigSecret"
allow = ["*.example.com:443", "10.0.0.0/8:*"]
deny = []
clients_allow = ["192.168.0.0/16"]
enabled = false

[service.home.tls]
certificate = ""
key = ""

[service.home.limits]
sessions = 10
channels = 100
rate = "10MB/s"
handshake_timeout = "500ms"
idle_timeout = "5m"

[service.via-home]
kind = "jump-client"
server = "home.example.net:9527"
connect = "127.0.0.1:9527"
secret_file = "home.secret"
listen = "127.0.0.1:1080"
proxy = "socks5"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:7000"
ports = "7001-7020"
bind = "127.0.0.1"
public_host = "localhost"

[service.edge-ssh]
kind = "relay-client"
server = "edge.example.net:7000"
target = "127.0.0.1:22"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any settings."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text if text.lstrip().startswith("version") else f"version = 1\n{text}")
    return path


def read(folder: Path, text: str) -> config.Config:
    return config.load(write(folder, text))


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return caught.value.problems


def every_problem(folder: Path, text: str) -> list[str]:
    """What is wrong, where nothing may be."""
    return config.examine(write(folder, text)).problems


def jump_server(folder: Path, text: str) -> JumpServerSettings:
    found = read(folder, text).services["home"]
    assert isinstance(found, JumpServerSettings)
    return found


class TestWhatItMaySay:
    def test_the_configuration_of_the_design_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "home.secret").write_text("superBigSecret\n")
        (tmp_path / "home.secret").chmod(0o600)
        found = read(tmp_path, DESIGNED)
        assert found.path == tmp_path / "config.toml"
        assert found.engine == config.EngineSettings(
            state_dir=tmp_path / "state", control=Path("/run/tunnelconsole.sock")
        )
        assert list(found.services) == ["home", "via-home", "edge", "edge-ssh"]
        server, client, edge = (found.services[name] for name in ("home", "via-home", "edge"))
        assert isinstance(server, JumpServerSettings)
        assert server.listen == ListenAddress("127.0.0.1", 9527)
        assert server.allow == ("*.example.com:443", "10.0.0.0/8:*")
        assert not server.enabled
        assert server.tls is not None
        assert server.tls.certificate is None
        assert server.limits == LimitSettings(
            sessions=10,
            channels=100,
            rate=Rate(10e6),
            handshake_timeout=Duration(0.5),
            idle_timeout=Duration(300),
        )
        assert isinstance(client, JumpClientSettings)
        assert (str(client.server), str(client.connect)) == ("home.example.net:9527", "127.0.0.1:9527")
        assert client.secret == "superBigSecret"
        assert isinstance(edge, RelayServerSettings)
        assert edge.ports == PortRange(7001, 7020)

    def test_a_file_with_nothing_but_its_version_runs_nothing(self, tmp_path: Path) -> None:
        assert read(tmp_path, "").services == {}

    def test_a_variable_is_taken_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME_PORT", "9001")
        text = HOME.replace("9527", "${HOME_PORT}").replace("superBig", "a$${B}${HOME_PORT}")
        found = jump_server(tmp_path, text)
        assert found.listen.port == 9001
        assert found.secret == "a${B}9001Secret"

    def test_a_dollar_alone_is_a_dollar(self, tmp_path: Path) -> None:
        assert jump_server(tmp_path, HOME.replace("superBigSecret", "$HOME $5 $")).secret == "$HOME $5 $"

    def test_secrets_by_name_may_each_be_in_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "alice").write_text("hush\n")
        (tmp_path / "alice").chmod(0o600)
        text = HOME.replace('secret = "superBigSecret"', 'secrets = { alice_file = "alice", bob = "hist" }')
        assert jump_server(tmp_path, text).secrets == {"alice": "hush", "bob": "hist"}

    def test_relative_paths_start_at_the_files_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, '[engine]\nstate_dir = "state"\ncontrol = "~/control"\n')
        monkeypatch.chdir(tmp_path.parent)
        found = config.load(Path(tmp_path.name) / "config.toml")
        assert found.engine.state_dir == tmp_path / "state"
        assert found.engine.control == tmp_path / "home" / "control"

    def test_certificates_are_found_beside_the_file(self, tmp_path: Path) -> None:
        for source, name in zip(certificate(), ("a.crt", "a.key"), strict=True):
            shutil.copy(source, tmp_path / name)
        found = jump_server(tmp_path, HOME + '[service.home.tls]\ncertificate = "a.crt"\nkey = "a.key"\n')
        assert found.tls is not None
        assert found.tls.certificate == str(tmp_path / "a.crt")

    def test_an_empty_tls_table_turns_tls_on(self, tmp_path: Path) -> None:
        assert jump_server(tmp_path, HOME + "[service.home.tls]\n").tls is not None
        assert jump_server(tmp_path, HOME).tls is None


class TestWhereThingsAre:
    def test_without_a_file_at_the_default_path_nothing_runs(self, home: Path) -> None:
        found = config.load(None)
        assert (found.path, found.services) == (None, {})
        assert found.engine.state_dir == home / ".local/state/tunnelconsole"

    def test_the_file_at_the_default_path_is_read(self, home: Path) -> None:
        folder = home / ".config/tunnelconsole"
        folder.mkdir(parents=True)
        path = write(folder, HOME)
        assert config.load(None).path == path

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        path = tmp_path / "none.toml"
        for ask in (config.load, config.control_path):
            with pytest.raises(ConfigError) as caught:
                ask(path)
            assert caught.value.problems == [f"{path}: cannot be read: No such file or directory"]

    def test_the_base_folders_are_those_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, str(tmp_path / name))
        assert config.default_path() == tmp_path / "XDG_CONFIG_HOME/tunnelconsole/config.toml"
        assert config.default_state_dir() == tmp_path / "XDG_STATE_HOME/tunnelconsole"
        assert config.control_path(None) == tmp_path / "XDG_RUNTIME_DIR/tunnelconsole/control.sock"

    def test_a_relative_base_folder_is_ignored(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, "somewhere")
        assert config.default_path() == home / ".config/tunnelconsole/config.toml"
        assert config.control_path(None) == home / ".local/state/tunnelconsole/control.sock"

    def test_without_a_runtime_folder_the_socket_is_with_the_state(self, tmp_path: Path) -> None:
        path = write(tmp_path, '[engine]\nstate_dir = "state"\n')
        assert config.control_path(path) == tmp_path / "state/control.sock"

    def test_a_mistake_in_a_service_hides_the_control_socket_from_nobody(self, tmp_path: Path) -> None:
        path = write(tmp_path, '[engine]\ncontrol = "here.sock"\n[service.home]\nkind = "junk"\n')
        assert config.control_path(path) == tmp_path / "here.sock"

    def test_a_command_that_needs_the_socket_only_does_not_load_the_engine(self, tmp_path: Path) -> None:
        path = write(tmp_path, HOME)
        code = f"""
import pathlib, sys
from tunnelconsole.config import control_path
print(control_path(pathlib.Path({str(path)!r})))
sys.exit("tunnelconsole.engine.engine" in sys.modules)
"""
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert answer.stdout == f"{config.control_path(path)}\n"

    def test_a_mistake_in_the_engines_table_is_told_to_every_command(self, tmp_path: Path) -> None:
        path = write(tmp_path, "[engine]\ncontrol = 5\n")
        with pytest.raises(ConfigError, match="expected a text, found a number"):
            config.control_path(path)

    def test_a_socket_path_that_the_system_cannot_hold_is_named(self, tmp_path: Path) -> None:
        longest = "/" + "x" * (config.MAX_SOCKET_PATH - 1)
        assert read(tmp_path, f'[engine]\ncontrol = "{longest}"\n').engine.control == Path(longest)
        (problem,) = problems(tmp_path, f'[engine]\ncontrol = "{longest}y"\n')
        assert problem.startswith(f"engine.control: {longest}y is {config.MAX_SOCKET_PATH + 1} bytes long")

    def test_the_default_socket_path_may_be_too_long_as_well(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, f'[engine]\nstate_dir = "/{"x" * 200}"\n')
        assert problem.startswith("engine.control:")


class TestMistakes:
    def test_every_mistake_is_named_at_once(self, tmp_path: Path) -> None:
        text = """
            [engine]
            drain = "soon"
            [service.one]
            kind = "jump-server"
            listen = "127.0.0.1"
            limits = { sessions = "many" }
            tls = { certificate = "none.pem", key = "none.key" }
            [service.two]
            kind = "relay-client"
            target = 22
        """
        keys = [problem.partition(": ")[0] for problem in problems(tmp_path, text)]
        assert keys == [
            "engine.drain",
            "service.one.tls.certificate",
            "service.one.tls.key",
            "service.one.limits.sessions",
            "service.one.listen",
            "service.one.secret",
            "service.two.server",
            "service.two.target",
        ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[servce.home]", 'servce: unknown key; did you mean "service"?'),
            ("[engine]\nlog_levle = 1", 'engine.log_levle: unknown key; did you mean "log_level"?'),
            (HOME.replace("secret =", "secrt ="), 'service.home.secrt: unknown key; did you mean "secret"?'),
            (HOME + "secret_fiel = 1", 'service.home.secret_fiel: unknown key; did you mean "secret_file"?'),
            (HOME + "limits = { sesions = 1 }", 'service.home.limits.sesions: unknown key; did you mean "sessions"?'),
            (HOME + "tls = { cert = 1 }", 'service.home.tls.cert: unknown key; did you mean "certificate"?'),
        ],
    )
    def test_an_unknown_key_is_answered_with_the_nearest_known_one(
        self, tmp_path: Path, text: str, problem: str
    ) -> None:
        assert problems(tmp_path, text) == [problem]

    def test_a_key_like_no_other_is_answered_with_all_there_are(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, HOME + "limits = { zzz = 1 }")
        known = ", ".join(sorted(LimitSettings.__struct_fields__))
        assert problem == f"service.home.limits.zzz: unknown key; there are {known}"

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("listen = 9527", "expected a text, found a number; '9527' has no port; expected host:port"),
            ("listen = true", "expected a text, found true or false"),
            ("listen = ['127.0.0.1:1']", "expected a text, found a list"),
            ("listen = 1979-05-27", "expected a text, found a date"),
            ("enabled = 'yes'", "expected true or false, found a text"),
            ("enabled = 1", "expected true or false, found a number"),
            ("allow = '*:*'", "expected a list, found a text"),
            ("secrets = 'hush'", "expected a table, found a text"),
            ("tls = true", "expected a table, found true or false"),
            (
                "dial_timeout = 5",
                'expected a text, found a number; "5" is not a duration; write one as "500ms", "30s" or "5m"',
            ),
            ("dial_timeout = 'soon'", '"soon" is not a duration; write one as "500ms", "30s" or "5m"'),
        ],
    )
    def test_a_value_of_the_wrong_type_is_told_in_words(self, tmp_path: Path, line: str, problem: str) -> None:
        key = line.partition(" ")[0]
        text = HOME.replace('listen = "127.0.0.1:9527"\n', "") if key == "listen" else HOME
        assert problems(tmp_path, text + line) == [f"service.home.{key}: {problem}"]

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("-1", "expected a whole number, 0 or more"),
            ("1.5", "expected a whole number, found a number"),
            ("true", "expected a whole number, found true or false"),
        ],
    )
    def test_a_limit_is_a_whole_number(self, tmp_path: Path, value: str, problem: str) -> None:
        text = HOME + f"limits = {{ sessions = {value} }}"
        assert problems(tmp_path, text) == [f"service.home.limits.sessions: {problem}"]

    def test_a_choice_names_what_there_is_to_choose(self, tmp_path: Path) -> None:
        assert problems(tmp_path, '[engine]\nlog_format = "xml"') == [
            'engine.log_format: expected "text" or "json", found "xml"'
        ]

    def test_an_entry_of_a_list_is_named_by_its_place(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, HOME + 'allow = ["*:443", "nowhere"]')
        assert problem.startswith('service.home.allow[1]: "nowhere" is not a destination')

    def test_what_a_service_must_have_is_missed(self, tmp_path: Path) -> None:
        assert problems(tmp_path, '[service.a]\nkind = "jump-client"\nlisten = "127.0.0.1:0"') == [
            "service.a.server: missing",
            "service.a.secret: missing; give secret or secret_file",
        ]

    def test_what_contradicts_itself_is_found_by_the_kind(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, HOME.replace('"superBigSecret"', '""'))
        assert problem == "service.home.secret: an empty secret would let everybody in"

    def test_a_mistyped_kind_is_answered_with_the_nearest(self, tmp_path: Path) -> None:
        assert problems(tmp_path, HOME.replace("jump-server", "jump-sever")) == [
            'service.home.kind: there is no kind "jump-sever"; did you mean "jump-server"?'
        ]

    @pytest.mark.parametrize("kind", ["bridge", ""])
    def test_a_kind_like_no_other_is_answered_with_all_there_are(self, tmp_path: Path, kind: str) -> None:
        (problem,) = problems(tmp_path, f'[service.a]\nkind = "{kind}"')
        assert problem.startswith(f'service.a.kind: there is no kind "{kind}"; the kinds are jump-server, jump-client')

    def test_a_service_without_a_kind_is_told_the_kinds(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, "[service.a]")
        assert problem.startswith("service.a.kind: missing; the kinds are jump-server")

    @pytest.mark.parametrize("name", ["a b", "", "-a", "ä", "x" * 64, "a\\u001b"])
    def test_a_service_has_a_plain_name(self, tmp_path: Path, name: str) -> None:
        (problem,) = problems(tmp_path, HOME.replace("service.home", f'service."{name}"'))
        assert "a service's name is made of" in problem
        assert problem.isprintable()

    def test_a_name_with_a_dot_is_quoted_in_its_key_path(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, '[service."a.b"]')
        assert problem.startswith('service."a.b".kind: missing')

    def test_a_service_that_is_no_table_is_named(self, tmp_path: Path) -> None:
        assert problems(tmp_path, "service = 5") == ["service: expected a table, found a number"]
        assert problems(tmp_path, "[service]\nhome = 5") == ["service.home: expected a table, found a number"]

    @pytest.mark.parametrize("version", ["2", '"1"', "true", "1.0"])
    def test_a_file_of_another_version_hides_no_other_mistake(self, tmp_path: Path, version: str) -> None:
        assert problems(tmp_path, f"version = {version}\nnew = true\n{HOME}limits = {{ sessions = -1 }}") == [
            "version: expected 1, the only one this program reads",
            "new: unknown key; there are engine, service, version",
            "service.home.limits.sessions: expected a whole number, 0 or more",
        ]

    def test_a_kind_that_was_surely_meant_hides_no_other_mistake(self, tmp_path: Path) -> None:
        text = HOME.replace("jump-server", "jump-sever").replace("9527", "http")
        keys = [problem.partition(": ")[0] for problem in problems(tmp_path, text)]
        assert keys == ["service.home.kind", "service.home.listen"]

    def test_without_a_kind_what_every_service_has_is_read(self, tmp_path: Path) -> None:
        text = '[service.a]\nclients_deny = ["all"]\nlisten = 5\n[service.a.limits]\nhandshake_timeout = "0s"'
        keys = [problem.partition(": ")[0] for problem in problems(tmp_path, text)]
        assert keys == ["service.a.kind", "service.a.limits.handshake_timeout", "service.a.clients_deny[0]"]

    def test_what_is_wrong_between_keys_is_told_beside_what_is_wrong_with_one(self, tmp_path: Path) -> None:
        text = """
            [engine]
            log_level = "loud"
            control = "/LONG"
            [service."a b"]
            kind = "relay-server"
            listen = "127.0.0.1:9527"
            keepalive = "0s"
            [service.one]
            kind = "jump-client"
            server = "nowhere"
            secret = "hush"
            listen = "127.0.0.1:9527"
            proxy = "http"
            target = "127.0.0.1:22"
            [service.two]
            kind = "jump-server"
            listen = "127.0.0.1:0"
            secret = "hush"
            allow = ["nowhere"]
            tls = { certificate = "CERTIFICATE", ca = 5 }
        """
        (tmp_path / "here").write_text("")
        text = text.replace("LONG", "x" * 200).replace("CERTIFICATE", str(tmp_path / "here"))
        keys = [problem.partition(": ")[0] for problem in problems(tmp_path, text)]
        assert keys == [
            "engine.log_level",
            "engine.control",
            'service."a b"',
            'service."a b".keepalive',
            "service.one.server",
            "service.one.target",
            "service.two.tls.ca",
            "service.two.tls.key",
            "service.two.allow[0]",
            "service.one.listen",
        ]

    def test_a_secret_that_cannot_be_read_is_not_missed_as_well(self, tmp_path: Path) -> None:
        text = HOME.replace('secret = "superBigSecret"', 'secrets = { alice_file = "none" }')
        (problem,) = problems(tmp_path, text)
        assert problem.startswith("service.home.secrets.alice_file: cannot read")

    def test_a_file_without_a_version_is_told_how_to_begin(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text("")
        with pytest.raises(ConfigError) as caught:
            config.load(path)
        assert caught.value.problems == ["version: missing; begin the file with: version = 1"]

    @pytest.mark.parametrize(
        ("kind", "line"),
        [
            ("jump-server", 'limits = { handshake_timeout = "0s" }'),
            ("jump-server", 'dial_timeout = "0ms"'),
            ("relay-server", 'keepalive = "0s"'),
            ("relay-client", 'keepalive = "0s"'),
        ],
    )
    def test_a_time_in_which_nothing_can_happen_is_refused_with_the_reason(
        self, tmp_path: Path, kind: str, line: str
    ) -> None:
        needs = 'server = "a:1"\ntarget = "b:2"\n' if kind == "relay-client" else 'listen = "127.0.0.1:0"\n'
        needs += 'secret = "superBigSecret"\n' if kind == "jump-server" else ""
        (problem,) = problems(tmp_path, f'[service.a]\nkind = "{kind}"\n{needs}{line}')
        key, _, sentence = problem.partition(": ")
        assert key.startswith("service.a.")
        assert key.rpartition(".")[2] in line
        assert sentence.startswith("must be above 0: ")

    def test_no_time_to_finish_and_no_end_of_idling_can_be_asked_for(self, tmp_path: Path) -> None:
        found = read(tmp_path, f'[engine]\ndrain = "0s"\n{HOME}limits = {{ idle_timeout = "0s" }}')
        assert found.engine.drain == found.services["home"].limits.idle_timeout == Duration(0)

    @pytest.mark.parametrize("key", ["bind", "public_host"])
    @pytest.mark.parametrize(
        ("host", "reason"),
        [
            ("", "the host is empty"),
            ("two words", "is not a host name"),
            ("a\\u0007b", "is not a host name"),
            ("a!b", "is not a host name"),
            ("-a.example", "is not a host name"),
            ("300.1.2.3", "is not an IPv4 address"),
            ("1.2.3.4.5", "is not an IPv4 address"),
            ("[::1]", "takes no scheme, no brackets and no port"),
            ("http://edge.example.net", "takes no scheme, no brackets and no port"),
            ("edge.example.net:7000", "takes no scheme, no brackets and no port"),
            (".".join(["a" * 60] * 5), "are possible"),
        ],
    )
    def test_a_host_that_no_machine_can_have_is_refused(self, tmp_path: Path, key: str, host: str, reason: str) -> None:
        (problem,) = problems(tmp_path, f'{EDGE}{key} = "{host}"')
        assert problem.startswith(f"service.edge.{key}: ")
        assert reason in problem
        assert problem.isprintable()

    @pytest.mark.parametrize(
        "host", ["edge.example.net", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "my_host", "bücher"]
    )
    def test_a_host_that_some_machine_may_have_is_taken(self, tmp_path: Path, host: str) -> None:
        edge = read(tmp_path, f'{EDGE}bind = "{host}"\npublic_host = "{host}"').services["edge"]
        assert isinstance(edge, RelayServerSettings)
        assert edge.bind == edge.public_host == host

    @pytest.mark.parametrize(
        ("listen", "reason"),
        [
            ("127.0.0.256:7000", "is not an IPv4 address"),
            ("[::g]:7000", "is not an IPv6 address"),
            ("a!b:0", "is not a host name"),
            (":7000", "the host is empty"),
        ],
    )
    def test_a_listener_is_somewhere_where_a_machine_can_be(self, tmp_path: Path, listen: str, reason: str) -> None:
        (problem,) = problems(tmp_path, HOME.replace("127.0.0.1:9527", listen))
        assert problem.startswith("service.home.listen: ")
        assert reason in problem


class TestServicesInEachOthersWay:
    @pytest.mark.parametrize(
        "hosts",
        [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("localhost", "127.0.0.1"),
            ("[::]", "127.0.0.1"),
            ("[::1]", "[0::1]"),
            ("Home.example", "home.example"),
        ],
    )
    def test_two_services_cannot_listen_in_one_place(self, tmp_path: Path, hosts: tuple[str, str]) -> None:
        one, other = (HOME.replace("127.0.0.1", host) for host in hosts)
        (problem,) = problems(tmp_path, one + other.replace("service.home", "service.other"))
        assert problem.startswith("service.other.listen: ")
        assert f"overlaps with service.home.listen, which is {hosts[0]}:9527" in problem

    @pytest.mark.parametrize(
        "change",
        [("9527", "9528"), ("127.0.0.1", "127.0.0.2"), ("9527", "0"), ("127.0.0.1", "[::1]"), ("127.0.0.1", "a.test")],
    )
    def test_services_may_share_a_host_or_a_port(self, tmp_path: Path, change: tuple[str, str]) -> None:
        other = HOME.replace("service.home", "service.other").replace(*change)
        assert len(read(tmp_path, HOME + other).services) == 2

    def test_any_address_of_one_family_leaves_those_of_the_other(self, tmp_path: Path) -> None:
        other = HOME.replace("service.home", "service.other").replace("127.0.0.1", "[::1]")
        assert len(read(tmp_path, HOME.replace("127.0.0.1", "0.0.0.0") + other).services) == 2

    def test_a_service_cannot_listen_where_the_metrics_are(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, '[engine]\nmetrics = "127.0.0.1:9527"\n' + HOME)
        assert problem.startswith("service.home.listen: ")
        assert "overlaps with engine.metrics, which is 127.0.0.1:9527" in problem

    def test_a_disabled_service_takes_no_address(self, tmp_path: Path) -> None:
        other = HOME.replace("service.home", "service.other") + "enabled = false"
        assert len(read(tmp_path, HOME + other).services) == 2

    @pytest.mark.parametrize(
        ("ports", "overlap"), [("7010-7030", True), ("7020", True), ("7021-7030", False), ("0", False)]
    )
    def test_two_relays_have_public_ports_of_their_own(self, tmp_path: Path, ports: str, overlap: bool) -> None:
        one = f'{EDGE}ports = "7001-7020"\n'
        other = EDGE.replace("edge", "other").replace("7000", "6999") + f'ports = "{ports}"\n'
        if overlap:
            (problem,) = problems(tmp_path, one + other)
            assert problem.startswith("service.other.ports: 127.0.0.1:70")
            assert "overlaps with service.edge.ports, which is 127.0.0.1:7001-7020" in problem
        else:
            assert len(read(tmp_path, one + other).services) == 2
        apart = one + other + 'bind = "127.0.0.2"\n'
        assert len(read(tmp_path, apart).services) == 2

    def test_a_public_port_is_not_where_the_relay_or_another_service_listens(self, tmp_path: Path) -> None:
        assert problems(tmp_path, HOME.replace("9527", "7005") + EDGE + 'ports = "7000-7020"') == [
            f"service.edge.ports: 127.0.0.1:7000-7020 overlaps with {other}; choose another port"
            for other in (
                "service.home.listen, which is 127.0.0.1:7005",
                "service.edge.listen, which is 127.0.0.1:7000",
            )
        ]

    @pytest.mark.parametrize(
        ("listen", "server"),
        [
            ("127.0.0.1:1080", "127.0.0.1:1080"),
            ("127.0.0.1:1080", "localhost:1080"),
            ("127.0.0.1:1080", "0.0.0.0:1080"),
            ("0.0.0.0:1080", "127.0.0.1:1080"),
            ("[::]:1080", "[::1]:1080"),
        ],
    )
    def test_a_client_does_not_connect_to_itself(self, tmp_path: Path, listen: str, server: str) -> None:
        (problem,) = problems(tmp_path, VIA_HOME.format(server=server, listen=listen))
        assert problem == (
            f"service.via-home.server: {server} is its own service.via-home.listen, so it would connect to itself"
        )
        elsewhere = VIA_HOME.format(server="home.example.net:1", listen=listen)
        (problem,) = problems(tmp_path, f'{elsewhere}connect = "{server}"')
        assert problem.startswith("service.via-home.connect: ")

    @pytest.mark.parametrize(
        ("listen", "server"),
        [
            ("127.0.0.1:1080", "127.0.0.1:1081"),
            ("0.0.0.0:1080", "192.0.2.1:1080"),
            ("0.0.0.0:1080", "home.example.net:1080"),
            ("192.0.2.1:1080", "0.0.0.0:1080"),
            ("0.0.0.0:1080", "[::1]:1080"),
        ],
    )
    def test_a_client_whose_server_may_be_another_is_let_be(self, tmp_path: Path, listen: str, server: str) -> None:
        assert read(tmp_path, VIA_HOME.format(server=server, listen=listen)).services

    def test_a_client_that_is_led_elsewhere_may_name_its_server_as_itself(self, tmp_path: Path) -> None:
        text = VIA_HOME.format(server="127.0.0.1:1080", listen="127.0.0.1:1080")
        assert read(tmp_path, f'{text}connect = "192.0.2.1:1080"').services


class TestMistakesInFiles:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (b"version = \n", "line 1, column 11: Invalid value"),
            (b"version = 1\n[service", "end of document: Expected ']' at the end of a table declaration"),
            (b"version = 1\nx = '\xff'", "is not text in UTF-8, from byte 17 on"),
            (b"version = 1\nx = " + b"[" * 5000, "tables or lists are nested too deeply"),
        ],
        ids=["syntax", "end", "bytes", "depth"],
    )
    def test_a_file_that_is_no_toml_is_told_where(self, tmp_path: Path, text: bytes, problem: str) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(text)
        with pytest.raises(ConfigError) as caught:
            config.load(path)
        assert caught.value.problems == [f"{path}: {problem}"]

    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(b"\xef\xbb\xbfversion = 1\n")
        assert config.load(path).path == path

    def test_a_folder_is_no_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            config.load(tmp_path)

    def test_a_secret_given_twice_is_refused(self, tmp_path: Path) -> None:
        assert problems(tmp_path, HOME + 'secret_file = "home.secret"') == [
            "service.home.secret_file: secret is given too; leave one of them out"
        ]
        assert problems(tmp_path, HOME + 'secrets = { a = "x", a_file = "y" }') == [
            "service.home.secrets.a_file: a is given too; leave one of them out"
        ]

    def test_a_secret_file_that_lies_open_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "home.secret").write_text("hush")
        (tmp_path / "home.secret").chmod(0o644)
        (problem,) = problems(tmp_path, HOME.replace('secret = "superBigSecret"', 'secret_file = "home.secret"'))
        assert problem.startswith("service.home.secret_file: ")
        assert problem.endswith(f"run: chmod 600 {tmp_path / 'home.secret'}")

    @pytest.mark.parametrize(
        ("tls", "problem"),
        [
            ('certificate = "here"', "key: missing; a certificate needs its private key"),
            ('key = "here"', "certificate: missing; a private key needs its certificate"),
            ('certificate = "none", key = "here"', "certificate: cannot read {}/none: No such file or directory"),
            ('certificate = "home", key = "here"', "certificate: {}/home is not a regular file"),
            ('ca = "here"', "ca: is for clients; leave it out here"),
        ],
    )
    def test_a_servers_certificate_and_key_belong_together(self, tmp_path: Path, tls: str, problem: str) -> None:
        (tmp_path / "here").write_text("")
        found = problems(tmp_path, HOME + f"tls = {{ {tls} }}")
        assert found == [f"service.home.tls.{problem.format(tmp_path)}"]

    @pytest.mark.parametrize(
        ("keys", "found"),
        [
            ("tls = {}", []),
            ('listen_http = "127.0.0.1:0"\ntls = {}', []),
            ('listen_http = "127.0.0.1:0"', ["service.web.listen_http"]),
            ('certificate = "crt"\nkey = "key"', []),
            ('certificate = "crt"\nkey = "key"\ntls = {}', ["service.web.tls"]),
            ('certificates = { "a.example" = { certificate = "crt", key = "key" } }\ntls = {}', ["service.web.tls"]),
            ('certificate = "crt"\nkey = "key"\ntls = { ca = "here" }', ["service.web.tls.ca", "service.web.tls"]),
            ('listen_http = "127.0.0.1:0"\ntls = { cert = 5 }', ["service.web.tls.cert"]),
        ],
        ids=[
            "tls",
            "plain besides",
            "plain alone",
            "certificate",
            "both",
            "by host and tls",
            "wrong ca",
            "unknown key",
        ],
    )
    def test_a_tunnel_server_has_its_certificates_in_one_place(
        self, tmp_path: Path, keys: str, found: list[str]
    ) -> None:
        (tmp_path / "here").write_text("")
        for source, name in zip(certificate(), ("crt", "key"), strict=True):
            shutil.copy(source, tmp_path / name)
        told = every_problem(tmp_path, f'[service.web]\nkind = "tunnel-server"\nlisten = "127.0.0.1:0"\n{keys}\n')
        assert [problem.partition(": ")[0] for problem in told] == found

    @pytest.mark.parametrize(
        ("keys", "found"),
        [
            ('certificate = "{other}"\nkey = "{key}"',
             "certificate: {other} with key {key} cannot be used: KEY_VALUES_MISMATCH"),
            ('certificate = "none"\nkey = "{key}"', "certificate: cannot read {here}/none: No such file or directory"),
            ('certificate = "{other}"\nkey = "none"', "key: cannot read {here}/none: No such file or directory"),
            ('certificate = "{other}"\nkey = "empty"', "certificate: {other} with key {here}/empty cannot be used: "),
            ('certificate = "{other}"\nkey = "locked"',
             "certificate: {other} with key {here}/locked cannot be used: the private key is encrypted"),
            ('certificates."a.example" = {{ certificate = "{other}", key = "{key}" }}',
             'certificates."a.example".certificate: {other} with key {key} cannot be used: KEY_VALUES_MISMATCH'),
            ('tls = {{ certificate = "{other}", key = "{key}" }}',
             "tls.certificate: {other} with key {key} cannot be used: KEY_VALUES_MISMATCH"),
        ],
    )  # fmt: skip
    def test_a_certificate_that_cannot_be_used_is_told_before_the_service_goes_down(
        self, tmp_path: Path, keys: str, found: str
    ) -> None:
        (tmp_path / "empty").write_text("")
        private = ec.generate_private_key(ec.SECP256R1())
        locked = serialization.BestAvailableEncryption(b"hush")
        (tmp_path / "locked").write_bytes(
            private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        )
        names = {"key": certificate()[1], "other": certificate("other.example")[0], "here": tmp_path}
        (problem,) = problems(
            tmp_path, f'[service.web]\nkind = "tunnel-server"\nlisten = "127.0.0.1:0"\n{keys.format(**names)}\n'
        )
        assert problem.startswith(f"service.web.{found.format(**names)}")

    def test_a_file_of_authorities_that_cannot_be_used_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "empty").write_text("")
        text = '[service.a]\nkind = "relay-client"\nserver = "a:1"\ntarget = "b:2"\ntls = { ca = "empty" }'
        (problem,) = problems(tmp_path, text)
        assert problem.startswith(f"service.a.tls.ca: {tmp_path}/empty cannot be used: ")

    @pytest.mark.parametrize(
        ("url", "found"),
        [
            ("https://app.example.net", []),
            ("http://app.example.net", ["service.app.tls: is for a server whose URL begins with https"]),
        ],
    )
    def test_a_tunnel_client_has_tls_settings_only_for_a_url_with_tls(
        self, tmp_path: Path, url: str, found: list[str]
    ) -> None:
        text = f'[service.app]\nkind = "tunnel-client"\nserver = "{url}"\ntarget = "127.0.0.1:3000"\ntls = {{}}\n'
        assert every_problem(tmp_path, text) == found

    def test_a_key_that_is_a_secret_is_taken_for_no_file(self, tmp_path: Path) -> None:
        text = (
            'kind = "channel-client"\nserver = "localhost:1"\nchid = "a"\ntarget = "localhost:2"\nkey = "a long one"\n'
        )
        assert every_problem(tmp_path, f"[service.a]\n{text}") == []

    @pytest.mark.parametrize(
        ("tls", "problem"),
        [
            ('certificate = "own"', "key: missing; a certificate needs its private key"),
            ('client_ca = "own"', "client_ca: is for servers; leave it out here"),
            ("client_keys = {}", "client_keys: is for servers; leave it out here"),
        ],
    )
    def test_a_client_has_a_whole_certificate_and_asks_nobody_for_one(
        self, tmp_path: Path, tls: str, problem: str
    ) -> None:
        (tmp_path / "own").write_bytes(certificate()[0].read_bytes())
        text = f'[service.a]\nkind = "relay-client"\nserver = "a:1"\ntarget = "b:2"\ntls = {{ {tls} }}'
        assert problems(tmp_path, text) == [f"service.a.tls.{problem}"]

    @pytest.mark.parametrize(
        ("tls", "problem"),
        [
            ('client_ca = "none"', ".client_ca: cannot read {}/none: No such file or directory"),
            ('client_ca = "empty"', ".client_ca: {}/empty cannot be used: "),
            ("client_keys = {}", ".client_keys: is empty, so nobody could come by it"),
            ('client_keys = { a = "zz" }', ".client_keys.a: "),
            (f'client_keys = {{ a = "{"0" * 64}", b = "{"0" * 64}" }}', ".client_keys: two identities have the same"),
            (f'client_keys = {{ anonymous = "{"0" * 64}" }}', ".client_keys.anonymous: the identity is "),
            (f'client_keys = {{ "a\\u0000" = "{"0" * 64}" }}', ".client_keys."),
        ],
    )
    def test_what_a_server_asks_of_its_clients_can_be_used(self, tmp_path: Path, tls: str, problem: str) -> None:
        (tmp_path / "empty").write_text("")
        [found] = problems(tmp_path, HOME + f"tls = {{ {tls} }}")
        assert found.startswith(f"service.home.tls{problem.format(tmp_path)}")

    def test_a_tunnel_server_asks_nobody_for_a_certificate(self, tmp_path: Path) -> None:
        tls = f'client_keys = {{ a = "{"0" * 64}" }}'
        text = f'[service.web]\nkind = "tunnel-server"\nlisten = "127.0.0.1:0"\ntls = {{ {tls} }}'
        [found] = problems(tmp_path, text)
        assert found.startswith("service.web.tls: visitors come to the same port")


class TestWarnings:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
    @pytest.mark.parametrize("line", ['secret = "superBigSecret"', 'secrets = { alice = "a${HOME}" }'])
    def test_secrets_in_a_file_that_others_can_read_are_warned_of(self, tmp_path: Path, mode: int, line: str) -> None:
        path = write(tmp_path, HOME.replace('secret = "superBigSecret"', line))
        path.chmod(mode)
        warning = f"{path}: holds secrets, and others on this machine can read it; run: chmod 600 {path}"
        assert config.load(path).warnings == (warning,)

    def test_secrets_in_a_file_of_its_owners_alone_are_fine(self, tmp_path: Path) -> None:
        path = write(tmp_path, HOME)
        path.chmod(0o600)
        assert config.load(path).warnings == ()

    def test_a_file_that_says_where_its_secrets_are_may_be_read_by_all(self, tmp_path: Path) -> None:
        (tmp_path / "alice").touch(0o600)
        (tmp_path / "alice").write_text("hush")
        text = HOME.replace('secret = "superBigSecret"', 'secrets = { alice_file = "alice", bob = "${HOME}" }')
        path = write(tmp_path, text)
        path.chmod(0o644)
        assert config.load(path).warnings == ()

    def test_a_mistake_hides_no_warning(self, tmp_path: Path) -> None:
        path = write(tmp_path, HOME + "enabled = 5")
        path.chmod(0o644)
        report = config.examine(path)
        assert (report.config, len(report.problems), len(report.warnings)) == (None, 1, 1)

    def test_where_no_file_was_found_is_told_with_what_to_do(self, home: Path) -> None:
        (warning,) = config.load(None).warnings
        assert warning.startswith(f"there is no configuration at {home / '.config/tunnelconsole/config.toml'}: write")
        assert "-c FILE" in warning


class TestSecretsStaySecret:
    @pytest.mark.parametrize(
        "line",
        [
            'secrets = { alice = "superBigSecret", bob = 5 }',
            'secret = ["superBigSecret"]',
            'secrt = "superBigSecret"',
            'secret = "superBigSecret ${NOT_SET_ANYWHERE}"',
            'secret = "superBigSecret"\nsecret_file = "none"',
            'secret = "superBigSecret',
        ],
    )
    def test_no_message_shows_one(self, tmp_path: Path, line: str) -> None:
        found = problems(tmp_path, HOME.replace('secret = "superBigSecret"', line))
        assert "superBigSecret" not in "\n".join(found)

    def test_what_was_read_does_not_show_one(self, tmp_path: Path) -> None:
        assert "superBigSecret" not in repr(read(tmp_path, HOME))

    def test_a_variable_that_is_not_set_is_named_with_its_key(self, tmp_path: Path) -> None:
        assert "NOT_SET_ANYWHERE" not in os.environ
        assert problems(tmp_path, HOME.replace("superBigSecret", "${NOT_SET_ANYWHERE}")) == [
            "service.home.secret: the environment variable NOT_SET_ANYWHERE is not set"
        ]

    def test_a_variable_without_a_name_is_told_how_to_write_the_text_plainly(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, HOME.replace("superBigSecret", "${a b}"))
        assert problem.startswith('service.home.secret: "${a b}" does not name an environment variable')


VALUES = strategies.recursive(
    strategies.one_of(
        strategies.integers(-(2**63), 2**63 - 1).map(str),
        strategies.booleans().map(lambda value: str(value).lower()),
        strategies.floats(allow_nan=True).map(str),
        strategies.text(strategies.characters(exclude_characters="'", exclude_categories=["Cc", "Cs"])).map(
            lambda text: f"'{text}'"
        ),
    ),
    lambda inner: strategies.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=5,
)
KEYS = strategies.sampled_from(
    ["kind", "listen", "secret", "secret_file", "secrets", "allow", "tls", "limits", "server", "target", "enabled", "x"]
)


@given(strategies.dictionaries(KEYS, VALUES))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_service_says_is_read_or_refused_by_its_key(tmp_path: Path, table: dict[str, str]) -> None:
    text = "[service.a]\nkind = 'jump-server'\n" + "".join(
        f"{key} = {value}\n" for key, value in table.items() if key != "kind"
    )
    found: list[str] = []
    try:
        read(tmp_path, text)
    except ConfigError as error:
        found = error.problems
    assert all(problem.startswith("service.a.") for problem in found)


class TestTheFilesOfAnSSHServer:
    SSH = '[service.ssh]\nkind = "ssh-server"\nlisten = "127.0.0.1:0"\nauthorized_keys = "keys"\n'

    def test_are_found_beside_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "keys").touch(mode=0o644)
        assert every_problem(tmp_path, self.SSH) == []

    def test_are_missed(self, tmp_path: Path) -> None:
        (found,) = every_problem(tmp_path, self.SSH)
        assert found == f"service.ssh.authorized_keys: cannot read {tmp_path / 'keys'}: No such file or directory"

    def test_are_for_nobody_else(self, tmp_path: Path) -> None:
        for name, mode in (("keys", 0o664), ("key", 0o640)):
            (tmp_path / name).touch()
            (tmp_path / name).chmod(mode)
        keys, key = every_problem(tmp_path, self.SSH + 'host_key = "key"\n')
        assert keys.startswith(f"service.ssh.authorized_keys: others can write {tmp_path / 'keys'} (mode 0664)")
        assert key.startswith(f"service.ssh.host_key: others can read {tmp_path / 'key'} (mode 0640)")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_are_no_other_users(self, tmp_path: Path) -> None:
        for name in ("keys", "key"):
            (tmp_path / name).touch(mode=0o600)
            os.chown(tmp_path / name, 54321, -1)
        for name, found in zip(("keys", "key"), every_problem(tmp_path, self.SSH + 'host_key = "key"\n'), strict=True):
            file = tmp_path / name
            assert f"{file} belongs to user 54321, and this runs as user 0; run: chown 0 {file}" in found

    @pytest.mark.parametrize("more", ["tls = {}", 'login_timeout = "0s"', "consoles = 0"])
    def test_and_what_else_cannot_be(self, tmp_path: Path, more: str) -> None:
        (tmp_path / "keys").touch(mode=0o600)
        (found,) = every_problem(tmp_path, self.SSH + more)
        assert found.startswith(f"service.ssh.{more.partition(' ')[0]}: ")


class TestTheSecondFactorsOfAnSSHServer:
    SSH = TestTheFilesOfAnSSHServer.SSH
    GOOD = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

    def found(self, folder: Path, more: str) -> list[str]:
        """What is wrong with this in an SSH server's table."""
        (folder / "keys").touch(mode=0o600)
        return every_problem(folder, self.SSH + more)

    def test_are_read_by_identity_from_files_too(self, tmp_path: Path) -> None:
        (tmp_path / "bob").write_text("swordfish\n")
        (tmp_path / "bob").chmod(0o600)
        more = f'one_time_codes = {{ "alice at work" = "{self.GOOD}" }}\npasswords = {{ bob_file = "bob" }}\n'
        assert self.found(tmp_path, more) == []
        settings = read(tmp_path, self.SSH + more).services["ssh"]
        assert isinstance(settings, SSHServerSettings)
        assert settings.one_time_codes == {"alice at work": self.GOOD}
        assert settings.passwords == {"bob": "swordfish"}
        assert "swordfish" not in repr(settings)
        assert self.GOOD not in repr(settings)

    @pytest.mark.parametrize(
        ("more", "key", "sentence"),
        [
            ('one_time_codes = { alice = "" }', "one_time_codes.alice", "it has 0 bits, and 128 are the least"),
            ('one_time_codes = { alice = "GEZDGNBVGY3TQOJQ" }', "one_time_codes.alice", "it has 80 bits"),
            ('one_time_codes = { alice = "hush-0189" }', "one_time_codes.alice", "it is not base32"),
            ('passwords = { bob = "" }', "passwords.bob", "an empty password protects nothing"),
            (f'passwords = {{ bob = "{"hush" * 300}" }}', "passwords.bob", "it is too long; at most 1024 bytes"),
            (
                f'one_time_codes = {{ alice = "{GOOD}" }}\npasswords = {{ alice = "hush" }}',
                "passwords.alice",
                "alice is in one_time_codes too; leave one of the two out",
            ),
            (
                f'one_time_codes = {{ alice = "{GOOD}", bob = "{GOOD.lower()}" }}',
                "one_time_codes",
                "two identities have the same secret",
            ),
        ],
    )
    def test_that_cannot_be_are_told_without_them(self, tmp_path: Path, more: str, key: str, sentence: str) -> None:
        (found,) = self.found(tmp_path, more)
        assert found.startswith(f"service.ssh.{key}: {sentence}")
        for secret in ("hush", self.GOOD, "GEZDGNBVGY3TQOJQ"):
            assert secret not in found


@pytest.mark.parametrize(
    ("host", "warned"),
    [("127.0.0.1", False), ("[::1]", False), ("localhost", False), ("0.0.0.0", True), ("a.test", True)],
)
def test_metrics_beyond_loopback_are_warned_of(tmp_path: Path, host: str, warned: bool) -> None:
    warnings = read(tmp_path, f'[engine]\nmetrics = "{host}:9520"\n').warnings
    assert any(f"engine.metrics: {host}:9520 is beyond loopback" in sentence for sentence in warnings) == warned


@pytest.mark.parametrize("wrong", ['"9520"', "9520", '"127.0.0.1"', '""', "true"])
def test_metrics_that_are_no_address_are_a_mistake(tmp_path: Path, wrong: str) -> None:
    (problem,) = problems(tmp_path, f"[engine]\nmetrics = {wrong}\n")
    assert problem.startswith("engine.metrics: ")


def test_what_is_limited_for_each_address_is_limited_at_servers(tmp_path: Path) -> None:
    limits = '[service.a.limits]\nsessions_per_address = 1\nrate_per_identity = "1MB/s"\nhandshakes = 5\n'
    server = 'version = 1\n[service.a]\nkind = "relay-server"\nlisten = "127.0.0.1:0"\n'
    client = 'version = 1\n[service.a]\nkind = "relay-client"\nserver = "127.0.0.1:1"\ntarget = "127.0.0.1:2"\n'
    assert read(tmp_path, server + limits).services["a"].limits.handshakes == 5
    assert every_problem(tmp_path, client + limits) == [
        "service.a.limits.sessions_per_address: is for servers; leave it out here",
        "service.a.limits.rate_per_identity: is for servers; leave it out here",
        "service.a.limits.handshakes: is for servers; leave it out here",
    ]
