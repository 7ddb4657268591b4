"""A folder as a web service: what of it is served and what never is."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from loopback import PATIENCE, running
from system_tools import path_of
from tunnel_peers import HOST, Got, Visitor, tunnel_client, visiting, web
from tunnelconsole.engine.services.tunnel.folder import Answer, Folder
from tunnelconsole.engine.wire.http.head import ResponseHead, parse_response

BIG = os.urandom(1024) * 2048 + b"the end"

CURL_HTTP_ERROR = 22
"""curl's exit code for a status from 400 on."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "public"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "page.html").write_text("<p>page")
    (root / "sub" / "index.html").write_text("<p>index")
    (root / "sub" / "deep" / "ümlaut & co.txt").write_text("text")
    (root / "data.bin.gz").write_bytes(b"gz")
    (root / "big").write_bytes(BIG)
    (root / "empty").write_bytes(b"")
    (root / ".env").write_text("SECRET=1")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("secret")
    (root / ".well-known").mkdir()
    (root / ".well-known" / "token").write_text("token")
    (tmp_path / "outside.txt").write_text("outside")
    (root / "leak").symlink_to(tmp_path / "outside.txt")
    (root / "leaks").symlink_to(tmp_path)
    (root / "hidden").symlink_to(root / ".env")
    (root / "alias").symlink_to(root / "page.html")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))
    return root


def ask(folder: Path, target: str, method: str = "GET", **values: str) -> tuple[ResponseHead, bytes]:
    """The answer to a request, read to its end."""
    answer: Answer = Folder(folder).answer(
        method, target, {name.replace("_", "-"): value for name, value in values.items()}
    )
    head, _, body = answer.first.partition(b"\r\n\r\n")
    if answer.file is not None:
        body += answer.file.read(answer.length)
        answer.file.close()
    return parse_response(head + b"\r\n\r\n"), body


async def curl(*arguments: str) -> int | None:
    """Runs curl; its exit code."""
    plain = ("-q", "--silent", "--fail", "--noproxy", "*")
    process = await asyncio.create_subprocess_exec(path_of("curl"), *plain, *arguments)
    async with asyncio.timeout(PATIENCE):
        return await process.wait()


def test_a_file_is_served_with_its_type(folder: Path) -> None:
    for target, kind, body in (
        ("/page.html", "text/html; charset=utf-8", b"<p>page"),
        ("/page.html?x=1", "text/html; charset=utf-8", b"<p>page"),
        ("/alias", "text/html; charset=utf-8", b"<p>page"),
        ("/sub/deep/%C3%BCmlaut%20&%20co.txt", "text/plain; charset=utf-8", b"text"),
        ("/data.bin.gz", "application/octet-stream", b"gz"),
        ("/empty", "application/octet-stream", b""),
        ("/.well-known/token", "application/octet-stream", b"token"),
    ):
        head, got = ask(folder, target)
        assert (head.status, head.values["content-type"], got) == (200, kind, body), target
        assert head.values["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "target",
    ["/./page.html", "/sub/../page.html", "/a/b/../../page.html", "/../page.html", "/%2e/sub/%2E%2e/page.html"],
)
def test_dots_in_a_path_lead_where_they_lead_in_any_url(folder: Path, target: str) -> None:
    head, _ = ask(folder, target)
    assert head.status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/missing",
        "/.env",
        "/.git/config",
        "/sub/../.env",
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/sub/%2e%2e/%2e%2e/outside.txt",
        "/leak",
        "/leaks/outside.txt",
        "/hidden",
        "/page.html/",
        "/page.html/x",
        "/pipe",
        "/socket",
        "/page%00.html",
        "//etc/passwd",
        "*",
        "/" + "a" * 5000,
    ],
)
def test_what_is_not_there_or_not_for_visitors_is_404(folder: Path, target: str) -> None:
    head, body = ask(folder, target)
    assert head.status == 404, body


def test_a_folder_is_its_index_or_a_list(folder: Path) -> None:
    assert ask(folder, "/sub/")[1] == b"<p>index"
    head, body = ask(folder, "/")
    assert head.values["content-type"] == "text/html; charset=utf-8"
    assert b'<a href="./page.html">page.html</a>' in body
    assert b'<a href="./sub/">sub/</a>' in body
    assert b".env" not in body
    listed = ask(folder, "/sub/deep/")[1].decode()
    assert '<a href="./%C3%BCmlaut%20%26%20co.txt">ümlaut &amp; co.txt</a>' in listed
    assert '<a href="../">../</a>' in listed


def test_a_folder_without_its_slash_is_elsewhere_on_this_host(folder: Path) -> None:
    for target, place in (("/sub", "/sub/"), ("/sub?a=b", "/sub/?a=b"), ("//sub", "/sub/")):
        head, _ = ask(folder, target)
        assert (head.status, head.values["location"]) == (301, place)


