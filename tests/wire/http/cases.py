"""A table of HTTP cases: what visitors send, and what becomes of it.

They are plain bytes, so that the same table is sent to the state machines, and through whole servers and clients. The
service of a :class:`Passed` waits for each step's ``forwarded`` before it gives the step's ``response``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunnelconsole.engine.wire.http.body import MAX_CHUNK_LINE, MAX_EXTENSIONS, MAX_TRAILERS
from tunnelconsole.engine.wire.http.head import MAX_FIELDS, MAX_HEAD, MAX_NAME, MAX_TARGET

HOST = "app.example.net"
"""Whom every request here is for, unless its name says something else."""

_ADDRESS, _SCHEME = b"@ADDRESS@", b"@SCHEME@"
_FORWARDING = (
    "X-Forwarded-For: @ADDRESS@",
    "X-Forwarded-Proto: @SCHEME@",
    "Forwarded: for=@ADDRESS@;host=@QUOTED@;proto=@SCHEME@",
    "X-Forwarded-Host: @HOST@",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One request at the service: its bytes, with marks for the visitor's address and scheme, and the answer."""

    forwarded: bytes
    response: bytes

    def forwarded_from(self, address: str, scheme: str) -> bytes:
        """What the service gets when the visitor comes from ``address`` (IPv4) by ``scheme``."""
        return self.forwarded.replace(_ADDRESS, address.encode()).replace(_SCHEME, scheme.encode())


@dataclass(frozen=True, slots=True)
class Passed:
    """Requests that go through."""

    name: str
    request: bytes
    steps: tuple[Step, ...]
    answer: bytes
    """All that the visitor gets."""
    closes: bool = False
    """Whether the visitor's connection is closed behind the answer."""
    service_closes: bool = False
    """Whether the service closes its connection behind the last response."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is refused with ``status``, after which the connection is closed."""

    name: str
    request: bytes
    status: int = 400


_CHUNK_LINE = re.compile(rb"([0-9a-f]+)\r\n")


def merged(stream: bytes) -> bytes:
    """``stream`` with the chunks of each body made one: how many there are is chance, as the reads were."""
    done = b""
    while stream:
        head_, end, stream = stream.partition(b"\r\n\r\n")
        done += head_ + end
        payload = b""
        while b"\r\nTransfer-Encoding: chunked" in head_ and (line := _CHUNK_LINE.match(stream)):
            size = int(line[1], 16)
            payload += stream[line.end() : line.end() + size]
            if not size:
                done += b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
                if stream.startswith(b"0\r\n\r\n"):
                    done, stream = done + b"0\r\n\r\n", stream[5:]
                else:
                    fields, end, stream = stream.partition(b"\r\n\r\n")
                    done += fields + end
                break
            stream = stream[line.end() + size + 2 :]
        if not end:
            break
    return done


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def request(*lines: str, first: str = "GET / HTTP/1.1", host: str = HOST) -> bytes:
    return head(first, f"Host: {host}", *lines)


def forwarded(*lines: str, first: str = "GET / HTTP/1.1", host: str = HOST, own: tuple[str, ...] = ()) -> bytes:
    """The head that the service gets: ``lines`` of the visitor, what we say of it, and ``own`` lines."""
    quoted = f'"{host}"' if ":" in host else host
    marked = head(first, f"Host: {host}", *lines, *_FORWARDING, *own).decode("latin-1")
    return marked.replace("@HOST@", host).replace("@QUOTED@", quoted).encode("latin-1")


OK = head("HTTP/1.1 200 OK", "Content-Length: 2") + b"ok"
CHUNKED = "Transfer-Encoding: chunked"
LENGTH = "Content-Length: 5"
POST = "POST /form HTTP/1.1"


def one(
    name: str,
    sent: bytes,
    at_service: bytes,
    response: bytes = OK,
    answer: bytes | None = None,
    *,
    closes: bool = False,
    service_closes: bool = False,
) -> Passed:
    """A case with one request; without ``answer`` the visitor gets the response as it is."""
    steps = (Step(at_service, response),)
    return Passed(name, sent, steps, response if answer is None else answer, closes, service_closes)


