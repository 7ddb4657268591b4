"""The tokens in the console: made, changed, rotated and taken away by keys, and their secret shown once."""

from __future__ import annotations

import base64
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import CellType
from typing import Any

from textual import events
from textual.widgets import Input

import waiting
from screens.desk import Desk, console
from screens.rows import NOW, event, service, status, token
from screens.scripted_engine import Script
from screens.stories import credentials
from tunnelconsole.control import token_words
from tunnelconsole.control.messages import Refused
from tunnelconsole.control.token_words import ANY
from tunnelconsole.control.tokens import ChangeToken, CreateToken, GetTokens, RevokeToken, RotateToken
from tunnelconsole.engine.tokens.register import SCOPE
from tunnelconsole.engine.tokens.rights import decode_rights, encode_rights
from tunnelconsole.screens import token_form
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.widgets.form import Form


@asynccontextmanager
async def at_tokens(folder: Path, script: Script | None = None, name: str = "", **options: Any) -> AsyncIterator[Desk]:
    """A console that shows the tokens, or one of them."""
    async with console(folder, script or credentials(), **options) as desk:
        await desk.command(f"tokens {name}")
        await desk.arrive()
        yield desk


async def fill(desk: Desk, **texts: str) -> None:
    """Pastes these into the fields of the form."""
    for key, text in texts.items():
        desk.app.screen.query_one(f"#field-{key.replace('_', '-')}", Input).value = text
    await desk.settle()


async def answered(desk: Desk, words: str) -> None:
    """Waits until this is on the screen."""
    await waiting.until(lambda: words.lower() in " ".join(desk.text().split()).lower())
    await desk.settle()


# what is seen


async def test_each_token_has_its_state_its_end_its_use_and_its_day_in_words(tmp_path: Path) -> None:
    async with at_tokens(tmp_path, size=(120, 36)) as desk:
        assert desk.column("NAME") == [
            "alice", "build-farm", "contractor", "intern", "mirror", "moving", "old", "setup"
        ]  # fmt: skip
        alice = desk.line(" alice ")
        assert alice.split("  relay")[0].split() == [
            "alice", "●", "active", "in", "29d00h", "now", "2", "7", "9.2", "GiB", "of", "10", "GiB", "█████████░",
            "92%",
        ]  # fmt: skip
        assert "▲ in 1d06h" in desk.line("contractor")
        assert "never" in desk.line("build-farm")
        assert "▲ exhausted" in desk.line("mirror")
        assert "1 exhausted  1 expired  1 disabled  1 used  1 in use" in desk.text()


