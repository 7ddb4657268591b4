"""Steering: what is asked before anything is cut, and what the engine is then asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from screens.desk import console
from screens.rows import NOW, channel, service, session
from screens.stories import evening, quiet
from tunnelconsole.control.messages import (
    CloseChannel,
    KickSession,
    Refused,
    ReloadConfig,
    Request,
    RestartService,
    StartService,
    StopService,
)
from tunnelconsole.control.steering import DrainService, ReloadPreview, ServiceChange, SetLimits
from tunnelconsole.screens.app import ConsoleOutcome
from tunnelconsole.screens.limiting import OF_SERVICE, OF_SESSION, read_limits
from tunnelconsole.screens.steering import channel_cost, cost, service_cost, session_cost
from tunnelconsole.screens.widgets.dialog import Question


def test_what_stopping_a_service_cuts_is_told_in_figures() -> None:
    row = service("home", sessions=3, channels=12, rate_in=2_900_000.0, rate_out=1_300_000.0)
    assert service_cost(row) == "cuts 3 sessions, 12 channels, 4.2 MB/s in flight"


def test_what_cuts_nothing_says_so() -> None:
    assert cost(0, 0, 0.0) == "cuts nothing, nobody is attached"
    assert session_cost(session("s1")) == "cuts no channel, it has none open"


def test_a_single_one_is_not_a_plural() -> None:
    assert cost(1, 1, 10.0) == "cuts 1 session, 1 channel, 10 B/s in flight"


def test_closing_a_channel_tells_how_much_it_has_carried() -> None:
    row = channel("c1", rate_in=1000.0, bytes_in=1 << 20, bytes_out=1 << 20)
    assert channel_cost(row) == "cuts 1.0 kB/s in flight, after 2.0 MiB"


@pytest.mark.parametrize(
    ("keys", "question", "request_"),
    [
        (("2", "j", "x"), "Stop service home: cuts 3 sessions, 12 channels, 4.2 MB/s in flight", StopService("home")),
        (("2", "j", "r"), "Restart service home: cuts 3 sessions, 12 channels, 4.2 MB/s in", RestartService("home")),
        (("2", "j", "f"), "Drain service home: 3 sessions, 12 channels", DrainService("home")),
        (("3", "x"), "Kick session s1: cuts 8 channels, 2.4 MB/s in flight", KickSession("s1")),
        (("3", "ctrl+d"), "Kick session s1: cuts 8 channels", KickSession("s1")),
        (("4", "x"), "Close channel c1: cuts 2.4 MB/s in flight, after 7.0 GiB", CloseChannel("c1")),
    ],
)
async def test_what_cuts_something_asks_first_and_says_what(
    tmp_path: Path, keys: tuple[str, ...], question: str, request_: Request
) -> None:
    async with console(tmp_path, evening()) as desk:
        for key in keys:
            await desk.press(key)
            await desk.arrive()
        assert question in desk.text()
        assert request_ not in desk.engine.asked
        await desk.press("y")
        await desk.asked(request_)


@pytest.mark.parametrize(
    ("command", "told"), [(":kick s999", "There is no session s999"), (":close c999", "There is no channel c999")]
)
async def test_what_is_not_there_is_told_and_not_asked_about(tmp_path: Path, command: str, told: str) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press(*command, "enter")
        await desk.arrive()
        assert told in desk.text()
        assert not isinstance(desk.app.screen, Question)


async def test_a_session_that_no_screen_shows_is_asked_about_with_what_it_costs(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press(*":kick s1", "enter")
        await desk.arrive()
        assert "Kick session s1: cuts 8 channels" in desk.text()


@pytest.mark.parametrize("answer", ["n", "escape", "enter"])
async def test_a_question_that_is_not_answered_with_yes_changes_nothing(tmp_path: Path, answer: str) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "j", "x", answer)
        assert not isinstance(desk.app.screen, Question)
        assert StopService("home") not in desk.engine.asked


async def test_the_lit_answer_moves_with_the_arrows(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "j", "x", "left", "enter")
        await desk.asked(StopService("home"))


async def test_an_answer_can_be_clicked(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "j", "x")
        lines = desk.text().splitlines()
        at = next(at for at, line in enumerate(lines) if "Stop it" in line)
        await desk.pilot.click(offset=(lines[at].index("Stop it"), at))
        await desk.asked(StopService("home"))


@pytest.mark.parametrize(("digit", "told"), [("3", "Session s1 has ended already"), ("4", "Channel c1 has ended")])
async def test_what_ended_while_the_view_was_frozen_is_not_ended_again(tmp_path: Path, digit: str, told: str) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press(digit)
        await desk.arrive()
        await desk.press("p")
        del desk.engine.script.sessions[0], desk.engine.script.channels[0]
        await desk.tick()
        await desk.press("x")
        assert told in desk.toasts[-1]


async def test_starting_a_service_asks_nothing(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command("start old")
        await desk.asked(StartService("old"))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("start home", "Service home runs already, it is listening"),
        ("stop old", "Service old is stopped already"),
        ("drain old", "Service old is stopped, so there is nothing to drain"),
        ("restart old", "Service old is stopped, so there is nothing to restart"),
        ("stop nobody", "There is no service 'nobody'"),
        ("stop", "stop which service?"),
        ("frobnicate", "there is no command 'frobnicate'"),
    ],
)
async def test_what_cannot_be_done_says_why(tmp_path: Path, command: str, told: str) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command(command)
        assert told in desk.toasts[-1]


async def test_a_refusal_of_the_engine_is_a_toast_with_its_reason_and_hint(tmp_path: Path) -> None:
    script = quiet()
    script.refusals[ReloadConfig] = Refused("service.home.listen: expected host:port", "mend the file")
    async with console(tmp_path, script) as desk:
        await desk.press("R")
        await desk.asked(ReloadConfig())
        assert desk.toasts == ["service.home.listen: expected host:port\nmend the file"]


def replaced(name: str) -> ServiceChange:
    """What a reload would do to a service with a session and two channels."""
    return ServiceChange(
        name=name, kind="jump-server", how="replaced", keys=["secret"], sessions=1, channels=2,
        who=["alice from 198.51.100.7:40001"],
    )  # fmt: skip


async def test_a_reload_shows_first_who_it_would_cut_and_asks(tmp_path: Path) -> None:
    script = quiet()
    script.preview = ReloadPreview(problems=[], changes=[replaced("home")], kept=1, drain=30.0)
    async with console(tmp_path, script, size=(100, 30)) as desk:
        await desk.press("R")
        await desk.arrive()
        assert "Reload, which ends 1 session with 2 channels" in desk.text()
        assert "home, a jump-server: replaced (secret), 1 session ends, 2 channels may" in desk.text()
        assert ReloadConfig() not in desk.engine.asked
        await desk.press("y")
        await desk.asked(ReloadConfig())


async def test_a_long_preview_is_read_page_by_page(tmp_path: Path) -> None:
    script = quiet()
    script.preview = ReloadPreview(problems=[], changes=[replaced(f"service-{n}") for n in range(30)], drain=30.0)
    async with console(tmp_path, script, size=(100, 24)) as desk:
        await desk.press("R")
        await desk.arrive()
        assert "service-0," in desk.text()
        assert "service-29," not in desk.text()
        assert "Leave it as it is" in desk.text()
        for _ in range(30):
            await desk.press("pagedown")
        assert "service-29," in desk.text()
        assert "service-0," not in desk.text()
        assert "Leave it as it is" in desk.text()
        await desk.press("escape")
        assert ReloadConfig() not in desk.engine.asked


async def test_mistakes_in_the_configuration_are_shown_in_place_of_the_preview(tmp_path: Path) -> None:
    script = quiet()
    script.preview = ReloadPreview(problems=["service.home.listen: expected host:port", "service.more.kind: missing"])
    async with console(tmp_path, script) as desk:
        await desk.press("R")
        await desk.arrive()
        assert "The configuration has mistakes, the old one stays" in desk.text()
        assert "service.more.kind: missing" in desk.text()
        await desk.press("enter")
        assert not isinstance(desk.app.screen, Question)
        assert ReloadConfig() not in desk.engine.asked


async def test_a_service_that_drains_shows_what_is_left_and_can_be_taken_back(tmp_path: Path) -> None:
    script = quiet()
    script.services = [service("home", state="draining", channels=3, drain_ends=NOW + 18.5)]
    async with console(tmp_path, script, size=(120, 36)) as desk:
        await desk.press("2")
        await desk.arrive()
        assert "draining 18s" in desk.text()
        assert "3 channels left, cut in 18s" in desk.text()
        await desk.press("s")
        await desk.asked(StartService("home"))


async def test_the_limits_of_a_service_are_written_and_set(tmp_path: Path) -> None:
    script = quiet()
    script.services = [service("home", limits={"rate": 1_000_000.0})]
    async with console(tmp_path, script) as desk:
        await desk.press("2")
        await desk.arrive()
        await desk.press("l")
        assert "limits of home:" in desk.text()
        assert "rate 1000000B/s, sessions none, channels none" in desk.text()
        await desk.press("ctrl+u", *"rate 2MB/s, channels none", "enter")
        await desk.asked(SetLimits(target="home", rate="2MB/s", lifted=["channels"]))


@pytest.mark.parametrize("text", ["", "rate", "speed 5", "sessions -1", "channels ٣"])
def test_limits_that_cannot_be_read_are_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"is none of|no limit is named|is no whole number"):
        read_limits("home", text, OF_SERVICE)


def test_a_session_has_a_rate_alone() -> None:
    assert read_limits("s1", "rate 1MB/s", OF_SESSION) == SetLimits(target="s1", rate="1MB/s")
    with pytest.raises(ValueError, match="'sessions 5' is none of rate"):
        read_limits("s1", "sessions 5", OF_SESSION)


async def test_an_engine_that_is_away_is_told_when_it_is_needed(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        await desk.engine.stop()
        await desk.press("R")
        assert "no engine is running" in desk.toasts[-1]
        await desk.engine.start()


@pytest.mark.parametrize(
    ("owns", "demo", "keys", "outcome"),
    [
        (False, False, ("q",), ConsoleOutcome.LEAVE_RUNNING),
        (True, True, ("q",), ConsoleOutcome.STOP_ENGINE),
        (True, False, ("q", "s"), ConsoleOutcome.STOP_ENGINE),
        (True, False, ("q", "l"), ConsoleOutcome.LEAVE_RUNNING),
        (True, False, ("ctrl+c", "s"), ConsoleOutcome.STOP_ENGINE),
        (False, False, ("colon", "q", "u", "i", "t", "enter"), ConsoleOutcome.LEAVE_RUNNING),
    ],
)
async def test_leaving_decides_what_becomes_of_the_engine(
    tmp_path: Path, owns: bool, demo: bool, keys: tuple[str, ...], outcome: ConsoleOutcome
) -> None:
    async with console(tmp_path, quiet(), owns_engine=owns, demo=demo) as desk:
        await desk.press(*keys)
    assert desk.app.return_value is outcome


async def test_leaving_an_engine_of_ones_own_asks_and_says_what_stopping_cuts(tmp_path: Path) -> None:
    async with console(tmp_path, evening(), owns_engine=True) as desk:
        await desk.press("q")
        assert "Stopping it cuts 5 sessions, 26 channels, 4.5 MB/s in flight." in desk.text()
        await desk.press("escape")
        assert desk.app.is_running
        assert not isinstance(desk.app.screen, Question)
