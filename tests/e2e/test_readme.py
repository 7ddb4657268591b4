"""README.md does what it says: every block in it, in its order, pasted as it stands, with other ports."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import system_tools
from installed import Process, Program
from ports import steady_port, steady_ports

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
UNIT = (ROOT / "docs" / "tunnelconsole.service").read_text()

pytestmark = [pytest.mark.e2e, pytest.mark.system("bash", "make", "curl", "ssh", "ssh-keygen")]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"<<'END'\n.*?^END$", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"\b(\d{4,5})(?:-(\d{4,5}))?\b")
"""Numbers of four and five digits are ports, and nothing else in the README's blocks is one."""

PAGE = "hello from the far end\n"

GOES_ON = {
    "python3 -m http.server": "Serving HTTP on",
    "tunnelconsole --daemon": "ready\n",
    "tunnelconsole tcp": "forwarding tcp://",
    "tunnelconsole http": "forwarding http://",
    "ssh -F ssh_config -R": "forwarding localhost:",
}
"""Commands that go on, and what they say once they are ready to be used."""

SAYS = {
    "mkdir": "",
    "cat": "",
    "chmod": "",
    "cp": "",
    "ssh-keygen": "",
    "ssh -F ssh_config console": "alice",
    "export": "",
    "FINGERPRINT=": "",
    "THROUGH=": "",
    "(umask": "",
    "tunnelconsole token create": "",
    'echo "hello, desk"': "hello, desk\n",
    'echo "hello through': "hello through the wall\n",
    "wait": "",
    "curl": PAGE,
    "printf": PAGE,
    "tunnelconsole check": "config ok: 9 services\n",
    "tunnelconsole token list": "alice",
    "tunnelconsole token change": "token alice changed",
    "tunnelconsole token revoke": "token alice revoked, and 1 session of it ended",
    "tunnelconsole status": "version",
    "tunnelconsole channel": "",
    "tunnelconsole punch": "",
    "tunnelconsole nat": "no NAT",
    "tunnelconsole events": "listening on",
    "tunnelconsole restart": "via-home",
    "tunnelconsole reload": "1 added, 0 changed, 0 removed",
}
"""Commands that end by themselves, by their first words, and what they print."""

MAKES = {"make run": "tunnelconsole --demo", "make test": "pytest"}
"""What each of the two commands leads to; only looked at, with ``make -n``, since they set up and run all this."""

INSTALLS = "sudo "
"""How the commands begin that change the machine; only looked at."""

PRINTS = {
    "through_jump.py": r"b'HTTP/1.0 200 OK\r\n'",
    "two_ends.py": r"b'hello, right\n'",
    "two_peers.py": r"b'hello, peer\n' came by",
}
"""What the programs print that end by themselves."""

SERVES = {
    "expose.py": "visitors come to localhost:",
    "blue_team.py": "the blue team comes to http://app.localhost:",
    "embed.py": "edge listening 127.0.0.1:",
}
"""What the programs print that go on until Ctrl-C."""


@dataclass(frozen=True)
class Block:
    """A block of code."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines without comments, and without what a command reads from the lines behind it."""
        lines = (re.sub(r"\s+#.*", "", line) for line in HEREDOC.sub("", self.text).splitlines())
        return [line for line in lines if line]


BLOCKS = [Block(language, text) for language, text in FENCE.findall(README)]


def known(command: str, table: dict[str, str]) -> str | None:
    """What a table says about a command, by its first words."""
    return next((said for words, said in table.items() if command.startswith(words)), None)


class Reader:
    """Somebody who has followed the README so far, in one folder."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._ports = free_ports(README)
        path = [str(Path(program.path).parent), program.env["PATH"]]
        self._env = {"PATH": ":".join(path), "PYTHONUNBUFFERED": "1"}  # a terminal sees each line at once, too

    def translated(self, text: str) -> str:
        """The text with free ports in place of its own."""
        return PORT.sub(lambda match: "-".join(str(self._ports[int(part)]) for part in match.groups() if part), text)

    def follows(self, block: Block) -> None:
        """Does what a block says."""
        if block.language == "python":
            self._runs_program(block)
            return
        assert block.language == "sh", f"what is a block of {block.language!r}?"
        if known(block.commands[0], MAKES):
            self._looks_at(block)
        elif not block.text.startswith(INSTALLS):
            self._pastes(block)

    def _looks_at(self, block: Block) -> None:
        for command in block.commands:
            dry = subprocess.run(
                ["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert MAKES[command] in dry.stdout

    def _pastes(self, block: Block) -> None:
        bash = [system_tools.path_of("bash"), "-euo", "pipefail", "-c", self.translated(block.text)]
        *before, last = block.commands
        if ready := known(last, GOES_ON):
            assert all(known(command, SAYS) == "" for command in before), before
            process: Process = self.program.start_other(bash, env=self._env)
            process.says(ready)
            return
        printed = self.program.run_other(bash, env=self._env).ok()
        for command in block.commands:
            said = known(command, SAYS)
            assert said is not None, f"what is this? {command}"
            assert said in printed, command

    def _runs_program(self, block: Block) -> None:
        name = block.text.splitlines()[0].removeprefix("# ")
        command = [sys.executable, str(self.program.write(name, self.translated(block.text)))]
        if name in PRINTS:
            assert PRINTS[name] in self.program.run_other(command, env=self._env).ok()
            return
        process: Process = self.program.start_other(command, env=self._env)
        process.says(SERVES[name])
        address = process.out.split()[-1].removeprefix("http://")
        if name == "expose.py":
            assert self._visits(address) == PAGE
        elif name == "blue_team.py":
            there = ["--connect-to", f"{address}:127.0.0.1:"]
            assert self._visits(address, *there, "-H", "X-Team: blue") == PAGE
            assert "only the blue team may come in" in self._visits(address, *there)
        assert process.running
        process.sends(signal.SIGINT)
        assert process.returns() == 0
        assert process.err == ""

    def _visits(self, address: str, *options: str) -> str:
        return self.program.run_other(["curl", *options, f"http://{address}/"], env=self._env).ok()


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


def test_every_block_does_what_it_says_one_after_the_other(program: Program) -> None:
    assert len(BLOCKS) > 10
    reader = Reader(program)
    for block in BLOCKS:
        reader.follows(block)


def test_the_unit_starts_the_program_where_the_readme_installs_it() -> None:
    (install,) = [block for block in BLOCKS if block.text.startswith(INSTALLS)]
    environment, program, link = install.commands
    assert program == f"sudo {environment.split()[-1]}/bin/pip install ."
    *_, target, folder = link.split()
    assert target == f"{environment.split()[-1]}/bin/tunnelconsole"
    assert f"\nExecStart={folder}tunnelconsole --daemon " in UNIT


def test_its_sections_are_in_the_order_in_which_a_newcomer_asks() -> None:
    beginning, *sections = re.split(r"^## ", README, flags=re.MULTILINE)
    assert "![" in beginning
    titles = [section.splitlines()[0] for section in sections]
    assert titles == ["Two commands", "The tunnels", "How it compares", "Where to read on"]


def slug(title: str) -> str:
    """The name that a heading has in a link."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("link", sorted({*re.findall(r"\]\(([^):]+)\)", README)}))
def test_what_it_links_to_is_there(link: str) -> None:
    file, _, part = link.partition("#")
    path = ROOT / (file or "README.md")
    assert path.exists()
    if part:
        assert part in map(slug, re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE))
