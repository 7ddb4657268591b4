"""A request as a command of curl: pasted into a shell, it sends the same request again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from exchange_rows import exchange, message
from tunnelconsole.control.curl import NotRepeatable, curl_of
from tunnelconsole.control.exchange_rows import HttpMessage

SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "ksh", "busybox") if shutil.which(shell)]

EVERY_BYTE = bytes(range(256)) * 3

pytestmark = pytest.mark.system("curl")


class Listener:
    """Takes one request, byte by byte, and answers it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.head: list[bytes] = []
        self.body = b""

    def serve(self) -> None:
        sock, _ = self._socket.accept()
        with sock:
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(1 << 16)
            head, _, self.body = data.partition(b"\r\n\r\n")
            self.head = head.split(b"\r\n")
            length = next((int(line[15:]) for line in self.head if line.lower().startswith(b"content-length:")), 0)
            while len(self.body) < length:
                self.body += sock.recv(1 << 16)
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def pasted(listener: Listener, request: HttpMessage, shell: str = "sh") -> str:
    """Runs the command in a shell, and returns it."""
    command = curl_of(exchange(request))
    serving = threading.Thread(target=listener.serve)
    serving.start()
    words = [shell, "sh", "-c", command] if shell == "busybox" else [shell, "-c", command]
    done = subprocess.run(words, capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, (command, done.stderr)
    serving.join()
    return command


def sent(listener: Listener) -> tuple[bytes, set[bytes], bytes]:
    """The request line, the fields but those of the body's length, and the body."""
    first, *fields = listener.head
    return first, {field for field in fields if not field.lower().startswith(b"content-length")}, listener.body


def test_a_plain_request_is_a_short_command() -> None:
    request = message("GET /users?page=2 HTTP/1.1", "Host: app.example.net", "User-Agent: x/1", "Accept: */*")
    assert curl_of(exchange(request)) == (
        "curl -H 'User-Agent: x/1' -H 'Accept: */*' 'http://app.example.net/users?page=2'"
    )


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "M-SEARCH"])
def test_the_method_and_the_fields_are_the_same(listener: Listener, method: str) -> None:
    fields = ["Accept: a/b", 'User-Agent: it\'s "me" $HOME `id` \\n', "X-Empty:", "x-low: 1", "X-Low: 2"]
    pasted(listener, message(f"{method} /a?b=c&d=%20 HTTP/1.1", f"Host: {listener.host}", *fields))
    first, seen, body = sent(listener)
    assert first == f"{method} /a?b=c&d=%20 HTTP/1.1".encode()
    lines = {line.encode() for line in (f"Host: {listener.host}", *fields)}
    assert {line.replace(b"X-Empty: ", b"X-Empty:") for line in seen} == lines
    assert body == b""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "body",
    [
        b"a=b&c=it's", b"@/etc/passwd", b"-d x", b'{"a": "$HOME `id` \\n %s %%"}', b"two\r\nlines\n", EVERY_BYTE,
        "grün 東京".encode(), b"\x00", b"--B\r\nx\r\n--B--\r\n", b"\n\n\n", b"'\"\\" * 50, b"!event !!",
    ],
)  # fmt: skip
def test_a_body_is_the_same_to_the_byte(listener: Listener, shell: str, body: bytes) -> None:
    fields = ["Content-Type: x/y", "Accept: a", "User-Agent: u"]
    request = message(
        "POST /form HTTP/1.1", f"Host: {listener.host}", *fields, f"Content-Length: {len(body)}", body=body
    )
    command = pasted(listener, request, shell)
    first, seen, got = sent(listener)
    assert got == body
    assert first == b"POST /form HTTP/1.1"
    assert seen == {field.encode() for field in (f"Host: {listener.host}", *fields)}
    assert command.isprintable()
    assert command.isascii()


@pytest.mark.parametrize("shell", SHELLS)
def test_bytes_beyond_ascii_in_a_head_are_the_same(listener: Listener, shell: str) -> None:
    value = "gr\xfcn \xff'\"\\%s\t$x"
    request = message(
        "GET /\xfc\xff'%25 HTTP/1.1", f"Host: {listener.host}", f"X-A: {value}", "Accept: a", "User-Agent: u"
    )
    pasted(listener, request, shell)
    first, seen, _ = sent(listener)
    assert f"X-A: {value}".encode("latin-1") in seen
    assert first == "GET /\xfc\xff'%25 HTTP/1.1".encode("latin-1")


@pytest.mark.parametrize("target", ["/a[1-3]{x,y}", "/a/../b/./c", "/?q=[hidden]"])
def test_a_path_is_not_made_into_another_one(listener: Listener, target: str) -> None:
    pasted(listener, message(f"GET {target} HTTP/1.1", f"Host: {listener.host}", "Accept: a", "User-Agent: u"))
    assert sent(listener)[0] == f"GET {target} HTTP/1.1".encode()


def test_nothing_is_added_that_was_not_there(listener: Listener) -> None:
    pasted(listener, message("PUT / HTTP/1.1", f"Host: {listener.host}", body=b"x"))
    assert sent(listener)[1] == {f"Host: {listener.host}".encode()}


def test_what_belongs_to_one_connection_is_left_to_curl() -> None:
    fields = ["Connection: close", "Transfer-Encoding: chunked", "Expect: 100-continue", "X-Forwarded-For: 1.2.3.4"]
    command = curl_of(exchange(message("POST / HTTP/1.1", "Host: a", *fields, "Accept: a", "User-Agent: u", body=b"x")))
    assert "Connection" not in command
    assert "Transfer" not in command
    assert "Expect" not in command
    assert "Forwarded" not in command


def test_an_answer_that_would_be_compressed_is_unfolded() -> None:
    request = message("GET / HTTP/1.1", "Host: a", "Accept-Encoding: gzip")
    assert " --compressed " in curl_of(exchange(request))


def test_a_host_that_is_not_the_urls_is_told() -> None:
    request = message("GET / HTTP/1.1", "Host: inner.example")
    assert "-H 'Host: inner.example'" in curl_of(exchange(request, url="http://outer.example/"))


def test_a_request_for_all_of_a_server_is_one() -> None:
    command = curl_of(exchange(message("OPTIONS * HTTP/1.1", "Host: a"), url="http://a/"))
    assert "--request-target '*'" in command


def test_a_request_of_which_not_all_is_kept_is_no_command() -> None:
    request = message("POST / HTTP/1.1", "Host: a", body=b"x" * 10, cut=True)
    with pytest.raises(NotRepeatable, match="has 1,000 bytes, and not all are kept"):
        curl_of(exchange(request, request_bytes=1000))


def test_a_body_that_was_unfolded_is_sent_as_what_it_is(listener: Listener) -> None:
    fields = (f"Host: {listener.host}", "Content-Encoding: gzip", "Content-Type: text/plain")
    pasted(listener, message("POST /x HTTP/1.1", *fields, body=b"unfolded", decoded="gzip"))
    assert listener.body == b"unfolded"
    assert not any(line.lower().startswith(b"content-encoding") for line in listener.head)
