"""The screens of requests through tunnels: the list, one request, and what can be done with it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from exchange_rows import exchange, exchange_row, message
from screens.desk import Desk, console
from screens.rows import NOW, service, status
from screens.scripted_engine import Script
from screens.stories import evening, nothing, quiet, tunnels
from tunnelconsole.control.messages import GetExchange, Refused, ReplayExchange, Watch
from tunnelconsole.engine.services.tunnel import inspector
from tunnelconsole.screens import copying
from tunnelconsole.screens.messages_shown import MOST_LINES, message_lines
from tunnelconsole.screens.picture import EXCHANGES_KEPT, KEPT_PER_TUNNEL
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.request import RequestPane
from tunnelconsole.screens.spans import plain
from tunnelconsole.screens.widgets.dialog import Question


@asynccontextmanager
async def at_tunnels(folder: Path, script: Script | None = None, command: str = "tunnels") -> AsyncIterator[Desk]:
    """A console that shows the requests."""
    async with console(folder, script or tunnels()) as desk:
        await desk.command(command)
        await desk.arrive()
        yield desk


@asynccontextmanager
async def at_request(folder: Path, key: str = "x5", script: Script | None = None) -> AsyncIterator[Desk]:
    """A console that shows one of them."""
    async with console(folder, script or tunnels()) as desk:
        desk.app.go(Place("request", "web", request=key))
        await desk.arrive()
        yield desk


def pane(desk: Desk) -> RequestPane:
    assert isinstance(desk.app.pane, RequestPane)
    return desk.app.pane


def copied(desk: Desk) -> str:
    """What went to the terminal's clipboard last."""
    return base64.b64decode(desk.app.sent[-1].removeprefix("\x1b]52;c;").removesuffix("\a")).decode()


def paths(desk: Desk) -> list[str]:
    table = desk.app.pane.table
    assert table is not None
    return [row.target for row in table.rows]


# the list


@pytest.mark.parametrize("command", ["tunnels", "requests"])
async def test_requests_are_listed_the_newest_first(tmp_path: Path, command: str) -> None:
    async with at_tunnels(tmp_path, command=command) as desk:
        assert paths(desk)[:3] == ["/slow", "/events", "/api/users?page=2&token=[hidden]"]
        assert "Requests  10" in desk.text()
        assert "2 failed  1 refused  2 under way  5 answered" in desk.text()
        assert desk.engine.watched == [Watch(["services", "exchanges", "events"], 0.5)]


