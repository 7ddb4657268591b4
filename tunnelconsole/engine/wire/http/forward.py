"""What a reverse proxy does to heads on their way (RFC 9110, section 7.6): those of visitors, and those of services.

The fields that concern one connection only are removed, with those that ``Connection`` names. The fields that say who
the visitor is are ours: a stranger's are dropped, those of a trusted proxy in front of us are added to. All others pass
in their order and case.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from tunnelconsole.engine.wire.http.body import Framing, Kind
from tunnelconsole.engine.wire.http.head import (
    Fields,
    HttpError,
    RequestHead,
    ResponseHead,
    check_host,
    serialize,
)


def _spellings(*names: str) -> frozenset[str]:
    """Return each name with hyphens and underscores in every mix: to CGI and WSGI programs they are all the same."""
    return frozenset(
        "".join(letters)
        for name in names
        for letters in itertools.product(*("-_" if letter == "-" else letter for letter in name))
    )


_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PAIRS = rf'{_WORD}=(?:{_WORD}|"(?:[^"\\]|\\.)*+")'
_ELEMENT = rf"{_PAIRS}(?:[ \t]*+;[ \t]*+{_PAIRS})*+"
_FORWARDED = re.compile(rf"{_ELEMENT}(?:[ \t]*+,[ \t]*+{_ELEMENT})*+")
"""A ``Forwarded`` as RFC 7239 has it, section 4."""

_OF_ONE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings")
)
_OF_A_PROXY = ("proxy-authorization", "proxy-authenticate")
# Believed by services behind a proxy, which they take to have set them. ``Proxy`` becomes a variable that many HTTP
# clients obey (CVE-2016-5385).
_STRANGERS = _spellings(
    *_FORWARDING,
    "x-forwarded-by",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
)
_DROPPED_FROM_REQUESTS = _OF_ONE_CONNECTION.union(("host", "content-length", "expect", "proxy"), _OF_A_PROXY)
_DROPPED_FROM_STRANGERS = _DROPPED_FROM_REQUESTS | _STRANGERS
_DROPPED_FROM_TRUSTED = _DROPPED_FROM_REQUESTS | _spellings(*_FORWARDING)
_DROPPED_FROM_BODILESS = _OF_ONE_CONNECTION.union(_OF_A_PROXY)
_DROPPED_FROM_RESPONSES = _DROPPED_FROM_BODILESS.union(("content-length",))
# Fields that must not come behind a body, where they would be too late or evade a check (RFC 9110, section 6.5.1).
_DROPPED_FROM_TRAILERS = _DROPPED_FROM_STRANGERS.union(
    (
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "max-forwards",
        "set-cookie",
        "trailer",
        "www-authenticate",
    )
)
_PLAIN_CONNECTION = frozenset(("close", "keep-alive"))
# Nearly every Connection is one of these.
_COMMON_OPTIONS = {
    text: frozenset((text.lower(),)) for text in ("close", "keep-alive", "Close", "Keep-Alive", "Upgrade")
}

#: Fields that :func:`forward_request` may add to those of a visitor: four that say who it is, ``Host`` in place of the
#: one that a URL stood for, ``Connection`` that says close, and as many again to spare.
ADDED_FIELDS = 12
#: Bytes that they may add: the host three times, the visitor's address twice, their names, and a blank behind each
#: colon that had none, which is 1.2 KiB in all, rounded up.
ADDED_BYTES = 2 * 1024

#: The only protocol to which a connection is upgraded: HTTP/2 in clear text would lead requests past everything here.
UPGRADE = "websocket"


class Peer(msgspec.Struct, frozen=True):
    """The other end of a visitor's connection."""

    #: Its IP address, without a port.
    address: str
    #: ``http`` or ``https``.
    scheme: str
    #: Whether it is a proxy in front of us whose word on its own visitors is taken.
    trusted: bool = False


class Route(msgspec.Struct, frozen=True):
    """Where a request leads."""

    #: The host as the visitor wrote it, with its port; empty in an HTTP/1.0 request without Host.
    host: str
    #: The host to choose a tunnel by: in lower case, without its port, brackets and last dot.
    name: str
    #: What stands in the request line to the service: a path with its query, or ``*``.
    target: str


