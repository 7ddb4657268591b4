"""What a service says of its own address, when it was told another host."""

from __future__ import annotations

import pytest

from tunnelconsole.engine.wire.http.head import ResponseHead, parse_response
from tunnelconsole.engine.wire.http.told_host import PublicURL, ToldHost

PUBLIC = PublicURL("https", "app.example.net:8443")
TOLD = ToldHost("shop.local", "localhost", 3000)


def answer(*fields: str) -> ResponseHead:
    return parse_response("\r\n".join(("HTTP/1.1 302 Found", *fields, "", "")).encode())


def passed(field: str, told: ToldHost = TOLD, public: PublicURL = PUBLIC) -> str:
    """What becomes of one field."""
    (made,) = told.made_public(answer(field), public).fields
    return ": ".join(made)


@pytest.mark.parametrize("name", ["Location", "content-location"])
@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("http://shop.local/a?b=http://shop.local/#c", "https://app.example.net:8443/a?b=http://shop.local/#c"),
        ("http://shop.local", "https://app.example.net:8443"),
        ("http://shop.local?x", "https://app.example.net:8443?x"),
        ("HTTP://Shop.Local:80/", "https://app.example.net:8443/"),
        ("http://shop.local.:3000/", "https://app.example.net:8443/"),
        ("https://shop.local/", "https://app.example.net:8443/"),
        ("//shop.local/x", "//app.example.net:8443/x"),
        ("http://localhost:3000/", "https://app.example.net:8443/"),
        ("http://127.0.0.1:3000/", "https://app.example.net:8443/"),
        ("http://[::1]:3000/", "https://app.example.net:8443/"),
    ],
)
def test_a_url_of_the_service_itself_leads_to_the_public_one(name: str, url: str, becomes: str) -> None:
    assert passed(f"{name}: {url}") == f"{name}: {becomes}"


@pytest.mark.parametrize(
    "url",
    [
        "/a",
        "a/b",
        "",
        "http:/shop.local/",
        "http://other.example/?to=http://shop.local/",
        "http://shop.local.evil/",
        "http://shop.local:3001/",
        "http://localhost/",
        "http://localhost:3001/",
        "http://user@shop.local/",
        "http://shop.local@evil/",
        "http://shop.local\\@evil/",
        "http://[shop.local/",
        "ftp://shop.local/",
    ],
)
def test_every_other_url_stays(url: str) -> None:
    assert passed(f"Location: {url}") == f"Location: {url}"


def test_who_came_by_http_is_led_to_https_where_the_service_wants_that() -> None:
    for host in ("app.example.net:8080", "app.example.net"):
        public = PublicURL("http", host)
        assert passed("Location: https://shop.local/a", public=public) == "Location: https://app.example.net/a"
        assert passed("Location: http://shop.local/a", public=public) == f"Location: http://{host}/a"
    public = PublicURL("http", "[::1]:8080")
    assert passed("Location: https://shop.local/a", public=public) == "Location: https://[::1]/a"


def test_a_host_with_a_port_is_meant_with_that_port_or_the_services_own() -> None:
    told = ToldHost("shop.local:81", "10.0.0.1", 3000)
    for meant in ("shop.local:81", "shop.local:3000", "10.0.0.1:3000"):
        assert passed(f"Location: http://{meant}/", told) == "Location: https://app.example.net:8443/"
    for other in ("shop.local", "10.0.0.1", "10.0.0.1:81", "127.0.0.1:3000"):
        assert passed(f"Location: http://{other}/", told) == f"Location: http://{other}/"


@pytest.mark.parametrize(
    ("cookie", "becomes"),
    [
        ("a=b; Domain=shop.local; Path=/", "a=b; Domain=app.example.net; Path=/"),
        ("a=b;domain = .Shop.local", "a=b;domain =app.example.net"),
        ("domain=shop.local; Secure", "domain=shop.local; Secure"),
        ("a=b; Domain=local", "a=b; Domain=local"),
        ("a=b; Domain=www.shop.local", "a=b; Domain=www.shop.local"),
        ("a=b; Domain=", "a=b; Domain="),
        ("a=b; Domain=localhost", "a=b; Domain=localhost"),
    ],
)
def test_a_cookies_domain_is_the_public_one_only_where_it_is_the_host_that_was_told(cookie: str, becomes: str) -> None:
    assert passed(f"Set-Cookie: {cookie}") == f"Set-Cookie: {becomes}"


def test_what_says_nothing_of_an_address_is_the_same_head() -> None:
    head = answer("Server: x", "X-Location: http://shop.local/")
    assert TOLD.made_public(head, PUBLIC) is head


def test_repeated_fields_and_their_order_stay() -> None:
    head = answer(
        "A: 1", "Set-Cookie: a=b; Domain=shop.local", "B: 2", "Set-Cookie: c=d", "Location: http://shop.local/"
    )
    assert [value for _, value in TOLD.made_public(head, PUBLIC).fields] == [
        "1",
        "a=b; Domain=app.example.net",
        "2",
        "c=d",
        "https://app.example.net:8443/",
    ]
