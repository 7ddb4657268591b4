"""The commands about bans, with an engine that runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from installed import Daemon, Program

JUMP = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
secret = "sesame-sesame"
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A jump server."""
    program = Program(tmp_path_factory.mktemp("n"))
    try:
        yield program.daemon(JUMP)
    finally:
        program.close()


def test_an_address_is_banned_listed_and_let_in_again(node: Daemon) -> None:
    assert node.json("bans") == []
    assert node.ask("ban", "203.0.113.9", "--for", "7d").ok().startswith("203.0.113.9 is banned")
    (row,) = node.json("bans")
    assert (row["address"], row["reason"], round(row["until"] - row["since"])) == ("203.0.113.9", "by hand", 604_800)
    assert "6d23h" in node.ask("bans").ok()
    assert node.ask("unban", "203.0.113.9").ok() == "203.0.113.9 may connect again\n"
    assert "is not banned" in node.ask("unban", "203.0.113.9").err