def _posted(name: str, lines: tuple[str, ...], body: bytes, own: str, as_sent_on: bytes) -> Passed:
    return one(name, request(*lines, first=POST) + body, forwarded(first=POST, own=(own,)) + as_sent_on)


def _answered(name: str, response: bytes, answer: bytes | None = None, first: str = "GET / HTTP/1.1") -> Passed:
    return one(name, request(first=first), forwarded(first=first), response, answer)


_CLOSED = head("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close") + b"ok"
_KEPT = head("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: keep-alive") + b"ok"
_HELLO_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
_HELLO_LENGTH = head("HTTP/1.1 200 OK", LENGTH) + b"hello"
_WEBSOCKET = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
_SWITCHING = head("HTTP/1.1 101 Switching Protocols", "Sec-WebSocket-Accept: s3p", "Upgrade: websocket", _WEBSOCKET[1])

PASSED: tuple[Passed, ...] = (
    one("a plain GET", request("Accept: */*"), forwarded("Accept: */*")),
    one(
        "fields keep their order and case",
        request("b: 1", "A: 2", "a: 3", "X-odd!#$%&'*+-.^_`|~1: 4", "Empty:", "Cookie:  two  words\t"),
        forwarded("b: 1", "A: 2", "a: 3", "X-odd!#$%&'*+-.^_`|~1: 4", "Empty: ", "Cookie: two  words"),
    ),
    one("bytes beyond ASCII", request("X-Name: J\xfcrgen"), forwarded("X-Name: J\xfcrgen")),
    one("an empty line before the request", b"\r\n" + request(), forwarded()),
    one("a method that few know", request(first="REPORT /dav HTTP/1.1"), forwarded(first="REPORT /dav HTTP/1.1")),
    one(
        "a target with what should have been escaped",
        request(first='GET /a%20b?q="x"|{y}[z]\\^`<>\xe9 HTTP/1.1'),
        forwarded(first='GET /a%20b?q="x"|{y}[z]\\^`<>\xe9 HTTP/1.1'),
    ),
    one("a host with a port", request(host=f"{HOST}:8080"), forwarded(host=f"{HOST}:8080")),
    one(
        "a URL as target wins over the host",
        request(first=f"GET http://{HOST}:8080/a?b HTTP/1.1", host="other.example.net"),
        forwarded(first="GET /a?b HTTP/1.1", host=f"{HOST}:8080"),
    ),
    one(
        "a URL without a path",
        request(first=f"GET HTTP://{HOST} HTTP/1.1"),
        forwarded(),
    ),
    one(
        "a URL with a query only",
        request(first=f"GET http://{HOST}?a=/ HTTP/1.1"),
        forwarded(first="GET /?a=/ HTTP/1.1"),
    ),
    one("OPTIONS for the server", request(first="OPTIONS * HTTP/1.1"), forwarded(first="OPTIONS * HTTP/1.1")),
    one(
        "OPTIONS for the server by URL",
        request(first=f"OPTIONS http://{HOST} HTTP/1.1"),
        forwarded(first="OPTIONS * HTTP/1.1"),
    ),
    # Fields of one connection, and who the visitor is.
    one(
        "fields of one connection are removed",
        request(
            "Keep-Alive: timeout=5",
            "Connection: keep-alive, X-Secret , ,x-other",
            "X-Secret: 1",
            "X-Other: 2",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic eDp5",
            "Proxy: http://evil.example",
            "TE: gzip",
            "Accept: */*",
        ),
        forwarded("Accept: */*"),
    ),
    one(
        "Connection cannot remove the host or what we say",
        request("Connection: host, x-forwarded-for, forwarded", "Accept: */*"),
        forwarded("Accept: */*"),
    ),
    one(
        "a stranger's word on who it is is dropped",
        request(
            "X-Forwarded-For: 10.0.0.1",
            "x-forwarded-proto: https",
            "X_Forwarded_For: 10.0.0.1",
            "X-Forwarded_Host: evil.example",
            "X-Forwarded-Host: evil.example",
            "X-Forwarded-Port: 443",
            "X-Real-IP: 10.0.0.1",
            "Forwarded: for=10.0.0.1",
        ),
        forwarded(),
    ),
    one(
        "trailers are asked for",
        request("TE: trailers, deflate;q=0.5", "Connection: TE"),
        forwarded(own=("TE: trailers", "Connection: TE")),
    ),
    one(
        "an upgrade to HTTP/2 is not passed on",
        request("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
        forwarded(),
    ),
    one(
        "an upgrade that the service does not take",
        request(*_WEBSOCKET),
        forwarded(_WEBSOCKET[2], own=_WEBSOCKET[:2]),
    ),
    # Staying and leaving.
    one("a visitor that closes", request("Connection: close"), forwarded(), OK, _CLOSED, closes=True),
    one("a visitor of HTTP/1.0", request(first="GET / HTTP/1.0"), forwarded(), OK, _CLOSED, closes=True),
    one(
        "a visitor of HTTP/1.0 that stays",
        request("Connection: Keep-Alive", first="GET / HTTP/1.0"),
        forwarded(),
        OK,
        _KEPT,
    ),
    one(
        "a service that closes",
        request(),
        forwarded(),
        head("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 2") + b"ok",
        OK,
        service_closes=True,
    ),
    one(
        "a service of HTTP/1.0",
        request(),
        forwarded(),
        head("HTTP/1.0 200 OK", "Server: x", "Content-Length: 2") + b"ok",
        head("HTTP/1.1 200 OK", "Server: x", "Content-Length: 2") + b"ok",
        service_closes=True,
    ),
    Passed(
        "pipelined requests are answered in order",
        request(first="GET /1 HTTP/1.1") + request(LENGTH, first=POST) + b"hello" + request(first="HEAD /3 HTTP/1.1"),
        (
            Step(forwarded(first="GET /1 HTTP/1.1"), OK),
            Step(forwarded(first=POST, own=(LENGTH,)) + b"hello", head("HTTP/1.1 204 No Content")),
            Step(forwarded(first="HEAD /3 HTTP/1.1"), head("HTTP/1.1 200 OK", LENGTH)),
        ),
        OK + head("HTTP/1.1 204 No Content") + head("HTTP/1.1 200 OK", LENGTH),
    ),
    # Bodies of requests.
    _posted("a body with a length", (LENGTH,), b"hello", LENGTH, b"hello"),
    _posted("a body of no bytes", ("Content-Length: 0",), b"", "Content-Length: 0", b""),
    _posted("a length with zeros before it", ("Content-Length: 0005",), b"hello", LENGTH, b"hello"),
    _posted("a chunked body", (CHUNKED,), _HELLO_CHUNKS, CHUNKED, _HELLO_CHUNKS),
    _posted("a chunked body of no bytes", ("Transfer-Encoding: Chunked",), b"000\r\n\r\n", CHUNKED, b"0\r\n\r\n"),
    _posted(
        "chunk extensions are dropped",
        (CHUNKED,),
        b'00005;a=1;b="\t\xff"\r\nhello\r\n0;c\r\n\r\n',
        CHUNKED,
        _HELLO_CHUNKS,
    ),
    _posted(
        "fields behind a body are passed on, those that decide something are not",
        (CHUNKED,),
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a\r\nx-b:2\r\n\r\n",
        CHUNKED,
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-b: 2\r\n\r\n",
    ),
    one(
        "a GET with a body",
        request(LENGTH) + b"hello",
        forwarded(own=(LENGTH,)) + b"hello",
    ),
    # Bodies of responses.
    _answered(
        "a response without a reason",
        head("HTTP/1.1 200", "Content-Length: 0"),
        head("HTTP/1.1 200 ", "Content-Length: 0"),
    ),
    _answered("a chunked response", head("HTTP/1.1 200 OK", CHUNKED) + _HELLO_CHUNKS),
    _answered(
        "a chunked response with fields behind it",
        head("HTTP/1.1 200 OK", "Trailer: X-Sum", CHUNKED) + b"5;x\r\nhello\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a\r\n\r\n",
        head("HTTP/1.1 200 OK", "Trailer: X-Sum", CHUNKED) + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    one(
        "a chunked response for HTTP/1.0",
        request("Connection: keep-alive", first="GET / HTTP/1.0"),
        forwarded(),
        head("HTTP/1.1 200 OK", CHUNKED) + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        head("HTTP/1.1 200 OK", "Connection: close") + b"hello",
        closes=True,
    ),
    one(
        "a response until the connection ends",
        request(),
        forwarded(),
        head("HTTP/1.1 200 OK", "Connection: close") + b"hello",
        head("HTTP/1.1 200 OK", CHUNKED) + _HELLO_CHUNKS,
        service_closes=True,
    ),
    one(
        "a response until the connection ends for HTTP/1.0",
        request("Connection: keep-alive", first="GET / HTTP/1.0"),
        forwarded(),
        head("HTTP/1.0 200 OK") + b"hello",
        head("HTTP/1.1 200 OK", "Connection: close") + b"hello",
        closes=True,
        service_closes=True,
    ),
    _answered("HEAD with a length", head("HTTP/1.1 200 OK", LENGTH), first="HEAD / HTTP/1.1"),
    _answered("HEAD of what would be chunked", head("HTTP/1.1 200 OK", CHUNKED), first="HEAD / HTTP/1.1"),
    _answered("HEAD without a length", head("HTTP/1.1 200 OK"), first="HEAD / HTTP/1.1"),
    _answered("204 has no body", head("HTTP/1.1 204 No Content", "Content-Length: 0"), head("HTTP/1.1 204 No Content")),
    _answered("304 has no body but may tell its length", head("HTTP/1.1 304 Not Modified", "ETag: x", LENGTH)),
    _answered(
        "fields of one connection are removed from a response",
        head(
            "HTTP/1.1 200 OK",
            "Connection: keep-alive, X-Mine",
            "Keep-Alive: timeout=5",
            "X-Mine: 1",
            "Upgrade: h2c",
            "Proxy-Authenticate: Basic",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            LENGTH,
        )
        + b"hello",
        head("HTTP/1.1 200 OK", "Set-Cookie: a=1", "Set-Cookie: b=2", LENGTH) + b"hello",
    ),
    _answered(
        "426 says to what",
        head("HTTP/1.1 426 Upgrade Required", "Upgrade: websocket", "Connection: Upgrade", "Content-Length: 0"),
        head("HTTP/1.1 426 Upgrade Required", "Upgrade: websocket", "Content-Length: 0", "Connection: Upgrade"),
    ),
    _answered("early hints", head("HTTP/1.1 103 Early Hints", "Link: </a.css>; rel=preload") + OK),
    one(
        "early hints are not for HTTP/1.0",
        request(first="GET / HTTP/1.0"),
        forwarded(),
        head("HTTP/1.1 103 Early Hints", "Link: </a.css>") + OK,
        _CLOSED,
        closes=True,
    ),
    one(
        "100-continue is asked for end to end",
        request("Expect: 100-Continue", LENGTH, first=POST) + b"hello",
        forwarded(first=POST, own=(LENGTH, "Expect: 100-continue")) + b"hello",
        head("HTTP/1.1 100 Continue") + OK,
    ),
    one(
        "HTTP/1.0 expects nothing",
        request("Expect: 100-continue", LENGTH, first="POST /form HTTP/1.0") + b"hello",
        forwarded(first=POST, own=(LENGTH,)) + b"hello",
        OK,
        _CLOSED,
        closes=True,
    ),
)

UPGRADE = one(
    "an upgrade to WebSocket",
    request(*_WEBSOCKET, "Sec-WebSocket-Version: 13") + b"\x81\x02hi",
    forwarded(_WEBSOCKET[2], "Sec-WebSocket-Version: 13", own=_WEBSOCKET[:2]),
    _SWITCHING + b"\x81\x05hello",
)
"""The service answers before it has the raw bytes behind the request; they come to it after that."""


def _bad_lines(*lines: str) -> tuple[Refused, ...]:
    return tuple(Refused(f"field {line!r}", request(line)) for line in lines)


def _bad_first(*firsts: str, status: int = 400) -> tuple[Refused, ...]:
    return tuple(Refused(f"first line {first[:40]!r}", request(first=first), status) for first in firsts)


def _bad_hosts(*hosts: str) -> tuple[Refused, ...]:
    return tuple(Refused(f"host {host[:40]!r}", request(host=host)) for host in hosts)


BAD_HEADS: tuple[Refused, ...] = (
    *_bad_first(
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / x HTTP/1.1",
        " GET / HTTP/1.1",
        "/ HTTP/1.1",
        "G=T / HTTP/1.1",
        "G\xcbT / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / HTTP/1",
        "GET / HTTP-1.1",
        "GET path HTTP/1.1",
        "GET /#fragment HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ftp://app.example.net/ HTTP/1.1",
        "GET http:/path HTTP/1.1",
        "GET http:///path HTTP/1.1",
        "GET http://user@app.example.net/ HTTP/1.1",
        "GET http://a,b/ HTTP/1.1",
        "CONNECT a:b:443 HTTP/1.1",
    ),
    *_bad_first("CONNECT app.example.net:443 HTTP/1.1", "CONNECT /path HTTP/1.1", status=405),
    *_bad_first("GET / HTTP/0.9", "GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/9.9", "PRI * HTTP/2.0", status=505),
    *_bad_first(f"GET /{'a' * MAX_TARGET} HTTP/1.1", status=414),
    *_bad_hosts(
        "",
        "a b",
        "a,b",
        "a/b",
        "u@a",
        "a:port",
        "a:1:2",
        "a:123456",
        "[::1",
        "::1",
        "[::g]",
        "[::1]x",
        "a?",
        "a\xe9",
        "a%00b",
        "'a'",
        "a" * 260,
    ),
    Refused("no host", head("GET / HTTP/1.1", "Accept: */*")),
    Refused("two hosts", request(f"Host: {HOST}")),
    Refused("two hosts in different case", request("hOST: other.example.net")),
    Refused("two hosts in HTTP/1.0", request("Host: other.example.net", first="GET / HTTP/1.0")),
    *_bad_lines(
        "X: a\nY: b",
        "X: a\rY: b",
        "X: a\x00b",
        "X: a\x01b",
        "X: a\x0bb",
        "X: a\x7fb",
        "X\x00: a",
        "X : a",
        "X\t: a",
        " X: a",
        "\tX: a",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "no colon",
        ": no name",
        "X Y: a",
        "X(Y): a",
        "X\xe9: a",
        '"X": a',
        "n" * (MAX_NAME + 1) + ": a",
    ),
    Refused("all lines end in LF alone", request().replace(b"\r\n", b"\n")),
    Refused("the last line ends in LF alone", request()[:-2] + b"\n"),
    Refused("CR CR LF", request("X: a\r")),
    Refused("two empty lines before the request", b"\r\n\r\n" + request()),
    Refused("TLS", bytes.fromhex("16030100f8010000f40303")),
    Refused("a blank line of blanks", b"  \r\n" + request()),
    Refused("too large a head", request("X: " + "a" * MAX_HEAD), 431),
    Refused("a head that never ends", request("X: " + "a" * MAX_HEAD)[:-4] + b"a" * 4, 431),
    Refused("too many fields", request(*["X: a"] * MAX_FIELDS), 431),
    Refused("an unknown expectation", request("Expect: a-miracle"), 417),
    Refused("two expectations", request("Expect: 100-continue", "Expect: 100-continue"), 417),
)

_SMUGGLED = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: app.example.net\r\n\r\n"


def _bad_framing(*lines: str, status: int = 400) -> Refused:
    return Refused(f"framed by {' and '.join(map(repr, lines))}", request(*lines, first=POST) + _SMUGGLED, status)


SMUGGLING: tuple[Refused, ...] = (
    # CL.TE and TE.CL: one of two programs in a row believes the length, the other the chunks.
    _bad_framing("Content-Length: 48", CHUNKED),
    _bad_framing(CHUNKED, "Content-Length: 5"),
    _bad_framing("Content-Length: 0", "transfer-encoding: CHUNKED"),
    _bad_framing("Content-Length: 5", "Transfer-Encoding: identity"),
    _bad_framing("Content-Length: 5", "Transfer-Encoding:"),
    # CL.CL
    _bad_framing("Content-Length: 5", "Content-Length: 5"),
    _bad_framing("Content-Length: 5", "Content-Length: 48"),
    _bad_framing("Content-Length: 0", "content-length: 48"),
    *(
        _bad_framing(f"Content-Length: {length}")
        for length in (
            "",
            "5,5",
            "5, 48",
            "+5",
            "-5",
            "-0",
            "0x5",
            "5.0",
            "5e0",
            "5 5",
            "5_0",
            "five",
            "\xb2",
            "1" * 19,
        )
    ),
    # TE.TE: one of them does not see that the body is chunked.
    *(
        _bad_framing(f"Transfer-Encoding: {coding}", status=501)
        for coding in ("identity", "xchunked", "gzip", "gzip, chunked", '"chunked"', "chunked;q=1", "chunked\xa0")
    ),
    *(
        _bad_framing(f"Transfer-Encoding: {coding}")
        for coding in (
            "",
            ",",
            ", chunked",
            "chunked,",
            "chunked, chunked",
            "chunked, identity",
            "chunked, x",
            "chunked, gzip, chunked",
            "\x0bchunked",
            "chunked\x00",
            "chunked\x0c",
            "\x7fchunked",
            "\r\n chunked",
            "\n chunked",
            "x\rchunked",
        )
    ),
    _bad_framing(CHUNKED, "Transfer-Encoding: identity"),
    _bad_framing("Transfer-Encoding: identity", CHUNKED, status=501),
    _bad_framing(CHUNKED, "Transfer-encoding: cow"),
    _bad_framing(CHUNKED, CHUNKED),
    _bad_framing("Transfer-Encoding : chunked"),
    _bad_framing("Transfer-Encoding\t: chunked"),
    _bad_framing(" Transfer-Encoding: chunked"),
    _bad_framing("X: a\nTransfer-Encoding: chunked"),
    _bad_framing("X: a\rTransfer-Encoding: chunked"),
    _bad_framing("Transfer-Encoding\n: chunked"),
    _bad_framing("Transfer-Encoding\x00: chunked"),
    _bad_framing("Transfer_Encoding: chunked"),
    _bad_framing("Content-Length: 5", "Transfer_Encoding: chunked"),
    _bad_framing("Content_Length: 5"),
    Refused("chunked in HTTP/1.0", request(CHUNKED, first="POST / HTTP/1.0") + _SMUGGLED),
    Refused("a GET with both", request("Content-Length: 5", CHUNKED) + _SMUGGLED),
)


def _bad_chunks(*bodies: bytes) -> tuple[Refused, ...]:
    return tuple(Refused(f"chunks {body[:50]!r}", request(CHUNKED, first=POST) + body) for body in bodies)


BAD_CHUNKS: tuple[Refused, ...] = (
    *_bad_chunks(
        b"\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\t\r\nhello\r\n0\r\n\r\n",
        b"5 ;a\r\nhello\r\n0\r\n\r\n",
        b"5,5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5h\r\nhello\r\n0\r\n\r\n",
        b"\xb2\r\nhello\r\n0\r\n\r\n",
        b"5\x00\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"1000000000000005\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"0" * MAX_CHUNK_LINE,
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\x00\r\nhello\r\n0\r\n\r\n",
        b'5;a="\n"\r\nhello\r\n0\r\n\r\n',
        b"5;" + b"a" * MAX_CHUNK_LINE + b"\r\nhello\r\n0\r\n\r\n",
        (b"1;" + b"a" * 200 + b"\r\nx\r\n") * (MAX_EXTENSIONS // 200 + 1),
        # A chunk that does not end where it says (the middle ones as in CVE-2025-43859).
        b"5\r\nhelloworld\r\n0\r\n\r\n",
        b"5\r\nhelloXX2\r\n45\r\n0\r\n\r\n",
        b"5\r\nhelloXX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\n\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"0\n\r\n",
        b"0\r\n\n",
        # Fields behind the body.
        b"0\r\nX: a\n\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\nX: a\r\n b\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nX: " + b"a" * MAX_TRAILERS + b"\r\n\r\n",
        b"0\r\n" + b"X: a\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    ),
)

REFUSED: tuple[Refused, ...] = BAD_HEADS + SMUGGLING + BAD_CHUNKS
