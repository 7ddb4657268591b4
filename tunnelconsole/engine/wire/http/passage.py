"""A body on its way through a proxy: read by one framing, counted, shown to whoever looks, and framed again."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tunnelconsole.engine.wire.http.body import (
    NO_BODY,
    ChunkedDecoder,
    Framing,
    LengthDecoder,
    UntilCloseDecoder,
    decoder_of,
    encode_chunk,
    encode_last_chunk,
)
from tunnelconsole.engine.wire.http.forward import forward_trailers

Tap = Callable[[bytes], None]
"""Is shown each piece of a body as it passes, without its chunk frames."""


class Passage:
    """One body.

    :param framing: how it comes.
    :param status: of the errors: 400 for a request, 502 for a response.
    :param chunked: whether it leaves in chunks; else as bare bytes.
    """

    __slots__ = ("_chunked", "_decoder", "complete", "rest", "tap", "total")

    def __init__(self, framing: Framing, status: int, *, chunked: bool, tap: Tap | None = None) -> None:
        self._decoder = decoder_of(framing, status)
        self._chunked = chunked
        #: Who is shown the pieces.
        self.tap = tap
        #: Bytes of the body that have passed.
        self.total = 0
        #: Whether all of it has come.
        self.complete = self._decoder is None
        #: What came behind it, once it is complete.
        self.rest = b""

    def receive_data(self, data: bytes, queue: list[bytes]) -> None:
        """Take bytes, split anywhere, and put what is to be sent on into ``queue``.

        :raises HttpError: the body breaks the rules.
        """
        decoder = self._decoder
        if decoder is None:
            self.rest += data
            return
        pieces, done, rest = decoder.receive_data(data)
        for piece in pieces:
            self.total += len(piece)
            if self.tap is not None:
                self.tap(piece)
        if self._chunked and pieces:
            queue.append(encode_chunk(pieces))
        else:
            queue += pieces
        if done:
            self.rest = rest
            self._end(queue)

    def receive_eof(self, queue: list[bytes]) -> None:
        """Take the proper end of the connection, which completes a body of which nothing else tells the end."""
        if isinstance(self._decoder, UntilCloseDecoder):
            self._end(queue)

    @property
    def until_end(self) -> bool:
        """Whether the end of the connection is what will complete it."""
        return isinstance(self._decoder, UntilCloseDecoder)

    @property
    def direct(self) -> int:
        """How many bytes, as they come next, can be moved on as they are, without passing here.

        0 when somebody looks, or when they need to be framed.
        """
        if self.tap is None and not self._chunked:
            if isinstance(self._decoder, LengthDecoder):
                return self._decoder.remaining
            if isinstance(self._decoder, UntilCloseDecoder):
                return sys.maxsize
        return 0

    def moved(self, count: int) -> None:
        """Take it that the next ``count`` bytes, at most :attr:`direct`, have been moved on."""
        self.total += count
        if isinstance(self._decoder, LengthDecoder):
            self._decoder.remaining -= count
            if not self._decoder.remaining:
                self._end([])

    def _end(self, queue: list[bytes]) -> None:
        if self._chunked:
            trailers = self._decoder.trailers if isinstance(self._decoder, ChunkedDecoder) else ()
            queue.append(encode_last_chunk(forward_trailers(trailers)))
        self._decoder = None
        self.complete = True


#: The body of a message that has none.
NOTHING = Passage(NO_BODY, 400, chunked=False)
