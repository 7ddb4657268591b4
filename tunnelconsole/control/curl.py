"""A request as a command line of curl, for any POSIX shell, in one line."""

from __future__ import annotations

import re
import shlex
from typing import Final
from urllib.parse import urlsplit

from tunnelconsole.control.exchange_rows import HttpMessage
from tunnelconsole.control.messages import Exchange
from tunnelconsole.errors import TunnelConsoleError

_OWN: Final = frozenset(
    (
        "connection", "content-length", "expect", "forwarded", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
    )
)  # fmt: skip
"""Fields that curl, or the tunnel's server, sets by itself."""

_ADDED: Final = ("User-Agent", "Accept")
"""What curl adds unless it is told not to."""

_PLAIN = re.compile(r"[\x20-\x7e]*")
_GLOBBED = re.compile(r"[\[\]{}]")


class NotRepeatable(TunnelConsoleError):
    """A request of which not all is kept cannot be sent again."""


def curl_of(exchange: Exchange) -> str:
    """The command that sends a request again, to its public URL.

    :raises NotRepeatable: not all of its body is there.
    """
    request = exchange.request
    if request.cut:
        raise NotRepeatable(
            f"the body of request {exchange.row.id} has {exchange.row.request_bytes:,} bytes, and not all are kept",
            "a command would send only the beginning of it",
        )
    words = ["curl", *_method(exchange)]
    if _GLOBBED.search(exchange.url):
        words.append("--globoff")
    if "/." in exchange.url:
        words.append("--path-as-is")
    if exchange.row.target == "*" or not exchange.url.isascii():  # which curl would write otherwise
        words += ["--request-target", _quoted(exchange.row.target)]
    not_sent = _OWN | {"content-encoding"} if request.decoded else _OWN
    for name, value in request.fields:
        if name.lower() not in not_sent and not (name.lower() == "host" and value == urlsplit(exchange.url).netloc):
            words += ["-H", _quoted(f"{name}: {value}" if value else f"{name};")]
    words += [word for name in _unwanted(request) for word in ("-H", _quoted(f"{name}:"))]
    if request.value("accept-encoding"):
        words.append("--compressed")
    feed = ""
    if request.body and _PLAIN.fullmatch(text := request.body.decode("latin-1")):
        words += ["--data-raw", shlex.quote(text)]
    elif request.body:
        feed = f"printf {_format(request.body)} | "
        words += ["--data-binary", "@-"]
    return feed + " ".join([*words, _quoted(exchange.url)])


def _method(exchange: Exchange) -> list[str]:
    method, body = exchange.row.method, exchange.request.body
    if method == "HEAD" and not body:
        return ["--head"]
    return [] if method == ("POST" if body else "GET") else ["-X", shlex.quote(method)]


def _unwanted(request: HttpMessage) -> list[str]:
    """The fields that curl would add of itself."""
    names = {name.lower() for name, _ in request.fields}
    return [name for name in (*_ADDED, *(["Content-Type"] if request.body else [])) if name.lower() not in names]


def _quoted(text: str) -> str:
    """One word of a command line, each character one byte (ISO 8859-1)."""
    if _PLAIN.fullmatch(text):
        return shlex.quote(text)
    return f'"$(printf {_format(text.encode("latin-1"))})"'


def _format(data: bytes) -> str:
    """What ``printf`` (POSIX) makes these bytes of, in quotes."""
    text = "".join(_ESCAPED[byte] for byte in data)
    return f"'{text}'" if not text.startswith("-") else f"'\\055{text[1:]}'"  # else it is taken for an option


_ESCAPED: Final = [
    chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in "%'\\" else "%%" if byte == 0x25 else f"\\{byte:03o}"
    for byte in range(256)
]
