"""Requests as an HTTP Archive (HAR 1.2), which browsers and other tools open."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tunnelconsole import __version__
from tunnelconsole.control.bodies import text_of
from tunnelconsole.control.exchange_rows import HttpMessage
from tunnelconsole.control.messages import Exchange

Document = dict[str, Any]

_ATTRIBUTES = {"path": "path", "domain": "domain", "expires": "expires", "httponly": "httpOnly", "secure": "secure"}
"""Of a cookie, as ``Set-Cookie`` and as the archive names them."""


def har_of(exchanges: Sequence[Exchange]) -> bytes:
    """The archive as JSON."""
    log = {
        "version": "1.2",
        "creator": {"name": "TunnelConsole", "version": __version__},
        "entries": [_entry(exchange) for exchange in exchanges],
    }
    return msgspec.json.format(msgspec.json.encode({"log": log}), indent=2)


def save_private(path: Path, content: bytes) -> None:
    """Writes a new file that nobody else can read: there may be secrets in it.

    :raises OSError: there is one of this name already, or it cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _entry(exchange: Exchange) -> Document:
    row = exchange.row
    total = (row.seconds or 0.0) * 1000
    wait = total if row.seconds_to_answer is None else min(total, row.seconds_to_answer * 1000)
    entry: Document = {
        "startedDateTime": datetime.fromtimestamp(row.started, UTC).isoformat(timespec="milliseconds"),
        "time": total,
        "request": _request(exchange),
        "response": _response(exchange),
        "cache": {},
        "timings": {"send": 0, "wait": wait, "receive": total - wait},
    }
    if exchange.hidden:
        entry["comment"] = "secrets are hidden"
    if row.error:
        entry["_error"] = row.error
    return entry


def _request(exchange: Exchange) -> Document:
    request = exchange.request
    found: Document = {
        "method": exchange.row.method,
        "url": exchange.url,
        "httpVersion": request.first_line.rpartition(" ")[2],
        "cookies": [{"name": name, "value": value} for name, value in _pairs(request.value("cookie"))],
        "headers": _headers(request),
        "queryString": _named(parse_qsl(urlsplit(exchange.url).query, keep_blank_values=True)),
        "headersSize": -1,
        "bodySize": exchange.row.request_bytes,
    }
    if exchange.row.request_bytes:
        text = text_of(request)
        posted: Document = {"mimeType": request.value("content-type"), "params": []}
        posted |= {"text": text} if text is not None else {"text": _base64(request.body), "_encoding": "base64"}
        found["postData"] = posted | _remark(request)
    return found


def _response(exchange: Exchange) -> Document:
    row, response = exchange.row, exchange.response
    found: Document = {
        "status": row.status,
        "statusText": "",
        "httpVersion": "",
        "cookies": [],
        "headers": [],
        "content": {"size": 0, "mimeType": "x-unknown"},
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": row.response_bytes,
    }
    if response is None:
        return found
    version, _, rest = response.first_line.partition(" ")
    return found | {
        "statusText": rest.partition(" ")[2],
        "httpVersion": version,
        "cookies": [_cookie(value) for name, value in response.fields if name.lower() == "set-cookie"],
        "headers": _headers(response),
        "content": _content(response, row.response_bytes),
        "redirectURL": response.value("location"),
    }


def _content(response: HttpMessage, sent: int) -> Document:
    size = len(response.body) if response.decoded and not response.cut else sent
    found: Document = {"size": size, "mimeType": response.value("content-type") or "x-unknown"}
    if response.decoded and not response.cut:
        found["compression"] = size - sent
    if response.body:
        text = text_of(response)
        found |= {"text": text} if text is not None else {"text": _base64(response.body), "encoding": "base64"}
    return found | _remark(response)


def _remark(message: HttpMessage) -> Document:
    return {"comment": f"the first {len(message.body)} bytes"} if message.cut else {}


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode("ascii")


def _headers(message: HttpMessage) -> list[Document]:
    return _named(message.fields)


def _named(pairs: Iterable[tuple[str, str]]) -> list[Document]:
    return [{"name": name, "value": value} for name, value in pairs]


def _pairs(cookies: str) -> list[tuple[str, str]]:
    found = (cookie.strip().partition("=") for cookie in cookies.split(";"))
    return [(name, value) for name, _, value in found if name]


def _cookie(text: str) -> Document:
    first, *rest = text.split(";")
    (pair,) = _pairs(first) or [("", first.strip())]
    cookie: Document = {"name": pair[0], "value": pair[1]}
    for attribute in rest:
        name, _, value = attribute.strip().partition("=")
        key = _ATTRIBUTES.get(name.lower())
        if key in ("httpOnly", "secure"):
            cookie[key] = True
        elif key == "expires":
            cookie |= _expires(value)
        elif key:
            cookie[key] = value
    return cookie


def _expires(text: str) -> Document:
    try:
        return {"expires": parsedate_to_datetime(text.replace("-", " ")).isoformat()}
    except ValueError:
        return {}
