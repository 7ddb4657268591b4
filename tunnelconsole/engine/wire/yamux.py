"""yamux, HashiCorp's multiplexer: many streams with a window each over one byte stream.

Each frame has a header of 12 bytes, big-endian: version 0 (1 byte), type (1), flags (2), stream id (4), length (4: the
bytes of payload, window delta, ping value or go-away code). The client's streams have odd ids, the server's even ones;
0 is the session itself. The first frame of a stream carries SYN, the first answer ACK. A stream starts with a window
of 262,144 bytes each way; whoever receives grants more by window updates. FIN is a half-close, RST ends a stream both
ways. A ping with SYN is answered by one with ACK and the same value.
"""

from __future__ import annotations

from struct import Struct

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.yamux_events import (
    DataReceived,
    Event,
    GoneAway,
    HalfClosed,
    Pinged,
    PongReceived,
    StreamAccepted,
    StreamOpened,
    StreamReset,
    WindowOpened,
)

__all__ = [
    "DataReceived",
    "Event",
    "GoneAway",
    "HalfClosed",
    "Pinged",
    "PongReceived",
    "StreamAccepted",
    "StreamOpened",
    "StreamReset",
    "WindowOpened",
    "YamuxSession",
]

#: Bytes that each side may send on a new stream before it is granted more (yamux spec).
INITIAL_WINDOW = 262_144
#: Bytes that a window can hold: what the header's length field can say.
MAX_WINDOW = 2**32 - 1
#: Streams that the remote opened and that are not accepted yet; more are reset. HashiCorp's backlog. Without a limit
#: a flood of SYNs that nobody serves takes all memory (as in rust-yamux, CVE-2024-32984).
MAX_STREAMS_WAITING = 256
#: Streams that we opened and the remote has not acknowledged: as many as HashiCorp's session lets wait; it resets more.
MAX_UNACKNOWLEDGED = 256
#: Streams alive in one session; the remote's are reset beyond it, ours raise. Visitors of one backend: as many as fit
#: a file-descriptor limit of 65,536 with two descriptors each and room for the rest of the node.
MAX_STREAMS = 16_384
#: Answers to pings that wait to be sent. An honest remote has one ping under way; one that sends pings and reads no
#: answers would fill our memory.
MAX_PONGS_WAITING = 256
#: Resets of streams beyond a limit that wait to be sent. More than fit one read of 64 KiB full of SYNs.
MAX_REFUSALS_WAITING = 8192

#: Codes of a go-away.
GO_AWAY_NORMAL = 0
GO_AWAY_PROTOCOL_ERROR = 1
GO_AWAY_INTERNAL_ERROR = 2

_HEADER = Struct(">BBHII")
_HEADER_LENGTH = _HEADER.size
_VERSION = 0
_DATA, _WINDOW_UPDATE, _PING, _GO_AWAY = 0, 1, 2, 3
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8
_ALL_FLAGS = _SYN | _ACK | _FIN | _RST
_LAST_STREAM_ID = 2**32 - 1
# Below this, copying a payload behind its header is cheaper than one more buffer for sendmsg.
_JOIN_BELOW = 2048


class _Stream:
    __slots__ = (
        "acknowledged",
        "local_closed",
        "max_receive_window",
        "owed",
        "receive_window",
        "remote_closed",
        "send_window",
        "unconsumed",
        "waiting",
    )

    def __init__(self, *, waiting: bool, extra_window: int = 0) -> None:
        self.send_window = INITIAL_WINDOW
        # What the remote may still send, out of how much at most.
        self.receive_window = INITIAL_WINDOW + extra_window
        self.max_receive_window = INITIAL_WINDOW + extra_window
        # Bytes delivered and not consumed; bytes consumed and not granted again.
        self.unconsumed = 0
        self.owed = 0
        self.local_closed = False
        self.remote_closed = False
        # The remote opened it and nobody accepted it; we opened it and the remote acknowledged it.
        self.waiting = waiting
        self.acknowledged = waiting


