"""Bodies as people read them."""

from __future__ import annotations

from exchange_rows import message
from tunnelconsole.control.bodies import pretty_text_of


def test_a_document_has_a_member_a_line() -> None:
    shown = message("HTTP/1.1 200 OK", "Content-Type: application/json", body=b'{"a":1,"b":[]}')
    assert pretty_text_of(shown) == '{\n  "a": 1,\n  "b": []\n}'


def test_a_document_that_is_nested_too_deeply_is_shown_as_it_is() -> None:
    text = "[" * 20_000 + "]" * 20_000
    assert pretty_text_of(message("HTTP/1.1 200 OK", "Content-Type: application/json", body=text.encode())) == text
