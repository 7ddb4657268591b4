"""A server that sends back what it gets, and a visitor of it."""

from __future__ import annotations

import hashlib
import socket
import threading

PATIENCE = 30.0
"""Seconds until a connection counts as stuck."""


class EchoServer:
    """Sends back what it gets, and passes a half-close on."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._echo, args=(visitor,), daemon=True).start()

    def _echo(self, visitor: socket.socket) -> None:
        with visitor:
            try:
                while data := visitor.recv(1 << 16):
                    visitor.sendall(data)
            except OSError:
                return  # the visitor was cut off, which is what some tests do

    def close(self) -> None:
        """Takes no more visitors."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def connect(address: str) -> socket.socket:
    """A connection to ``host:port``."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """What comes back for ``data``."""
    connection.sendall(data)
    received = b""
    while len(received) < len(data) and (piece := connection.recv(1 << 16)):
        received += piece
    return received


def digest_of_echo(address: str, content: bytes) -> bytes:
    """SHA-256 of all that comes back for ``content`` and its end, sent while that comes."""
    digest = hashlib.sha256()
    with connect(address) as connection:

        def send() -> None:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        while piece := connection.recv(1 << 16):
            digest.update(piece)
        sending.join()
    return digest.digest()
