"""Secrets in what an inspector shows: which are hidden, and what is shown all the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ("Ocp-Apim-Subscription-Key", "abc", "[hidden]"),
        ("X-Functions-Key", "abc", "[hidden]"),
        ("Sec-WebSocket-Protocol", "bearer, abc", "bearer, [hidden]"),
        ("Sec-WebSocket-Protocol", "chat, base64url.bearer.authorization.k8s.io.YWJj", "[hidden], [hidden]"),
        ("Sec-Token-Binding", "abc", "[hidden]"),
        ("Cookie", 'a="b;c"; abc', "a=[hidden];[hidden]; [hidden]"),
        ("X-Goog-IAP", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "[hidden]"),
        ("Link", "<https://a/?token=abc>; rel=next", "<https://a/?token=[hidden]>; rel=next"),
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
        ("Sec-WebSocket-Protocol", "graphql-ws, chat"),
        ("Idempotency-Key", "7"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101"),
        ("Cache-Control", "no-store, max-age=0"),
        ("Date", "Wed, 21 Oct 2026 07:28:00 GMT"),
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
        ("/?PASSWORD=abc;x=token", "/?PASSWORD=[hidden]"),  # a semicolon may stand in a value
        ("/?a=1;token=abc&b=2", "/?a=1;token=[hidden]&b=2"),
        ("/user;token=abc/x;v=1?page=2", "/user;token=[hidden]/x;v=1?page=2"),
        ("/back?code=abc&state=1", "/back?code=[hidden]&state=1"),
        ("/?code=404&pin=1234", "/?code=404&pin=[hidden]"),
        ("/?next=https%3A%2F%2Fa%2F%3Ftoken%3Dabc", "/?next=https%3A%2F%2Fa%2F%3Ftoken%3D[hidden]"),
        ("/magic/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "/magic/[hidden]"),
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


JSON_SECRETS: list[tuple[str, str]] = [
    ('{"password":123456,"api_key":["X"],"otp":998877}',
     '{"password":"[hidden]","api_key":"[hidden]","otp":"[hidden]"}'),
    (r'{"tok\u0065n":"X","a":1}', r'{"tok\u0065n":"[hidden]","a":1}'),
    ('{"auth": {"user": "X"}, "b": [1, {"pin": 1}]}', '{"auth": "[hidden]", "b": [1, {"pin": "[hidden]"}]}'),
    (r'{"body": "{\"token\": \"X\", \"n\": 1}"}', r'{"body": "{\"token\": \"[hidden]\", \"n\": 1}"}'),
    (r'["{\"a\":\"{\\\"token\\\":\\\"X\\\"}\"}"]', r'["{\"a\":\"{\\\"token\\\":\\\"[hidden]\\\"}\"}"]'),
    ('{"url":"https://a/?token=X"}', '{"url":"https://a/?token=[hidden]"}'),
    ('{"form":"user=me&password=X"}', '{"form":"user=me&password=[hidden]"}'),
    ('[{"name":"password","value":"X"}]', '[{"name":"password","value":"[hidden]"}]'),
    ('[{"value":"X","name":"password"},{"name":"a","value":"b"}]',
     '[{"value":"[hidden]","name":"password"},{"name":"a","value":"b"}]'),
    ('{"code":"X","error":{"code":404}}', '{"code":"[hidden]","error":{"code":404}}'),
    ('{"password":null,"token":"","keys":[],"has_token":true}',
     '{"password":null,"token":"","keys":[],"has_token":true}'),
    ('{"a":1}\n{"token":"X"}\n', '{"a":1}\n{"token":"[hidden]"}\n'),
    ("{'token': 'X'}", "{[hidden]"),
    ('{"a":1,"token":', '{"a":1,"token":'),
    ('{"a":{"token":["X', '{"a":{"token":"[hidden]"'),
    ('{"body":"{\\"token\\":\\"X', '{"body":"{\\"token\\":\\"[hidden]'),
    (r'{"a\q":"X"}', r'{"a\q":"[hidden]"}'),
    (r'{"a":"\ud800","b":1}', r'{"a":"[hidden]","b":1}'),
    ('\ufeff{"token":"X"}', '\ufeff{"token":"[hidden]"}'),
    ("token=X", "token=[hidden]"),
    (")]}',\n{\"token\":\"X\"}", ")]}',\n{\"token\":\"[hidden]\"}"),
    ("null", "null"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "shown"), JSON_SECRETS)
def test_secrets_in_json_are_hidden_however_they_are_written(document: str, shown: str) -> None:
    assert Veil(lifted=False).body(document.encode(), "application/json").decode() == shown


def test_json_that_is_nested_without_end_is_hidden() -> None:
    document = b"[" * 60_000 + b'{"token":"X"}'
    assert b"X" not in Veil(lifted=False).body(document, "application/json")


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ("<a><Password>X</Password><b>c</b></a>", "<a><Password>[hidden]</Password><b>c</b></a>"),
        ('<w:Password Type="text">X</w:Password>', '<w:Password Type="text">[hidden]</w:Password>'),
        ('<user name="me" password="X"/>', '<user name="me" password="[hidden]"/>'),
        ('<property name="db.password" value="X"/><b/>', '<property name="db.password" value="[hidden]"/><b/>'),
        ('<entry key="token">X<i>X</i></entry><b>c</b>', '<entry key="token">[hidden]</entry><b>c</b>'),
        ("<member><name>password</name><value><string>X</string></value></member>",
         "<member><name>password</name><value>[hidden]</value></member>"),
        ("<pin><pin>X</pin>X</pin>c", "<pin>[hidden]</pin>c"),
        ("<token><![CDATA[</token>X]]></token>", "<token>[hidden]</token>"),
        ("<a><![CDATA[{\"token\":\"X\"}]]></a>", "<a><![CDATA[{\"token\":\"[hidden]\"}]]></a>"),
        ("<!-- token=X --><a/>", "<!-- token=[hidden]--><a/>"),
        ('<a>{&quot;token&quot;:&quot;X&quot;}</a>', '<a>{"token":"[hidden]"}</a>'),
        ("<a><token>X", "<a><token>[hidden]"),
        ('<a password="X', '<a password="[hidden]'),
        ('<a href="/?token=X&amp;b=1">c</a>', '<a href="/?token=[hidden]&amp;b=1">c</a>'),
    ],
)  # fmt: skip
def test_secrets_in_xml_are_hidden(document: str, shown: str) -> None:
    assert Veil(lifted=False).body(document.encode(), "application/soap+xml; charset=utf-8").decode() == shown


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ('<input type="hidden" name="csrf_token" value="X"><p>c',
         '<input type="hidden" name="csrf_token" value="[hidden]"><p>c'),
        ("<input type=password value=X>", '<input type=password value="[hidden]">'),
        ('<meta name="csrf-token" content="X">', '<meta name="csrf-token" content="[hidden]">'),
        ('<script>if (a<b) { token = "X"; n(token) }</script><p id="token">c</p>',
         '<script>if (a<b) { token = "[hidden]"; n(token) }</script><p id="token">c</p>'),
        ('<script type="application/json">{"token":"X"}</script>',
         '<script type="application/json">{"token":"[hidden]"}</script>'),
        ("<code>c</code><p>API key: X</p>", "<code>c</code><p>API key: [hidden]</p>"),
    ],
)  # fmt: skip
def test_secrets_in_a_page_are_hidden(document: str, shown: str) -> None:
    assert Veil(lifted=False).body(document.encode(), "text/html").decode() == shown


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("text/plain", '{"token": "X"}', '{"token": "[hidden]"}'),
        ("text/plain", "user=me&password=X", "user=me&password=[hidden]"),
        ("", "token=X", "token=[hidden]"),
        ("text/plain", "GET / HTTP/1.1\nAuthorization: Bearer X\nA: b",
         "GET / HTTP/1.1\nAuthorization: [hidden]\nA: b"),
        ("text/plain", "at 12:30 said api_key='X', n=1", "at 12:30 said api_key='[hidden]', n=1"),
        ("application/yaml", "user: me\npassword: X of Y\nn: 1", "user: me\npassword: [hidden]\nn: 1"),
        ("text/plain", "-----BEGIN PRIVATE KEY-----\nX\n-----END PRIVATE KEY-----\n", "[hidden]\n"),
        ("text/javascript", 'const token = "X"; f(token, pass: g)', 'const token = "[hidden]"; f(token, pass: g)'),
        ("text/event-stream", 'id: 1\ndata: {"token":"X"}\n\n', 'id: 1\ndata: {"token":"[hidden]"}\n\n'),
        ("text/csv", "user,password\nme,X\n", "user,password\n[hidden]"),
        ("text/csv", "user,n\nme,1\n", "user,n\nme,1\n"),
        ("text/plain", "nothing to hide", "nothing to hide"),
        ("application/x-www-form-urlencoded", "pin=1;2#3&a=b", "pin=[hidden]&a=b"),
        ("application/x-www-form-urlencoded", "payload=%7B%22token%22%3A%22X%22%7D",
         "payload=%7B%22token%22%3A%22[hidden]%22%7D"),
        ("application/x-www-form-urlencoded", "grant_type=a&code=X&client_secret=X",
         "grant_type=a&code=[hidden]&client_secret=[hidden]"),
    ],
)  # fmt: skip
def test_secrets_in_other_text_are_hidden(kind: str, text: str, shown: str) -> None:
    assert Veil(lifted=False).body(text.encode(), kind).decode() == shown


def test_secrets_in_text_of_another_encoding_are_hidden() -> None:
    for charset in ("utf-16", "utf-16-le"):
        shown = Veil(lifted=False).body('{"token": "X"}'.encode(charset), f"application/json; charset={charset}")
        assert shown.decode(charset) == '{"token": "[hidden]"}'


def test_a_part_of_a_form_is_looked_into_by_its_type() -> None:
    head = b"--B\r\nContent-Disposition: form-data; name=data\r\nContent-Type: application/json\r\n\r\n"
    part = head + b'{"pin":%b}\r\n--B--\r\n'
    assert Veil(lifted=False).body(part % b"1234", "multipart/form-data; boundary=B") == part % b'"[hidden]"'
    assert Veil(lifted=False).body(part % b"1234", "multipart/form-data") == b"[hidden]"


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/grpc", "", "text/plain"])
def test_a_body_that_cannot_be_looked_into_is_hidden(kind: str) -> None:
    veil = Veil(lifted=False)
    assert veil.body(b"\x00\xfftoken\x01X", kind) == b"[hidden]"
    assert veil.hidden == 1


def test_pictures_are_shown() -> None:
    assert Veil(lifted=False).body(b"\x89PNG\x00token=", "image/png") == b"\x89PNG\x00token="


NAMES = st.sampled_from(["token", "user_password", "apiKey", "X-Api-Key", "otp"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | NAMES, inner, max_size=3),
    max_leaves=12,
)


@given(DOCUMENTS, NAMES, st.integers(0, 3), st.booleans())
def test_no_secret_of_any_document_is_shown_and_what_is_shown_is_json(
    document: object, name: str, depth: int, ascii_only: bool
) -> None:
    secret = "hush" * 3
    inside: object = {name: secret, "beside": [1, {"x": secret[:4]}]}
    for _ in range(depth):
        inside = {"inner": json.dumps(inside, ensure_ascii=ascii_only)}
    text = json.dumps([document, inside], ensure_ascii=ascii_only).encode()
    shown = Veil(lifted=False).body(text, "application/json")
    assert secret.encode() not in shown
    json.loads(shown)
    for end in range(0, len(text), 7):
        assert secret.encode() not in Veil(lifted=False).body(text[:end], "application/json")


KINDS = st.sampled_from([
    "application/json", "text/xml", "text/html", "text/plain", "text/csv", "text/event-stream", "", "text/javascript",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=a",
])  # fmt: skip
PIECES = st.sampled_from([
    '{"token":', '"', "\\", "\\u00", "<token>", "</token>", "<a b='", "=", "&", ";", "--a\r\n", "\r\n\r\n", "[", "]",
    "}", ",", ":", "<![CDATA[", "<!--", "password", "name", "\x00", "é", "{", "'", "\n", "data: ",
])  # fmt: skip


@given(st.lists(PIECES, max_size=30), KINDS)
def test_whatever_comes_is_shown_somehow(pieces: list[str], kind: str) -> None:
    body = "".join(pieces).encode()
    assert Veil(lifted=True).body(body, kind) == body
    Veil(lifted=False).body(body, kind)
    Veil(lifted=False).field("X-A", "".join(pieces))


def test_a_lifted_veil_hides_nothing() -> None:
    veil = Veil(lifted=True)
    assert veil.url("/?token=abc") == "/?token=abc"
    assert veil.body(b"token=abc", "application/x-www-form-urlencoded") == b"token=abc"
    assert not veil.hidden
