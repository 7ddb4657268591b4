"""The themes: each whole, each legible, and some for every kind of colour vision."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.color import Color

from tunnelconsole.screens import themes
from tunnelconsole.screens.themes import COLOURS, ROLES, Look, ThemeUnreadable

NAMES = themes.names()
COLOURED = [name for name in NAMES if name != themes.WITHOUT_COLOUR]

Rgb = tuple[float, float, float]

COLOUR_BLIND = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""What remains of linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1.0)."""


def _linear(colour: str) -> Rgb:
    parts = Color.parse(colour).get_truecolor()
    channels = [part / 255 for part in parts]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return red, green, blue


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio, 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _seen(colour: str, matrix: tuple[Rgb, Rgb, Rgb]) -> Rgb:
    """The colour as CIELAB values, seen through ``matrix``."""
    linear = _linear(colour)
    red, green, blue = (min(1.0, max(0.0, sum(w * c for w, c in zip(row, linear, strict=True)))) for row in matrix)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def _apart(one: str, other: str, matrix: tuple[Rgb, Rgb, Rgb]) -> float:
    """The CIE76 distance of two colours; 2.3 is just noticeable."""
    pairs = zip(_seen(one, matrix), _seen(other, matrix), strict=True)
    return float(sum((a - b) ** 2 for a, b in pairs) ** 0.5)


def test_there_is_a_theme_for_every_need() -> None:
    assert NAMES[0] == themes.DEFAULT
    assert {"day", "contrast", "blue-orange", "blue-orange-day", "mono"} <= set(NAMES)
    assert {themes.load(name).dark for name in NAMES} == {True, False}


@pytest.mark.parametrize("name", NAMES)
def test_every_role_of_every_theme_has_a_style(name: str) -> None:
    look = themes.load(name)
    assert all(look.style(role) is not None for role in ROLES)
    assert look.textual().name == name


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize(
    "colour", ["text", "dim", "accent", "inward", "outward", "ok", "busy", "warning", "error", "notice"]
)
def test_what_is_to_be_read_stands_out_from_its_ground(name: str, colour: str) -> None:
    look = themes.load(name)
    least = 7.0 if name == "contrast" else 4.5
    for ground in ("background", "surface", *(("cursor",) if name != "contrast" else ())):
        assert _contrast(look.colours[colour], look.colours[ground]) >= least, (colour, ground)


@pytest.mark.parametrize("name", COLOURED)
def test_what_is_faint_can_still_be_read(name: str) -> None:
    look = themes.load(name)
    assert _contrast(look.colours["faint"], look.colours["background"]) >= 3.0


@pytest.mark.parametrize("name", ["blue-orange", "blue-orange-day"])
@pytest.mark.parametrize("vision", COLOUR_BLIND)
def test_well_and_ill_differ_for_every_kind_of_colour_vision(name: str, vision: str) -> None:
    colours = themes.load(name).colours
    for one, other in [("ok", "error"), ("ok", "warning"), ("inward", "outward"), ("warning", "error")]:
        assert _apart(colours[one], colours[other], COLOUR_BLIND[vision]) >= 12, (one, other)


def test_the_theme_without_colour_has_none() -> None:
    look = themes.load(themes.WITHOUT_COLOUR)
    for role in ROLES:
        style = look.style(role)
        assert all(colour is None or colour.is_default for colour in (style.color, style.bgcolor)), role


def test_a_theme_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ThemeUnreadable, match=r"no theme 'dusk'.*night"):
        themes.load("dusk")


def _file(folder: Path, colours: dict[str, str], tail: str = "") -> Path:
    lines = ['title = "Own"', "[colours]", *(f'{name} = "{colour}"' for name, colour in colours.items()), tail]
    path = folder / "own.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_theme_may_write_a_role_its_own_way(tmp_path: Path) -> None:
    path = _file(tmp_path, dict.fromkeys(COLOURS, "#808080"), '[roles]\nhead = "italic {accent}"')
    look: Look = themes.read(path)
    assert look.style("head").italic
    assert str(look.style("head").color) == str(look.style("accent" if "accent" in ROLES else "key").color)


@pytest.mark.parametrize(
    ("colours", "tail", "why"),
    [
        ({"text": "#fff"}, "", "background is missing"),
        (dict.fromkeys((*COLOURS, "sky"), "#fff000"), "", "sky is unknown"),
        (dict.fromkeys(COLOURS, "#fff000"), '[roles]\nhat = "bold"', "hat is unknown"),
        (dict.fromkeys(COLOURS, "#fff000"), "[oops", "cannot be read"),
        (dict.fromkeys(COLOURS, "#fff000"), "[engine]\nx = 1", "cannot be read"),
    ],
)
def test_a_wrong_theme_file_is_told_with_its_mistake(
    tmp_path: Path, colours: dict[str, str], tail: str, why: str
) -> None:
    with pytest.raises(ThemeUnreadable, match=f"own.toml.*{why}"):
        themes.read(_file(tmp_path, colours, tail))
