"""The demonstration's shop: a small web service behind a tunnel, and what its customers ask of it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import NamedTuple

PAUSE = 1.2
"""Seconds between two requests of a customer, on average."""

NEWS = 6
"""Pieces of news in one stream of them."""

_dice = secrets.SystemRandom()

_WORDS = ("anvil", "bellows", "chisel", "drill", "easel", "file", "gouge", "hammer", "ink", "jig")


class Asked(NamedTuple):
    """A request, as far as a shop looks at it."""

    method: str
    path: str
    body: bytes


# the shop


async def serve_shop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one request after the other."""
    while True:
        try:
            asked = await _next_request(reader)
        except asyncio.IncompleteReadError:
            return  # no further one
        async for piece in _answer(asked):
            writer.write(piece)
            await writer.drain()


async def _next_request(reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.decode("latin-1").split(" ", 2)
    return Asked(method, target.partition("?")[0], await reader.readexactly(_length(head)))


def _length(head: bytes) -> int:
    found = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in found if name == b"content-length"), 0)


async def _answer(asked: Asked) -> AsyncIterator[bytes]:
    first, _, rest = asked.path.strip("/").partition("/")
    if asked.path == "/":
        yield _response("200 OK", "text/html; charset=utf-8", _page())
    elif first == "static":
        yield _response("200 OK", "text/css" if rest.endswith("css") else "text/javascript", b"/* shop */\n" * 4000)
    elif asked.path == "/events":
        async for piece in _news():
            yield piece
    elif asked.path == "/report":
        await asyncio.sleep(_dice.uniform(0.5, 2.5))
        status = _dice.choice(("200 OK", "200 OK", "500 Internal Server Error"))
        yield _response(status, "text/plain", b"sold,today\n" * 30)
    elif asked.path == "/api/login":
        yield _login(asked)
    elif first == "api":
        await asyncio.sleep(_dice.expovariate(1 / 0.02))
        yield _interface(asked, rest)
    else:
        yield _response("404 Not Found", "text/plain", b"There is nothing here.\n")


def _login(asked: Asked) -> bytes:
    if b"password=open" not in asked.body:
        return _response("401 Unauthorized", "application/json", b'{"error": "wrong password"}')
    cookie = f"Set-Cookie: session={secrets.token_hex(8)}; Path=/; HttpOnly"
    return _response("303 See Other", "text/plain", b"", "Location: /", cookie)


def _interface(asked: Asked, rest: str) -> bytes:
    if asked.method == "DELETE":
        return _response("204 No Content", "", b"")
    if asked.method == "POST":
        number = _dice.randint(1000, 9999)
        return _response(
            "201 Created", "application/json", json.dumps({"order": number}).encode(), f"Location: /{number}"
        )
    if rest.startswith("orders") and _dice.random() < 0.3:
        return _response("404 Not Found", "application/json", b'{"error": "no such order"}')
    items = [
        {"id": _dice.randint(1, 99), "name": _dice.choice(_WORDS), "price": _dice.randint(3, 90)} for _ in range(12)
    ]
    return _response("200 OK", "application/json", json.dumps({"items": items, "token": secrets.token_hex(6)}).encode())


def _page() -> bytes:
    items = "".join(f"<li>{word}</li>" for word in _WORDS)
    return f"<!doctype html><title>Shop</title><h1>Tools</h1><ul>{items}</ul>\n".encode()


def _response(status: str, kind: str, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields]
    if kind:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _news() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    for number in range(NEWS):
        await asyncio.sleep(_dice.expovariate(1 / 0.7))
        event = f"id: {number}\ndata: {_dice.choice(_WORDS)} sold\n\n".encode()
        yield b"%x\r\n%b\r\n" % (len(event), event)
    yield b"0\r\n\r\n"


# its customers


async def shop_around(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, patience: float) -> None:
    """What one customer does on one connection.

    :param host: of the shop, as its customers know it.
    :param patience: seconds for an answer.
    """
    for _ in range(_dice.randint(5, 25)):
        writer.write(_wish(host))
        async with asyncio.timeout(patience):
            await _take_answer(reader)
        await asyncio.sleep(_dice.expovariate(1 / PAUSE))


def _wish(host: str) -> bytes:
    """A request of a customer, some of them with secrets for the inspector to hide."""
    number = _dice.randint(1, 9)
    password = _dice.choice(("open", "guess"))
    method, target, kind, body = _dice.choice((
        ("GET", "/", "", ""),
        ("GET", f"/static/shop.{_dice.choice(('css', 'js'))}?v={number}", "", ""),
        ("GET", f"/api/items?page={number}", "", ""),
        ("GET", f"/api/items?page={number}", "", ""),
        ("GET", f"/api/orders/{number}?token={secrets.token_hex(8)}", "", ""),
        ("POST", "/api/orders", "application/json", json.dumps({"item": number, "card_token": secrets.token_hex(8)})),
        ("POST", "/api/login", "application/x-www-form-urlencoded", f"user=eve&password={password}"),
        ("DELETE", f"/api/orders/{number}", "", ""),
        ("GET", "/events", "", ""),
        ("GET", "/report", "", ""),
        ("GET", f"/{_dice.choice(_WORDS)}.php", "", ""),
    ))  # fmt: skip
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "User-Agent: customer/1.0", "Accept: */*"]
    if "/api/orders" in target:
        lines += [f"Authorization: Bearer {secrets.token_urlsafe(12)}", f"Cookie: session={secrets.token_hex(8)}"]
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", body]).encode()


async def _take_answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if b"\r\ntransfer-encoding: chunked\r\n" not in head.lower():
        await reader.readexactly(_length(head))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readuntil(b"\r\n")
