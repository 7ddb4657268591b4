"""Requests through tunnels over the control socket: listed, followed, shown with and without secrets, and replayed."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlled import controlled
from loopback import BULK
from tunnel_peers import HOST, App, Seen, app, ok
from tunnelconsole.control import messages
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.curl import curl_of
from tunnelconsole.control.exchange_rows import ExchangeRow
from tunnelconsole.control.har import har_of
from tunnelconsole.control.messages import Watch
from tunnelconsole.engine.services.tunnel import inspector
from tunnelconsole.errors import RequestRefused
from waiting import until


@asynccontextmanager
async def attached(folder: Path, *arguments: Any, **changes: Any) -> AsyncIterator[tuple[App, ControlClient]]:
    """A tunnel, and a client of the control socket of its server's engine."""
    async with app(*arguments, **changes) as at, controlled(at.web.engine, folder) as client:
        yield at, client


async def exchanges(client: ControlClient, service: str = "", limit: int = 500) -> list[ExchangeRow]:
    reply = await client.ask(messages.GetExchanges(service, limit))
    assert isinstance(reply, messages.Exchanges)
    return reply.rows


async def shown(client: ControlClient, key: str, *, reveal: bool = False) -> messages.Exchange:
    reply = await client.ask(messages.GetExchange(key, reveal))
    assert isinstance(reply, messages.Exchange)
    return reply


async def visit(at: App, *arguments: Any, **facts: Any) -> None:
    """One visitor's request, until it is over at the server."""
    count = at.web.service.inspector.count
    async with at.visiting() as visitor:
        await visitor.get(*arguments, **facts)
    await until(lambda: at.web.service.inspector.count > count)


async def test_a_request_is_a_row(tmp_path: Path) -> None:
    async with attached(tmp_path, lambda _: ok(b"{}", "Content-Type: application/json")) as (at, client):
        await visit(at, "/users?page=2&token=abc", method="POST", body=b"a=b")
        (row,) = await exchanges(client)
        assert (row.service, row.host, row.method, row.status) == ("web", HOST, "POST", 200)
        assert row.target == "/users?page=2&token=[hidden]"
        assert (row.request_bytes, row.response_bytes, row.content_type) == (3, 2, "application/json")
        assert row.peer.startswith("127.0.0.1:")
        assert row.seconds is not None
        assert row.seconds_to_answer is not None
        assert 0 < row.seconds_to_answer <= row.seconds
        assert (row.error, row.replay_of) == ("", "")


async def test_requests_come_oldest_first_of_one_service_and_as_many_as_asked_for(tmp_path: Path) -> None:
    async with attached(tmp_path) as (at, client):
        for number in range(4):
            await visit(at, f"/{number}")
        assert [row.target for row in await exchanges(client)] == ["/0", "/1", "/2", "/3"]
        assert [row.target for row in await exchanges(client, "web", 2)] == ["/2", "/3"]
        assert await exchanges(client, limit=0) == []
        with pytest.raises(RequestRefused, match="there is no service shop"):
            await exchanges(client, "shop")


