"""An end of a sealed channel as somebody else would write it from docs/protocols.md; it imports nothing of ours."""

from __future__ import annotations

import os
import socket
import struct
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from channel_by_document import TIMEOUT, stretched

MAGIC, NOTHING = b"TCSEAL02", bytes(16)
BEGINNING = len(MAGIC) + 32
MAX_TEXT = 65_536
TEXT, REPORT, END, BROKEN_OFF = range(4)
DONE, WANTED = 2, 4


class SealedExchange:
    """An exchange with the other end of the pair, over a connection that has joined the channel server."""

    def __init__(self, joined: socket.socket, key: str) -> None:
        self._socket = joined
        self._received = b""
        self._salt, self._theirs = os.urandom(16), NOTHING
        self._sealer, self._sealed, self._opened = AESGCM(stretched(key, self._salt)), 0, 0
        wait, due, until = 0.1, 0.0, time.monotonic() + TIMEOUT
        while not self._is_answered():
            now = time.monotonic()
            assert now < until, "nobody answers"
            if now >= due:
                self._begin()
                due, wait = now + wait, min(1.0, 2 * wait)
            self._socket.settimeout(due - now)
            try:
                self._receive()
            except TimeoutError:
                continue
        self._socket.settimeout(TIMEOUT)
        self._begin()
        self._opener = AESGCM(stretched(key, self._theirs))
        self.ended = False
        """Whether the other end has said all that it has to say."""
        self._other_is_done = False
        self._confirmed = 0
        self._end = 0
        self._report()

    def _begin(self) -> None:
        self._socket.sendall(MAGIC + self._salt + self._theirs)

    def _receive(self) -> None:
        data = self._socket.recv(1 << 16)
        assert data, "the server closed before the last record"
        self._received += data

    def _is_answered(self) -> bool:
        while (at := self._received.find(MAGIC)) >= 0 and len(self._received) >= at + BEGINNING:
            found, self._received = self._received[at : at + BEGINNING], self._received[at + BEGINNING :]
            theirs, answered = found[len(MAGIC) :][:16], found[-16:]
            if theirs == NOTHING:
                continue
            self._theirs = theirs
            if answered == self._salt:
                return True
            self._begin()
        return False

    def send(self, text: bytes) -> None:
        """Says something, in records of at most 65,536 bytes."""
        for at in range(0, len(text), MAX_TEXT):
            self._send(TEXT, text[at : at + MAX_TEXT])

    def end(self) -> None:
        """Says that there is no more text."""
        self._send(END)
        self._end = self._sealed

    def read(self) -> bytes:
        """All the text that the other end still says."""
        text = b""
        while not self.ended:
            text += self._next()
        self._report()
        return text

    def close(self) -> None:
        """Ends the exchange, once each end knows that the other has all."""
        while not self.ended or self._confirmed < self._end:
            self._next()
        self._report(DONE | WANTED)
        last = self._sealed
        while not (self._other_is_done or self._confirmed >= last):
            self._next()

    def _send(self, kind: int, content: bytes = b"") -> None:
        head = (kind << 30 | len(content) + 16).to_bytes(4, "big")
        data = head + (b"" if self._sealed else self._theirs)
        self._socket.sendall(head + self._sealer.encrypt(self._sealed.to_bytes(12, "big"), content, data))
        self._sealed += 1

    def _report(self, marks: int = 0) -> None:
        self._send(REPORT, struct.pack(">BQ", marks, self._opened))

    def _next(self) -> bytes:
        """Takes one record; returns its text."""
        head = self._take(4)
        while not self._opened and head == MAGIC[:4]:
            self._take(BEGINNING - 4)
            head = self._take(4)
        kind, length = divmod(int.from_bytes(head, "big"), 1 << 30)
        data = head + (b"" if self._opened else self._salt)
        content = self._opener.decrypt(self._opened.to_bytes(12, "big"), self._take(length), data)
        self._opened += 1
        assert kind != BROKEN_OFF, "the other end broke off"
        if kind == END:
            self.ended = True
        elif kind == REPORT:
            marks, self._confirmed = struct.unpack(">BQ", content)
            self._other_is_done = bool(marks & DONE)
            if marks & WANTED:
                self._report()
        return content if kind == TEXT else b""

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        taken, self._received = self._received[:count], self._received[count:]
        return taken
