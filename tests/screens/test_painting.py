"""How lines become bytes for a terminal, and how often that is done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from screens.desk import console
from screens.stories import evening
from tunnelconsole.screens.frame import INTERVAL, interval
from tunnelconsole.screens.widgets.lines import Painted, WrittenStrip

WRITTEN = re.compile(r"\x1b\[([0-9;]*)m|(.)", re.DOTALL)

STYLES = [
    Style.parse("#ffffff on #101010"),
    Style.parse("bold #00ff00 on #101010"),
    Style.parse("#ff0000 on #303030"),
    Style.parse("underline #ffffff on #101010"),
    Style.parse("reverse #ffffff on #101010"),
    Style.parse("default"),
]

TERMINAL = Console(color_system="truecolor", force_terminal=True)


def cells(written: str) -> list[tuple[str, str]]:
    """Each character with how it looks; of a blank, that is its ground alone."""
    found, state = [], ""
    for codes, character in WRITTEN.findall(written):
        if character:
            found.append((character, _ground(state) if character == " " else state))
        else:
            state = codes.removeprefix("0").removeprefix(";")
    assert state == ""  # whoever writes next begins anew
    return found


def _ground(state: str) -> str:
    ground = re.search(r"48;2;\d+;\d+;\d+", state)
    lines = [code for code in ("4", "7") if code in re.sub(r"[34]8;2;\d+;\d+;\d+", "", state).split(";")]
    return f"{ground[0] if ground else ''} {lines} {state if lines else ''}"


@given(st.lists(st.tuples(st.sampled_from(["a", "bc", " ", "   ", "⣿"]), st.sampled_from(STYLES)), max_size=12))
def test_a_strip_looks_as_textual_would_write_it(pieces: list[tuple[str, Style]]) -> None:
    segments = [Segment(text, style) for text, style in pieces]
    length = sum(segment.cell_length for segment in segments)
    assert cells(WrittenStrip(segments, length).render(TERMINAL)) == cells(Strip(segments, length).render(TERMINAL))


def test_colours_are_said_once_for_all_that_has_them() -> None:
    white, green, *_ = STYLES
    segments = [Segment("name", white), Segment("  ", white), Segment("more", white), Segment(" ", green)]
    assert WrittenStrip(segments, 11).render(TERMINAL).count("\x1b[") == 2


async def test_what_is_painted_quickly_is_what_textual_would_paint(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        painted = [widget for widget in desk.app.screen.walk_children() if isinstance(widget, Painted) and widget.size]
        assert len(painted) > 8
        for widget in painted:
            region = widget.outer_size.region
            slow = super(Painted, widget).render_lines(region)
            for line, other in zip(widget.render_lines(region), slow, strict=True):
                assert [(one.text, one.style) for one in line] == [
                    (one.text, one.style.clear_meta_and_links() if one.style else None) for one in other
                ]


SAID = {"1": 1.0, "0.25": 0.25, "0": 0.25, "-3": 0.25, "": INTERVAL, "x": INTERVAL, "nan": INTERVAL}


@pytest.mark.parametrize(("said", "seconds"), SAID.items())
def test_the_environment_says_how_often_there_are_updates(said: str, seconds: float) -> None:
    assert interval({"TUNNELCONSOLE_INTERVAL": said}) == seconds
    assert interval({}) == INTERVAL
