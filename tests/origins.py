"""What visitors come for at the far end of a tunnel: a real web server, and one whose answers a test holds back."""

from __future__ import annotations

import hashlib
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from ports import split

PATIENCE = 30.0
"""Seconds a held-back connection waits for its next byte."""

HELLO = "hello from the origin\n"

BIG = 8 * 1024 * 1024
"""Bytes of the large file: more than every buffer between two ends holds together."""


class WebOrigin:
    """A web server with a short page, ``/hello``, and a large one, ``/big``.

    :ivar address: ``host:port``.
    :ivar digest: SHA-256 of the large one.
    """

    def __init__(self, address: str, digest: str) -> None:
        self.address = address
        self.digest = digest

    @property
    def port(self) -> int:
        return split(self.address)[1]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *arguments: object) -> None:
        """Visitors that are cut off are what the tests are about."""


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def web_origin(folder: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[WebOrigin]:
    """Serves inside the block; ``host`` is an IPv4 or IPv6 address."""
    folder.mkdir(exist_ok=True)
    content = secrets.token_bytes(1024) * (BIG // 1024)
    (folder / "hello").write_text(HELLO)
    (folder / "index.html").write_text(HELLO)
    (folder / "big").write_bytes(content)
    kind, shown = (_Server6, f"[{host}]") if ":" in host else (_Server, host)
    with kind((host, port), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield WebOrigin(f"{shown}:{server.server_address[1]}", hashlib.sha256(content).hexdigest())
        finally:
            server.shutdown()
            thread.join()


class HeldOrigin:
    """A web server for one request at a time, whose answer goes out when the test says so."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(PATIENCE)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._answers: list[Answer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for answer in self._answers:
            answer.close()
        self._listener.close()

    def request(self) -> Answer:
        """Waits for the next request, and takes it."""
        sock, _ = self._listener.accept()
        answer = Answer(sock)
        self._answers.append(answer)
        answer.read_request()
        return answer


class Answer:
    """The answer to one request, in as many pieces as the test likes."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self._socket = sock

    def read_request(self) -> None:
        """Takes the request's head."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = self._socket.recv(4096)
            assert data, f"the visitor left after {head!r}"
            head += data

    def begin(self, length: int) -> None:
        """Sends the head of an answer of so many bytes."""
        self._socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % length)

    def send(self, data: bytes) -> None:
        """Sends a piece of the body."""
        self._socket.sendall(data)

    def is_cut(self) -> bool:
        """Waits for the other side's end; True when it came."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Ends the answer."""
        self._socket.close()