def route_of(head: RequestHead) -> Route:
    """Return where a request leads: by the URL in its request line if there is one, else by ``Host``.

    :raises HttpError: the URL has no usable host, or the request is a CONNECT, which is for proxies of another kind.
    """
    target = head.target
    if head.method == "CONNECT":
        raise HttpError(405, "CONNECT is not possible here")
    if target[0] in "/*":
        host = head.values.get("host", "")
    else:
        host, target = _split_url(target, "*" if head.method == "OPTIONS" else "/")
    return Route(host, host_name(host), target)


def _split_url(url: str, empty_path: str) -> tuple[str, str]:
    rest = url[url.index("://") + 3 :]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    host, target = rest[:end], rest[end:]
    check_host(host)
    if target.startswith("?"):
        target = f"/{target}"
    return host, target or empty_path


# A host is at most MAX_HOST bytes, so that what is remembered has a bound.
@lru_cache(maxsize=1024)
def host_name(host: str) -> str:
    """Return the name in the value of ``Host``: in lower case, without its port, brackets and last dot."""
    if host.startswith("["):
        return host[1 : host.index("]")].lower()
    return host.partition(":")[0].removesuffix(".").lower()


def keeps_open(head: RequestHead | ResponseHead) -> bool:
    """Say whether the sender of ``head`` keeps its connection open behind this message."""
    connection = head.values.get("connection")
    if connection is None:
        return head.minor == 1
    options = _options(connection)
    return "close" not in options if head.minor == 1 else "keep-alive" in options and "close" not in options


def asks_for_upgrade(head: RequestHead, framing: Framing) -> bool:
    """Say whether a request asks for the one upgrade that is passed on.

    One with a body is not: nobody could say which bytes are the body's and which the new protocol's.
    """
    return (
        head.minor == 1
        and head.method == "GET"
        and framing.kind is Kind.NONE
        and head.values.get("upgrade", "").lower() == UPGRADE
        and "upgrade" in _options(head.values.get("connection", ""))
    )


def expects_continue(head: RequestHead) -> bool:
    """Say whether the visitor waits for a 100 before it sends its body. HTTP/1.0 does not know that.

    :raises HttpError: it expects something else: 417.
    """
    expectation = head.values.get("expect")
    if expectation is None or head.minor == 0:
        return False
    if expectation.lower() != "100-continue":
        raise HttpError(417, "the request expects something other than 100-continue")
    return True


def forward_request(
    head: RequestHead,
    route: Route,
    peer: Peer,
    framing: Framing,
    *,
    host: str = "",
    keep: bool = True,
    upgrade: bool = False,
) -> bytes:
    """Return the head of a request as its service gets it. It is always HTTP/1.1: a proxy says what it speaks itself.

    :param framing: of its body.
    :param host: what the service is told as ``Host``; the visitor's stands in ``X-Forwarded-Host`` all the same.
    :param keep: whether the connection to the service can take another request behind this one.
    :param upgrade: as :func:`asks_for_upgrade` says.
    """
    values = head.values
    dropped = _DROPPED_FROM_TRUSTED if peer.trusted else _DROPPED_FROM_STRANGERS
    if "connection" in values:
        dropped = _with_named(dropped, values["connection"])
    lines = [f"Host: {host or route.host}"]
    lines += [
        f"{name}: {value}" for (name, value), key in zip(head.fields, head.keys, strict=True) if key not in dropped
    ]
    lines += _forwarding_fields(route, peer, values)
    options = [] if keep else ["close"]
    if upgrade:
        options.append("Upgrade")
        lines.append(f"Upgrade: {UPGRADE}")
    if "te" in values and "trailers" in _options(values["te"]):
        options.append("TE")
        lines.append("TE: trailers")
    if options:
        lines.append(f"Connection: {', '.join(options)}")
    if framing.kind is Kind.LENGTH:
        lines.append(f"Content-Length: {framing.length}")
    elif framing.kind is Kind.CHUNKED:
        lines.append("Transfer-Encoding: chunked")
    if framing.kind is not Kind.NONE and expects_continue(head):
        lines.append("Expect: 100-continue")
    return serialize(f"{head.method} {route.target} HTTP/1.1", lines)