async def test_they_are_sorted_and_filtered_as_other_rows_are(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.press("T")
        assert desk.column("NAME")[:3] == ["alice", "mirror", "contractor"]
        await desk.press("S")
        assert desk.column("NAME")[0] == "mirror"
        await desk.command("filter relay")
        assert desk.column("NAME") == ["alice"]


async def test_enter_shows_all_of_one_and_again_its_sessions_alone(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.press("enter")
        await desk.arrive()
        text = desk.text()
        assert "1.0 MB/s, all its channels together" in text
        assert "any chid" in text
        assert "good for as long as the token is" in text
        assert "8.4 GiB" in desk.line("198.51.100.7:40001")
        assert "203.0.113.9" not in text, "who is not in with the token has its name"
        await desk.press("enter")
        await desk.arrive()
        assert desk.app.place == Place("sessions", token="alice")
        assert desk.column("PEER") == ["198.51.100.7:40001", "[2001:db8::17]:40002"]
        assert "alice  by a token" in desk.line("identity")
        await desk.press("escape", "escape")
        assert desk.app.place == Place("tokens")


async def test_a_token_that_was_revoked_meanwhile_says_so(tmp_path: Path) -> None:
    async with at_tokens(tmp_path, name="moving") as desk:
        assert "replaced, and good for another 2h00m" in desk.text()
        desk.engine.script.tokens.clear()
        await desk.tick()
        assert "There is no token moving." in desk.text()
        await desk.press("x")
        assert desk.toasts[-1].startswith("No token is selected")


async def test_where_there_is_none_it_says_how_to_make_one_or_why_none_can_be_read(tmp_path: Path) -> None:
    script = Script(status=status(), services=[service("home")])
    async with at_tokens(tmp_path, script) as desk:
        assert "There is no token." in desk.text()
        assert "c makes one" in desk.text()
        script.events.append(event(1, "the seal is broken", type="tokens-unreadable", level="error"))
        await desk.tick()
        assert "the seal is broken" in desk.text()


# making


async def test_a_token_is_made_by_the_keyboard_alone_and_its_secret_copied_once(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.press("c")
        await desk.type("dave")
        await desk.press("enter")
        await desk.type("relay, jump")
        await desk.press(*["down"] * 13, "space")
        await desk.press("enter")
        await answered(desk, "Token dave created. Its secret is:")
        asked = next(request for request in desk.engine.asked if isinstance(request, CreateToken))
        assert asked == CreateToken("dave", {"kinds": ["relay", "jump"], "one_time": True}, "90d")
        secret = desk.engine.script.secret
        assert secret in desk.text()
        await desk.press("enter")
        assert base64.b64encode(secret.encode()).decode() in desk.app.sent[-1]
        await desk.press("enter")
        assert len(desk.app.screen_stack) == 1
        assert not [told for told in desk.toasts if secret in told]
        assert desk.toasts[-1].startswith("Copied the secret of dave: 20 characters")
        assert secret not in desk.text()


async def test_a_secret_that_was_not_copied_is_not_closed_by_one_key(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.command("rotate alice")
        await desk.press("enter")
        await answered(desk, desk.engine.script.secret)
        assert desk.engine.asked[-1] == RotateToken("alice", "24h")
        await desk.press("escape")
        assert "nobody can show it again" in desk.text()
        await desk.press("escape")
        assert len(desk.app.screen_stack) == 1


def _holders(backwards: str) -> list[Any]:
    """The types of what refers to a text with the secret in it, which is given backwards so as not to be found here."""
    secret = backwards[::-1]
    return [
        type(holder)
        for holder in gc.get_objects()
        if not isinstance(holder, CellType)
        and any(isinstance(held, str) and secret in held for held in gc.get_referents(holder))
    ]


async def test_nothing_in_memory_has_the_secret_after_it_was_closed(tmp_path: Path) -> None:
    script = credentials()
    script.secret = f"tc_{NOW}-looks-like-no-other"
    async with at_tokens(tmp_path, script) as desk:
        await desk.command("rotate alice")
        await desk.press("enter")
        await answered(desk, script.secret)
        await desk.press("c")
        desk.app.sent.clear()
        await desk.press("escape")
        backwards, script.secret = script.secret[::-1], ""
        gc.collect()
        assert _holders(backwards) == []


async def test_what_the_engine_refuses_is_said_at_its_field_and_nothing_typed_is_lost(tmp_path: Path) -> None:
    script = credentials()
    async with at_tokens(tmp_path, script) as desk:
        await desk.press("c")
        for message, field in {
            'a token cannot have these rights: rate: "fast" is not a rate; write one as "10MB/s"': "rate",
            "there is a token dave already": "name",
            'a token cannot expire then: "soon" is no time': "expires",
        }.items():
            script.refusals[CreateToken] = Refused(message, "mend it")
            await fill(desk, name="dave", rate="fast", expires="soon")
            await desk.press("ctrl+s")
            await answered(desk, message.rpartition(": ")[2].split(";")[0])
            form = desk.app.screen
            assert isinstance(form, Form)
            assert form.focused is form.query_one(f"#field-{field}")
            assert "✖" in desk.line(f"{field}  ")
            assert (form.written["name"], form.written["rate"], form.written["expires"]) == ("dave", "fast", "soon")
        script.refusals.clear()
        await desk.press("ctrl+s")
        await answered(desk, script.secret)


async def test_a_form_that_was_written_in_is_not_left_by_one_key(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.press("c")
        await desk.type("x")
        await desk.press("escape")
        assert "What you wrote is lost" in desk.text()
        await desk.type("y")
        assert "What you wrote is lost" not in desk.text()
        await desk.press("escape", "escape")
        assert len(desk.app.screen_stack) == 1
        await desk.press("c", "escape")
        assert len(desk.app.screen_stack) == 1
        assert not [request for request in desk.engine.asked if isinstance(request, CreateToken)]


async def test_what_is_typed_ahead_goes_to_the_field_that_it_was_typed_for(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.press("c")
        for key in ["d", "enter", "r", "tab", "h", "shift+tab", "e", "up", "2"]:
            desk.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await desk.settle()
        form = desk.app.screen
        assert isinstance(form, Form)
        assert [form.written[key] for key in ("name", "kinds", "hosts")] == ["d2", "re", "h"]


# changing


async def test_only_what_was_changed_is_asked_for_and_a_right_of_who_is_in_asks_first(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.press("e")
        await fill(desk, rate="", bytes_per_day="20GiB")
        await desk.press("ctrl+s")
        await desk.asked(ChangeToken("alice", {"rate": None, "bytes_per_day": "20GiB"}))
        await desk.settle()
        await desk.press("e")
        await fill(desk, kinds="relay", expires="never")
        await desk.press("ctrl+s")
        assert "Change token alice: cuts 2 sessions, 7 channels" in " ".join(desk.text().split())
        await desk.press("n", "ctrl+s", "y")
        await desk.asked(ChangeToken("alice", {"kinds": ["relay"]}, "never"))
        await desk.settle()
        await desk.press("e", "ctrl+s")
        assert desk.toasts[-1] == "Token alice is as it was"


def test_what_a_form_is_filled_with_is_read_as_the_same_rights() -> None:
    rights = encode_rights(decode_rights({
        "kinds": ["jump"], "hosts": ["*.example.com"], "ports": ["7001-7010", "9000"], "chids": ["a b", "lab-*"],
        "rooms": ["lab"], "destinations": ["*:443"], "clients": ["192.0.2.0/24", "2001:db8::/32"], "rate": "1.5MB/s",
        "sessions": 3, "channels": 20, "requests": 2.5, "bytes_per_day": "1GB", "one_time": True,
    }))  # fmt: skip
    assert set(rights) == set(ANY)
    row = token("alice", rights=rights, expires=NOW)
    given = {field.key: field.text for field in token_form.fields_to_change(row)}
    assert token_form.change(row, given) == ChangeToken("alice")
    read = {key: token_form.read(key, given[key]) for key in ANY}
    assert encode_rights(decode_rights(read)) == rights


def test_the_console_knows_which_rights_end_sessions() -> None:
    assert set(token_words.SCOPE) == set(SCOPE)


# ending


async def test_what_cuts_asks_first_and_says_how_much(tmp_path: Path) -> None:
    async with at_tokens(tmp_path, name="alice") as desk:
        await desk.press("x")
        assert "Revoke token alice: cuts 2 sessions, 7 channels" in desk.text()
        await desk.press("n", "o")
        assert "Disable token alice: cuts 2 sessions, 7 channels" in desk.text()
        await desk.press("y")
        await desk.asked(ChangeToken("alice", disabled=True))
        assert RevokeToken("alice") not in desk.engine.asked
        await desk.settle()
        await desk.press("x", "y")
        await desk.asked(RevokeToken("alice"))
        await desk.settle()
        assert desk.app.place == Place("overview"), "the page of a token that is gone leads back"
        await desk.command("revoke intern")
        assert "cuts nobody off" in desk.text()
        await desk.press("y")
        await desk.asked(RevokeToken("intern"))


async def test_one_that_is_disabled_is_enabled_without_a_question(tmp_path: Path) -> None:
    async with at_tokens(tmp_path, name="intern") as desk:
        await desk.press("o")
        await desk.asked(ChangeToken("intern", disabled=False))


async def test_what_is_gone_already_is_told(tmp_path: Path) -> None:
    async with at_tokens(tmp_path) as desk:
        await desk.command("revoke nobody")
        await desk.asked(GetTokens("nobody"))
        await waiting.until(lambda: bool(desk.toasts))
        assert desk.toasts[-1].startswith("there is no token nobody")
