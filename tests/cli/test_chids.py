"""The commands about clients of a channel server."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from channel_peers import OK, hs1, hs2, hs3
from echo import connect
from installed import Daemon, Program
from tunnelconsole.cli import tables
from tunnelconsole.control.messages import ChidRow

HUB = """
[service.hub]
kind = "channel-server"
listen = "127.0.0.1:0"
"""

ROW = ChidRow(
    service="hub",
    session="s1",
    channel="c1",
    chid="ch0",
    peer="192.0.2.1:5000",
    identity="alice",
    since=0.0,
    receivers=["ch1", "ch2"],
    senders=3,
    bytes_in=1536,
    bytes_out=0,
    rate_in=0.0,
    rate_out=0.0,
    waiting=0,
    dropped=0,
    undelivered=0,
    ended=False,
    waits_for="",
    path="tcp",
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    program = Program(tmp_path_factory.mktemp("c"))
    try:
        yield program.daemon(HUB)
    finally:
        program.close()


def join(hub: Daemon, chid: str, *receivers: str) -> socket.socket:
    """A client that has been let in."""
    client = connect(hub.service("hub")["address"])
    client.sendall(hs1(chid) + hs3(*receivers))
    answer = b""
    while len(answer) < len(hs2(chid) + OK):
        answer += client.recv(100)
    assert answer == hs2(chid) + OK
    return client


def test_who_sends_to_whom_is_a_table_or_a_document(hub: Daemon) -> None:
    with join(hub, "desk", "laptop"), join(hub, "laptop"):
        first, second = hub.json("chids")
        assert (first["chid"], first["receivers"], first["senders"]) == ("desk", ["laptop"], 1)
        assert (second["chid"], second["receivers"], second["senders"]) == ("laptop", [], 1)
        heading, desk, laptop = hub.ask("chids", "--service", "hub").ok().splitlines()
        assert heading.split()[:2] == ["CHID", "SERVICE"]
        assert "desk" in desk
        assert "all" in laptop


def test_receivers_are_changed_by_hand(hub: Daemon) -> None:
    with join(hub, "a", "b") as a, join(hub, "b", "x"), join(hub, "c", "x") as c:
        (session,) = [row["session"] for row in hub.json("chids") if row["chid"] == "a"]
        assert hub.ask("receivers", session, "b,c").ok() == "a now sends to b, c\n"
        a.sendall(b"hello")
        assert c.recv(5) == b"hello"
        assert hub.json("receivers", session, "*") == {"text": "a now sends to all"}
        answer = hub.ask("receivers", session, "b,,c")
        assert (answer.code, answer.err) == (1, "tunnelconsole: a chid is not empty\n")


def test_columns_in_which_nothing_is_lost_are_left_out() -> None:
    heading, line = tables.table(tables.CHIDS, [ROW], 0.0)
    assert "DROPPED" not in heading
    assert line.split("  ")[0] == "ch0"
    assert "ch1, ch2" in line


def test_what_was_lost_is_shown() -> None:
    lost = ChidRow(**{key: getattr(ROW, key) for key in ROW.__struct_fields__} | {"dropped": 2048, "waiting": 1024})
    heading, line = tables.table(tables.CHIDS, [lost], 0.0)
    assert heading.split()[-2:] == ["WAITING", "DROPPED"]
    assert line.endswith("2.0 KiB")


@pytest.mark.parametrize(
    ("receivers", "more", "text"),
    [
        ([], 0, "all"),
        (["a"], 0, "a"),
        (list("abcdefg"), 0, "a, b, c, d, e and 2 more"),
        (list("abcdefg"), 100, "a, b, c, d, e and 102 more"),
        (["a"], 3, "a and 3 more"),
    ],
)
def test_receivers_are_told_in_the_width_of_a_column(receivers: list[str], more: int, text: str) -> None:
    assert tables.receivers_text(replace(ROW, receivers=receivers, more_receivers=more)) == text
