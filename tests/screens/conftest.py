"""The same surroundings for every test of the console, whatever machine it runs on."""

from __future__ import annotations

import os

import pytest

import waiting
from screens.desk import draw_when_looked_at

SURROUNDINGS = (
    "NO_COLOR", "COLUMNS", "LINES", "DISPLAY", "WAYLAND_DISPLAY", "TMUX", "STY", "SSH_CONNECTION", "SSH_TTY",
    "SSH_CLIENT",
)  # fmt: skip
"""What would change how the console looks, or where it copies to."""


@pytest.fixture(autouse=True)
def _nowhere_in_particular(monkeypatch: pytest.MonkeyPatch) -> None:
    """No desktop, no SSH, no wishes about colours; Textual at its defaults; and a platform that is not macOS."""
    for name in (*SURROUNDINGS, *(name for name in os.environ if name.startswith("TEXTUAL"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")


@pytest.fixture(autouse=True)
def _the_loop_tells_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual's pilot looks in steps of 20 ms whether the process uses the processor: most of a test's time."""
    monkeypatch.setattr("textual.pilot.wait_for_idle", waiting.idle)
    monkeypatch.setattr("textual.app.wait_for_idle", waiting.idle)


@pytest.fixture(autouse=True)
def _drawn_when_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal nobody sees what is drawn in between."""
    monkeypatch.setattr("textual._compositor.Compositor.render_update", draw_when_looked_at)
