"""How long a message's body is, and its bytes in and out (RFC 9112, sections 6 and 7).

A decoder takes the bytes of a message behind its head, split anywhere, and returns what of them is payload, whether the
body is complete, and what belongs to the next message. Nothing is kept but a line that is not complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

from tunnelconsole.engine.wire.http.head import (
    Fields,
    HttpError,
    RequestHead,
    ResponseHead,
    decode_lines,
    parse_trailers,
)

#: Digits of a Content-Length: what fits a signed number of 64 bits, which is what others count with.
MAX_LENGTH_DIGITS = 18
#: Digits of a chunk's size, with zeros before it: 2**60 bytes at most, as above.
MAX_CHUNK_DIGITS = 15
#: Bytes of the line with a chunk's size, with its extensions and its end. Nobody is known to use extensions.
MAX_CHUNK_LINE = 256
#: Bytes of extensions in one body. Without a limit, chunks of one byte with long extensions make us work a hundred
#: times for each byte that is passed on (as in Go, CVE-2023-39326).
MAX_EXTENSIONS = 16 * 1024
#: Bytes of the fields behind a chunked body.
MAX_TRAILERS = 8 * 1024

_LENGTH = re.compile(rf"[0-9]{{1,{MAX_LENGTH_DIGITS}}}")
# No blanks before or behind the size: they are not in the grammar, and others cut there.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})(;[\t\x20-\x7e\x80-\xff]*)?" % MAX_CHUNK_DIGITS)
# How nearly every chunk begins.
_PLAIN_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})\r\n" % MAX_CHUNK_DIGITS)
_LAST_CHUNK = b"0\r\n\r\n"


class Kind(Enum):
    """How the end of a body is known."""

    NONE = "no body"
    LENGTH = "by its length"
    CHUNKED = "by its last chunk"
    UNTIL_CLOSE = "by the end of the connection"


class Framing(msgspec.Struct, frozen=True):
    """How the end of a body is known; ``length`` in bytes, for :attr:`Kind.LENGTH`."""

    kind: Kind
    length: int = 0


NO_BODY = Framing(Kind.NONE)
CHUNKED = Framing(Kind.CHUNKED)
UNTIL_CLOSE = Framing(Kind.UNTIL_CLOSE)


def request_framing(head: RequestHead) -> Framing:
    """Return how the body of a request is framed.

    :raises HttpError: its fields contradict each other or break the rules, so that its end is not known for sure: 400;
        or it has a transfer coding other than chunked: 501.
    """
    values = head.values
    coding, length = values.get("transfer-encoding"), values.get("content-length")
    # Programs that turn names into variables (CGI, WSGI) read these as the names with a hyphen.
    if "transfer_encoding" in values or "content_length" in values:
        raise HttpError(400, "the request has a field whose name may be taken for one that frames its body")
    if coding is None:
        return NO_BODY if length is None else _by_length(length, 400)
    return _chunked(coding, length, head.minor, "request", 400, 501)


def response_framing(method: str, head: ResponseHead) -> Framing:
    """Return how the body of the response to a request with ``method`` is framed (RFC 9112, section 6.3).

    :raises HttpError: as for requests, always with 502.
    """
    coding, length = head.values.get("transfer-encoding"), head.values.get("content-length")
    framing = UNTIL_CLOSE
    if coding is not None:
        framing = _chunked(coding, length, head.minor, "answer", 502, 502)
    elif length is not None:
        framing = _by_length(length, 502)
    # What these say of a body is about the one that a GET would have had.
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return NO_BODY
    return framing


def _by_length(length: str, status: int) -> Framing:
    if not _LENGTH.fullmatch(length):
        raise HttpError(status, "the Content-Length is not one number")
    return Framing(Kind.LENGTH, int(length))


def _chunked(coding: str, length: str | None, minor: int, what: str, bad: int, unknown: int) -> Framing:
    if length is not None:
        raise HttpError(bad, f"the {what} has both a Content-Length and a Transfer-Encoding")
    if minor == 0:
        raise HttpError(bad, f"the {what} has a Transfer-Encoding, which HTTP/1.0 does not know")
    if coding.lower() == "chunked":
        return CHUNKED
    codings = [name.strip(" \t").lower() for name in coding.split(",")]
    if "chunked" in codings[:-1] or not all(codings):
        raise HttpError(bad, f"the Transfer-Encoding of the {what} is not one list that ends in chunked")
    raise HttpError(unknown, f"the {what} has a transfer coding other than chunked")


class Decoded(NamedTuple):
    """What :meth:`Decoder.receive_data` made of some bytes."""

    #: The payload in them, in order; no piece is empty.
    pieces: list[bytes]
    #: Whether the body is complete.
    done: bool
    #: What came behind the body; empty until it is complete.
    rest: bytes


class Decoder(Protocol):
    """Reads a body."""

    def receive_data(self, data: bytes) -> Decoded:
        """Take bytes of the message, split anywhere.

        :raises HttpError: the body breaks the rules. It cannot be read on.
        """


class LengthDecoder:
    """Reads a body whose length is known.

    :param length: bytes; at least 1.
    """

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        #: Bytes that are still to come.
        self.remaining = length

    def receive_data(self, data: bytes) -> Decoded:
        count = len(data)
        if count < self.remaining:
            self.remaining -= count
            return Decoded([data] if count else [], False, b"")
        remaining, self.remaining = self.remaining, 0
        if count == remaining:
            return Decoded([data], True, b"")
        return Decoded([data[:remaining]] if remaining else [], True, data[remaining:])


class UntilCloseDecoder:
    """Reads a body that ends with its connection."""

    __slots__ = ()

    def receive_data(self, data: bytes) -> Decoded:
        return Decoded([data] if data else [], False, b"")


class _Step(Enum):
    SIZE = 1
    PAYLOAD = 2
    PAYLOAD_END = 3
    TRAILERS = 4


class ChunkedDecoder:
    """Reads a chunked body. Extensions are dropped, fields behind the body are kept.

    A chunk must end in exactly CRLF. To take any two bytes there is how requests were smuggled through h11
    (CVE-2025-43859).

    :param status: of the errors: 400 for a request, 502 for a response.
    """

    __slots__ = ("_buffer", "_extensions", "_remaining", "_status", "_step", "trailers")

    def __init__(self, status: int) -> None:
        self._status = status
        self._step = _Step.SIZE
        self._buffer = b""
        self._remaining = 0
        self._extensions = 0
        #: The fields behind the body, once it is complete.
        self.trailers: Fields = ()

    def receive_data(self, data: bytes) -> Decoded:
        pieces: list[bytes] = []
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        position, end = 0, len(data)
        while position < end:
            if self._step is _Step.SIZE:
                position = self._take_plain_chunks(data, position, pieces)
                if (after := self._read_size(data, position)) < 0:
                    break
                position = after
            elif self._step is _Step.PAYLOAD:
                piece = data[position : position + self._remaining]
                pieces.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._step = _Step.PAYLOAD_END
            elif self._step is _Step.PAYLOAD_END:
                ending = data[position : position + 2]
                if not b"\r\n".startswith(ending):
                    raise HttpError(self._status, "a chunk is longer than its size says")
                if len(ending) < 2:
                    break
                position += 2
                self._step = _Step.SIZE
            elif (after := self._read_trailers(data, position)) < 0:
                break
            else:
                return Decoded(pieces, True, data[after:])
        self._buffer = data[position:]
        return Decoded(pieces, False, b"")

    @staticmethod
    def _take_plain_chunks(data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take the chunks that are all there and have no extensions; return where they end."""
        while (match := _PLAIN_CHUNK_LINE.match(data, position)) is not None:
            start = match.end()
            end = start + int(match[1], 16)
            if end == start or data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[start:end])
            position = end + 2
        return position

    def _read_size(self, data: bytes, position: int) -> int:
        """Return where the line of a chunk's size ends; -1 while it is incomplete."""
        end = data.find(b"\n", position, position + MAX_CHUNK_LINE)
        line = data[position:end] if end >= 0 else data[position : position + MAX_CHUNK_LINE]
        if end < 0 and len(line) < MAX_CHUNK_LINE:
            return -1
        if end < 0:
            raise HttpError(self._status, f"the line of a chunk's size has more than {MAX_CHUNK_LINE} bytes")
        match = _CHUNK_LINE.fullmatch(line, 0, len(line) - 1) if line.endswith(b"\r") else None
        if match is None:
            raise HttpError(self._status, "the size of a chunk is not a hexadecimal number and CRLF")
        size, extension = match.groups()
        if extension:
            self._extensions += len(extension)
            if self._extensions > MAX_EXTENSIONS:
                raise HttpError(self._status, f"the chunks have more than {MAX_EXTENSIONS} bytes of extensions")
        self._remaining = int(size, 16)
        self._step = _Step.PAYLOAD if self._remaining else _Step.TRAILERS
        return end + 1

    def _read_trailers(self, data: bytes, position: int) -> int:
        """Return where the message ends; -1 while it is incomplete."""
        if data.startswith(b"\r\n", position):
            return position + 2
        limit = position + MAX_TRAILERS
        end = data.find(b"\r\n\r\n", position, limit)
        stop = limit if end < 0 else end + 4
        if data.count(b"\n", position, stop) != data.count(b"\r\n", position, stop):
            raise HttpError(self._status, "a line behind the last chunk ends in LF alone, not in CRLF")
        if end < 0:
            if len(data) >= limit:
                raise HttpError(self._status, f"the fields behind the body have more than {MAX_TRAILERS} bytes")
            return -1
        lines = decode_lines(data[position : end + 2], self._status)
        self.trailers = parse_trailers(lines[:-1], self._status)
        return end + 4


def decoder_of(framing: Framing, status: int) -> Decoder | None:
    """Return what reads a body; None when there is nothing to read.

    :param status: of the errors: 400 for a request, 502 for a response.
    """
    if framing.kind is Kind.LENGTH:
        return LengthDecoder(framing.length) if framing.length else None
    if framing.kind is Kind.CHUNKED:
        return ChunkedDecoder(status)
    return UntilCloseDecoder() if framing.kind is Kind.UNTIL_CLOSE else None


def encode_chunk(pieces: Iterable[bytes]) -> bytes:
    """Return one chunk with all of ``pieces``; nothing when they are empty, which would end the body."""
    payload = b"".join(pieces)
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def encode_last_chunk(trailers: Fields = ()) -> bytes:
    """Return what ends a chunked body."""
    if not trailers:
        return _LAST_CHUNK
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
    return b"0\r\n%b\r\n" % lines.encode("latin-1")
