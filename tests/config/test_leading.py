"""Services that lead to others of the same configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnelconsole.config import examine

BASE = """version = 1
[service.ssh]
kind = "ssh-server"
listen = "127.0.0.1:0"
authorized_keys = "keys"
forward = true
{more}
[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:0"
[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
secret = "x"
"""


def problems(folder: Path, more: str) -> list[str]:
    """What is wrong with a configuration in which the SSH server has these lines too."""
    (folder / "keys").write_text("")
    (folder / "keys").chmod(0o600)
    (folder / "config.toml").write_text(BASE.format(more=more))
    return examine(folder / "config.toml").problems


def test_a_service_that_there_is_may_be_named(tmp_path: Path) -> None:
    assert problems(tmp_path, 'tunnel = "web"\njump = "home"') == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('tunnel = "wep"', 'service.ssh.tunnel: there is no tunnel-server "wep"; did you mean "web"?'),
        ('tunnel = "home"', 'service.ssh.tunnel: there is no tunnel-server "home"; there is web'),
        ('jump = "ssh"', 'service.ssh.jump: there is no jump-server "ssh"; there is home'),
    ],
)
def test_a_service_that_there_is_not_or_of_another_kind_is_a_mistake(tmp_path: Path, more: str, told: str) -> None:
    assert problems(tmp_path, more) == [told]


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('public_url = "https://192.0.2.1"', "public_url"),
        ('public_url = "tunnels.example.net"', "public_url"),
        ('ports = "80-70000"', "ports"),
        ('bind = "a b"', "bind"),
        ('public_host = ""', "public_host"),
    ],
)
def test_what_a_forward_cannot_be_is_a_mistake(tmp_path: Path, more: str, key: str) -> None:
    (told,) = problems(tmp_path, more)
    assert told.startswith(f"service.ssh.{key}: ")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('programs = { status = ["/bin/true"] }', "there is a command of this name"),
        ('programs = { "a b" = ["/bin/true"] }', "a program's name is a word"),
        ('programs = { shell = ["bash"] }', "name the program and its arguments"),
        ("programs = { shell = [] }", "name the program and its arguments"),
    ],
)
def test_what_a_program_cannot_be_is_a_mistake(tmp_path: Path, more: str, told: str) -> None:
    (problem,) = problems(tmp_path, more)
    assert problem.startswith("service.ssh.programs")
    assert told in problem
