"""The SSH host that stands before a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.ssh_url import SSHURL, begins_with_ssh, format_ssh_url, parse_ssh_url


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ssh://gate", SSHURL("", "gate", None, None)),
        ("ssh://gate/", SSHURL("", "gate", None, "")),
        ("SSH://ops@Gate.Example.NET:2222", SSHURL("ops", "gate.example.net", 2222, None)),
        ("ssh://ops@gate/127.0.0.1:7000", SSHURL("ops", "gate", None, "127.0.0.1:7000")),
        ("ssh://gate:22/http://app.example.net:8080", SSHURL("", "gate", 22, "http://app.example.net:8080")),
        ("ssh://[::1]/x", SSHURL("", "::1", None, "x")),
        ("ssh://ops@[fe80::1]:2222/x", SSHURL("ops", "fe80::1", 2222, "x")),
    ],
)
def test_user_host_port_and_what_is_behind_are_read(text: str, meant: SSHURL) -> None:
    assert begins_with_ssh(text)
    assert parse_ssh_url(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ssh://", "names no host"),
        ("ssh:///x", "names no host"),
        ("ssh://ops@", "names no host"),
        ("ssh://@gate/x", "the user before the @"),
        ("ssh://o ps@gate/x", "the user before the @"),
        ("ssh://-l@gate/x", "the user before the @"),
        ("ssh://-oProxyCommand=x/y", "is not a host name"),
        ("ssh://gate:/x", "is not a number"),
        ("ssh://gate:ssh/x", "is not a number"),
        ("ssh://gate:70000/x", "not between 1 and 65535"),
        ("ssh://::1/x", "brackets"),
        ("ssh://[::g]/x", "is not an IPv6 address"),
        ("ssh://ga te/x", "is not a host name"),
        ("gate:22", "an SSH host is written as"),
    ],
)
def test_what_is_none_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_ssh_url(text)


@pytest.mark.parametrize("text", ["ssh://ops:hush@gate/x", "ssh://ops:hu@sh@gate", "ssh://:hush@gate:1/x"])
def test_a_password_has_no_place_in_it_and_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="takes no password") as caught:
        parse_ssh_url(text)
    assert "hush" not in str(caught.value)
    assert "sh@" not in str(caught.value).replace("user@", "")


@given(st.text())
def test_nothing_but_a_sentence_comes_of_any_text(text: str) -> None:
    try:
        url = parse_ssh_url(f"ssh://{text}")
    except ValueError as error:
        assert str(error)  # noqa: PT017 any of them will do
        return
    again = parse_ssh_url(format_ssh_url(url.user, url.host, url.port or 22))
    assert (again.user, again.host) == (url.user, url.host)
