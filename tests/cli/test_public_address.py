"""``--public-from``: who is asked for the public address, over HTTP and nothing else."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ports import steady_port
from tunnelconsole.cli.punching import _fetch
from tunnelconsole.errors import ConnectFailed

Respond = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def answering(respond: Respond) -> Iterator[str]:
    """The URL of somebody who answers so."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def leads_to(url: str) -> Respond:
    """Redirects there."""

    def respond(answer: http.server.BaseHTTPRequestHandler) -> None:
        answer.send_response(302)
        answer.send_header("Location", url)
        answer.end_headers()

    return respond


def told(answer: http.server.BaseHTTPRequestHandler) -> None:
    """An address."""
    answer.send_response(200)
    answer.end_headers()
    answer.wfile.write(b"203.0.113.9\n")


def garbage(answer: http.server.BaseHTTPRequestHandler) -> None:
    """What is no HTTP."""
    answer.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def missing(answer: http.server.BaseHTTPRequestHandler) -> None:
    """Nothing is there."""
    answer.send_error(404)


def test_a_redirect_within_the_web_is_followed() -> None:
    with answering(told) as there, answering(leads_to(there)) as url:
        assert _fetch(url) == "203.0.113.9\n"


@pytest.mark.parametrize("elsewhere", ["file:///etc/hostname", "ftp://127.0.0.1/address", "gopher://127.0.0.1/"])
def test_a_redirect_out_of_the_web_is_not(elsewhere: str) -> None:
    with answering(leads_to(elsewhere)) as url:
        with pytest.raises(ConnectFailed) as caught:
            _fetch(url)
        assert str(caught.value).startswith(f"cannot ask {url} for the public address: ")


@pytest.mark.parametrize(("respond", "reason"), [(missing, "it answers 404"), (garbage, "what it answers is no HTTP")])
def test_an_answer_that_is_none_is_told_in_our_own_words(respond: Respond, reason: str) -> None:
    with answering(respond) as url, pytest.raises(ConnectFailed) as caught:
        _fetch(url)
    assert str(caught.value).endswith(f"for the public address: {reason}")


def test_who_does_not_answer_is_named() -> None:
    port = steady_port()
    with pytest.raises(ConnectFailed) as caught:
        _fetch(f"http://127.0.0.1:{port}/")
    assert str(caught.value) == f"cannot ask http://127.0.0.1:{port}/ for the public address: connection refused"


def test_who_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.cli.punching.PROVIDER_TIME", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectFailed) as caught:
        _fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/")
    assert str(caught.value).endswith("for the public address: no answer within 0.05 s")
