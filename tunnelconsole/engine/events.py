"""Events: what can happen, each with a type, a level and a sentence. The bus carries them."""

from __future__ import annotations

import traceback
from typing import ClassVar, Literal

import msgspec

from tunnelconsole.engine.floods import Cause
from tunnelconsole.engine.refusals import RefusalKind

Level = Literal["debug", "info", "warning", "error"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. ``type`` and ``level`` are fixed per class; ``text`` is one sentence without secrets."""

    type: ClassVar[str]
    level: ClassVar[Level]
    service: str = ""
    session: str = ""
    channel: str = ""
    identity: str = ""
    """Who it is about, as that was proved; where it is left out and there is a session, the session's."""

    def text(self) -> str:
        """One sentence for a person."""
        raise NotImplementedError

    def flooded_by(self) -> Cause | None:
        """Who brings this about, and why, where strangers can do so without end; None: it is told each time."""
        return None


class ServiceListening(Event, frozen=True, kw_only=True):
    """A server has its listening socket."""

    type: ClassVar[str] = "service-listening"
    level: ClassVar[Level] = "info"
    kind: str
    address: str
    exposed: bool

    def text(self) -> str:
        return f"listening on {self.address}" + (", beyond loopback" if self.exposed else "")


class ServiceConnected(Event, frozen=True, kw_only=True):
    """A client is connected to its server."""

    type: ClassVar[str] = "service-connected"
    level: ClassVar[Level] = "info"
    kind: str
    address: str
    server: str

    def text(self) -> str:
        return f"connected to {self.server}" + (f", reachable at {self.address}" if self.address else "")


class ServiceRetrying(Event, frozen=True, kw_only=True):
    """A service failed and will be started again."""

    type: ClassVar[str] = "service-retrying"
    level: ClassVar[Level] = "warning"
    error: str
    delay: float

    def text(self) -> str:
        return f"{self.error}; next try in {self.delay:.1f} s"


class ServiceFailed(Event, frozen=True, kw_only=True):
    """A service failed in a way that trying again cannot mend."""

    type: ClassVar[str] = "service-failed"
    level: ClassVar[Level] = "error"
    error: str

    def text(self) -> str:
        return f"failed for good: {self.error}"


class ServiceStopped(Event, frozen=True, kw_only=True):
    """A service ended because it was told to."""

    type: ClassVar[str] = "service-stopped"
    level: ClassVar[Level] = "info"
    cause: str

    def text(self) -> str:
        return f"stopped: {self.cause}"


class SessionOpened(Event, frozen=True, kw_only=True):
    """A remote party was let in."""

    type: ClassVar[str] = "session-opened"
    level: ClassVar[Level] = "debug"
    peer: str
    identity: str

    def text(self) -> str:
        return f"{self.identity} from {self.peer}"


class SessionClosed(Event, frozen=True, kw_only=True):
    """A remote party has gone."""

    type: ClassVar[str] = "session-closed"
    level: ClassVar[Level] = "debug"
    peer: str
    identity: str
    seconds: float
    bytes_in: int
    bytes_out: int
    cause: str

    def text(self) -> str:
        end = self.cause or "ended"
        return (
            f"{self.identity} from {self.peer}: {end} after {self.seconds:.1f} s, "
            f"{self.bytes_in} bytes in, {self.bytes_out} out"
        )


class BackendAttached(SessionOpened, frozen=True, kw_only=True):
    """A session that offers something to others, rather than asking for it."""

    type: ClassVar[str] = "backend-attached"
    level: ClassVar[Level] = "info"
    address: str

    def text(self) -> str:
        return f"backend {self.peer} ({self.identity}) is reachable at {self.address}"


class BackendLeft(SessionClosed, frozen=True, kw_only=True):
    """A session that offered something has gone."""

    type: ClassVar[str] = "backend-left"
    level: ClassVar[Level] = "info"
    address: str

    def text(self) -> str:
        return f"backend {self.peer} left {self.address}: {self.cause or 'ended'} after {self.seconds:.1f} s"


class ChannelOpened(Event, frozen=True, kw_only=True):
    """A byte stream is being piped."""

    type: ClassVar[str] = "channel-opened"
    level: ClassVar[Level] = "debug"
    label: str
    visitor: str = ""
    """Whose it is, where that is not the session's peer."""

    def text(self) -> str:
        return _led(self.label, self.visitor)


class ChannelClosed(Event, frozen=True, kw_only=True):
    """A byte stream has ended."""

    type: ClassVar[str] = "channel-closed"
    level: ClassVar[Level] = "debug"
    label: str
    visitor: str = ""
    """Whose it was, where that is not the session's peer."""
    bytes_in: int
    bytes_out: int
    seconds: float
    cause: str

    def text(self) -> str:
        end, led = self.cause or "ended", _led(self.label, self.visitor)
        return f"{led}: {end} after {self.seconds:.1f} s, {self.bytes_in} bytes in, {self.bytes_out} out"


class PeerRefused(Event, frozen=True, kw_only=True):
    """Somebody was turned away: a wrong secret, a forbidden address, a limit, a broken handshake."""

    type: ClassVar[str] = "peer-refused"
    level: ClassVar[Level] = "warning"
    peer: str
    reason: str
    kind: RefusalKind = "other"
    """The reason as one of a few words."""

    @property
    def address(self) -> str:
        """Whose it is: the peer without its port; "" where it came by no address."""
        host = self.peer.rpartition(":")[0]
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    def text(self) -> str:
        return f"refused {self.peer}: {self.reason}"

    def flooded_by(self) -> Cause:
        return Cause(_without_port(self.peer), self.reason)


class TargetFailed(Event, frozen=True, kw_only=True):
    """A target could not be dialled, or is not allowed."""

    type: ClassVar[str] = "target-failed"
    level: ClassVar[Level] = "warning"
    peer: str
    target: str
    reason: str

    def text(self) -> str:
        who = f"{self.peer} ({self.identity})" if self.identity else self.peer
        return f"{who} wanted {self.target}: {self.reason}"

    def flooded_by(self) -> Cause:
        return Cause(_without_port(self.peer), self.reason)


class Repeated(Event, frozen=True, kw_only=True):
    """Something happened more often than it was told one by one."""

    type: ClassVar[str] = "repeated"
    level: ClassVar[Level] = "warning"
    of: str
    """The type of the events that were not told."""
    who: str
    """The address that brought them about, or that they were others."""
    reason: str
    count: int
    seconds: float
    """Within which it was."""

    def text(self) -> str:
        return f"{self.count:,} more {self.of} in {self.seconds:.0f} s from {self.who}: {self.reason}"


class BytesDropped(Event, frozen=True, kw_only=True):
    """Bytes that somebody sent did not arrive; what is lost in a short time comes as one."""

    type: ClassVar[str] = "bytes-dropped"
    level: ClassVar[Level] = "warning"
    chid: str
    """Whose bytes they were, sent or to be received; empty when that is nobody who is here."""
    count: int
    reason: str

    def text(self) -> str:
        return f"{self.count:,} bytes {'of ' + self.chid + ' ' if self.chid else ''}were dropped: {self.reason}"


class ReceiverDisconnected(Event, frozen=True, kw_only=True):
    """A receiver read so slowly that it was disconnected, as its service is told to do."""

    type: ClassVar[str] = "receiver-disconnected"
    level: ClassVar[Level] = "warning"
    peer: str
    chid: str
    waiting: int
    """Bytes that waited for it."""

    def text(self) -> str:
        return f"disconnected {self.chid} ({self.peer}), which reads too slowly: {self.waiting:,} bytes waited for it"


class ReceiversChanged(Event, frozen=True, kw_only=True):
    """An operator had a channel client send to others."""

    type: ClassVar[str] = "receivers-changed"
    level: ClassVar[Level] = "info"
    chid: str
    receivers: str
    """Who they are, in a few words."""

    def text(self) -> str:
        return f"{self.chid} now sends to {self.receivers}"


class SealBroken(Event, frozen=True, kw_only=True):
    """What came was not what the other end had sealed: changed, repeated, incomplete, or with another key."""

    type: ClassVar[str] = "seal-broken"
    level: ClassVar[Level] = "warning"
    peer: str
    """Through whom it came."""
    reason: str

    def text(self) -> str:
        return f"through {self.peer}: {self.reason}"

    def flooded_by(self) -> Cause:
        return Cause(self.peer, self.reason)


class TunnelConnecting(Event, frozen=True, kw_only=True):
    """A tunnel's client dials its server."""

    type: ClassVar[str] = "tunnel-connecting"
    level: ClassVar[Level] = "debug"
    url: str

    def text(self) -> str:
        return f"connecting to {self.url}"


class TunnelConnected(Event, frozen=True, kw_only=True):
    """A tunnel's client has its tunnel."""

    type: ClassVar[str] = "tunnel-connected"
    level: ClassVar[Level] = "debug"
    url: str

    def text(self) -> str:
        return f"visitors may come to {self.url}"


class TunnelDisconnected(Event, frozen=True, kw_only=True):
    """A tunnel's client has lost its tunnel, or has not got one."""

    type: ClassVar[str] = "tunnel-disconnected"
    level: ClassVar[Level] = "debug"
    url: str
    reason: str

    def text(self) -> str:
        return f"no visitor can come to {self.url}: {self.reason}"


class CertificateUnusable(Event, frozen=True, kw_only=True):
    """A certificate's files have changed and cannot be used; the old certificate stays in use."""

    type: ClassVar[str] = "certificate-unusable"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return f"{self.reason}; the one before stays in use"


class CertificateRenewed(Event, frozen=True, kw_only=True):
    """A certificate's files, or that of the clients' authorities, have changed; connections to come go by them."""

    type: ClassVar[str] = "certificate-renewed"
    level: ClassVar[Level] = "info"
    certificate: str
    """The file that was changed."""

    def text(self) -> str:
        return f"{self.certificate} was replaced, and is used for connections from now on"


class ResourcesExhausted(Event, frozen=True, kw_only=True):
    """The process has no descriptors or memory left for newcomers."""

    type: ClassVar[str] = "resources-exhausted"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return f"cannot accept connections: {self.reason}; trying again shortly"

    def flooded_by(self) -> Cause:
        return Cause("all listeners", self.reason)


class Crashed(Event, frozen=True, kw_only=True):
    """A task ended with an exception that nobody expected: a fault of this program."""

    type: ClassVar[str] = "crashed"
    level: ClassVar[Level] = "error"
    task: str
    error: str
    trace: str = ""
    """The traceback; for the log alone."""

    @classmethod
    def by(cls, error: BaseException, task: str, service: str = "") -> Crashed:
        """The event of a task that ``error`` ended."""
        trace = "".join(traceback.format_exception(error))
        return cls(service=service, task=task, error=f"{type(error).__name__}: {error}", trace=trace)

    def text(self) -> str:
        return f"{self.task} failed unexpectedly: {self.error}"


class ConfigReloaded(Event, frozen=True, kw_only=True):
    """A new configuration is in force."""

    type: ClassVar[str] = "config-reloaded"
    level: ClassVar[Level] = "info"
    summary: str

    def text(self) -> str:
        return f"configuration read again: {self.summary}"


class ConfigRefused(Event, frozen=True, kw_only=True):
    """A new configuration has mistakes and was not taken."""

    type: ClassVar[str] = "config-refused"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return f"the new configuration is refused, the old one stays: {self.reason}"


class EngineStopping(Event, frozen=True, kw_only=True):
    """The engine takes nothing new and lets channels finish."""

    type: ClassVar[str] = "engine-stopping"
    level: ClassVar[Level] = "info"
    cause: str
    channels: int

    def text(self) -> str:
        return f"stopping ({self.cause}); {self.channels} channels may finish"


class StoreFailed(Event, frozen=True, kw_only=True):
    """The state file cannot be read or written."""

    type: ClassVar[str] = "store-failed"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return f"state is not being saved: {self.reason}"


class StoreUpdated(Event, frozen=True, kw_only=True):
    """The state file was of an earlier version of this program, and has been brought up to date."""

    type: ClassVar[str] = "store-updated"
    level: ClassVar[Level] = "info"
    path: str
    copy: str
    """Where it was copied to before."""

    def text(self) -> str:
        return f"{self.path} is of an earlier version and has been brought up to date; as it was, it is {self.copy}"


class StoreRecovered(Event, frozen=True, kw_only=True):
    """The state file can be written again."""

    type: ClassVar[str] = "store-recovered"
    level: ClassVar[Level] = "info"
    path: str

    def text(self) -> str:
        return f"state is being saved again in {self.path}"


def _led(label: str, visitor: str) -> str:
    return f"{visitor} to {label}" if visitor else f"to {label}"


def _without_port(peer: str) -> str:
    """A peer as it comes again: its port, or the number of its stream, is another one each time."""
    if peer.startswith("stream "):
        return "streams"
    host, colon, port = peer.rpartition(":")
    return host if colon and port.isdigit() else peer
