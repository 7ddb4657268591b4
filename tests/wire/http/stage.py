"""The owner of an :class:`Exchanges`, with a visitor and services made of bytes."""

from __future__ import annotations

from collections.abc import Iterable

from tunnelconsole.engine.wire.http.exchange import Event, ExchangeDone, Exchanges, RequestReady
from tunnelconsole.engine.wire.http.forward import Peer
from wire.http.cases import Passed, merged

ADDRESS = "192.0.2.7"
VISITOR = Peer(ADDRESS, "http")


class Stage:
    """Forwards each request to a service of its own, unless told not to.

    :param decides: False: leaves each request to the test.
    """

    def __init__(self, *, decides: bool = True, peer: Peer = VISITOR) -> None:
        self.exchanges = Exchanges(peer)
        self.decides = decides
        self.events: list[Event] = []
        self.at_visitor = b""
        self.at_services: list[bytes] = []
        """What each service got, the last one being the one that answers."""

    @property
    def at_service(self) -> bytes:
        return self.at_services[-1]

    def visitor(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.take(self.exchanges.receive_from_visitor(piece))

    def service(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.take(self.exchanges.receive_from_upstream(piece))

    def forward(self, host: str = "", *, keep: bool = True) -> None:
        self.at_services.append(b"")
        self.take(self.exchanges.forward(host=host, keep=keep))

    def take(self, events: list[Event]) -> None:
        """Does what an owner does after each call."""
        self._move()
        for event in events:
            self.events.append(event)
            if isinstance(event, RequestReady) and self.decides:
                self.forward()

    def _move(self) -> None:
        if data := self.exchanges.data_for_upstream():
            self.at_services[-1] += data
        self.at_visitor += self.exchanges.data_for_visitor()

    def kinds(self) -> list[str]:
        """The names of the events, and forget them."""
        names = [type(event).__name__ for event in self.events]
        self.events.clear()
        return names

    def done(self) -> ExchangeDone:
        """The only event, which must be the end of an exchange; forgets it."""
        (event,) = self.events
        assert isinstance(event, ExchangeDone)
        self.events.clear()
        return event


def play(case: Passed, visitor_pieces: Iterable[bytes], *, bytewise: bool = False) -> Stage:
    """Plays a case through: ``bytewise`` the services answer byte by byte."""
    stage = Stage()
    answered = 0
    for piece in visitor_pieces:
        stage.visitor(piece)
        while answered < len(case.steps) and len(stage.at_services) > answered:
            step = case.steps[answered]
            if merged(stage.at_services[answered]) != step.forwarded_from(ADDRESS, "http"):
                break
            answered += 1
            if bytewise:
                stage.service(*(step.response[at : at + 1] for at in range(len(step.response))))
            else:
                stage.service(step.response)
            if case.service_closes and answered == len(case.steps):
                stage.take(stage.exchanges.upstream_ended())
    return stage
