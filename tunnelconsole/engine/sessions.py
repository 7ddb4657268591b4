"""The register of sessions and channels: who is attached, what is piped, and how much of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.events import (
    BackendAttached,
    BackendLeft,
    ChannelClosed,
    ChannelOpened,
    Crashed,
    SessionClosed,
    SessionOpened,
)
from tunnelconsole.engine.identities import ANONYMOUS as ANONYMOUS  # noqa: PLC0414 - where it is looked for
from tunnelconsole.engine.identities import certificate_of, holder_of
from tunnelconsole.engine.meters import Meter, Meters
from tunnelconsole.engine.transport.pacing import Pace

if TYPE_CHECKING:
    from tunnelconsole.engine.tokens.grants import Grant

SLICE = 256
"""Channels or sessions brought up to date in one go: well under half a millisecond."""


class Flow(Protocol):
    """What moves a channel's bytes, as the register sees it."""

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the session's remote party."""

    @property
    def bytes_out(self) -> int:
        """Bytes that went to it."""

    @property
    def path(self) -> str:
        """``splice``, ``tcp``, ``tls``, ``yamux``, ``sealed`` or ``ssh``."""

    def abort(self, reason: str) -> None:
        """Cuts the flow now; the flow then reports its end in the usual way."""


class Session:
    """One remote party attached to a service.

    :param end: cuts the session from outside; told the reason.
    :param address: where others reach what this session offers; empty when it offers nothing.
    :param grant: what the remote party proved, if that was a token.
    """

    __slots__ = (
        "_ticked_in",
        "_ticked_out",
        "address",
        "bytes_in",
        "bytes_out",
        "certificate",
        "channels",
        "end",
        "grant",
        "holder",
        "id",
        "identity",
        "kind",
        "meter",
        "note",
        "pace",
        "peer",
        "rate_in",
        "rate_out",
        "service",
        "since",
    )

    def __init__(
        self,
        session_id: str,
        service: str,
        kind: str,
        peer: str,
        identity: str,
        meter: Meter,
        end: Callable[[str], None],
        address: str,
        grant: Grant | None,
    ) -> None:
        self.id = session_id
        self.service = service
        self.kind = kind
        self.peer = peer
        self.identity = grant.identity if grant is not None else str(identity)
        self.holder = holder_of(identity, grant)
        """Whom the identity belongs to: what is decided by who somebody is goes by this, and not by a name."""
        self.certificate = certificate_of(identity)
        """The client certificate that let it in, in DER; empty where none was asked for."""
        self.meter = meter
        self.end = end
        self.address = address
        self.grant = grant
        self.note = ""
        """What is not as it should be with the remote party, in a word; empty when all is well."""
        self.pace: Pace | None = None
        """What all its flows keep to together, besides what others have to; None for no limit of its own."""
        self.since = time.time()
        self.channels = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.rate_in = 0.0
        self.rate_out = 0.0
        self._ticked_in = 0
        self._ticked_out = 0

    def tick(self, elapsed: float) -> None:
        """Takes the rates since the last tick, ``elapsed`` seconds ago."""
        self.rate_in = (self.bytes_in - self._ticked_in) / elapsed
        self.rate_out = max(0, self.bytes_out - self._ticked_out) / elapsed  # less: some turned out to be lost
        self._ticked_in = self.bytes_in
        self._ticked_out = self.bytes_out


class Channel:
    """One piped byte stream inside a session.

    :param label: where it leads.
    :param idle_timeout: seconds without a byte either way after which it is cut; 0 for never.
    :param peer: whose stream it is, as far as that is known: the session's, or somebody who came through it.
    """

    __slots__ = (
        "_changed",
        "_settled_in",
        "_settled_out",
        "_ticked_in",
        "_ticked_out",
        "flow",
        "held_up",
        "id",
        "idle_timeout",
        "label",
        "opened_for",
        "other",
        "peer",
        "rate_in",
        "rate_out",
        "session",
        "since",
    )

    def __init__(
        self, channel_id: str, session: Session, label: str, flow: Flow, idle_timeout: float, peer: str
    ) -> None:
        self.id = channel_id
        self.session = session
        self.label = label
        self.peer = peer
        self.opened_for = peer
        """Whose it was at first: by whom it is counted, also where others come over the same stream after that."""
        self.flow = flow
        self.idle_timeout = idle_timeout
        self.other: Grant | None = None
        """What somebody else has proved whose stream it is as well: a token that has it, moves it and limits it too."""
        self.held_up: Callable[[], bool] | None = None
        """Says whether the remote party has more to send that others do not take yet: then it is not idle."""
        self.since = time.time()
        self._changed = time.monotonic()
        self.rate_in = 0.0
        self.rate_out = 0.0
        self._settled_in = 0
        self._settled_out = 0
        self._ticked_in = 0
        self._ticked_out = 0

    def settle(self, node: Meter) -> None:
        """Passes what moved since the last call on to the session, its service and the node."""
        bytes_in, bytes_out = self.flow.bytes_in, self.flow.bytes_out
        more_in, more_out = bytes_in - self._settled_in, bytes_out - self._settled_out
        if more_in or more_out:
            self._settled_in, self._settled_out = bytes_in, bytes_out
            self.session.bytes_in += more_in
            self.session.bytes_out += more_out
            self.session.meter.add(more_in, more_out)
            node.add(more_in, more_out)
            for grant in (self.session.grant, self.other):
                if grant is not None:
                    grant.token.count(more_in + more_out, time.time())

    def tick(self, elapsed: float, now: float) -> None:
        """Takes the rates since the last tick, and cuts the channel when it has been idle too long."""
        moved_in, moved_out = self._settled_in - self._ticked_in, self._settled_out - self._ticked_out
        if moved_in or moved_out:
            self.rate_in = moved_in / elapsed
            self.rate_out = moved_out / elapsed
            self._ticked_in, self._ticked_out = self._settled_in, self._settled_out
            self._changed = now
            return
        self.rate_in = self.rate_out = 0.0
        if self.held_up is not None and self.held_up():
            self._changed = now
        elif self.idle_timeout and now - self._changed >= self.idle_timeout:
            idle, self.idle_timeout = self.idle_timeout, 0.0  # once is enough
            self.flow.abort(f"idle for {idle:g} s")