def test_a_head_has_no_body_and_other_methods_are_405(folder: Path) -> None:
    head, body = ask(folder, "/big", "HEAD")
    assert (head.values["content-length"], body) == (str(len(BIG)), b"")
    head, _ = ask(folder, "/page.html", "POST")
    assert (head.status, head.values["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [("bytes=0-9", 0, 10), ("bytes=10-", 10, None), ("bytes=-7", -7, None), ("bytes=0-99999999", 0, None)],
)
def test_a_part_is_206(folder: Path, wanted: str, begin: int, end: int | None) -> None:
    head, body = ask(folder, "/big", range=wanted)
    assert (head.status, body) == (206, BIG[begin:end])
    first = begin % len(BIG)
    assert head.values["content-range"] == f"bytes {first}-{first + len(body) - 1}/{len(BIG)}"


def test_a_part_beyond_the_end_is_416_and_what_is_no_part_is_all(folder: Path) -> None:
    head, _ = ask(folder, "/big", range="bytes=99999999-")
    assert (head.status, head.values["content-range"]) == (416, f"bytes */{len(BIG)}")
    for wanted in ("bytes=5-1", "bytes=-", "bytes=0-1,3-4", "lines=1-2"):
        assert ask(folder, "/big", range=wanted)[0].status == 200
    assert ask(folder, "/big", range="bytes=0-1", if_range='"old"')[0].status == 200


def test_a_part_of_what_the_visitor_has_in_part_comes_only_while_it_is_the_same(folder: Path) -> None:
    os.utime(folder / "big", (1_600_000_000.5, 1_600_000_000.5))
    head, _ = ask(folder, "/big")
    tag, modified = head.values["etag"], head.values["last-modified"]
    for known in (tag, modified):
        assert ask(folder, "/big", range="bytes=5-", if_range=known)[0].status == 206
    later = "Sun, 13 Sep 2020 12:26:41 GMT"
    for known in (f"W/{tag}", '"old"', later, "yesterday", "Mon, 01 Jan 2020 00:00:00 +99999999999999"):
        assert ask(folder, "/big", range="bytes=5-", if_range=known)[0].status == 200


def test_a_date_alone_does_not_tell_that_a_file_of_this_moment_is_the_same(folder: Path) -> None:
    soon = time.time() + 60
    os.utime(folder / "big", (soon, soon))
    modified = ask(folder, "/big")[0].values["last-modified"]
    assert ask(folder, "/big", range="bytes=5-", if_range=modified)[0].status == 200


def test_a_head_tells_of_the_whole_file_whatever_part_is_asked_for(folder: Path) -> None:
    head, body = ask(folder, "/big", "HEAD", range="bytes=0-9")
    assert (head.status, head.values["content-length"], body) == (200, str(len(BIG)), b"")
    assert head.values["accept-ranges"] == "bytes"


@pytest.mark.system("curl")
@pytest.mark.parametrize("native", [True, False])
async def test_curl_gets_a_part_and_resumes_what_was_broken_off(folder: Path, tmp_path: Path, native: bool) -> None:
    got = tmp_path / "got"
    async with web() as at, running(app=tunnel_client(at.address, str(folder), native=native)) as engine:
        assert engine.services["app"].state == "connected", engine.services["app"].error
        where = ("-H", f"Host: {HOST}", f"http://{at.address}/big", "-o", str(got))
        assert await curl("-r", "10-99", *where) == 0
        assert got.read_bytes() == BIG[10:100]
        assert await curl("-r", "-9", *where) == 0
        assert got.read_bytes() == BIG[-9:]
        got.write_bytes(BIG[: len(BIG) // 3])
        assert await curl("-C", "-", *where) == 0
        assert got.read_bytes() == BIG
        assert await curl("-r", f"{len(BIG)}-", *where) == CURL_HTTP_ERROR


def test_what_the_visitor_has_is_304(folder: Path) -> None:
    head, _ = ask(folder, "/page.html")
    tag, modified = head.values["etag"], head.values["last-modified"]
    assert ask(folder, "/page.html", if_none_match=f'"x", W/{tag}')[0].status == 304
    assert ask(folder, "/page.html", if_none_match='"x"', if_modified_since=modified)[0].status == 200
    assert ask(folder, "/page.html", if_modified_since=modified)[0].status == 304
    assert ask(folder, "/page.html", if_modified_since="yesterday")[0].status == 200


async def served(visitor: Visitor, target: str) -> Got:
    return await visitor.get(target)


@pytest.mark.parametrize("native", [True, False])
async def test_visitors_are_served_through_the_tunnel(folder: Path, native: bool) -> None:
    async with web() as at, running(app=tunnel_client(at.address, str(folder), native=native)) as engine:
        assert engine.services["app"].state == "connected", engine.services["app"].error
        async with visiting(at.address) as visitor, visiting(at.address) as slow:
            await slow.send(b"GET /big HTTP/1.1\r\nHost: app.example.net\r\n\r\n")
            for _ in range(3):
                assert (await served(visitor, "/page.html")).body == b"<p>page"
                assert (await served(visitor, "/big")).body == BIG
                assert (await served(visitor, "/missing")).status == 404
            assert (await slow.response()).body == BIG


async def test_a_visitor_that_leaves_midway_leaves_no_file_open(folder: Path) -> None:
    async with web() as at, running(app=tunnel_client(at.address, str(folder))) as engine:
        assert engine.services["app"].state == "connected"
        for _ in range(5):
            async with visiting(at.address) as visitor:
                await visitor.send(b"GET /big HTTP/1.1\r\nHost: app.example.net\r\n\r\n")
                assert await visitor.read(4) == b"HTTP"
                visitor.writer.transport.abort()
