"""Requests that came through a tunnel, as the control socket tells of them: any fact changed by name."""

from __future__ import annotations

from typing import Any

from tunnelconsole.control.exchange_rows import ExchangeRow, HttpMessage
from tunnelconsole.control.messages import Exchange

STARTED = 1_750_000_000.0
"""2025-06-15 15:06:40 UTC."""


def exchange_row(key: str = "x1", **facts: Any) -> ExchangeRow:
    """A GET that was answered within 12 ms."""
    usual: dict[str, Any] = {
        "service": "web", "host": "app.example.net", "peer": "198.51.100.7:40001", "method": "GET", "target": "/",
        "status": 200, "error": "", "started": STARTED, "seconds": 0.012, "seconds_to_answer": 0.008,
        "request_bytes": 0, "response_bytes": 0, "content_type": "", "replay_of": "",
    }  # fmt: skip
    return ExchangeRow(id=key, **(usual | facts))


def message(first_line: str, *fields: str, body: bytes = b"", **facts: Any) -> HttpMessage:
    """A request or an answer; fields as ``Name: value``."""
    pairs = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
    return HttpMessage(first_line=first_line, fields=pairs, body=body, **({"cut": False} | facts))


def exchange(
    request: HttpMessage,
    response: HttpMessage | None = None,
    *,
    url: str = "",
    hidden: int = 0,
    revealed: bool = False,
    **facts: Any,
) -> Exchange:
    """An exchange of these messages; its row says what follows from them."""
    method, target, _ = request.first_line.split(" ")
    follows: dict[str, Any] = {"method": method, "target": target, "request_bytes": len(request.body)}
    if response is not None:
        follows |= {
            "status": int(response.first_line.split(" ")[1]),
            "response_bytes": len(response.body),
            "content_type": response.value("content-type"),
        }
    return Exchange(
        row=exchange_row(**(follows | facts)),
        url=url or f"http://{request.value('host') or 'app.example.net'}{target}",
        request=request,
        response=response,
        hidden=hidden,
        revealed=revealed,
    )
