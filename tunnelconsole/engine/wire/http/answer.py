"""Our own answers to visitors: plain, short, and without a word on what program sends them."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from tunnelconsole.engine.wire.http.head import serialize


def status_page(
    status: int,
    sentence: str,
    *,
    connection: str = "",
    body: bool = True,
    fields: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return a whole response that says why the visitor gets nothing else.

    :param status: 200 to 599.
    :param sentence: for the visitor; without secrets.
    :param connection: the value of ``Connection``; empty for none.
    :param body: False for the answer to a HEAD, which only tells how long it would be.
    :param fields: more of them, such as ``Retry-After``.
    """
    return plain_response(
        status, f"{status} {phrase_of(status)}\n\n{sentence}\n", connection=connection, body=body, fields=fields
    )


def plain_response(
    status: int, text: str, *, connection: str = "", body: bool = True, fields: Iterable[tuple[str, str]] = ()
) -> bytes:
    """Return a whole response with just ``text``; all else as in :func:`status_page`."""
    page = text.encode("utf-8", "replace")
    lines = [f"{name}: {value}" for name, value in fields]
    lines += ["Content-Type: text/plain; charset=utf-8", "Cache-Control: no-store", f"Content-Length: {len(page)}"]
    if connection:
        lines.append(f"Connection: {connection}")
    return serialize(f"HTTP/1.1 {status} {phrase_of(status)}", lines) + (page if body else b"")


_RENAMED = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""What RFC 9110 calls otherwise than earlier standards did, which Python may still follow."""


def phrase_of(status: int) -> str:
    """Return the reason phrase of a status (RFC 9110, section 15), or a word that fits every error."""
    try:
        return _RENAMED.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return "Error"
