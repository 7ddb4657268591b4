"""The console's themes: read from data files, given to Textual for its frame and to the screens as styles by role.

A theme is a TOML file::

    title = "Night"                # its name in a sentence
    about = "dark, the default"
    dark = true
    ansi = false                   # true: the terminal's own colours, none of ours

    [colours]                      # all of COLOURS, as "#rrggbb" or, with ansi, "default"
    [roles]                        # optional: how a role is written, in Rich's words, such as head = "bold underline"

State is never told by colour alone: the screens write the word beside it, so a theme may use no colour at all.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.style import Style

from tunnelconsole.errors import TunnelConsoleError

if TYPE_CHECKING:
    from textual.theme import Theme

DEFAULT = "night"
"""The theme of a terminal nothing is known about: most are dark."""

WITHOUT_COLOUR = "mono"
"""The theme for NO_COLOR (https://no-color.org)."""

COLOURS = (
    "background", "surface", "panel", "line", "text", "dim", "faint", "accent", "inward", "outward",
    "ok", "busy", "warning", "error", "notice", "cursor", "bar",
)  # fmt: skip
"""What a theme has to name. ``line``: rules and frames; ``bar``: behind the header and the active tab."""

ROLES = {
    "text": "{text}",
    "dim": "{dim}",
    "faint": "{faint}",
    "line": "{line}",
    "strong": "bold {text}",
    "title": "bold {accent}",
    "brand": "bold {accent}",
    "head": "{dim}",
    "hot": "underline {dim}",
    "sorted": "bold {accent}",
    "hot-sorted": "bold underline {accent}",
    "in": "{inward}",
    "out": "{outward}",
    "ok": "{ok}",
    "busy": "{busy}",
    "warning": "{warning}",
    "error": "bold {error}",
    "notice": "{notice}",
    "off": "{dim}",
    "tab": "{dim}",
    "tab-key": "{faint}",
    "tab-active": "bold {text} on {panel}",
    "tab-active-key": "bold {accent} on {panel}",
    "lit": "bold {background} on {accent}",
    "lit-key": "bold {background} on {accent}",
    "key": "bold {accent}",
    "label": "{dim}",
    "frozen": "bold {background} on {busy}",
    "alarm": "bold {background} on {error}",
    "caution": "bold {background} on {warning}",
    "match": "bold {warning}",
    "cursor": "on {cursor}",
    "cursor-idle": "on {surface}",
    "selection": "on {panel}",
}
"""How each role is written where a theme does not say otherwise."""


ANSI_NAMES = (
    "ansi-background", "ansi-foreground", "border", "border-blurred", "link-color", "link-color-hover",
    "link-background-hover", "footer-key-foreground", "input-cursor-background", "input-cursor-foreground",
    "button-foreground", "button-color-foreground",
)  # fmt: skip
"""What Textual would give colours of its own, or miss, in a theme that has none."""


class ThemeUnreadable(TunnelConsoleError):
    """A theme file is missing or wrong; the message names it and the mistake."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    colours: dict[str, str]
    about: str = ""
    dark: bool = True
    ansi: bool = False
    roles: dict[str, str] = {}


@dataclass(frozen=True)
class Look:
    """One theme, ready to paint with."""

    name: str
    title: str
    about: str
    dark: bool
    ansi: bool
    colours: dict[str, str]
    roles: dict[str, str]

    @cached_property
    def _styles(self) -> dict[str, Style]:
        return {
            role: Style.parse(self.roles.get(role, written).format_map(self.colours)) for role, written in ROLES.items()
        }

    def style(self, role: str) -> Style:
        """How text of this role is painted.

        :raises KeyError: there is no such role; a mistake of ours, never of a theme.
        """
        return self._styles[role]

    def textual(self) -> Theme:
        """The same colours for Textual's own parts: dialogs, the prompt, toasts and scroll bars."""
        from textual.theme import Theme  # noqa: PLC0415 - the data is usable without Textual

        paint = {name: _for_textual(colour) for name, colour in self.colours.items()}
        return Theme(
            name=self.name,
            primary=paint["accent"],
            secondary=paint["inward"],
            warning=paint["warning"],
            error=paint["error"],
            success=paint["ok"],
            accent=paint["accent"],
            foreground=paint["text"],
            background=paint["background"],
            surface=paint["surface"],
            panel=paint["panel"],
            dark=self.dark,
            ansi=self.ansi,
            variables={
                "rule": paint["line"],
                "bar": paint["bar"],
                "dim": paint["dim"],
                "toast": paint["panel"],
                "scrollbar": paint["line"],
                "scrollbar-hover": paint["faint"],
                "scrollbar-active": paint["accent"],
                "scrollbar-background": paint["background"],
                "scrollbar-background-hover": paint["background"],
                "scrollbar-background-active": paint["background"],
                "scrollbar-corner-color": paint["background"],
                "block-cursor-background": paint["cursor"],
                "block-cursor-foreground": paint["text"],
                "input-selection-background": paint["cursor"],
                "screen-selection-background": paint["cursor"],
                "screen-selection-foreground": paint["text"],
                **(dict.fromkeys(ANSI_NAMES, paint["background"]) if self.ansi else {}),
            },
        )


def _for_textual(colour: str) -> str:
    return "ansi_default" if colour == "default" else colour


def folder() -> Path:
    """Where the theme files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "themes"
    return installed if installed.is_dir() else package.parent / "themes"


def names() -> list[str]:
    """The names that :func:`load` knows, the default first."""
    found = sorted(path.stem for path in folder().glob("*.toml"))
    return sorted(found, key=lambda name: name != DEFAULT)


def load(name: str) -> Look:
    """The theme of this name.

    :raises ThemeUnreadable: there is none, or its file is wrong.
    """
    known = names()
    if name not in known:
        raise ThemeUnreadable(f"there is no theme {name!r}", f"there are: {', '.join(known)}")
    return read(folder() / f"{name}.toml")


def read(path: Path) -> Look:
    """The theme in a file.

    :raises ThemeUnreadable: the file cannot be read or is wrong.
    """
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except (OSError, ValueError, msgspec.ValidationError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        raise ThemeUnreadable(f"the theme file {path} cannot be read: {error}", "mend it, or choose another") from error
    missing = [colour for colour in COLOURS if colour not in file.colours]
    strange = [colour for colour in file.colours if colour not in COLOURS]
    strange += [role for role in file.roles if role not in ROLES]
    if missing or strange:
        wrong = [f"{word} is missing" for word in missing] + [f"{word} is unknown" for word in strange]
        raise ThemeUnreadable(f"the theme file {path} is wrong: {', '.join(wrong)}", "mend it, or choose another")
    return Look(path.stem, file.title, file.about, file.dark, file.ansi, file.colours, file.roles)
