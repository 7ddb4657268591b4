"""What is done to heads on their way, beyond the table of cases."""

from __future__ import annotations

import pytest

from tunnelconsole.engine.wire.http.answer import phrase_of, status_page
from tunnelconsole.engine.wire.http.body import CHUNKED, NO_BODY, Framing, Kind, request_framing, response_framing
from tunnelconsole.engine.wire.http.forward import (
    ADDED_BYTES,
    ADDED_FIELDS,
    Peer,
    asks_for_upgrade,
    forward_request,
    forward_response,
    host_name,
    keeps_open,
    route_of,
    with_host,
)
from tunnelconsole.engine.wire.http.head import MAX_FIELDS, parse_request, parse_response
from wire.http.cases import head, request

STRANGER = Peer("192.0.2.7", "http")
TRUSTED = Peer("10.0.0.1", "http", trusted=True)


def sent_on(data: bytes, peer: Peer = STRANGER, *, host: str = "", keep: bool = True) -> list[str]:
    """The lines of a request's head as a service gets them."""
    parsed = parse_request(data)
    framing = request_framing(parsed)
    upgrade = asks_for_upgrade(parsed, framing)
    return (
        forward_request(parsed, route_of(parsed), peer, framing, host=host, keep=keep, upgrade=upgrade)
        .decode("latin-1")
        .split("\r\n")
    )


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("App.Example.NET", "app.example.net"),
        ("app.example.net:8080", "app.example.net"),
        ("app.example.net.:8080", "app.example.net"),
        ("app.example.net:", "app.example.net"),
        ("[2001:DB8::1]:80", "2001:db8::1"),
        ("[::1]", "::1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_tunnel_is_chosen_by_the_name_alone(host: str, name: str) -> None:
    assert host_name(host) == name
    assert route_of(parse_request(request(host=host))).name == name


def test_a_url_decides_over_the_host() -> None:
    route = route_of(parse_request(request(first="GET http://APP.example.net:80/x HTTP/1.1", host="other.example")))
    assert (route.host, route.name, route.target) == ("APP.example.net:80", "app.example.net", "/x")


def test_http_1_0_may_be_for_nobody() -> None:
    assert route_of(parse_request(head("GET / HTTP/1.0"))).name == ""


def test_the_visitor_is_named_to_the_service() -> None:
    lines = sent_on(request(host="app.example.net:8080"), Peer("2001:db8::7", "https"))
    assert "X-Forwarded-For: 2001:db8::7" in lines
    assert "X-Forwarded-Proto: https" in lines
    assert "X-Forwarded-Host: app.example.net:8080" in lines
    assert 'Forwarded: for="[2001:db8::7]";host="app.example.net:8080";proto=https' in lines


def test_a_trusted_proxy_is_believed_and_added_to() -> None:
    lines = sent_on(
        request(
            "X-Forwarded-For: 192.0.2.7",
            "x-forwarded-for: 10.0.0.9",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: www.example.net",
            "X-Forwarded-Port: 443",
            "X-Real-IP: 192.0.2.7",
            "Forwarded: for=192.0.2.7;proto=https",
        ),
        TRUSTED,
    )
    assert "X-Forwarded-For: 192.0.2.7, 10.0.0.9, 10.0.0.1" in lines
    assert "X-Forwarded-Proto: https" in lines
    assert "X-Forwarded-Host: www.example.net" in lines
    assert "Forwarded: for=192.0.2.7;proto=https, for=10.0.0.1;host=app.example.net;proto=http" in lines
    assert {"X-Forwarded-Port: 443", "X-Real-IP: 192.0.2.7"} <= set(lines)
    assert sum(line.lower().startswith("x-forwarded-for") for line in lines) == 1


@pytest.mark.parametrize("said", ["for=[2001:db8::7]", 'for="a', "for=a;;", ",", "for", "for=a, =b", 'for="a"b'])
def test_what_cannot_be_read_of_a_trusted_proxys_word_is_not_passed_on_before_ours(said: str) -> None:
    lines = sent_on(request(f"Forwarded: {said}"), TRUSTED)
    assert "Forwarded: for=10.0.0.1;host=app.example.net;proto=http" in lines


@pytest.mark.parametrize("said", ['for="[2001:db8::7]:1"; by=_x ,for=unknown', 'for=a;host="b\\"c"'])
def test_what_can_be_read_of_a_trusted_proxys_word_stands_before_ours(said: str) -> None:
    lines = sent_on(request(f"Forwarded: {said}"), TRUSTED)
    assert f"Forwarded: {said}, for=10.0.0.1;host=app.example.net;proto=http" in lines


def test_a_trusted_proxy_that_says_nothing_is_the_visitor() -> None:
    lines = sent_on(request(), TRUSTED)
    assert "X-Forwarded-For: 10.0.0.1" in lines
    assert "X-Forwarded-Host: app.example.net" in lines


def test_a_service_can_be_told_another_host() -> None:
    lines = sent_on(request(), host="localhost:3000")
    assert lines[1] == "Host: localhost:3000"
    assert "X-Forwarded-Host: app.example.net" in lines


def test_a_service_can_be_asked_to_close() -> None:
    assert "Connection: close" in sent_on(request("Connection: keep-alive"), keep=False)
    assert not any(line.startswith("Connection") for line in sent_on(request("Connection: keep-alive")))


def test_a_service_always_hears_http_1_1() -> None:
    assert sent_on(head("GET / HTTP/1.0", "Host: a"))[0] == "GET / HTTP/1.1"


@pytest.mark.parametrize(
    ("first", "lines", "asks"),
    [
        ("GET / HTTP/1.1", ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"], True),
        ("GET / HTTP/1.1", ["Connection: Upgrade", "Upgrade: h2c"], False),
        ("GET / HTTP/1.1", ["Connection: Upgrade", "Upgrade: websocket, h2c"], False),
        ("GET / HTTP/1.1", ["Connection: keep-alive", "Upgrade: websocket"], False),
        ("GET / HTTP/1.1", ["Upgrade: websocket"], False),
        ("GET / HTTP/1.0", ["Connection: Upgrade", "Upgrade: websocket"], False),
        ("POST / HTTP/1.1", ["Connection: Upgrade", "Upgrade: websocket"], False),
        ("GET / HTTP/1.1", ["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5"], False),
    ],
)
def test_only_an_upgrade_to_websocket_is_passed_on(first: str, lines: list[str], asks: bool) -> None:
    assert ("Upgrade: websocket" in sent_on(request(*lines, first=first))) is asks


@pytest.mark.parametrize(
    ("first", "lines", "keeps"),
    [
        ("HTTP/1.1 200 OK", [], True),
        ("HTTP/1.1 200 OK", ["Connection: close"], False),
        ("HTTP/1.1 200 OK", ["Connection: x, Close"], False),
        ("HTTP/1.1 200 OK", ["Connection: x", "Connection: close"], False),
        ("HTTP/1.0 200 OK", [], False),
        ("HTTP/1.0 200 OK", ["Connection: Keep-Alive"], True),
        ("HTTP/1.0 200 OK", ["Connection: keep-alive, close"], False),
    ],
)
def test_who_keeps_its_connection_open(first: str, lines: list[str], keeps: bool) -> None:
    assert keeps_open(parse_response(head(first, *lines))) is keeps


def test_a_response_is_framed_as_it_is_passed_on() -> None:
    parsed = parse_response(head("HTTP/1.1 200 OK", "Content-Length: 5", "ETag: x"))
    assert forward_response(parsed, CHUNKED) == head("HTTP/1.1 200 OK", "ETag: x", "Transfer-Encoding: chunked")
    assert forward_response(parsed, Framing(Kind.LENGTH, 7), connection="close") == head(
        "HTTP/1.1 200 OK", "ETag: x", "Content-Length: 7", "Connection: close"
    )


def test_http_1_0_never_hears_of_chunks() -> None:
    parsed = parse_response(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
    framing = response_framing("HEAD", parsed)
    assert forward_response(parsed, framing, minor=0) == head("HTTP/1.1 200 OK")
    assert b"chunked" in forward_response(parsed, framing)


@pytest.mark.parametrize("status", [100, 103, 204])
def test_what_cannot_have_a_body_says_nothing_of_its_length(status: int) -> None:
    parsed = parse_response(head(f"HTTP/1.1 {status} x", "Content-Length: 5"))
    assert forward_response(parsed, NO_BODY) == head(f"HTTP/1.1 {status} x")


def test_only_the_host_of_a_head_can_be_changed() -> None:
    data = head("GET /a HTTP/1.0", "X: 1", "hOST: a", "Connection: close, Y", "Y: 2")
    assert with_host(parse_request(data), "localhost:3000") == head(
        "GET /a HTTP/1.0", "Host: localhost:3000", "X: 1", "Connection: close, Y", "Y: 2"
    )


def test_a_page_of_our_own_is_plain_and_short() -> None:
    assert status_page(429, "too many requests per second", connection="close", fields=[("Retry-After", "1")]) == (
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Cache-Control: no-store\r\nContent-Length: 52\r\nConnection: close\r\n\r\n"
        b"429 Too Many Requests\n\ntoo many requests per second\n"
    )


def test_the_answer_to_head_only_tells_the_length_of_the_page() -> None:
    page = status_page(404, "no tunnel", body=False)
    assert page.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 25\r\n" in page


def test_every_status_has_a_phrase() -> None:
    assert phrase_of(504) == "Gateway Timeout"
    assert phrase_of(414) == "URI Too Long"
    assert phrase_of(599) == "Error"


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("first", [f"GET http://{'a.' * 126}b:65535 HTTP/1.0", "GET / HTTP/1.1"])
def test_what_is_added_stays_within_its_limits(trusted: bool, first: str) -> None:
    host = [f"Host:{'a.' * 126}b:65535"] if first.endswith("1.1") else []
    own = [*host, "TE:trailers", "Connection:Upgrade,TE", "Upgrade:websocket"]
    came = head(first, *own, *["X:a"] * (MAX_FIELDS - len(own)))
    parsed = parse_request(came)
    peer = Peer("1111:2222:3333:4444:5555:6666:255.255.255.255", "https", trusted)
    sent = forward_request(
        parsed, route_of(parsed), peer, NO_BODY, keep=False, upgrade=asks_for_upgrade(parsed, NO_BODY)
    )
    assert sent.count(b"\r\n") - came.count(b"\r\n") <= ADDED_FIELDS
    assert len(sent) - len(came) <= ADDED_BYTES
