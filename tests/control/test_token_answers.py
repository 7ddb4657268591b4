"""What is written about tokens is read by the engine, and what it refuses names the field of the console's form."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from tunnelconsole.control.messages import Done
from tunnelconsole.control.token_answers import LATEST, carry_out_on_tokens, read_expiry, read_overlap, token_row
from tunnelconsole.control.tokens import ChangeToken, CreateToken, RotateToken, TokenMade
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.tokens.register import DEFAULT_OVERLAP
from tunnelconsole.engine.tokens.register import Tokens as Register
from tunnelconsole.errors import RequestRefused
from tunnelconsole.screens import token_form

NOW = 1_750_000_000.0
"""2025-06-15 15:06:40 UTC."""


@pytest.fixture
def register(tmp_path: Path) -> Register:
    made = Register(Bus(), tmp_path)
    made.load(())
    return made


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("90d", NOW + 90 * 86400),
        (" 12h ", NOW + 12 * 3600),
        ("2025-06-15 15:06:40 UTC", NOW),
        ("2025-06-15 17:06:40+02:00", NOW),
        ("2025-06-15", NOW - 15 * 3600 - 6 * 60 - 40),
        ("never", None),
        ("", None),
        (None, None),
        (NOW, NOW),
    ],
)
def test_an_expiry_is_a_time_from_now_on_a_date_or_never(written: str | float | None, read: float | None) -> None:
    assert read_expiry(written, NOW) == read


@pytest.mark.parametrize(
    "written", ["soon", "2025-13-01", "90", "-1d", "9999999d", LATEST + 1, "0001-01-01T00:00+23:59"]
)
def test_what_is_no_time_or_in_no_calendar_is_refused(written: str | float) -> None:
    with pytest.raises(RequestRefused, match="a token cannot expire then"):
        read_expiry(written, NOW)


def test_an_overlap_is_a_duration_or_a_day() -> None:
    assert read_overlap(None) == DEFAULT_OVERLAP == read_overlap(token_form.FIRST_OVERLAP)
    assert read_overlap("30m") == 1800.0 == read_overlap(1800.0)
    with pytest.raises(RequestRefused, match="is not a duration"):
        read_overlap("a while")


async def test_a_token_is_made_and_changed_as_it_is_written(register: Register) -> None:
    made = await carry_out_on_tokens(
        register, CreateToken("alice", {"kinds": ["relay"], "sessions": "3", "bytes_per_day": "1GiB"}, "90d")
    )
    assert isinstance(made, TokenMade)
    assert isinstance(await carry_out_on_tokens(register, ChangeToken("alice", {"sessions": None}, "never")), Done)
    row = token_row(register, register.find("alice"))
    assert (row.rights, row.expires) == ({"kinds": ["relay"], "bytes_per_day": 1 << 30}, None)
    await carry_out_on_tokens(register, ChangeToken("alice", expires="1h"))
    await carry_out_on_tokens(register, ChangeToken("alice", {"rate": "1MB/s"}, msgspec.UNSET))
    assert (register.find("alice").expires or 0.0) == pytest.approx(time.time() + 3600, abs=60)


WRONG = {
    "name": "two words", "kinds": "ssh", "hosts": "http://x", "ports": "99999", "destinations": "nowhere",
    "clients": "everywhere", "rate": "fast", "sessions": "many", "channels": "-1", "requests": "nan",
    "bytes_per_day": "much", "expires": "2020-01-01",
}  # fmt: skip
"""What the engine takes in none of these fields."""


@pytest.mark.parametrize("key", WRONG)
async def test_what_is_wrong_in_a_form_is_refused_with_the_name_of_its_field(register: Register, key: str) -> None:
    given = {field.key: field.text for field in token_form.fields_to_create("alice")}
    with pytest.raises(RequestRefused) as refused:
        await carry_out_on_tokens(register, token_form.creation(given | {key: WRONG[key]}))
    assert token_form.refused_field(refused.value.message) == key
    assert "these rights" not in token_form.in_words(refused.value.message)
    assert len(register) == 0


async def test_a_name_that_is_taken_and_a_wrong_overlap_are_named_too(register: Register) -> None:
    await carry_out_on_tokens(register, CreateToken("alice", {"kinds": ["relay"]}))
    for request, field in ((CreateToken("alice", {}), "name"), (RotateToken("alice", "a while"), "overlap")):
        with pytest.raises(RequestRefused) as refused:
            await carry_out_on_tokens(register, request)
        assert token_form.refused_field(refused.value.message) == field
