"""The table: its cursor keeps to a row, and it paints no more than it has to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from textual.events import MouseScrollDown

from screens.desk import Desk, console
from screens.rows import channel, session, status
from screens.scripted_engine import Script
from tunnelconsole.control.messages import ChannelRow
from tunnelconsole.screens.columns import Column
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.spans import Span
from tunnelconsole.screens.widgets.table import LineTable


def many(count: int) -> Script:
    """One session with so many channels, the first the fastest."""
    channels = [channel(f"c{number:04}", rate_in=float(10 * (count - number))) for number in range(count)]
    return Script(status=status(sessions=1, channels=count), sessions=[session("s1")], channels=channels)


def _table(desk: Desk) -> LineTable[ChannelRow]:
    table = desk.app.pane.table
    assert table is not None
    return table


def _selected(desk: Desk) -> str:
    row = _table(desk).selected
    assert row is not None
    return row.id


async def _at_channels(desk: Desk) -> None:
    await desk.press("4")
    await desk.arrive()


async def _change(desk: Desk, **rates: float) -> None:
    rows = desk.engine.script.channels
    desk.engine.script.channels = [replace(row, rate_in=rates.get(row.id, row.rate_in)) for row in rows]
    await desk.tick()


async def test_the_cursor_keeps_to_its_row_when_rows_change_places(tmp_path: Path) -> None:
    async with console(tmp_path, many(10)) as desk:
        await _at_channels(desk)
        await desk.press("down", "down")
        assert _selected(desk) == "c0002"
        await _change(desk, c0002=1.0, c0009=999.0)
        assert _selected(desk) == "c0002"


async def test_a_cursor_that_was_not_moved_stays_at_the_top(tmp_path: Path) -> None:
    async with console(tmp_path, many(10)) as desk:
        await _at_channels(desk)
        await _change(desk, c0009=999.0)
        assert _selected(desk) == "c0009"


async def test_home_lets_go_of_the_row_again(tmp_path: Path) -> None:
    async with console(tmp_path, many(10)) as desk:
        await _at_channels(desk)
        await desk.press("down", "home")
        await _change(desk, c0009=999.0)
        assert _selected(desk) == "c0009"


async def test_a_row_that_is_gone_leaves_the_cursor_on_the_one_that_took_its_place(tmp_path: Path) -> None:
    async with console(tmp_path, many(10)) as desk:
        await _at_channels(desk)
        await desk.press("down", "down")
        del desk.engine.script.channels[2]
        await desk.tick()
        assert _selected(desk) == "c0003"


async def test_the_last_row_that_is_gone_leaves_the_cursor_on_the_new_last(tmp_path: Path) -> None:
    async with console(tmp_path, many(3)) as desk:
        await _at_channels(desk)
        await desk.press("end")
        del desk.engine.script.channels[2]
        await desk.tick()
        assert _selected(desk) == "c0001"


async def test_the_view_goes_along_with_the_cursor(tmp_path: Path) -> None:
    async with console(tmp_path, many(200)) as desk:
        await _at_channels(desk)
        await desk.press("end")
        assert "c0199" in desk.text()
        await desk.press("pageup")
        assert _selected(desk) in desk.text()
        await desk.press("g")
        assert "c0000" in desk.text()


async def test_the_wheel_scrolls(tmp_path: Path) -> None:
    async with console(tmp_path, many(200)) as desk:
        await _at_channels(desk)
        table = _table(desk)
        await desk.pilot._post_mouse_events([MouseScrollDown], table, offset=(5, 5))
        await desk.settle()
        assert table.scroll_offset.y > 0


async def test_a_click_selects_a_row_and_a_second_one_opens_it(tmp_path: Path) -> None:
    async with console(tmp_path, many(5)) as desk:
        await desk.press("3")
        await desk.arrive()
        await desk.pilot.click(desk.app.pane.table, offset=(5, 1))
        assert desk.app.place == Place("sessions")
        await desk.pilot.click(desk.app.pane.table, offset=(5, 1), times=2)
        await desk.settle()
        assert desk.app.place == Place("channels", "home", "s1")


async def test_a_click_on_a_heading_sorts_by_it(tmp_path: Path) -> None:
    async with console(tmp_path, many(5)) as desk:
        await _at_channels(desk)
        table = _table(desk)
        lines = desk.text().splitlines()
        at = next(at for at, line in enumerate(lines) if "LEADS TO" in line)
        await desk.pilot.click(offset=(lines[at].index("OUT/S") + 1, at))
        await desk.settle()
        assert table.order is not None
        assert table.order.column == "rate_out"


async def test_a_click_on_a_tab_or_a_key_of_the_footer_does_what_it_says(tmp_path: Path) -> None:
    async with console(tmp_path, many(5)) as desk:
        lines = desk.text().splitlines()
        await desk.pilot.click(offset=(lines[1].index("channels"), 1))
        await desk.settle()
        assert "Channels  5" in desk.text()
        lines = desk.text().splitlines()
        await desk.pilot.click(offset=(lines[-1].index("freeze"), len(lines) - 1))
        await desk.settle()
        assert "FROZEN" in desk.text()


async def test_only_rows_in_view_are_ever_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with console(tmp_path, many(5000)) as desk:
        await _at_channels(desk)
        table = _table(desk)
        written: set[str] = set()
        label = table.columns[0]

        def cell(row: ChannelRow, now: float) -> Any:
            written.add(row.id)
            return label.cell(row, now)

        columns = (type(label)(label.key, label.title, cell, label.sort, label.narrow, label.wide), *table.columns[1:])
        monkeypatch.setattr(table, "columns", columns)
        await _change(desk, c0000=1e6)
        assert 0 < len(written) <= table.size.height


async def test_nothing_is_painted_when_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with console(tmp_path, many(50)) as desk:
        await _at_channels(desk)
        await desk.tick()
        painted: list[int] = []
        for widget in desk.app.screen.walk_children():
            if hasattr(widget, "paint"):
                monkeypatch.setattr(widget, "paint", _counting(widget.paint, painted))
        await desk.tick()
        assert painted == []
        await _change(desk, c0003=477.0)
        assert 1 <= len(painted) <= 3


def _counting(paint: Any, painted: list[int]) -> Any:
    def count(*arguments: Any) -> Any:
        painted.append(1)
        return paint(*arguments)

    return count


@pytest.mark.parametrize("size", [(20, 6), (40, 12), (60, 16), (80, 24), (250, 80)])
async def test_no_screen_is_too_small_or_too_large(tmp_path: Path, size: tuple[int, int]) -> None:
    async with console(tmp_path, many(30), size) as desk:
        for key in (*"123456", "question_mark"):
            await desk.press(key)
            lines = desk.text().splitlines()
            assert (len(lines), {len(line) for line in lines}) == (size[1], {size[0]})


async def test_a_terminal_that_changes_its_size_is_filled_again(tmp_path: Path) -> None:
    async with console(tmp_path, many(30), (80, 24)) as desk:
        await _at_channels(desk)
        assert "BYTES IN" not in desk.text()
        await desk.pilot.resize_terminal(200, 50)
        await desk.settle()
        assert "BYTES IN" in desk.text()


class Looked:
    """A table of two columns that count how often they are looked up."""

    def __init__(self) -> None:
        self.steady = self.moving = 0
        self.table: LineTable[str] = LineTable(
            [
                Column("steady", "STEADY", self._steady, str, 10, 20),
                Column("moving", "MOVING", self._moving, str, 10, 20, steady=False),
            ],
            str,
            {},
        )

    def _steady(self, row: str, now: float) -> Span:
        self.steady += 1
        return Span(f"{row} {now:.1f}")

    def _moving(self, row: str, now: float) -> Span:
        self.moving += 1
        return Span(f"{row} {now:.1f}")

    def shows(self, *rows: str, now: float) -> tuple[list[str], int, int]:
        """What stands there, and how often each column was looked up for it."""
        self.steady = self.moving = 0
        self.table.show(rows, now, None)
        cells = [self.table._cell(at, column).text for at in range(len(rows)) for column in (0, 1)]
        return cells, self.steady, self.moving


async def test_a_row_that_is_as_it_was_is_looked_up_again_only_where_it_moves_or_in_the_next_second(
    tmp_path: Path,
) -> None:
    async with console(tmp_path, Script(status=status())) as desk:
        looked = Looked()
        await desk.app.screen.mount(looked.table)
        assert looked.shows("a", "b", now=7.0) == (["a 7.0", "a 7.0", "b 7.0", "b 7.0"], 2, 2)
        assert looked.shows("a", "b", now=7.9) == (["a 7.0", "a 7.9", "b 7.0", "b 7.9"], 0, 2)
        assert looked.shows("a", "c", now=7.9) == (["a 7.0", "a 7.9", "c 7.9", "c 7.9"], 1, 2)
        assert looked.shows("a", "c", now=8.0) == (["a 8.0", "a 8.0", "c 8.0", "c 8.0"], 2, 2)
        assert looked.shows("a", now=8.0) == (["a 8.0", "a 8.0"], 0, 1)
        assert looked.shows(now=8.0) == ([], 0, 0)
        assert looked.shows("a", now=8.0) == (["a 8.0", "a 8.0"], 1, 1)
