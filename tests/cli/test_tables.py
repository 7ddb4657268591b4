"""What the commands print for people."""

from __future__ import annotations

import msgspec
import pytest

from tunnelconsole.cli import tables
from tunnelconsole.control.messages import ChannelRow, ServiceRow

NOW = 1_700_000_000.0

SERVICE = ServiceRow(
    name="home",
    kind="jump-server",
    state="listening",
    address="127.0.0.1:9527",
    sessions=2,
    channels=5000,
    bytes_in=1536,
    bytes_out=0,
    rate_in=4_200_000.0,
    rate_out=0.0,
    error=None,
    since=NOW,
    retry_at=None,
    restarts=0,
    exposed=False,
    target="",
    notes={},
)


def channel(label: str) -> ChannelRow:
    return ChannelRow(
        id="c1",
        session="s1",
        service="home",
        label=label,
        peer="198.51.100.7:40001",
        since=NOW - 192,
        bytes_in=0,
        bytes_out=0,
        rate_in=0.0,
        rate_out=0.0,
        path="splice",
    )


def test_columns_are_as_wide_as_their_widest_cell_and_figures_stand_at_the_right() -> None:
    assert list(tables.table(tables.SERVICES, [SERVICE], NOW)) == [
        "NAME  KIND         STATE      ADDRESS         TARGET  SESSIONS  CHANNELS       IN  OUT   RATE IN  RATE OUT",
        "home  jump-server  listening  127.0.0.1:9527  -              2     5,000  1.5 KiB  0 B  4.2 MB/s     0 B/s",
    ]


def test_where_visitors_come_without_tls_stands_beside_the_address() -> None:
    row = msgspec.structs.replace(SERVICE, notes={"http": "127.0.0.1:8080"})
    shown = list(tables.table(tables.SERVICES, [row, SERVICE], NOW))
    assert "ADDRESS         HTTP" in shown[0]
    assert "127.0.0.1:9527  127.0.0.1:8080" in shown[1]
    assert "127.0.0.1:9527  -  " in shown[2]


def test_the_way_to_the_other_end_of_a_room_stands_beside_the_service() -> None:
    row = msgspec.structs.replace(SERVICE, target="room desk", notes={"path": "relay"})
    shown = list(tables.table(tables.SERVICES, [row, SERVICE], NOW))
    assert "TARGET     PATH " in shown[0]
    assert "room desk  relay" in shown[1]


def test_a_column_that_would_be_empty_throughout_is_left_out() -> None:
    (plain, *_) = tables.table(tables.SERVICES, [SERVICE], NOW)
    assert "ERROR" not in plain
    assert "EXPOSED" not in plain


@pytest.mark.parametrize("label", ["\x1b[2J\x1b]0;owned\x07", "a\nb", "\u202egnp.exe", "\x9b31m"])
def test_what_strangers_wrote_cannot_steer_the_terminal(label: str) -> None:
    lines = list(tables.table(tables.CHANNELS, [channel(label)], NOW))
    assert len(lines) == 2
    assert lines[1].isprintable()


def test_wide_characters_keep_the_columns_in_line() -> None:
    _, wide, narrow = tables.table(tables.CHANNELS, [channel("東京:22"), channel("abcd:22")], NOW)
    assert wide.replace("東京:22", "abcd:22") == narrow
