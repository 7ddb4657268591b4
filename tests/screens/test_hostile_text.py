"""What strangers write is shown, and never obeyed: no control characters, and no markup."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
from msgspec.structs import replace

from exchange_rows import exchange, exchange_row, message
from screens.desk import Desk, console
from screens.rows import channel, chid, event, service, session
from screens.stories import quiet
from tunnelconsole.control.messages import Refused, ReloadConfig
from tunnelconsole.screens.places import Place

HOSTILE = "\x1b]0;owned\a\x1b[2J[red]x[/red]\u202e[@click=app.leave]y[/]\r\n"
"""A window title, a cleared screen, markup, a turned direction, a link that acts, and a new line."""


def _is_harmless(desk: Desk) -> bool:
    text = desk.text()
    return "\x1b" not in text and "\a" not in text and "\u202e" not in text and "\r" not in text


async def test_no_screen_obeys_what_strangers_wrote(tmp_path: Path) -> None:
    script = quiet()
    script.status = replace(script.status, config=HOSTILE, version=HOSTILE)
    script.services = [service("home", state="failed", error=HOSTILE, target=HOSTILE, address=HOSTILE)]
    script.sessions = [session("s1", peer=HOSTILE, identity=HOSTILE)]
    script.channels = [channel("c1", label=HOSTILE, path=HOSTILE, rate_in=5.0)]
    script.events = [event(1, HOSTILE, level="warning", type=HOSTILE)]
    script.chids = [chid(HOSTILE, HOSTILE, "x", peer=HOSTILE, identity=HOSTILE, rate_in=5.0, waits_for=HOSTILE)]
    script.exchanges = [
        exchange_row(
            "x1", target=HOSTILE, host=HOSTILE, peer=HOSTILE, method=HOSTILE, content_type=HOSTILE, error=HOSTILE
        )
    ]
    async with console(tmp_path, script) as desk:
        for key in "1234567":
            await desk.press(key)
            await desk.arrive()
            assert _is_harmless(desk)
            assert "[red]x[/red]" in desk.text()
            assert len({len(line) for line in desk.text().splitlines()}) == 1


async def test_no_request_obeys_what_strangers_wrote(tmp_path: Path) -> None:
    asked = message("GET / HTTP/1.1", f"X-A: {HOSTILE}", body=HOSTILE.encode())
    answered = message(f"HTTP/1.1 200 {HOSTILE}", f"Content-Type: {HOSTILE}", body=HOSTILE.encode())
    script = quiet()
    script.opened["x1", False] = exchange(asked, answered, url=HOSTILE, host=HOSTILE, peer=HOSTILE, error=HOSTILE)
    async with console(tmp_path, script) as desk:
        desk.app.go(Place("request", request="x1"))
        await desk.arrive()
        assert _is_harmless(desk)
        assert desk.text().count("[red]x[/red]") > 5
        assert len({len(line) for line in desk.text().splitlines()}) == 1
        await desk.press("r")
        assert _is_harmless(desk)


async def test_no_question_obeys_what_strangers_wrote(tmp_path: Path) -> None:
    script = quiet()
    script.sessions = [session("s1", peer=HOSTILE, identity=HOSTILE)]
    async with console(tmp_path, script) as desk:
        await desk.press("3")
        await desk.arrive()
        await desk.press("x")
        assert _is_harmless(desk)
        assert "[red]x[/red]" in desk.text()


async def test_no_toast_obeys_what_strangers_wrote(tmp_path: Path) -> None:
    script = quiet()
    script.refusals[ReloadConfig] = Refused(HOSTILE, HOSTILE)
    async with console(tmp_path, script) as desk:
        await desk.press("R")
        await desk.settle()
        assert _is_harmless(desk)
        assert "[red]x[/red]" in desk.toasts[0]
        assert "[red]x[/red]" in desk.text()


async def test_what_is_copied_cannot_type_a_command_where_it_is_pasted(tmp_path: Path) -> None:
    script = quiet()
    script.channels = [channel("c1", label="example.com\n\x1b[Arm -rf ~\n")]
    async with console(tmp_path, script) as desk:
        await desk.press("4")
        await desk.arrive()
        await desk.press("y")
        assert "Copied label: example.com··[Arm -rf ~·" in desk.toasts[0]
        payload = desk.app.sent[0].removeprefix("\x1b]52;c;").removesuffix("\a")
        assert base64.b64decode(payload).decode() == "example.com··[Arm -rf ~·"


async def test_a_service_with_brackets_in_its_name_is_not_offered_where_they_would_be_markup(tmp_path: Path) -> None:
    script = quiet()
    script.services = [service("[bold]home[/bold]"), service("lab")]
    async with console(tmp_path, script) as desk:
        titles = [command.title for command in desk.app.get_system_commands(desk.app.screen)]
        assert "stop lab" in titles
        assert not any("[" in title for title in titles)


def test_rows_with_hostile_text_can_be_copied_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(channel("c1", label=HOSTILE)))["label"] == HOSTILE
