"""The response to one request, on its way from an upstream to the visitor."""

from __future__ import annotations

from collections.abc import Callable

from tunnelconsole.engine.wire.http.body import CHUNKED, NO_BODY, UNTIL_CLOSE, Kind, response_framing
from tunnelconsole.engine.wire.http.forward import UPGRADE, forward_response, keeps_open
from tunnelconsole.engine.wire.http.head import HeadReader, HttpError, RequestHead, ResponseHead, parse_response
from tunnelconsole.engine.wire.http.passage import NOTHING, Passage, Tap

#: Statuses that say that a request itself was wrong. Where it was, and the upstream closes for it, nobody can be sure
#: where the visitor's next request begins.
_REQUEST_WAS_WRONG = frozenset((400, 405, 411, 414, 417, 431, 501, 505))


class Response:
    """One for each time that a request is given to an upstream.

    :param request: what it answers.
    :param upgrade: whether the upstream was asked to change the protocol.
    :param reusable: whether the upstream is meant to take another request.
    :param tap: who is shown the body.
    """

    __slots__ = (
        "_reader",
        "_request",
        "_tap",
        "_upgrade",
        "body",
        "head",
        "heard",
        "keeps",
        "reusable",
        "rewrite",
        "switched",
    )

    def __init__(self, request: RequestHead, *, upgrade: bool, reusable: bool, tap: Tap | None) -> None:
        self._request = request
        self._upgrade = upgrade
        self._reader = HeadReader(request=False)
        self._tap = tap
        self.body = NOTHING
        #: Whether the upstream has said anything.
        self.heard = False
        #: The final head, once it has passed; behind it come only bytes of the body.
        self.head: ResponseHead | None = None
        #: The head by which the upstream changed the protocol. All else that it says is raw.
        self.switched: ResponseHead | None = None
        #: Whether the visitor was told that its connection takes another request.
        self.keeps = False
        #: Whether the upstream can take another request, if the response is complete and nothing is behind it.
        self.reusable = reusable
        #: Makes of the final head what is to pass in its place; None for nothing else.
        self.rewrite: Callable[[ResponseHead], ResponseHead] | None = None

    def receive_data(self, data: bytes, queue: list[bytes], *, keeps: bool) -> None:
        """Take bytes from the upstream, split anywhere, and put what the visitor gets of them into ``queue``.

        :param keeps: whether the visitor's connection could take another request if the final head came now.
        :raises HttpError: the upstream breaks the rules.
        """
        self.heard = True
        if self.head is None:
            data = self._read_head(data, queue, keeps)
        if data and self.head is not None:
            self.body.receive_data(data, queue)

    def look(self, tap: Tap | None) -> None:
        """Show what comes of the body from here on to ``tap``."""
        self._tap = tap
        if not self.body.complete:
            self.body.tap = tap

    def receive_eof(self, queue: list[bytes]) -> None:
        """Take the proper end of the upstream's bytes. See :attr:`complete`."""
        self.body.receive_eof(queue)

    @property
    def complete(self) -> bool:
        """Whether all of the final response has come."""
        return self.head is not None and self.body.complete

    def _read_head(self, data: bytes, queue: list[bytes], keeps: bool) -> bytes:
        """Return what is left of ``data`` behind the heads in it."""
        while data and (found := self._reader.receive_data(data)) is not None:
            head, data = parse_response(found[0]), found[1]
            if head.status >= 200:
                self._begin(head, queue, keeps)
                return data
            if head.status == 101:
                if not self._upgrade or head.values.get("upgrade", "").lower() != UPGRADE:
                    raise HttpError(502, "the service changed to a protocol that it was not asked for")
                self.switched = head
                queue.append(forward_response(head, NO_BODY) + data)
                break
            if self._request.minor:  # HTTP/1.0 knows no informational responses
                queue.append(forward_response(head, NO_BODY))
        return b""

    def _begin(self, head: ResponseHead, queue: list[bytes], keeps: bool) -> None:
        minor = self._request.minor
        framing = response_framing(self._request.method, head)
        kind = framing.kind
        out, chunked = framing, False
        if kind is Kind.CHUNKED or kind is Kind.UNTIL_CLOSE:
            # Chunks tell a visitor of HTTP/1.1 whether the body is complete, and its connection lives on.
            chunked = minor == 1
            keeps = keeps and chunked
            out = CHUNKED if chunked else UNTIL_CLOSE
        if head.status in _REQUEST_WAS_WRONG and "connection" in head.values and not keeps_open(head):
            keeps = False
        self.keeps = keeps
        self.reusable = self.reusable and kind is not Kind.UNTIL_CLOSE and keeps_open(head)
        passed = head if self.rewrite is None else self.rewrite(head)
        queue.append(forward_response(passed, out, connection=connection_field(keeps, minor), minor=minor))
        self.body = Passage(framing, 502, chunked=chunked, tap=self._tap)
        self.head = head


def connection_field(keeps: bool, minor: int) -> str:
    """Return the ``Connection`` that a visitor of HTTP/1.``minor`` is told; empty for none."""
    if not keeps:
        return "close"
    return "" if minor else "keep-alive"
