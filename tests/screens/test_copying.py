"""Copying: which way it goes, and what the terminal is sent."""

from __future__ import annotations

import base64
import re

import pyperclip
import pytest

from tunnelconsole.screens import copying


@pytest.mark.parametrize(
    ("environ", "platform", "way"),
    [
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", "desktop"),
        ({"DISPLAY": ":0"}, "linux", "desktop"),
        ({}, "darwin", "desktop"),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}, "linux", "terminal"),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", "terminal"),
        ({}, "linux", "terminal"),
    ],
)
def test_the_desktop_is_used_where_there_is_one_and_we_sit_at_it(
    environ: dict[str, str], platform: str, way: str
) -> None:
    assert copying.way(environ, platform) == way


def _carried(sequence: str) -> str:
    found = re.search(r"\]52;c;([A-Za-z0-9+/=]*)\a", sequence)
    assert found is not None
    return base64.b64decode(found[1]).decode()


def test_a_plain_terminal_is_sent_osc_52() -> None:
    sequence, copied = copying.osc52("127.0.0.1:1080", {})
    assert sequence == "\x1b]52;c;MTI3LjAuMC4xOjEwODA=\a"
    assert copied == copying.Copied("terminal", 14)


def test_tmux_is_asked_to_pass_it_through() -> None:
    sequence, _ = copying.osc52("hello", {"TMUX": "/tmp/tmux-0/default,1,0"})
    assert sequence == "\x1bPtmux;\x1b\x1b]52;c;aGVsbG8=\a\x1b\\"


def test_gnu_screen_is_sent_it_in_pieces_that_it_takes() -> None:
    sequence, _ = copying.osc52("x" * 1000, {"STY": "1.pts-0"})
    pieces = sequence.split("\x1b\\")[:-1]
    assert all(piece.startswith("\x1bP") and len(piece) <= 2 + copying.SCREEN_CHUNK for piece in pieces)
    assert _carried("".join(piece.removeprefix("\x1bP") for piece in pieces)) == "x" * 1000


def test_what_is_too_long_is_cut_at_a_whole_character_and_said_so() -> None:
    sequence, copied = copying.osc52("é" * copying.LARGEST, {})
    assert len(sequence) <= 100_000
    assert _carried(sequence) == "é" * (copying.LARGEST // 2)
    assert copied.cut
    assert "only the first 37,497 characters" in copied.how


def test_a_desktop_without_a_clipboard_program_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_text: str) -> None:
        raise pyperclip.PyperclipException("no xclip")

    monkeypatch.setattr(pyperclip, "copy", missing)
    assert not copying.to_desktop("text")
