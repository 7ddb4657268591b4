"""yamux frames by hand, and sessions with one stream, for the tests of it."""

from __future__ import annotations

import struct

from tunnelconsole.engine.wire.yamux import StreamOpened, YamuxSession

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, stream_id: int, length: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">BBHII", 0, kind, flags, stream_id, length) + payload


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, len(payload), payload)


def output(session: YamuxSession) -> bytes:
    return b"".join(session.data_to_send())


def server_with_stream(stream_id: int = 1) -> YamuxSession:
    """Return a server whose client opened a stream that was accepted; nothing is left to send."""
    session = YamuxSession(client=False)
    assert session.receive_data(frame(WINDOW, SYN, stream_id)) == [StreamOpened(stream_id)]
    session.accept(stream_id)
    session.data_to_send()
    return session


def client_with_stream() -> YamuxSession:
    """Return a client whose stream 1 the server accepted; nothing is left to send."""
    session = YamuxSession(client=True)
    assert session.open_stream() == 1
    session.receive_data(frame(WINDOW, ACK, 1))
    session.data_to_send()
    return session
