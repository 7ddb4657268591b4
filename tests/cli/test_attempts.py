"""The commands about attempts at hole punches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attempt_rows import attempt, direct, relayed
from installed import Daemon, Program
from tunnelconsole.cli import attempt_tables, tables
from tunnelconsole.cli.attempt_tables import print_attempt
from tunnelconsole.control.punch_words import advice, outcome
from waiting import until_true

ROOM = """
[service.meet]
kind = "punch-server"
listen = "127.0.0.1:0"
observe_ports = "0"
"""

ENDS = """
[service.here]
kind = "punch-client"
server = "{server}"
room = "desk"
secret = "a long one"
listen = "127.0.0.1:0"

[service.there]
kind = "punch-client"
server = "{server}"
room = "desk"
secret = "a long one"
target = "127.0.0.1:1"
"""

FLOOR = {"id", "service", "room", "peer", "state", "method", "candidates", "timeline", "seconds", "error"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A rendezvous that clients of another engine meet at."""
    meet, ends = Program(tmp_path_factory.mktemp("m")), Program(tmp_path_factory.mktemp("e"))
    try:
        server = meet.daemon(ROOM).service("meet")["address"]
        yield ends.daemon(ENDS.format(server=server))
    finally:
        ends.close()
        meet.close()


def test_attempts_are_a_table_or_a_document(node: Daemon) -> None:
    until_true(lambda: {row["state"] for row in node.json("attempts")} == {"direct"})
    rows = node.json("attempts")
    assert set(rows[0]) > FLOOR
    assert {row["service"] for row in rows} == {"here", "there"}
    heading, line = node.ask("attempts", "--service", "here").ok().splitlines()
    assert heading.split()[:5] == ["ID", "TIME", "SERVICE", "ROOM", "STATE"]
    assert "direct" in line


def test_one_is_told_in_full(node: Daemon) -> None:
    until_true(lambda: {row["state"] for row in node.json("attempts")} == {"direct"})
    (key,) = [row["id"] for row in node.json("attempts", "--service", "here")]
    told = node.ask("attempts", key).ok()
    assert "outcome  direct, " in told
    assert "here     no NAT" in told
    assert "the link goes directly" in told
    assert node.json("attempts", key)["id"] == key


def test_what_cannot_be_is_refused_with_the_reason(node: Daemon) -> None:
    answer = node.ask("attempts", "p99")
    assert (answer.code, answer.err) == (
        1, "tunnelconsole: there is no attempt p99; only the last are kept; list them again\n",
    )  # fmt: skip
    until_true(lambda: {row["state"] for row in node.json("attempts")} == {"direct"})
    answer = node.ask("retry", "here")
    assert answer.code == 1
    assert "room desk has a direct path already" in answer.err


def test_a_table_says_why_where_there_was_no_direct_way() -> None:
    heading, first, second = tables.table(attempt_tables.ATTEMPTS, [direct(), relayed()], 0.0)
    assert heading.split()[-1] == "WHY"
    assert "412 ms" in first
    assert "random port  random port  both NATs pick random ports" in second
    heading, _ = tables.table(attempt_tables.ATTEMPTS, [direct()], 0.0)
    assert heading.split()[-1] == "THERE"


def test_what_became_of_each_address_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_attempt(direct(), as_json=False)
    told = capsys.readouterr().out
    assert "never dialled: it is in a private network that is not ours" in told
    assert "told to the other side" in told
    assert "171 ms  192.168.1.20:40777 refuses" in told
    assert "drops strangers, seen at 198.51.100.2:40000" in told
    assert "drops strangers, says that it is seen at 203.0.113.7:40777" in told
    assert "after 1m15s alone" in told
    print_attempt(attempt(), as_json=False)
    assert "outcome  waits for the other side" in capsys.readouterr().out


def test_advice_is_given_where_there_is_no_direct_way() -> None:
    assert "IPv6 at both ends" in advice(relayed())
    assert "observe ports" in advice(attempt(state="failed", seconds=5.0))
    assert "hairpin" in advice(relayed(ours=direct().ours, theirs=direct().ours))
    assert "TCP out to every port" in advice(relayed(ours=direct().ours, theirs=direct().theirs))
    assert "alternate address" in advice(relayed(ours=attempt().ours))
    assert not advice(direct())
    assert not advice(attempt())
    assert outcome(direct()) == "direct, at the address where it is seen"