async def test_a_row_says_how_it_was_answered_and_how_long_that_took(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        assert desk.line("/static").split()[1:5] == ["200", "GET", "/static/app.js?v=17", "31"]
        assert desk.line("/video.mp4").split()[1:4] == ["✖", "200", "GET"]
        assert desk.line("/slow").split()[1:3] == ["◌", "…"]
        assert "3.0 s" in desk.line("/slow")
        desk.clock.time += 2
        desk.app.present()
        await desk.settle()
        assert "5.0 s" in desk.line("/slow")


async def test_requests_of_one_service_are_a_command(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path, command="tunnels web-app") as desk:
        assert "Requests of web-app  1" in desk.text()
        assert paths(desk) == ["/slow"]


@pytest.mark.parametrize(
    ("text", "count"), [("401", 1), ("post", 3), ("shop.example.net", 1), ("!post", 7), ("replay", 1), ("refuses", 1)]
)
async def test_a_filter_finds_what_is_known_of_a_request(tmp_path: Path, text: str, count: int) -> None:
    async with at_tunnels(tmp_path) as desk:
        await desk.command(f"filter {text}")
        assert len(paths(desk)) == count


async def test_new_requests_come_on_top_and_those_under_way_end(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        ended = [replace(row, seconds=1.0, status=200) for row in desk.engine.script.exchanges if row.seconds is None]
        desk.engine.script.exchanges = [*ended, exchange_row("x11", target="/new", started=NOW)]
        await desk.tick()
        assert paths(desk)[:2] == ["/new", "/slow"]
        assert len(paths(desk)) == 11
        assert "under way" not in desk.text()


async def test_what_was_under_way_and_is_not_told_of_any_more_is_gone(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        desk.engine.script.exchanges, desk.engine.script.missed = [], 2
        await desk.tick()
        assert "/slow" not in paths(desk)
        assert len(paths(desk)) == 8
        assert "2 requests missed" in desk.text()


async def test_a_frozen_list_stands_still(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        await desk.press("p")
        desk.engine.script.exchanges = [exchange_row("x11", target="/new", started=NOW)]
        await desk.tick()
        assert "/new" not in paths(desk)
        await desk.press("p")
        assert "/new" in paths(desk)


async def test_the_newest_requests_are_kept(tmp_path: Path) -> None:
    script = tunnels()
    script.exchanges = [
        exchange_row(f"x{number}", host=f"h{number % 20}", started=NOW + number)
        for number in range(EXCHANGES_KEPT + 50)
    ]
    async with at_tunnels(tmp_path, script) as desk:
        assert desk.app.latest.exchange("x49") is None
        assert desk.app.latest.exchange("x50") is not None
        assert f"Requests  {EXCHANGES_KEPT:,}" in desk.text()


async def test_of_each_tunnel_no_more_are_listed_than_the_engine_keeps(tmp_path: Path) -> None:
    script = tunnels()
    script.exchanges = [
        *(exchange_row(f"x{number}", target=f"/{number}", started=NOW + number) for number in range(KEPT_PER_TUNNEL)),
        exchange_row("x1000", target="/other", host="other.example", started=NOW),
        exchange_row("x1001", target="/long", started=NOW, seconds=None),
    ]
    async with at_tunnels(tmp_path, script) as desk:
        script.exchanges = [exchange_row("x1001", target="/long", started=NOW, seconds=500.0)]
        await desk.tick()
        assert len(paths(desk)) == KEPT_PER_TUNNEL + 1
        assert {"/long", "/other", "/1"} <= set(paths(desk))
        assert "/0" not in paths(desk)
    assert inspector.KEPT_PER_TUNNEL == KEPT_PER_TUNNEL


async def test_another_engine_has_other_requests(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        desk.engine.script.status = status(pid=1)
        desk.engine.script.exchanges = [exchange_row("x1", target="/other")]
        await desk.tick()
        assert paths(desk) == ["/other"]


async def test_on_a_small_screen_a_row_says_which_end_of_a_tunnel_it_is_of(tmp_path: Path) -> None:
    async with console(tmp_path, tunnels(), (80, 24)) as desk:
        await desk.command("tunnels")
        await desk.arrive()
        assert desk.line("/slow").split()[-1] == "web-app"
        assert desk.line("/static").split()[-1] == "web"


async def test_the_tab_is_there_where_there_is_a_tunnel(tmp_path: Path) -> None:
    async with console(tmp_path, tunnels()) as desk:
        assert "7 tunnels" in desk.text()
    async with console(tmp_path, evening()) as desk:
        assert "7 tunnels" not in desk.text()
        await desk.press("7")
        assert "7 tunnels" in desk.text()


async def test_without_tunnels_it_says_so(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path, nothing()) as desk:
        assert "There is no tunnel." in desk.text()
    async with at_tunnels(tmp_path, quiet(), "tunnels home") as desk:
        assert "home is no tunnel." in desk.text()


@pytest.mark.parametrize(
    ("facts", "where"),
    [
        ({"kind": "tunnel-client", "address": "http://app.example.net"}, "Visitors come to http://app.example.net."),
        ({"kind": "tunnel-server", "address": "127.0.0.1:8080"}, "Clients and visitors come to 127.0.0.1:8080."),
        ({"kind": "tunnel-server", "address": "", "state": "failed"}, "web is failed, and cannot be reached."),
    ],
)
async def test_without_requests_it_says_where_visitors_come(tmp_path: Path, facts: dict[str, str], where: str) -> None:
    script = quiet()
    script.services = [service("web", **facts)]
    async with at_tunnels(tmp_path, script) as desk:
        assert "No request has come yet." in desk.text()
        assert where in desk.text()


# one request


async def test_enter_opens_a_request_and_esc_goes_back_to_it(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        await desk.press("j", "j", "enter")
        assert desk.app.place == Place("request", "web", request="x8")
        assert desk.engine.asked[-1] == GetExchange("x8")
        assert "Request x8" in desk.text()
        assert "replays     x5" in desk.text()
        await desk.press("escape")
        assert desk.app.place == Place("tunnels")
        table = desk.app.pane.table
        assert table is not None
        assert table.pinned == "x8"


async def test_a_request_is_shown_with_its_heads_and_bodies(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        assert "POST http://app.example.net:8080/api/users?page=2&token=[hidden]" in desk.line("asked")
        assert "87 ms to the answer, then 36 ms" in desk.text()
        assert desk.line("User-Agent").split()[1] == "Mozilla/5.0"
        assert "user=me&password=[hidden]" in desk.text()
        assert "HTTP/1.1 200 OK" in desk.text()
        assert '"name": "Gréta",' in desk.text()


async def test_tab_goes_on_from_the_tab_that_a_request_is_under(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        await desk.press("tab")
        assert desk.app.place == Place("tokens")


async def test_bodies_are_shown_byte_by_byte_and_as_text_again(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        await desk.press("b", "G")
        assert "7b 22 75 73 65 72 73" in desk.text()
        assert '"name": "Gréta",' not in desk.text()
        await desk.press("b", "G")
        assert '"name": "Gréta",' in desk.text()


async def test_a_body_that_is_no_text_is_shown_byte_by_byte(tmp_path: Path) -> None:
    async with at_request(tmp_path, "x7") as desk:
        assert "video/mp4, 88 MiB, in bytes" in desk.text()
        assert "40 41 42 43" in desk.text()
        await desk.press("G")
        assert "of this body the first 64 KiB is kept" in desk.text()


async def test_an_answer_of_our_own_says_so(tmp_path: Path) -> None:
    async with at_request(tmp_path, "x6") as desk:
        assert "local service refuses connections" in desk.line("error")
        assert "502, by the tunnel itself and not by the service." in desk.text()


async def test_a_request_that_is_not_kept_any_more_says_so(tmp_path: Path) -> None:
    async with at_request(tmp_path, "x99") as desk:
        assert "There is no request x99." in desk.text()
        assert "Only the last of each tunnel are kept." in desk.text()
        await desk.press("v")
        assert desk.toasts == ["The request is not here yet"]


async def test_a_request_is_asked_for_anew_each_time_it_is_opened(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        await desk.press("escape")
        shown = desk.engine.script.opened["x5", False]
        desk.engine.script.opened["x5", False] = replace(shown, url="http://another.example/")
        desk.app.go(Place("request", "web", request="x5"))
        await desk.settle()
        assert "http://another.example/" in desk.text()


async def test_a_request_under_way_is_shown_again_as_it_goes_on(tmp_path: Path) -> None:
    async with at_request(tmp_path, "x10") as desk:
        assert "Not yet." in desk.text()
        asked = desk.engine.asked.count(GetExchange("x10"))
        await desk.tick()
        assert desk.engine.asked.count(GetExchange("x10")) == asked
        ended = exchange_row("x10", target="/slow", status=204, seconds=3.5, service="web-app")
        script = desk.engine.script
        script.exchanges = [row if row.id != "x10" else ended for row in script.exchanges]
        shown = script.opened["x10", False]
        script.opened["x10", False] = replace(shown, row=ended, response=message("HTTP/1.1 204 No Content"))
        await desk.tick()
        assert "HTTP/1.1 204 No Content" in desk.text()
        assert "Not yet." not in desk.text()
        await desk.tick()
        assert desk.engine.asked.count(GetExchange("x10")) == asked + 1


async def test_secrets_are_shown_only_when_that_was_confirmed_and_until_one_goes_back(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        assert "7 secrets hidden" in desk.text()
        await desk.press("v")
        assert isinstance(desk.app.screen, Question)
        assert "Show 7 secrets of request x5" in desk.text()
        await desk.press("n")
        assert "Bearer [hidden]" in desk.text()
        assert GetExchange("x5", reveal=True) not in desk.engine.asked
        await desk.press("v", "y")
        await desk.settle()
        assert "Bearer eyJhbGciOi" in desk.text()
        assert "secrets are shown" in desk.text()
        await desk.press("escape")
        desk.app.go(Place("request", "web", request="x5"))
        await desk.settle()
        assert "Bearer [hidden]" in desk.text()


async def test_secrets_can_be_hidden_again_without_a_question(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        await desk.press("v", "y", "v")
        await desk.settle()
        assert "Bearer [hidden]" in desk.text()


async def test_where_nothing_is_hidden_there_is_nothing_to_show(tmp_path: Path) -> None:
    async with at_request(tmp_path, "x7") as desk:
        await desk.press("v")
        assert desk.toasts == ["Nothing in this request is hidden"]


# what is done with it


async def test_a_request_is_copied_as_a_command(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        await desk.command("filter x5")
        await desk.press("G", "c")
        await desk.settle()
        assert copied(desk).startswith("curl ")
        assert "--data-raw 'user=me&password=[hidden]'" in copied(desk)
        assert copied(desk).endswith(" 'http://app.example.net:8080/api/users?page=2&token=[hidden]'")
        assert desk.toasts[-1].startswith("Copied the command, 7 secrets hidden: ")


async def test_a_request_whose_secrets_are_shown_is_copied_with_them(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        await desk.press("v", "y", "c")
        await desk.settle()
        assert "-H 'Authorization: Bearer eyJhbGciOi'" in copied(desk)
        assert "hidden" not in desk.toasts[-1]


async def test_a_request_that_is_not_whole_is_not_copied_as_a_command(tmp_path: Path) -> None:
    script = tunnels()
    script.opened["x5", False] = exchange(message("PUT / HTTP/1.1", "Host: a", body=b"x", cut=True), request_bytes=9999)
    async with at_request(tmp_path, script=script) as desk:
        await desk.press("c")
        await desk.settle()
        assert "has 9,999 bytes, and not all are kept" in desk.toasts[-1]
        assert not desk.app.sent


async def test_a_command_that_a_terminal_cannot_copy_is_not_cut_off(tmp_path: Path) -> None:
    script = tunnels()
    script.opened["x5", False] = exchange(message("PUT / HTTP/1.1", "Host: a", body=b"\x01" * copying.LARGEST))
    async with at_request(tmp_path, script=script) as desk:
        await desk.press("c")
        await desk.settle()
        assert "print it with: tunnelconsole request x5 --curl" in desk.toasts[-1]
        assert not desk.app.sent


async def test_the_url_is_copied(tmp_path: Path) -> None:
    async with at_request(tmp_path) as desk:
        await desk.press("y")
        await desk.settle()
        assert copied(desk) == "http://app.example.net:8080/api/users?page=2&token=[hidden]"


async def test_a_request_is_saved_and_nothing_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with at_request(tmp_path) as desk:
        await desk.press("w", "w")
        await desk.settle()
        assert (tmp_path / "request-x5-2.har").exists()
        assert desk.toasts[0] == f"Saved request x5, 7 secrets hidden\n{tmp_path}/request-x5.har"
        (entry,) = json.loads((tmp_path / "request-x5.har").read_text())["log"]["entries"]
        assert entry["request"]["url"].endswith("token=[hidden]")
        await desk.command("har mine.har")
        await desk.settle()
        assert (tmp_path / "mine.har").exists()
        await desk.command("har mine.har")
        await desk.settle()
        assert "cannot be written: File exists" in desk.toasts[-1]


@pytest.mark.parametrize("key", ["r", "c", "w"])
async def test_without_a_selected_request_there_is_nothing_to_do(tmp_path: Path, key: str) -> None:
    script = tunnels()
    script.exchanges = []
    async with at_tunnels(tmp_path, script) as desk:
        await desk.press(key)
        assert desk.toasts == ["No request is selected"]


async def test_a_request_is_sent_again_once_that_was_confirmed_and_the_new_one_is_shown(tmp_path: Path) -> None:
    async with at_tunnels(tmp_path) as desk:
        await desk.command("filter x5")
        await desk.press("G", "r")
        assert "Send POST app.example.net/api/users?page=2&token=[hidden] again" in desk.text()
        assert "It goes through web as a visitor's would, with its secrets." in desk.text()
        await desk.press("n")
        assert ReplayExchange("x5") not in desk.engine.asked
        await desk.press("r", "y")
        await desk.settle()
        assert ReplayExchange("x5") in desk.engine.asked
        assert desk.app.place == Place("request", "web", request="x8")
        assert "replays     x5" in desk.text()
        assert desk.toasts[-1] == "Sent again; answered with 200 in 110 ms"


async def test_a_replay_that_is_refused_says_why(tmp_path: Path) -> None:
    script = tunnels()
    script.refusals[ReplayExchange] = Refused("there is no tunnel for app.example.net now", "wait until it is back")
    async with at_request(tmp_path, script=script) as desk:
        await desk.press("r", "y")
        await desk.settle()
        assert desk.toasts == ["there is no tunnel for app.example.net now\nwait until it is back"]
        assert desk.app.place.request == "x5"


@pytest.mark.parametrize("key", ["r", "c", "w"])
async def test_a_request_that_is_not_kept_any_more_is_told(tmp_path: Path, key: str) -> None:
    async with at_tunnels(tmp_path) as desk:
        await desk.command("filter x4")
        await desk.press("G", key)
        await desk.settle()
        assert desk.toasts == ["there is no request x4\nonly the last of each tunnel are kept"]


# long bodies


@pytest.mark.parametrize(("body", "hexed"), [(b"line\n" * 5000, False), (b"x" * 500_000, False), (bytes(65536), True)])
def test_of_a_long_body_so_many_lines_are_shown(body: bytes, hexed: bool) -> None:
    lines = message_lines("Asked", message("PUT / HTTP/1.1", body=body), len(body), 60, hexed=hexed)
    assert MOST_LINES < len(lines) < MOST_LINES + 8
    assert "w saves what is kept" in plain(lines[-1])


def test_long_fields_go_on_below_themselves() -> None:
    lines = message_lines("Asked", message("GET / HTTP/1.1", "X-Long: " + "word " * 40), 0, 60, hexed=False)
    assert len(lines) > 4
    assert all(len(plain(line)) <= 60 for line in lines)


def test_tabs_and_carriage_returns_of_a_text_do_no_harm() -> None:
    lines = message_lines("Asked", message("PUT / HTTP/1.1", body=b"a\tb\r\nc\x1b[2J\r"), 12, 60, hexed=False)
    assert [plain(line) for line in lines[-2:]] == [" a    b", " c·[2J"]


async def test_a_request_of_an_engine_that_runs_no_more_says_so_and_is_not_sent_again(tmp_path: Path) -> None:
    async with at_request(tmp_path, "x5") as desk:
        assert "runs no more" not in desk.text()
        desk.engine.script.status = status(pid=1)
        await desk.tick()
        assert "of an engine that runs no more" in desk.line("Request x5")
        asked = len(desk.engine.asked)
        await desk.press("r", "v")
        assert [told.splitlines()[0] for told in desk.toasts] == ["Request x5 went with its engine"] * 2
        assert len(desk.engine.asked) == asked


def test_what_a_field_has_in_utf_8_is_shown_as_that() -> None:
    asked = message("GET / HTTP/1.1", "X-City: " + "Zürich".encode().decode("latin-1"), "X-Old: Z\xfcrich")
    lines = message_lines("Asked", asked, 0, 80, hexed=False)
    assert [plain(line).split() for line in lines[-2:]] == [["X-City", "Zürich"], ["X-Old", "Zürich"]]
