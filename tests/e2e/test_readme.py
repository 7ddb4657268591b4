"""README.md does what it says: every command and every program in it, in its order, as a reader would run them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import system_tools
from installed import Process, Program
from origins import HELLO, web_origin
from ports import steady_port, steady_ports
from sshd import TOOLS, Sshd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

pytestmark = [pytest.mark.e2e, pytest.mark.system("bash", "make", "curl", *TOOLS)]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"\b(\d{4,5})(?:-(\d{4,5}))?\b")
"""Numbers of four and five digits are ports, and nothing else in the README's blocks is one."""

WEB, SSH = 8000, 2200
"""What a reader has at hand: a web server and an SSH server, on these ports of the README."""

IN_THE_BACKGROUND = {"tunnelconsole --daemon": "ready\n", "tunnelconsole tcp": "forwarding tcp://"}
"""Commands that go on, and what they say once they are ready to be used."""

SAYS = {
    "curl": HELLO,
    "ssh": "through\n",
    "tunnelconsole check": "config ok: 4 services\n",
    "tunnelconsole status": "version",
    "tunnelconsole services": '"fingerprint"',
    "tunnelconsole channels": "",
    "tunnelconsole events": "listening on",
    "tunnelconsole restart": "via-home",
    "tunnelconsole reload": "untouched",
    "export": "",
}
"""Commands that end by themselves, by their first words, and what they print."""

MAKES = {"make run": "tunnelconsole --demo", "make test": "pytest"}
"""What each of the two commands leads to; only looked at, with ``make -n``, since they set up and run all this."""

PRINTS = {
    "through_jump.py": r"b'HTTP/1.0 200 OK\r\n'",
    "expose.py": "visitors come to localhost:",
    "embed.py": "edge listening 127.0.0.1:",
}
"""What the programs print."""


@dataclass(frozen=True)
class Block:
    """A block of code."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines without their comments."""
        lines = (shlex.join(shlex.split(line, comments=True)) for line in self.text.splitlines())
        return [line for line in lines if line]


BLOCKS = [Block(language, text) for language, text in FENCE.findall(README)]


def known(command: str, table: dict[str, str]) -> str | None:
    """What a table says about a command, by its first words."""
    return next((said for words, said in table.items() if f"{command} ".startswith(f"{words} ")), None)


class Reader:
    """Somebody who has followed the README so far."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._ports = free_ports(README)
        path = [str(program.folder), str(Path(program.path).parent), program.env["PATH"]]
        self._env = {"PATH": ":".join(path)}
        program.write("tunnels.toml", self.translated("".join(b.text for b in BLOCKS if b.language == "toml")))
        sshd = Sshd(program, self.port(SSH))
        wrapper = shlex.join([system_tools.path_of("ssh"), "-F", str(sshd.client_config)])
        program.write("ssh", f'#!/bin/sh\nexec {wrapper} "$@"\n', mode=0o700)

    def port(self, number: int) -> int:
        """The free port that stands for one of the README."""
        return self._ports[number]

    def translated(self, text: str) -> str:
        """The text with free ports in place of its own."""
        return PORT.sub(lambda match: "-".join(str(self.port(int(part))) for part in match.groups() if part), text)

    def runs(self, block: Block) -> None:
        """Runs a block as it is meant."""
        if block.language == "sh":
            for command in block.commands:
                assert known(command, MAKES | IN_THE_BACKGROUND | SAYS) is not None, f"what is this? {command}"
            self._shell(block)
        elif block.language == "python":
            self._python(block)
        else:
            assert block.language == "toml", f"what is a block of {block.language!r}?"

    def _shell(self, block: Block) -> None:
        (first, *more) = block.commands
        if leads_to := known(first, MAKES):
            dry = subprocess.run(
                ["make", "-n", *first.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert leads_to in dry.stdout
        elif said := known(first, IN_THE_BACKGROUND):
            assert not more, f"nobody gets to {more}, because {first} goes on"
            process: Process = self.program.start_other(self._bash(block.text), env=self._env)
            process.says(said)
        else:
            done = self.program.run_other(self._bash(block.text), env=self._env)
            for command in block.commands:
                assert (known(command, SAYS) or "") in done.ok(), command

    def _bash(self, script: str) -> list[str]:
        return [system_tools.path_of("bash"), "-euo", "pipefail", "-c", self.translated(script)]

    def _python(self, block: Block) -> None:
        name = block.text.splitlines()[0].removeprefix("# ")
        path = self.program.write(name, self.translated(block.text))
        assert PRINTS[name] in self.program.run_other([sys.executable, str(path)], env=self._env).ok()


def free_ports(text: str) -> dict[int, int]:
    """A free port for each that the blocks name; those of a range stay side by side."""
    found: dict[int, int] = {}
    pairs = [match for _, block in FENCE.findall(text) for match in PORT.findall(block)]
    for first, last in sorted(pairs, key=lambda pair: not pair[1]):
        if last:
            start = steady_ports(int(last) - int(first) + 1)
            found |= {int(first) + at: start + at for at in range(int(last) - int(first) + 1)}
        elif int(first) not in found:
            found[int(first)] = steady_port()
    return found


@pytest.fixture
def reader(program: Program) -> Iterator[Reader]:
    reader = Reader(program)
    with web_origin(program.folder / "web", port=reader.port(WEB)):
        yield reader


def test_every_block_does_what_it_says_one_after_the_other(reader: Reader) -> None:
    assert len(BLOCKS) > 10
    for block in BLOCKS:
        reader.runs(block)


def test_the_fingerprint_is_where_it_says(reader: Reader) -> None:
    daemon = next(block for block in BLOCKS if block.text.startswith("tunnelconsole --daemon"))
    reader.runs(daemon)
    rows = json.loads(reader.program.run("services", "--json").ok())
    (sealed,) = [row for row in rows if row["name"] == "sealed"]
    assert re.fullmatch("[0-9a-f]{64}", sealed["notes"]["fingerprint"])


def test_the_configuration_is_one_that_check_accepts(program: Program) -> None:
    program.write("tunnels.toml", "".join(block.text for block in BLOCKS if block.language == "toml"))
    assert program.run("check", "-c", "tunnels.toml").ok() == "config ok: 4 services\n"


@pytest.mark.parametrize("file", sorted({*re.findall(r"\]\(([^):]+)\)", README)}))
def test_what_it_links_to_is_there(file: str) -> None:
    assert (ROOT / file).exists()
