"""The form of a token: its fields, what stands in them, and what the engine is asked for when it is sent off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from tunnelconsole.control import figures, token_words
from tunnelconsole.control.token_words import ANY, LISTS, NEVER, SCOPE, WRONG_EXPIRY, WRONG_OVERLAP, WRONG_RIGHTS
from tunnelconsole.control.tokens import ChangeToken, CreateToken, TokenRow
from tunnelconsole.screens.token import label
from tunnelconsole.screens.tokens import NEVER_ENDS
from tunnelconsole.screens.widgets.form import Field

FIRST_EXPIRY: Final = "90d"
"""What a new token's expiry is to begin with: a credential that is forgotten ends by itself within a season."""

FIRST_OVERLAP: Final = "24h"
"""For how long an old secret stays good to begin with: a day to bring the new one to where it is used."""

YES, NO = "yes", "no"

HINTS = {
    "name": "Who comes in with it is seen by this name: 1 to 63 letters, digits, dots, dashes, @ and _",
    "kinds": "The systems it may use, with commas between: jump, channel, punch, relay, tunnel",
    "hosts": "Public hostnames that it may have at tunnel servers, such as app.example.net, *.dev.example.net",
    "ports": "Public ports that it may have at relay servers, such as 7001-7010, 9000",
    "chids": "Chids that it may have and send to at channel servers, * for any letters, such as desk, lab-*",
    "rooms": "Rooms that it may enter at punch servers, * for any letters",
    "destinations": "Where jump servers may lead it, such as *.example.com:443, 10.0.0.0/8:*",
    "clients": "Networks it may be used from, such as 192.0.2.0/24, 2001:db8::/32",
    "rate": "What all its channels may move together, both ways, such as 10MB/s",
    "sessions": "How many sessions there may be with it at once",
    "channels": "How many channels there may be in them at once",
    "requests": "How many requests a second its tunnels' visitors may make, such as 50 or 0.5",
    "bytes_per_day": "What it may move from midnight to midnight in UTC, such as 10GiB; then its sessions end",
    "expires": "Until when it is good: 90d or 12h from now on, 2026-12-31 18:00 in UTC, or never",
    "one_time": "Whether it is good for one session only, and for nothing after that",
}  # fmt: skip
"""What each field is for."""


def fields_to_create(name: str = "") -> list[Field]:
    """The fields of a new token.

    :param name: what it is to be called, where that is known already.
    """
    return [Field("name", "name", HINTS["name"], name), *_fields({}, FIRST_EXPIRY)]


def fields_to_change(row: TokenRow) -> list[Field]:
    """The fields of a token, filled with what it may now."""
    return _fields(row.rights, written_expiry(row.expires))


def _fields(rights: Mapping[str, Any], expires: str) -> list[Field]:
    fields = []
    for key, blank in ANY.items():
        choices = (NO, YES) if key == "one_time" else ()
        fields.append(Field(key, label(key), HINTS[key], written(key, rights.get(key)), blank, choices))
    end = Field("expires", "expires", HINTS["expires"], expires, NEVER)
    return [*fields[:-1], end, fields[-1]]


def written(key: str, value: Any) -> str:
    """A right as somebody would write it, so that reading it gives the same."""
    if key == "one_time":
        return YES if value else NO
    if not value:
        return ""
    if key == "ports":
        return ", ".join(map(token_words.port_words, value))
    if key in LISTS:
        return ", ".join(map(str, value))
    if key == "rate":
        return f"{_exactly(value, figures.RATE_UNITS, 1000).removesuffix('/s')}/s"
    if key == "bytes_per_day":
        decimal = [unit.removesuffix("/s") for unit in figures.RATE_UNITS]
        return min(_exactly(value, figures.SIZE_UNITS, 1024), _exactly(value, decimal, 1000), key=len)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _exactly(value: float, units: Any, step: int) -> str:
    """A figure in its largest unit of which it is a whole number: ``10GiB``, ``1500B``."""
    unit = 0
    while value and value % step == 0 and unit < len(units) - 1:
        value /= step
        unit += 1
    return f"{int(value) if value == int(value) else value}{units[unit]}"


def written_expiry(expires: float | None) -> str:
    """When a token expires, as somebody would write it."""
    if expires is None or expires > NEVER_ENDS:
        return NEVER
    expires = max(0.0, expires)
    return f"{figures.date_and_time(expires, UTC)} UTC"


def read(key: str, text: str) -> Any:
    """What was written in a field, for the engine to judge; None where that takes a limit away."""
    if key == "one_time":
        return text == YES or None
    if not text:
        return None
    if key in LISTS:
        between = r"," if key in ("chids", "rooms") else r"[,\s]+"  # those may have blanks in them
        return [piece.strip() for piece in re.split(between, text) if piece.strip()] or None
    return text


def creation(given: Mapping[str, str]) -> CreateToken:
    """What the engine is asked for when the form of a new token is sent off."""
    rights = {key: value for key in ANY if (value := read(key, given[key])) is not None}
    return CreateToken(given["name"], rights, given["expires"] or None)


def change(row: TokenRow, given: Mapping[str, str]) -> ChangeToken:
    """What the engine is asked for when a token's form is sent off: only what is other than it was.

    :param row: the token as its form was filled.
    """
    before = {field.key: field.text for field in fields_to_change(row)}
    rights = {key: read(key, given[key]) for key in ANY if given[key] != before[key]}
    if given["expires"] == before["expires"]:
        return ChangeToken(row.name, rights)
    return ChangeToken(row.name, rights, given["expires"] or None)


def cuts(asked: ChangeToken) -> bool:
    """Whether a change ends the sessions there are: it concerns by what they were let in."""
    return any(key in SCOPE for key in asked.rights)


def refused_field(message: str) -> str:
    """The field that a refusal is about; empty where it is about none."""
    if message.startswith(WRONG_RIGHTS):
        return message.removeprefix(WRONG_RIGHTS).partition(":")[0]
    if message.startswith(WRONG_OVERLAP):
        return "overlap"
    if message.startswith(WRONG_EXPIRY) or message.endswith("would have expired already"):
        return "expires"
    return "name" if "is not a name for a token" in message or message.startswith("there is a token") else ""


def in_words(message: str) -> str:
    """A refusal as the form shows it: the field has the mark already."""
    key = refused_field(message)
    if message.startswith(WRONG_RIGHTS) and key in token_words.ANY:
        return message.removeprefix(f"{WRONG_RIGHTS}{key}:").strip()
    return message
