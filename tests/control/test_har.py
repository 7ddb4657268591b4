"""The HTTP Archive: all that HAR 1.2 wants, and nothing that it does not know.

http://www.softwareishard.com/blog/har-12-spec/
"""

from __future__ import annotations

import base64
import stat
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct, field

from exchange_rows import exchange, message
from tunnelconsole.control.har import har_of, save_private
from tunnelconsole.control.messages import Exchange

Milliseconds = Annotated[float, Meta(ge=0)]
Size = Annotated[int, Meta(ge=-1)]
Moment = Annotated[datetime, Meta(tz=True)]


class Strict(Struct, forbid_unknown_fields=True, rename="camel"):
    """What the specification defines; other names begin with an underscore."""


class Named(Strict):
    name: str
    value: str


class Cookie(Strict):
    name: str
    value: str
    path: str = ""
    domain: str = ""
    expires: Moment | None = None
    http_only: bool = False
    secure: bool = False


class Posted(Strict):
    mime_type: str
    params: list[Named]
    text: str
    encoding: str = field(name="_encoding", default="")
    comment: str = ""


class Request(Strict):
    method: str
    url: str
    http_version: Literal["HTTP/1.0", "HTTP/1.1"]
    cookies: list[Cookie]
    headers: list[Named]
    query_string: list[Named]
    headers_size: Size
    body_size: Size
    post_data: Posted | None = None


class Content(Strict):
    size: Annotated[int, Meta(ge=0)]
    mime_type: Annotated[str, Meta(min_length=1)]
    compression: int = 0
    text: str = ""
    encoding: Literal["", "base64"] = ""
    comment: str = ""


class Response(Strict):
    status: int
    status_text: str
    http_version: str
    cookies: list[Cookie]
    headers: list[Named]
    content: Content
    redirect_url: str = field(name="redirectURL")
    headers_size: Size
    body_size: Size


class Timings(Strict):
    send: Milliseconds
    wait: Milliseconds
    receive: Milliseconds


class Cache(Strict):
    """Nothing."""


class Entry(Strict):
    started_date_time: Moment
    time: Milliseconds
    request: Request
    response: Response
    cache: Cache
    timings: Timings
    comment: str = ""
    error: str = field(name="_error", default="")


class Creator(Strict):
    name: str
    version: str


class Log(Strict):
    version: Literal["1.2"]
    creator: Creator
    entries: list[Entry]


class Archive(Strict):
    log: Log


def entry_of(one: Exchange) -> Entry:
    """The one entry of an archive that the specification allows."""
    archive = msgspec.json.decode(har_of([one]), type=Archive)
    (entry,) = archive.log.entries
    timings = entry.timings
    assert entry.time == pytest.approx(timings.send + timings.wait + timings.receive)
    return entry


USUAL = exchange(
    message(
        "POST /in?page=2&empty=&token=%5Bhidden%5D HTTP/1.1", "Host: app.example.net", "Cookie: a=b; c=d=e",
        "Content-Type: application/x-www-form-urlencoded", body=b"user=me",
    ),
    message(
        "HTTP/1.1 302 Found", "Content-Type: text/html; charset=utf-8", "Location: /next",
        "Set-Cookie: sid=1; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT; HttpOnly; Secure; SameSite=Lax",
        "Set-Cookie: plain=2", body="grün".encode(),
    ),
)  # fmt: skip


def test_an_exchange_is_an_entry() -> None:
    entry = entry_of(USUAL)
    assert entry.started_date_time.isoformat() == "2025-06-15T15:06:40+00:00"
    assert entry.time == pytest.approx(12)
    assert entry.timings.wait == pytest.approx(8)
    request, response = entry.request, entry.response
    assert (request.method, request.url) == ("POST", USUAL.url)
    assert (request.http_version, request.body_size) == ("HTTP/1.1", 7)
    assert request.cookies == [Cookie("a", "b"), Cookie("c", "d=e")]
    assert request.query_string == [Named("page", "2"), Named("empty", ""), Named("token", "[hidden]")]
    assert request.headers[0] == Named("Host", "app.example.net")
    assert request.post_data == Posted("application/x-www-form-urlencoded", [], "user=me")
    assert (response.status, response.status_text, response.http_version) == (302, "Found", "HTTP/1.1")
    assert response.redirect_url == "/next"
    assert response.cookies[0].expires is not None
    assert response.cookies[0].http_only
    assert response.cookies[0].secure
    assert response.cookies[1] == Cookie("plain", "2")
    assert response.content == Content(5, "text/html; charset=utf-8", text="grün")
    assert response.body_size == 5


def test_bodies_that_are_no_text_are_base64() -> None:
    entry = entry_of(
        exchange(
            message("PUT / HTTP/1.1", "Host: a", body=b"\x00\xff"),
            message("HTTP/1.1 200 OK", "Content-Type: image/png", body=b"\x89PNG\x00"),
        )
    )
    assert entry.request.post_data is not None
    assert base64.b64decode(entry.request.post_data.text) == b"\x00\xff"
    assert entry.request.post_data.encoding == "base64"
    assert base64.b64decode(entry.response.content.text) == b"\x89PNG\x00"
    assert entry.response.content.encoding == "base64"


def test_an_answer_that_was_compressed_tells_both_sizes() -> None:
    packed = message("HTTP/1.1 200 OK", "Content-Type: text/plain", body=b"unfolded", decoded="gzip")
    entry = entry_of(exchange(message("GET / HTTP/1.1", "Host: a"), packed, response_bytes=3))
    assert (entry.response.body_size, entry.response.content.size, entry.response.content.compression) == (3, 8, 5)


def test_a_body_that_was_cut_says_so() -> None:
    long = message("HTTP/1.1 200 OK", "Content-Type: text/plain", body=b"begin", cut=True)
    content = entry_of(exchange(message("GET / HTTP/1.1", "Host: a"), long, response_bytes=1000)).response.content
    assert (content.size, content.text, content.comment) == (1000, "begin", "the first 5 bytes")


def test_no_answer_is_an_entry_too() -> None:
    asked = message("GET / HTTP/1.1", "Host: a")
    entry = entry_of(exchange(asked, status=502, error="refuses", seconds_to_answer=None))
    assert (entry.response.status, entry.error, entry.response.content) == (502, "refuses", Content(0, "x-unknown"))
    running = entry_of(exchange(asked, status=0, seconds=None))
    assert (running.time, running.response.status) == (0, 0)


def test_hidden_secrets_are_told() -> None:
    assert entry_of(exchange(message("GET / HTTP/1.1", "Host: a"), hidden=2)).comment == "secrets are hidden"


@pytest.mark.parametrize(
    "cookie", ["", ";", "=", "a", "a=b; expires=never", "a=b; Expires=Thu, 01-Jan-1970 00:00:00 GMT"]
)
def test_odd_cookies_break_nothing(cookie: str) -> None:
    fields = ["Host: a", f"Cookie: {cookie}"]
    entry_of(exchange(message("GET / HTTP/1.0", *fields), message("HTTP/1.0 200 OK", f"Set-Cookie: {cookie}")))


def test_an_archive_is_written_once_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "one.har"
    save_private(path, har_of([USUAL, USUAL]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(msgspec.json.decode(path.read_bytes(), type=Archive).log.entries) == 2
    with pytest.raises(FileExistsError):
        save_private(path, b"")