def forward_response(head: ResponseHead, framing: Framing, *, connection: str = "", minor: int = 1) -> bytes:
    """Return the head of a response as the visitor gets it. It is always HTTP/1.1.

    :param framing: of its body as it is passed on, which may differ from how it comes.
    :param connection: the value of ``Connection``; empty for none.
    :param minor: the visitor's digit behind ``HTTP/1.``.
    """
    values = head.values
    status, kind = head.status, framing.kind
    # Without a body, a length is about the one that a GET would have had; 1xx and 204 have none at all.
    tells_length = kind is Kind.NONE and status >= 200 and status != 204
    dropped = _DROPPED_FROM_BODILESS if tells_length else _DROPPED_FROM_RESPONSES
    if "connection" in values:
        dropped = _with_named(dropped, values["connection"])
    lines = [
        f"{name}: {value}" for (name, value), key in zip(head.fields, head.keys, strict=True) if key not in dropped
    ]
    if status in (101, 426) and "upgrade" in values:
        # 426 has to say to what (RFC 9110, section 15.5.22).
        lines.append(f"Upgrade: {values['upgrade']}")
        connection = f"{connection}, Upgrade" if connection else "Upgrade"
    if kind is Kind.LENGTH:
        lines.append(f"Content-Length: {framing.length}")
    elif kind is Kind.CHUNKED or (tells_length and minor and "transfer-encoding" in values):
        lines.append("Transfer-Encoding: chunked")
    if connection:
        lines.append(f"Connection: {connection}")
    return serialize(f"HTTP/1.1 {status} {head.reason}", lines)


def forward_trailers(trailers: Fields) -> Fields:
    """Return those fields behind a body that may stand there."""
    return tuple((name, value) for name, value in trailers if name.lower() not in _DROPPED_FROM_TRAILERS)


def with_host(head: RequestHead, host: str) -> bytes:
    """Return a request's head as it came, but for its ``Host``."""
    lines = [f"Host: {host}"]
    lines += [f"{name}: {value}" for (name, value), key in zip(head.fields, head.keys, strict=True) if key != "host"]
    return serialize(f"{head.method} {head.target} HTTP/1.{head.minor}", lines)


def _options(connection: str) -> frozenset[str]:
    if connection in _COMMON_OPTIONS:
        return _COMMON_OPTIONS[connection]
    return frozenset(option.strip(" \t") for option in connection.lower().split(","))


def _with_named(dropped: frozenset[str], connection: str) -> frozenset[str]:
    if connection.lower() in _PLAIN_CONNECTION:
        return dropped
    return dropped | _options(connection)


def _forwarding_fields(route: Route, peer: Peer, values: Mapping[str, str]) -> list[str]:
    node = f'"[{peer.address}]"' if ":" in peer.address else peer.address
    host = f'"{route.host}"' if ":" in route.host else route.host
    element = f"for={node};host={host};proto={peer.scheme}" if host else f"for={node};proto={peer.scheme}"
    if not peer.trusted:
        lines = [f"X-Forwarded-For: {peer.address}", f"X-Forwarded-Proto: {peer.scheme}", f"Forwarded: {element}"]
        if host:
            lines.append(f"X-Forwarded-Host: {route.host}")
        return lines
    lines = [
        f"X-Forwarded-For: {_added(values.get('x-forwarded-for'), peer.address)}",
        f"X-Forwarded-Proto: {values.get('x-forwarded-proto') or peer.scheme}",
        f"Forwarded: {_added(_well_formed(values.get('forwarded')), element)}",
    ]
    if forwarded_host := values.get("x-forwarded-host") or route.host:
        lines.append(f"X-Forwarded-Host: {forwarded_host}")
    return lines


def _well_formed(forwarded: str | None) -> str | None:
    """What a proxy says of those before it, where it can be read: behind anything else, ours could not be either."""
    return forwarded if forwarded and _FORWARDED.fullmatch(forwarded) else None


def _added(before: str | None, last: str) -> str:
    return f"{before}, {last}" if before else last