async def test_a_watcher_is_told_what_is_new_and_what_has_changed(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        writer.write(ok())
        await reader.read()

    async with attached(tmp_path, handler=slow) as (at, client), at.visiting() as visitor:
        await visitor.send(f"GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await until(lambda: at.web.service.inspector.running)
        updates = client.watch(Watch(["exchanges"], interval=0.25))
        first = (await anext(updates)).exchanges
        assert first is not None
        assert [(row.target, row.status, row.seconds) for row in first.rows] == [("/slow", 0, None)]
        assert (await anext(updates)).exchanges == first
        go_on.set()
        await visitor.response()
        rows: list[ExchangeRow] = []
        while not rows or rows[-1].seconds is None:
            news = (await anext(updates)).exchanges
            assert news is not None
            rows += news.rows
        assert {row.id for row in rows} == {first.rows[0].id}
        assert rows[-1].status == 200
        assert (await anext(updates)).exchanges == messages.Exchanges([])


async def test_a_watcher_is_told_how_many_it_has_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "KEPT_PER_TUNNEL", 2)
    async with attached(tmp_path) as (at, client):
        await visit(at)
        updates = client.watch(Watch(["exchanges"], interval=0.25))
        first = (await anext(updates)).exchanges
        assert first is not None
        assert (len(first.rows), first.dropped) == (1, 0)
        async with at.visiting() as visitor:
            for number in range(5):
                await visitor.get(f"/{number}")
        told: list[messages.Exchanges] = []
        while sum(len(news.rows) + news.dropped for news in told) < 5:
            news = (await anext(updates)).exchanges
            assert news is not None
            told.append(news)
        assert told[-1].rows[-1].target == "/4"
        assert sum(len({row.id for row in news.rows}) + news.dropped for news in told) == 5


async def test_all_of_a_request_is_shown_its_secrets_only_when_asked_for(tmp_path: Path) -> None:
    answer = ok(b'{"token": "hush-t"}', "Content-Type: application/json", "Set-Cookie: sid=hush-c; Path=/")
    async with attached(tmp_path, lambda _: answer) as (at, client):
        secret = ["Authorization: Bearer hush-a", "Proxy-Authorization: Basic hush-p", "Cookie: sid=hush-c"]
        form = "Content-Type: application/x-www-form-urlencoded"
        await visit(at, "/in?key=hush-k", *secret, form, method="POST", body=b"user=me&password=hush-w")
        (row,) = await exchanges(client)
        hidden = await shown(client, row.id)
        assert (hidden.row, hidden.hidden, hidden.revealed) == (row, 7, False)
        assert hidden.url == f"http://{HOST}/in?key=[hidden]"
        assert hidden.request.first_line == "POST /in?key=[hidden] HTTP/1.1"
        assert ("Authorization", "Bearer [hidden]") in hidden.request.fields
        assert hidden.request.body == b"user=me&password=[hidden]"
        assert hidden.response is not None
        assert hidden.response.first_line == "HTTP/1.1 200 OK"
        assert ("Set-Cookie", "sid=[hidden]; Path=/") in hidden.response.fields
        assert hidden.response.body == b'{"token": "[hidden]"}'
        assert "hush" not in str(hidden)
        plain = await shown(client, row.id, reveal=True)
        assert (plain.hidden, plain.revealed, plain.url) == (0, True, f"http://{HOST}/in?key=hush-k")
        assert plain.row.target == "/in?key=hush-k"
        assert ("Authorization", "Bearer hush-a") in plain.request.fields
        assert plain.request.body == b"user=me&password=hush-w"
        assert plain.response is not None
        assert plain.response.body == b'{"token": "hush-t"}'


async def test_of_a_long_body_the_beginning_is_shown(tmp_path: Path) -> None:
    async with attached(tmp_path, lambda _: ok(BULK, "Content-Type: image/png")) as (at, client):
        await visit(at)
        (row,) = await exchanges(client)
        response = (await shown(client, row.id)).response
        assert response is not None
        assert (response.body, response.cut, row.response_bytes) == (BULK[: 64 << 10], True, len(BULK))


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_answer_is_shown_unfolded_and_its_secrets_hidden(
    tmp_path: Path, coding: str, pack: Any
) -> None:
    def answer(_: Seen) -> bytes:
        return ok(pack(b'{"token": "hush-t"}'), "Content-Type: application/json", f"Content-Encoding: {coding}")

    async with attached(tmp_path, answer) as (at, client):
        await visit(at)
        (row,) = await exchanges(client)
        response = (await shown(client, row.id)).response
        assert response is not None
        assert (response.body, response.decoded, response.cut) == (b'{"token": "[hidden]"}', coding, False)


async def test_a_compressed_answer_that_unfolds_without_end_is_cut(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    async with attached(tmp_path, lambda _: ok(bomb, "Content-Type: image/png", "Content-Encoding: gzip")) as (
        at,
        client,
    ):
        await visit(at)
        (row,) = await exchanges(client)
        response = (await shown(client, row.id)).response
        assert response is not None
        assert (len(response.body), response.cut) == (64 << 10, True)


@pytest.mark.parametrize("coding", ["br", "gzip", "gzip, gzip", "gzip, x, x, x"])
async def test_a_body_that_cannot_be_unfolded_is_hidden_until_it_is_asked_for(tmp_path: Path, coding: str) -> None:
    field = f"Content-Encoding: {coding}"
    async with attached(tmp_path, lambda _: ok(b"\x01\x02", field)) as (at, client):
        await visit(at, "/", field, method="POST", body=b"\x03\x04")
        (row,) = await exchanges(client)
        hidden = await shown(client, row.id)
        assert hidden.response is not None
        assert (hidden.request.body, hidden.response.body, hidden.hidden) == (b"[hidden]", b"[hidden]", 2)
        assert (hidden.request.decoded, hidden.response.decoded) == ("", "")
        plain = await shown(client, row.id, reveal=True)
        assert plain.response is not None
        assert (plain.request.body, plain.response.body, plain.hidden) == (b"\x03\x04", b"\x01\x02", 0)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b'{"token": "hush-t"}')),
        ("identity", b'{"token": "hush-t"}'),
        ("deflate, gzip", gzip.compress(zlib.compress(b'{"token": "hush-t"}'))),
    ],
    ids=["gzip", "identity", "deflate within gzip"],
)
async def test_a_compressed_request_is_shown_unfolded_and_its_secrets_hidden(
    tmp_path: Path, coding: str, packed: bytes
) -> None:
    async with attached(tmp_path) as (at, client):
        fields = ("Content-Type: application/json", f"Content-Encoding: {coding}")
        await visit(at, "/", *fields, method="POST", body=packed)
        (row,) = await exchanges(client)
        hidden = await shown(client, row.id)
        assert (hidden.request.body, hidden.hidden, hidden.request.cut) == (b'{"token": "[hidden]"}', 1, False)
        assert "hush" not in curl_of(hidden)
        assert "hush" not in har_of([hidden]).decode()


