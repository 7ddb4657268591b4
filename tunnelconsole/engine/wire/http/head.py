"""Heads of HTTP/1.1 requests and responses, read strictly (RFC 9110, RFC 9112).

What two programs may read differently is refused: that is how a request is smuggled past the first of them. A head that
is accepted keeps the order and the case of its fields, so that it can be passed on as it came.

A head is text here, each character one byte (ISO 8859-1), so that bytes beyond ASCII survive.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

import msgspec

from tunnelconsole.engine.wire.errors import ProtocolError

#: Bytes of a head, from its first line to the empty one: what common servers allow in all, so that what passes here
#: is not refused behind us for its size.
MAX_HEAD = 32 * 1024
#: Fields of a head: browsers send about 20, a chain of proxies some more.
MAX_FIELDS = 128
#: Bytes of a request's target: what common servers allow.
MAX_TARGET = 8 * 1024
#: Bytes of a field's name: the longest that is registered has 45.
MAX_NAME = 128
#: Bytes of a host's name (RFC 1035, section 2.3.4), without the dot behind it.
MAX_HOST_NAME = 253
#: Bytes of a host with its port: a name with the dot behind it, a colon and five digits.
MAX_HOST = MAX_HOST_NAME + 7

Fields = tuple[tuple[str, str], ...]
"""Names, as they came, and values without the blanks around them."""

_END = b"\r\n\r\n"
_BARE_LF = "a line of the head ends in LF alone, not in CRLF"
# What may stand within a line: everything but control characters (RFC 9110, section 5.5).
_LEGAL = bytes((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))
_NAME_CHARACTERS = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_TOKEN = re.compile(rf"[{_NAME_CHARACTERS}]+")
_TOKEN_BYTES = frozenset(byte for byte in range(256) if _TOKEN.fullmatch(chr(byte)))
_VERSION = re.compile(r"HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([^\r\n]*))?")
# No fragment, which is never sent (RFC 9110, section 4.2.5). Other bytes that a URI should have escaped pass.
_TARGET = re.compile(r"[\x21\x22\x24-\x7e\x80-\xff]+")
_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
# Of what a URI permits in a host only what names have (RFC 1123, section 2.1), and underscores within a label: an empty
# label would be another name for a host that a rule names, a comma or a quote would be read differently in a list.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_\-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:((?:{_LABEL}\.)*({_LABEL}))\.?|\[([0-9A-Fa-f:.]+)\])(?::[0-9]{{0,5}})?")
# A last label of which browsers make an IPv4 address, whatever stands before it: 0x7f.1 is 127.0.0.1 to them.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class HttpError(ProtocolError):
    """A message that is refused.

    :param status: what to answer a visitor: 400 to 599. For a response it is 502.
    :param reason: one sentence, without anything that the message held.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class RequestHead(msgspec.Struct, frozen=True):
    """The head of a request that a visitor sent."""

    method: str
    #: As it came: ``/path?query``, ``http://host/path``, ``*``, or the ``host:port`` of CONNECT.
    target: str
    #: The digit behind ``HTTP/1.``: 0 or 1.
    minor: int
    fields: Fields
    #: The names of ``fields`` in lower case, in the same order.
    keys: tuple[str, ...]
    #: The value of each name in lower case; those of a repeated name joined by ``, ``.
    values: dict[str, str]
    #: All of it as it came, from its first line to its empty one.
    raw: bytes = b""


class ResponseHead(msgspec.Struct, frozen=True):
    """The head of a response; ``minor``, ``fields``, ``keys``, ``values`` and ``raw`` as in :class:`RequestHead`."""

    status: int
    reason: str
    minor: int
    fields: Fields
    keys: tuple[str, ...]
    values: dict[str, str]
    raw: bytes = b""