class YamuxSession:
    """One end of a session.

    Drain ``data_to_send`` only as fast as the transport takes it: the limits on queued answers count what was not
    drained. A stream is forgotten once both sides closed it or one reset it; what is then asked of it does nothing,
    because the remote's reset may always come first.

    :param client: whether this end dialled the connection; its streams get odd ids.
    """

    __slots__ = (
        "_client",
        "_closed",
        "_discardable",
        "_frame_finishes",
        "_frame_id",
        "_frame_left",
        "_frame_stream",
        "_header",
        "_highest_remote_id",
        "_local_gone",
        "_next_id",
        "_output",
        "_pongs_waiting",
        "_refusals_waiting",
        "_remote_gone",
        "_streams",
        "_unacknowledged",
        "_waiting",
        "discarded_bytes",
        "pending_bytes",
    )

    def __init__(self, client: bool) -> None:
        self._client = client
        self._streams: dict[int, _Stream] = {}
        self._waiting = self._unacknowledged = 0
        self._next_id = 1 if client else 2
        self._highest_remote_id = 0
        self._closed = self._local_gone = self._remote_gone = False
        # Input: an incomplete header; the data frame whose payload is coming, with its stream unless it is discarded.
        self._header = bytearray()
        self._frame_id = self._frame_left = 0
        self._frame_stream: _Stream | None = None
        self._frame_finishes = False
        # Bytes that forgotten streams were still allowed to receive: what may lawfully be in flight for them.
        self._discardable = 0
        self._output: list[bytes | memoryview] = []
        self._pongs_waiting = self._refusals_waiting = 0
        #: Bytes queued for ``data_to_send``.
        self.pending_bytes = 0
        #: Bytes that came for streams which were reset or closed, and were dropped.
        self.discarded_bytes = 0

    @property
    def streams(self) -> int:
        """Streams alive, both sides' together, with those that wait to be accepted."""
        return len(self._streams)

    @property
    def closed(self) -> bool:
        """Whether the session is over: a protocol error, or the remote went away with a code other than 0."""
        return self._closed

    @property
    def can_open(self) -> bool:
        """Whether ``open_stream`` is possible now."""
        return self._has_ids and self._unacknowledged < MAX_UNACKNOWLEDGED

    @property
    def backlogged(self) -> bool:
        """Whether ``open_stream`` is impossible only until the remote has acknowledged streams of ours."""
        return self._has_ids and self._unacknowledged >= MAX_UNACKNOWLEDGED

    @property
    def _has_ids(self) -> bool:
        gone = self._closed or self._remote_gone or self._local_gone
        return not gone and len(self._streams) < MAX_STREAMS and self._next_id <= _LAST_STREAM_ID

    # -- what goes out ---------------------------------------------------------------------------------------------

    def data_to_send(self) -> list[bytes | memoryview]:
        """Return the buffers to be sent now, in order, and forget them. Fit for ``sendmsg``, up to IOV_MAX at once."""
        output, self._output = self._output, []
        self.pending_bytes = self._pongs_waiting = self._refusals_waiting = 0
        return output

    @property
    def next_id(self) -> int:
        """The id of the stream that we open next."""
        return self._next_id

    def open_stream(self, extra_window: int = 0) -> int:
        """Open a stream and return its id. It can be written to at once.

        :param extra_window: bytes that the remote may send beyond the initial window.
        :raises RuntimeError: no stream can be opened; ask :attr:`can_open` first.
        """
        if not self.can_open:
            raise RuntimeError(
                "the yamux session opens no more streams: it is over, going away, full, or the remote is behind"
            )
        stream_id = self._next_id
        self._next_id += 2
        self._unacknowledged += 1
        self._streams[stream_id] = _Stream(waiting=False, extra_window=extra_window)
        self._queue(_WINDOW_UPDATE, _SYN, stream_id, extra_window)
        return stream_id

    def accept(self, stream_id: int, extra_window: int = 0) -> None:
        """Acknowledge a stream that the remote opened.

        :param extra_window: bytes that the remote may send beyond the initial window.
        :raises ValueError: the stream does not wait to be accepted.
        """
        if (stream := self._streams.get(stream_id)) is None:
            return
        if not stream.waiting:
            raise ValueError(f"yamux stream {stream_id} does not wait to be accepted")
        stream.waiting = False
        self._waiting -= 1
        stream.receive_window += extra_window
        stream.max_receive_window += extra_window
        self._queue(_WINDOW_UPDATE, _ACK, stream_id, extra_window)
        self._grant(stream_id, stream)

    def reject(self, stream_id: int) -> None:
        """Refuse a stream that the remote opened."""
        self.reset(stream_id)

    def send_window(self, stream_id: int) -> int:
        """Return how many bytes can be sent on the stream now; 0 when it is closed or forgotten."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None or stream.local_closed else stream.send_window

    def send_data(self, stream_id: int, data: bytes | memoryview) -> None:
        """Send ``data`` as one frame. It is not copied when it is large: it must not change until it is sent.

        :raises ValueError: it is more than :meth:`send_window` allows, or the stream is not accepted yet.
        """
        length = len(data)
        stream = self._streams.get(stream_id)
        if length > self.send_window(stream_id) or stream is None or stream.waiting:
            raise ValueError(f"yamux stream {stream_id} takes {self.send_window(stream_id)} bytes now, not {length}")
        if not length:
            return
        stream.send_window -= length
        header = _HEADER.pack(_VERSION, _DATA, 0, stream_id, length)
        if length < _JOIN_BELOW:
            self._output.append(header + data)
        else:
            self._output.append(header)
            self._output.append(data)
        self.pending_bytes += _HEADER_LENGTH + length

    def send_eof(self, stream_id: int) -> None:
        """Close our side of the stream: a half-close. The other side stays open until the remote closes it."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_closed:
            return
        stream.local_closed = True
        self._queue(_WINDOW_UPDATE, _FIN, stream_id, 0)
        if stream.remote_closed:
            self._forget(stream_id)

    def reset(self, stream_id: int) -> None:
        """End the stream both ways, at once."""
        if stream_id in self._streams:
            self._queue(_WINDOW_UPDATE, _RST, stream_id, 0)
            self._forget(stream_id)

    def consumed(self, stream_id: int, count: int) -> None:
        """Say that ``count`` received bytes were passed on. Once they are half the window, the remote gets them back.

        :raises ValueError: that many bytes were not received.
        """
        if (stream := self._streams.get(stream_id)) is None:
            return
        if not 0 <= count <= stream.unconsumed:
            raise ValueError(f"yamux stream {stream_id} has {stream.unconsumed} bytes to consume, not {count}")
        stream.unconsumed -= count
        stream.owed += count
        self._grant(stream_id, stream)

    def ping(self, value: int) -> None:
        """Ask for a sign of life; :class:`PongReceived` brings ``value`` back.

        :param value: 0 to 2**32 - 1.
        """
        self._queue(_PING, _SYN, 0, value)

    def go_away(self, code: int = GO_AWAY_NORMAL) -> None:
        """Tell the remote that no more streams are accepted; those that live go on."""
        self._local_gone = True
        self._queue(_GO_AWAY, 0, 0, code)

    def _queue(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        if not self._closed:
            self._output.append(_HEADER.pack(_VERSION, kind, flags, stream_id, length))
            self.pending_bytes += _HEADER_LENGTH

    def _grant(self, stream_id: int, stream: _Stream) -> None:
        if stream.waiting or stream.remote_closed or 2 * stream.owed < stream.max_receive_window:
            return
        stream.receive_window += stream.owed
        self._queue(_WINDOW_UPDATE, 0, stream_id, stream.owed)
        stream.owed = 0

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id)
        self._waiting -= stream.waiting
        self._unacknowledged -= not stream.acknowledged
        self._discardable += stream.receive_window
        if self._frame_stream is stream:
            self._frame_stream = None

    # -- what comes in ---------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> list[Event]:
        """Take bytes from the remote, split anywhere, and return what they caused.

        A payload is delivered as it comes, not when its frame is complete. ``data`` may be reused afterwards.

        :raises ProtocolError: the remote broke the protocol. A go-away with code 1 is queued, every stream is
            forgotten, and the session is closed: it takes and sends nothing more.
        """
        events: list[Event] = []
        if self._closed:
            return events
        try:
            self._read(memoryview(data), data, events)
        except ProtocolError:
            self._queue(_GO_AWAY, 0, 0, GO_AWAY_PROTOCOL_ERROR)
            self._close()
            raise
        return events

    def _close(self) -> None:
        self._closed = True
        self._streams.clear()
        self._waiting = self._unacknowledged = 0
        self._frame_stream = None

    def _read(self, view: memoryview, whole: bytes | memoryview, events: list[Event]) -> None:
        position, end = 0, len(view)
        while position < end and not self._closed:
            if self._frame_left:
                count = min(self._frame_left, end - position)
                if self._frame_stream is None:
                    self.discarded_bytes += count
                else:
                    # A read that is nothing but payload needs no copy.
                    piece = whole if count == end and type(whole) is bytes else bytes(view[position : position + count])
                    self._frame_stream.unconsumed += count
                    events.append(DataReceived(self._frame_id, piece))
                position += count
                self._frame_left -= count
                if not self._frame_left and self._frame_finishes:
                    self._finish(self._frame_id, self._frame_stream, events)
            elif not self._header and end - position >= _HEADER_LENGTH:
                fields = _HEADER.unpack_from(view, position)
                position += _HEADER_LENGTH
                self._read_header(fields, events)
            else:
                count = min(_HEADER_LENGTH - len(self._header), end - position)
                self._header += view[position : position + count]
                position += count
                if len(self._header) == _HEADER_LENGTH:
                    fields = _HEADER.unpack(self._header)
                    self._header.clear()
                    self._read_header(fields, events)

    def _read_header(self, fields: tuple[int, ...], events: list[Event]) -> None:
        version, kind, flags, stream_id, length = fields
        if version != _VERSION:
            raise ProtocolError(f"the remote sent a yamux frame of version {version}; only 0 is known")
        if flags & ~_ALL_FLAGS:
            raise ProtocolError(f"the remote sent a yamux frame with undefined flags {flags:#06x}")
        if kind in (_DATA, _WINDOW_UPDATE):
            if stream_id == 0:
                raise ProtocolError("the remote sent a yamux stream frame with stream id 0, which is the session")
            self._read_stream_frame(kind, flags, stream_id, length, events)
        elif kind not in (_PING, _GO_AWAY):
            raise ProtocolError(f"the remote sent a yamux frame of unknown type {kind}")
        elif stream_id != 0:
            raise ProtocolError(f"the remote sent a yamux ping or go-away for stream {stream_id}; it belongs to none")
        elif kind == _PING:
            self._read_ping(flags, length, events)
        else:
            self._read_go_away(flags, length, events)

    def _read_ping(self, flags: int, value: int, events: list[Event]) -> None:
        if flags == _ACK:
            events.append(PongReceived(value))
        elif flags == _SYN:
            self._pongs_waiting += 1
            if self._pongs_waiting > MAX_PONGS_WAITING:
                raise ProtocolError(f"the remote sent over {MAX_PONGS_WAITING} yamux pings without reading the answers")
            self._queue(_PING, _ACK, 0, value)
            events.append(Pinged())
        else:
            raise ProtocolError(f"the remote sent a yamux ping with flags {flags:#06x}; expected SYN or ACK")

    def _read_go_away(self, flags: int, code: int, events: list[Event]) -> None:
        if flags:
            raise ProtocolError(f"the remote sent a yamux go-away with flags {flags:#06x}; it has none")
        if code > GO_AWAY_INTERNAL_ERROR:
            raise ProtocolError(f"the remote sent a yamux go-away with unknown code {code}")
        self._remote_gone = True
        if code != GO_AWAY_NORMAL:
            self._close()
        events.append(GoneAway(code))

    def _read_stream_frame(self, kind: int, flags: int, stream_id: int, length: int, events: list[Event]) -> None:
        if flags & _SYN:
            self._read_syn(stream_id, events)
        stream = self._streams.get(stream_id)
        if stream is not None and flags & _ACK and not stream.acknowledged:
            stream.acknowledged = True
            self._unacknowledged -= 1
            events.append(StreamAccepted(stream_id, length if kind == _WINDOW_UPDATE else 0))
        if stream is not None and flags & _RST:
            self._forget(stream_id)
            events.append(StreamReset(stream_id))
            stream = None
        if stream is None:
            self._read_for_forgotten(kind, stream_id, length)
        elif kind == _DATA and length:
            if length > stream.receive_window:
                window = stream.receive_window
                raise ProtocolError(
                    f"the remote sent {length} bytes on yamux stream {stream_id}; its window is {window}"
                )
            stream.receive_window -= length
            # HashiCorp's own session can send data behind its FIN, when a write races a close. It is dropped.
            self._begin_payload(stream_id, None if stream.remote_closed else stream, length, bool(flags & _FIN))
            return
        elif kind == _WINDOW_UPDATE and length:
            if stream.send_window + length > MAX_WINDOW:
                raise ProtocolError(f"the remote widened yamux stream {stream_id} beyond {MAX_WINDOW} bytes")
            stream.send_window += length
            if not flags & _SYN:
                events.append(WindowOpened(stream_id))
        if flags & _FIN:
            self._finish(stream_id, stream, events)

    def _read_syn(self, stream_id: int, events: list[Event]) -> None:
        if stream_id % 2 == self._client:
            whose = "an even" if self._client else "an odd"
            raise ProtocolError(f"the remote opened yamux stream {stream_id}; its streams have {whose} id")
        if stream_id in self._streams:
            raise ProtocolError(f"the remote opened yamux stream {stream_id}, which is open already")
        self._highest_remote_id = max(self._highest_remote_id, stream_id)
        if not self._local_gone and self._waiting < MAX_STREAMS_WAITING and len(self._streams) < MAX_STREAMS:
            self._streams[stream_id] = _Stream(waiting=True)
            self._waiting += 1
            events.append(StreamOpened(stream_id))
            return
        self._refusals_waiting += 1
        if self._refusals_waiting > MAX_REFUSALS_WAITING:
            raise ProtocolError("the remote floods the yamux session with streams and does not read their resets")
        # It may use the initial window before it hears of the reset.
        self._discardable += INITIAL_WINDOW
        self._queue(_WINDOW_UPDATE, _RST, stream_id, 0)

    def _read_for_forgotten(self, kind: int, stream_id: int, length: int) -> None:
        """Take a frame that the remote may have sent before it heard that the stream is over."""
        ours = stream_id % 2 == self._client
        if stream_id >= self._next_id if ours else stream_id > self._highest_remote_id:
            raise ProtocolError(f"the remote sent a frame for yamux stream {stream_id}, which was never opened")
        if kind == _DATA and length:
            self._discardable -= length
            if self._discardable < 0:
                raise ProtocolError(f"the remote overran the window of yamux stream {stream_id}, which is over")
            self._begin_payload(stream_id, None, length, finishes=False)

    def _begin_payload(self, stream_id: int, stream: _Stream | None, length: int, finishes: bool) -> None:
        self._frame_id = stream_id
        self._frame_stream = stream
        self._frame_left = length
        self._frame_finishes = finishes

    def _finish(self, stream_id: int, stream: _Stream | None, events: list[Event]) -> None:
        """Take the remote's FIN; for a forgotten stream it means nothing."""
        if stream is None:
            return
        if stream.remote_closed:
            raise ProtocolError(f"the remote closed yamux stream {stream_id} twice")
        stream.remote_closed = True
        events.append(HalfClosed(stream_id))
        if stream.local_closed:
            self._forget(stream_id)