async def test_a_body_that_was_compressed_several_times_unfolds_within_bounds(tmp_path: Path) -> None:
    bomb = gzip.compress(gzip.compress(bytes(64 << 20)))
    async with attached(tmp_path) as (at, client):
        fields = ("Content-Type: image/png", "Content-Encoding: gzip, gzip")
        await visit(at, "/", *fields, method="POST", body=bomb)
        (row,) = await exchanges(client)
        request = (await shown(client, row.id)).request
        assert (len(request.body), request.cut) == (64 << 10, True)


async def test_the_client_of_a_tunnel_tells_the_public_url_too(tmp_path: Path) -> None:
    async with app() as at, controlled(at.engine, tmp_path) as client:
        await visit(at, "/here")
        (row,) = await exchanges(client)
        assert row.service == "app"
        assert (await shown(client, row.id)).url == f"http://{HOST}/here"


async def test_a_url_in_the_request_line_is_the_url(tmp_path: Path) -> None:
    async with attached(tmp_path) as (at, client):
        async with at.visiting() as visitor:
            await visitor.send(f"GET http://{HOST}:81/x HTTP/1.1\r\nHost: other\r\n\r\n".encode())
            await visitor.response()
        await until(lambda: at.web.service.inspector.count)
        (row,) = await exchanges(client)
        assert (row.target, (await shown(client, row.id)).url) == ("/x", f"http://{HOST}:81/x")


@pytest.mark.parametrize("key", ["x999999999", "x", "7", "x-1", "", "x" + "9" * 50, "y" * 200])
async def test_a_request_that_is_not_there_is_refused(tmp_path: Path, key: str) -> None:
    async with attached(tmp_path) as (_, client):
        for request in (messages.GetExchange(key), messages.ReplayExchange(key)):
            with pytest.raises(RequestRefused, match="there is no request"):
                await client.ask(request)


async def test_a_replay_is_answered_with_the_new_exchange(tmp_path: Path) -> None:
    async with attached(tmp_path) as (at, client):
        await visit(at, "/again", "Authorization: Bearer hush-a")
        (row,) = await exchanges(client)
        reply = await client.ask(messages.ReplayExchange(row.id))
        assert isinstance(reply, messages.Exchange)
        assert (reply.row.replay_of, reply.row.status, reply.hidden) == (row.id, 200, 1)
        assert [seen.value("authorization") for seen in at.local.seen] == ["Bearer hush-a"] * 2
        assert [each.id for each in await exchanges(client)] == [row.id, reply.row.id]