class HeadReader:
    """Cuts the next head out of a byte stream. It can be used again once it has returned one.

    :param request: whether it reads requests. Then one empty line before the head is skipped (RFC 9112, section 2.2),
        and a first byte with which no method begins is refused at once: it is another protocol, such as TLS.
    :param max_head: bytes of a head.
    """

    __slots__ = ("_buffer", "_max_head", "_request", "_skipped")

    def __init__(self, *, request: bool, max_head: int = MAX_HEAD) -> None:
        self._request = request
        self._max_head = max_head
        self._buffer = b""
        self._skipped = False

    @property
    def begun(self) -> bool:
        """Whether a part of a head is kept."""
        return bool(self._buffer)

    def receive_data(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take bytes, split anywhere.

        :returns: the head with its empty line, and what came behind it; None while the head is incomplete.
        :raises HttpError: the head is too large; or it is not complete, and a line of it ends in LF alone: such a head
            might never be complete, so it is not waited for.
        """
        searched = len(self._buffer)
        if searched:
            data = self._buffer + data
        if self._request:
            if not self._skipped and data.startswith(b"\r\n"):
                self._skipped = True
                data = data[2:]
                searched = 0
            if data and data[0] not in _TOKEN_BYTES and (self._skipped or data != b"\r"):
                raise HttpError(400, "the connection does not begin with an HTTP request")
        end = data.find(_END, max(0, searched - 3)) + 4
        if 4 <= end <= self._max_head:
            self._buffer = b""
            self._skipped = False
            return data[:end], data[end:]
        start = searched - 1 if searched and data[searched - 1] == 0x0D else searched
        if data.count(b"\n", start, self._max_head) != data.count(b"\r\n", start, self._max_head):
            raise HttpError(400 if self._request else 502, _BARE_LF)
        if len(data) > self._max_head:
            raise HttpError(431 if self._request else 502, f"the head has more than {self._max_head} bytes")
        self._buffer = data
        return None


def parse_request(data: bytes, *, max_fields: int = MAX_FIELDS) -> RequestHead:
    """Return the request whose head is ``data``, from its first line to its empty one.

    :raises HttpError: it is refused: with 400, 414 (the target is too long), 431 (the head is too large), or 505 (a
        version other than 1.0 and 1.1).
    """
    lines = _split(data, 400)
    method, target, minor = _parse_request_line(lines[0])
    fields, keys, values = _parse_fields(lines[1:-2], 400, 431, max_fields)
    _check_host(values.get("host"), minor, keys)
    return RequestHead(method, target, minor, fields, keys, values, data)


def parse_response(data: bytes) -> ResponseHead:
    """Return the response whose head is ``data``, from its first line to its empty one.

    :raises HttpError: it is refused, always with 502.
    """
    lines = _split(data, 502)
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise HttpError(502, "the answer does not begin with a status line of HTTP/1.0 or HTTP/1.1")
    minor, status, reason = match.groups()
    fields, keys, values = _parse_fields(lines[1:-2], 502, 502)
    return ResponseHead(int(status), reason or "", int(minor), fields, keys, values, data)


def parse_trailers(lines: Sequence[str], status: int) -> Fields:
    """Return the fields behind a chunked body.

    :param status: of the error.
    :raises HttpError: they break the rules of fields in a head.
    """
    return _parse_fields(lines, status, status)[0]


def serialize(first_line: str, fields: Sequence[str]) -> bytes:
    """Return a head.

    :param fields: lines, ``name: value``.
    """
    return "\r\n".join((first_line, *fields, "", "")).encode("latin-1")


def decode_lines(data: bytes, status: int) -> list[str]:
    """Return the lines of ``data``, of which each ends in CRLF, and an empty text behind the last.

    :param status: of the error.
    :raises HttpError: a control character stands in a line, or a CR or LF alone.
    """
    return _split(data, status)


def _split(data: bytes, status: int) -> list[str]:
    lines = data.decode("latin-1").split("\r\n")
    if data.translate(None, _LEGAL) != b"\r\n" * (len(lines) - 1):
        bare_lf = data.count(b"\n") != len(lines) - 1
        raise HttpError(status, _BARE_LF if bare_lf else "a control character stands in the head")
    return lines


def _parse_request_line(line: str) -> tuple[str, str, int]:
    method, space, rest = line.partition(" ")
    target, space_too, version = rest.rpartition(" ")
    if not (space and space_too and _TOKEN.fullmatch(method)):
        raise HttpError(400, "the request does not begin with a method, a target and a version")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        if _VERSION.fullmatch(version):
            raise HttpError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        raise HttpError(400, "the request line does not end in an HTTP version")
    if len(target) > MAX_TARGET:
        raise HttpError(414, f"the target has more than {MAX_TARGET} bytes")
    if not (_TARGET.fullmatch(target) and _has_known_form(method, target)):
        raise HttpError(400, "the target of the request is not a path, a URL, or a * for OPTIONS")
    return method, target, 1 if version == "HTTP/1.1" else 0


def _has_known_form(method: str, target: str) -> bool:
    if target[0] == "/":
        return True
    if method == "CONNECT":
        return _HOST.fullmatch(target) is not None
    return _ABSOLUTE.match(target) is not None or (target == "*" and method == "OPTIONS")


def _parse_fields(
    lines: Sequence[str], status: int, too_many: int, max_fields: int = MAX_FIELDS
) -> tuple[Fields, tuple[str, ...], dict[str, str]]:
    if len(lines) > max_fields:
        raise HttpError(too_many, f"the head has more than {max_fields} fields")
    fields: list[tuple[str, str]] = []
    keys: list[str] = []
    values: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            _refuse_line(line, status)
        try:
            key = _key_of(name)
        except ValueError:
            _refuse_line(line, status)
        value = value.strip(" \t")
        fields.append((name, value))
        keys.append(key)
        values[key] = value if key not in values else f"{values[key]}, {value}"
    return tuple(fields), tuple(keys), values


# A connection brings the same few names again and again; one that is not a name is never remembered.
@lru_cache(maxsize=1024)
def _key_of(name: str) -> str:
    if len(name) > MAX_NAME or not _TOKEN.fullmatch(name):
        raise ValueError
    return name.lower()


def _refuse_line(line: str, status: int) -> NoReturn:
    name, colon, _ = line.partition(":")
    if line.startswith((" ", "\t")):
        raise HttpError(status, "a field is continued on a second line")
    if not colon:
        raise HttpError(status, "a line of the head has no colon")
    if name.endswith((" ", "\t")):
        raise HttpError(status, "a blank stands before the colon of a field")
    if len(name) > MAX_NAME:
        raise HttpError(status, f"the name of a field has more than {MAX_NAME} bytes")
    raise HttpError(status, "the name of a field holds a character that no name has")


def _check_host(host: str | None, minor: int, keys: Sequence[str]) -> None:
    if host is None:
        if minor:
            raise HttpError(400, "the request has no Host")
    elif keys.count("host") > 1:
        raise HttpError(400, "the request has more than one Host")
    else:
        check_host(host)


def check_host(host: str) -> None:
    """Accept the value of ``Host``, or the authority of a URL: a host name or an IP address, with or without a port.

    A name has labels of 1 to 63 letters, digits, hyphens and underscores, the latter two not at the ends. One dot may
    stand behind it.

    :raises HttpError: it is something else.
    """
    if len(host) > MAX_HOST or not _is_host(host):
        raise HttpError(400, "the request's host is not a host name with or without a port")


# Visitors name the same few hosts again and again; each has a bound, and so has what is remembered.
@lru_cache(maxsize=1024)
def _is_host(host: str) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name, last_label, ipv6 = found.groups()
    try:
        if ipv6 is not None:
            ipaddress.IPv6Address(ipv6)
        elif _NUMBER.fullmatch(last_label):
            ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return ipv6 is not None or len(name) <= MAX_HOST_NAME
