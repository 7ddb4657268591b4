"""Secrets in what an inspector shows: which are hidden, and what is shown all the same."""

from __future__ import annotations

import json

import pytest

from tunnelconsole.control.hiding import Veil


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", "Bearer abc.def", "Bearer [hidden]"),
        ("authorization", "Basic dXNlcjpwdw==", "Basic [hidden]"),
        ("AUTHORIZATION", "naked", "[hidden]"),
        ("Proxy-Authorization", 'Digest username="a", response="b"', "Digest [hidden]"),
        ("Cookie", "sid=abc; theme=dark; empty=", "sid=[hidden]; theme=[hidden]; empty="),
        ("Set-Cookie", "sid=abc; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT; HttpOnly",
         "sid=[hidden]; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT; HttpOnly"),
        ("X-Api-Key", "abc", "[hidden]"),
        ("X-Auth-Token", "abc", "[hidden]"),
        ("X-Amz-Security-Token", "abc", "[hidden]"),
        ("X-CSRFToken", "abc", "[hidden]"),
        ("X-Hub-Signature-256", "sha256=abc", "[hidden]"),
        ("Referer", "https://a.example/x?token=abc&page=2#t", "https://a.example/x?token=[hidden]&page=2#t"),
        ("Location", "/done?a=1#access_token=abc&kind=x", "/done?a=1#access_token=[hidden]&kind=x"),
        ("Location", "https://user:pw@a.example/?key=1", "https://[hidden]@a.example/?key=[hidden]"),
    ],
)  # fmt: skip
def test_secrets_in_heads_are_hidden(name: str, value: str, shown: str) -> None:
    veil = Veil(lifted=False)
    assert veil.field(name, value) == shown
    assert veil.hidden == shown.count("[hidden]")
    assert Veil(lifted=True).field(name, value) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Accept", "application/json"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Access-Control-Allow-Credentials", "true"),
        ("WWW-Authenticate", 'Bearer realm="token"'),
        ("Authorization", ""),
        ("Author", "Sid"),
        ("Content-Location", "/tokens/7?monkey=yes"),
    ],
)
def test_what_is_no_secret_is_shown(name: str, value: str) -> None:
    veil = Veil(lifted=False)
    assert veil.field(name, value) == value
    assert not veil.hidden


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/token/abc", "/token/abc"),
        ("/?token=abc", "/?token=[hidden]"),
        ("/?a=1&api%5Fkey=abc&b", "/?a=1&api%5Fkey=[hidden]&b"),
        ("/?PASSWORD=abc;x=token", "/?PASSWORD=[hidden];x=token"),
        ("/?refresh_token=a=b", "/?refresh_token=[hidden]"),
        ("/?token=", "/?token="),
        ("*", "*"),
    ],
)
def test_secrets_in_a_path_are_hidden(target: str, shown: str) -> None:
    assert Veil(lifted=False).url(target) == shown


def test_secrets_in_forms_are_hidden() -> None:
    veil = Veil(lifted=False)
    kind = "application/x-www-form-urlencoded; charset=utf-8"
    assert veil.body(b"user=a&password=b%26c&x=1", kind) == b"user=a&password=[hidden]&x=1"
    parts = b'--B\r\nContent-Disposition: form-data; name="%b"\r\nX: y\r\n\r\n%b\r\n--B--\r\n'
    assert veil.body(parts % (b"password", b"abc\r\ndef"), "multipart/form-data; boundary=B") == (
        parts % (b"password", b"[hidden]")
    )
    assert veil.body(parts % (b"user", b"abc"), "multipart/form-data; boundary=B") == parts % (b"user", b"abc")
    assert veil.hidden == 2


def test_secrets_in_json_are_hidden() -> None:
    document = {"user": "a", "accessToken": 'b"\\c', "list": ["token", "x"], "inner": {"client_secret": "é"}, "n": 1}
    shown = json.loads(Veil(lifted=False).body(json.dumps(document, ensure_ascii=False).encode(), "application/json"))
    assert shown == document | {"accessToken": "[hidden]", "inner": {"client_secret": "[hidden]"}}


def test_secrets_in_json_that_was_cut_off_are_hidden() -> None:
    assert Veil(lifted=False).body(b'{"a": "b", "token" : "abc', "application/problem+json") == (
        b'{"a": "b", "token" : "[hidden]'
    )


@pytest.mark.parametrize("kind", ["text/plain", "", "image/png"])
def test_other_bodies_are_shown(kind: str) -> None:
    assert Veil(lifted=False).body(b'{"token": "abc"} token=abc', kind) == b'{"token": "abc"} token=abc'


def test_a_lifted_veil_hides_nothing() -> None:
    veil = Veil(lifted=True)
    assert veil.url("/?token=abc") == "/?token=abc"
    assert veil.body(b"token=abc", "application/x-www-form-urlencoded") == b"token=abc"
    assert not veil.hidden