class Sessions:
    """All sessions and channels of the node. Services open and close them; everyone else reads."""

    def __init__(self, bus: Bus, meters: Meters) -> None:
        self._bus = bus
        self._meters = meters
        self._opened_sessions = 0
        self._opened_channels = 0
        self.sessions: dict[str, Session] = {}
        bus.identity_of = self._identity_of
        self.channels: dict[str, Channel] = {}

    def open_session(
        self,
        service: str,
        kind: str,
        peer: str,
        identity: str,
        end: Callable[[str], None],
        *,
        address: str = "",
        grant: Grant | None = None,
    ) -> Session:
        """Registers a remote party that has been let in.

        :param grant: what it proved, if that was a token; its identity then.
        """
        self._opened_sessions += 1
        meter = self._meters.service(service)
        session = Session(f"s{self._opened_sessions}", service, kind, peer, identity, meter, end, address, grant)
        identity = session.identity
        self.sessions[session.id] = session
        if grant is not None:
            grant.token.sessions[session] = grant
        if address:
            self._bus.publish(
                BackendAttached(service=service, session=session.id, peer=peer, identity=identity, address=address)
            )
        else:
            self._bus.publish(SessionOpened(service=service, session=session.id, peer=peer, identity=identity))
        return session

    def _identity_of(self, session_id: str) -> str:
        session = self.sessions.get(session_id)
        return session.identity if session is not None else ""

    def close_session(self, session: Session, cause: str = "") -> None:
        """Forgets a session whose channels are closed; safe to call twice."""
        if self.sessions.pop(session.id, None) is None:
            return
        if session.grant is not None:
            session.grant.token.sessions.pop(session, None)
        seconds = time.time() - session.since
        if session.address:
            self._bus.publish(
                BackendLeft(
                    service=session.service,
                    session=session.id,
                    peer=session.peer,
                    identity=session.identity,
                    seconds=seconds,
                    bytes_in=session.bytes_in,
                    bytes_out=session.bytes_out,
                    cause=cause,
                    address=session.address,
                )
            )
        else:
            self._bus.publish(
                SessionClosed(
                    service=session.service,
                    session=session.id,
                    peer=session.peer,
                    identity=session.identity,
                    seconds=seconds,
                    bytes_in=session.bytes_in,
                    bytes_out=session.bytes_out,
                    cause=cause,
                )
            )

    def open_channel(
        self,
        session: Session,
        label: str,
        flow: Flow,
        idle_timeout: float = 0.0,
        visitor: str = "",
        other: Grant | None = None,
    ) -> Channel:
        """Registers a byte stream of ``session``.

        :param visitor: whose it is, where that is not the session's peer.
        :param other: see :attr:`Channel.other`.
        """
        self._opened_channels += 1
        channel = Channel(f"c{self._opened_channels}", session, label, flow, idle_timeout, visitor or session.peer)
        self.channels[channel.id] = channel
        channel.other = other
        session.channels += 1
        for grant in (session.grant, other):
            if grant is not None:
                grant.token.channels += 1
        self._bus.publish(
            ChannelOpened(service=session.service, session=session.id, channel=channel.id, label=label, visitor=visitor)
        )
        return channel

    def close_channel(self, channel: Channel, cause: str = "") -> None:
        """Counts a channel's last bytes and forgets it; safe to call twice."""
        if self.channels.pop(channel.id, None) is None:
            return
        channel.settle(self._meters.node)
        session = channel.session
        session.channels -= 1
        for grant in (session.grant, channel.other):
            if grant is not None:
                grant.token.channels -= 1
        self._bus.publish(
            ChannelClosed(
                service=session.service,
                session=session.id,
                channel=channel.id,
                label=channel.label,
                visitor=channel.peer if channel.peer != session.peer else "",
                bytes_in=channel.flow.bytes_in,
                bytes_out=channel.flow.bytes_out,
                seconds=time.time() - channel.since,
                cause=cause,
            )
        )

    def settle(self) -> None:
        """Brings every total up to this moment."""
        node = self._meters.node
        for channel in self.channels.values():
            channel.settle(node)

    def tick(self, elapsed: float) -> Iterator[None]:
        """Once per :data:`~tunnelconsole.engine.meters.TICK`: totals, rates, and channels that have been idle too long.

        Yields after every :data:`SLICE` rows, so that the caller can let the tunnels go on: 5,000 channels in one go
        were measured to hold them up for 7 ms.
        """
        node, now = self._meters.node, time.monotonic()
        for number, channel in enumerate(list(self.channels.values())):
            if channel.id in self.channels:  # else it has been closed since the last slice
                try:
                    channel.settle(node)
                    channel.tick(elapsed, now)
                except Exception as error:  # noqa: BLE001 - one channel's fault must not stop the others' meters
                    self._bus.publish(Crashed.by(error, f"channel {channel.id}", channel.session.service))
            if number % SLICE == SLICE - 1:
                yield
        for number, session in enumerate(list(self.sessions.values())):
            session.tick(elapsed)
            if number % SLICE == SLICE - 1:
                yield
        self._meters.sample(elapsed)
