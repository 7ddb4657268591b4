"""A host that answers on a port: it accepts, and sends back whatever comes."""

from __future__ import annotations

import socket
import socketserver
import threading

from natlab.namespaces import Namespace


class Answering:
    """An echo server in a namespace, on all of its addresses.

    :param port: 0 takes a free one.
    """

    def __init__(self, namespace: Namespace, port: int = 0) -> None:
        self.peers: list[str] = []
        """Addresses, without ports, of all that have connected."""
        peers = self.peers

        class Echo(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                peers.append(self.client_address[0].removeprefix("::ffff:"))
                try:
                    while data := self.request.recv(65536):
                        self.request.sendall(data)
                except ConnectionError:  # who leaves in the middle is none of our concern
                    return

        with namespace.entered():
            self._server = _Server(("::", port), Echo)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"echo in {namespace.name}"
        )
        self._thread.start()

    def close(self) -> None:
        """Answers no more; conversations end with their clients."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    """For IPv4 as well."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
