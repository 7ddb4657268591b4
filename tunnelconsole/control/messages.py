"""What travels over the control socket: one JSON document per line, each way.

A console or command sends :class:`Ask` lines; the engine answers each with one :class:`Answer` of the same ``id``.
After a :class:`Watch` request the connection belongs to the watcher: the engine then sends :class:`Update` answers
(``id`` of the ask) until the connection ends.

Times are Unix seconds, durations seconds, sizes bytes, rates bytes per second. Keys are stable: ``--json`` has them.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from tunnelconsole.control.attempts import AttemptRow, Attempts, GetAttempts, PunchAgain
from tunnelconsole.control.audit import Audit, GetAudit, Means
from tunnelconsole.control.bans import BanAddress, BanRow, Bans, GetBans, LiftBan
from tunnelconsole.control.exchange_rows import ExchangeRow, HttpMessage
from tunnelconsole.control.steering import DrainService, PreviewReload, ReloadPreview, SetLimits
from tunnelconsole.control.tokens import (
    ChangeToken,
    CreateToken,
    GetTokens,
    RevokeToken,
    RotateToken,
    TokenMade,
    TokenRow,
    Tokens,
)  # fmt: skip

PROTOCOL = 4
"""Version of this message set; a peer of another version is refused with a sentence that says so."""

MAX_REQUEST = 192 * 1024
"""Bytes in one request line: room for as many receivers as a channel client may have, and nothing is longer."""

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes in one answer line: 100,000 channels at about 300 bytes each fit twice."""

Level = Literal["debug", "info", "warning", "error"]
"""How much an event matters."""

Role = Literal["view", "operate"]
"""What a console may do: only look, or steer too."""

LEVELS: Final[tuple[Level, ...]] = get_args(Level)
"""Every level, the mildest first."""


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One service as it stands."""

    name: str
    kind: str
    state: str
    """One of ``starting listening connecting connected draining backoff stopped failed``."""
    address: str
    """Where it listens, or where a client's service can be reached; empty while there is no such place."""
    sessions: int
    """Sessions open now."""
    channels: int
    """Channels open now."""
    bytes_in: int
    """Bytes that came from remote parties since the service was first configured."""
    bytes_out: int
    rate_in: float
    rate_out: float
    error: str | None
    """Why it is in backoff or failed; None otherwise."""
    since: float
    """When it entered this state."""
    retry_at: float | None
    """When the next try is due, while in backoff."""
    restarts: int
    """How often it was started again after a failure, since the engine started."""
    exposed: bool
    """True when it listens beyond loopback."""
    target: str
    """Where a client leads, or what a server serves, in a few words; may be empty."""
    notes: dict[str, str]
    """More facts by name, such as ``fingerprint`` (SHA-256 of a self-signed certificate)."""
    limits: dict[str, float] = {}
    """Limits in force: ``rate`` (bytes per second), ``sessions``, ``channels``; those that are not there are none."""
    drain_ends: float | None = None
    """When what it still carries is cut, while it is draining."""


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One remote party attached to a service; ``note`` says what is wrong with it, such as ``unhealthy``."""

    id: str
    service: str
    kind: str
    peer: str
    identity: str
    since: float
    channels: int
    bytes_in: int
    bytes_out: int
    rate_in: float
    rate_out: float
    note: str = ""
    address: str = ""
    """Where others reach what it offers: a public ``host:port`` or URL; empty where it offers nothing."""
    limits: dict[str, float] = {}
    """Its own, set by hand: ``rate``; besides those of its service and its identity."""
    token: str = ""
    """The token that it came in with, which is its identity; empty where it was let in by something else."""


class ChannelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One piped byte stream inside a session."""

    id: str
    session: str
    service: str
    label: str
    """Where it leads."""
    peer: str
    """Whose it is: the session's peer, or who came through that, as a visitor does through a relay's backend."""
    since: float
    bytes_in: int
    bytes_out: int
    rate_in: float
    rate_out: float
    path: str
    """How its bytes travel: ``splice`` (through the kernel), ``tls``, ``yamux``, ``sealed``, ``ssh`` (buffered)."""
    identity: str = ""
    """The session's."""


class ChidRow(msgspec.Struct, frozen=True, kw_only=True):
    """One client of a channel server."""

    service: str
    session: str
    channel: str
    chid: str
    peer: str
    identity: str
    since: float
    receivers: list[str]
    """To whom it sends; empty for all others. Of very many only some, first those who are there."""
    more_receivers: int = 0
    """To how many more it sends, who are not named here; see :class:`GetChids`."""
    senders: int
    """How many of those who are there send to it."""
    bytes_in: int
    """Bytes that it sent."""
    bytes_out: int
    """Bytes that went to it."""
    rate_in: float
    rate_out: float
    waiting: int
    """Bytes that wait until it takes them."""
    dropped: int
    """Bytes for it that were lost, because it was too slow or left."""
    undelivered: int
    """Bytes that it sent to receivers that were not there."""
    ended: bool
    """Whether it has closed its sending side, and only listens."""
    waits_for: str
    """The receiver without room for which it is not read at the moment; empty: none."""
    path: str
    """How what it sends travels: ``splice`` (one to one, through the kernel), ``tcp`` or ``tls``."""


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened."""

    id: int
    """Rises by one with every event of the engine; a gap means events were dropped for this reader."""
    time: float
    level: str
    """``debug``, ``info``, ``warning`` or ``error``."""
    type: str
    """Stable name such as ``session-opened``."""
    service: str
    session: str
    channel: str
    text: str
    """One sentence for a person."""
    identity: str = ""
    """Who it is about, as that was proved; empty where it is about nobody who has."""


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """The node in one row."""

    version: str
    pid: int
    uptime: float
    services: int
    sessions: int
    channels: int
    bytes_in: int
    bytes_out: int
    rate_in: float
    rate_out: float
    memory: int
    """Resident memory of the engine's process in bytes."""
    cpu: float
    """Percent of one processor over the last seconds."""
    faults: int
    """Services in backoff or failed."""
    config: str
    """Path of the configuration in force; empty when there is none."""
    draining: bool
    metrics: str = ""
    """Where metrics are served, ``host:port``; empty: nowhere."""
    metrics_exposed: bool = False
    """True when that is beyond loopback."""


class History(msgspec.Struct, frozen=True, kw_only=True, tag="history"):
    """Throughput of the last minutes, oldest first, one value per ``interval`` seconds."""

    service: str = ""
    """Whose; empty for the node."""
    first: int = 0
    """How many values there have been before these, so that further ones can be put behind them."""
    interval: float
    rate_in: list[float]
    rate_out: list[float]


class Services(msgspec.Struct, frozen=True, tag="services"):
    """Every service of the node."""

    rows: list[ServiceRow]


class Sessions(msgspec.Struct, frozen=True, tag="sessions"):
    """Sessions, the oldest first."""

    rows: list[SessionRow]


class Channels(msgspec.Struct, frozen=True, tag="channels"):
    """Channels, the oldest first."""

    rows: list[ChannelRow]


class Chids(msgspec.Struct, frozen=True, tag="chids"):
    """The clients of the channel servers, the oldest of each first."""

    rows: list[ChidRow]


class Exchanges(msgspec.Struct, frozen=True, tag="exchanges"):
    """Exchanges in the order in which they ended; behind them those under way."""

    rows: list[ExchangeRow]
    dropped: int = 0
    """Exchanges this reader missed because they came too fast to be kept."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True, tag="exchange"):
    """All that is kept of one exchange."""

    row: ExchangeRow
    url: str
    """What the visitor asked for."""
    request: HttpMessage
    response: HttpMessage | None
    """None while there is no answer from the service, and where there was none."""
    hidden: int
    """How many secrets are hidden in it; 0 where they are revealed."""
    revealed: bool


class Events(msgspec.Struct, frozen=True, tag="events"):
    """Events, the oldest first."""

    rows: list[EventRow]
    dropped: int = 0
    """Events this reader missed because it read too slowly."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out."""

    text: str
    """What was done, in one sentence."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The request was not carried out."""

    message: str
    hint: str = ""


class Update(msgspec.Struct, frozen=True, kw_only=True, tag="update"):
    """What a watcher sees at each tick; a topic that was not asked for is None.

    ``events``, ``exchanges`` and ``histories`` hold only what is new since the last update that had them; the first on
    a connection has ``exchanges`` and ``histories`` as far as they are kept. Exchanges under way are in every update.
    """

    status: Status
    services: list[ServiceRow] | None = None
    sessions: list[SessionRow] | None = None
    channels: list[ChannelRow] | None = None
    chids: list[ChidRow] | None = None
    exchanges: Exchanges | None = None
    attempts: list[AttemptRow] | None = None
    tokens: list[TokenRow] | None = None
    bans: list[BanRow] | None = None
    events: Events | None = None
    history: History | None = None
    histories: list[History] | None = None
    """Of each service."""


Reply = (
    Status | History | Services | Sessions | Channels | Chids | Exchanges | Exchange | Attempts | Events | Audit | Done
    | Refused | Update | Tokens | TokenMade | Bans | ReloadPreview
)  # fmt: skip


class GetStatus(msgspec.Struct, frozen=True, tag="get-status"):
    """Answered with :class:`Status`."""


class GetServices(msgspec.Struct, frozen=True, tag="get-services"):
    """Answered with :class:`Services`."""


class GetSessions(msgspec.Struct, frozen=True, tag="get-sessions"):
    """Answered with :class:`Sessions`; of one service when named."""

    service: str = ""


class GetChannels(msgspec.Struct, frozen=True, tag="get-channels"):
    """Answered with :class:`Channels`; of one service or session when named."""

    service: str = ""
    session: str = ""


class GetEvents(msgspec.Struct, frozen=True, tag="get-events"):
    """Answered with :class:`Events`: the newest ``limit`` of ``level`` or above with ids above ``after``, oldest first.

    Warnings and errors from before the engine's last start are included; their ids are negative.
    """

    after: int = -(2**62)
    limit: int = 500
    level: Level = "debug"


class GetChids(msgspec.Struct, frozen=True, tag="get-chids"):
    """Answered with :class:`Chids`; of one service when named, or of one session, and then with every receiver."""

    service: str = ""
    session: str = ""


class GetExchanges(msgspec.Struct, frozen=True, tag="get-exchanges"):
    """Answered with :class:`Exchanges`: the last ``limit``, of one service when named."""

    service: str = ""
    limit: int = 500


class GetExchange(msgspec.Struct, frozen=True, tag="get-exchange"):
    """Answered with :class:`Exchange`, its secrets hidden unless ``reveal``."""

    id: str
    reveal: bool = False


class ReplayExchange(msgspec.Struct, frozen=True, tag="replay-exchange"):
    """Sends a request to its service again, the way that visitors come, with all its secrets.

    Answered with the new :class:`Exchange` once it is over, or as it stands after some seconds.
    """

    id: str


class StartService(msgspec.Struct, frozen=True, tag="start-service"):
    """Starts a stopped or failed service, or one in backoff at once."""

    name: str


class StopService(msgspec.Struct, frozen=True, tag="stop-service"):
    """Stops a service and cuts its sessions."""

    name: str


class RestartService(msgspec.Struct, frozen=True, tag="restart-service"):
    """Stops a service, cutting its sessions, and starts it again."""

    name: str


class KickSession(msgspec.Struct, frozen=True, tag="kick-session"):
    """Ends one session and every channel in it."""

    session: str


class CloseChannel(msgspec.Struct, frozen=True, tag="close-channel"):
    """Ends one channel."""

    channel: str


class SetReceivers(msgspec.Struct, frozen=True, tag="set-receivers"):
    """Has a client of a channel server send to others from now on."""

    session: str
    receivers: list[str]
    """Their chids; empty for all others."""


class ReloadConfig(msgspec.Struct, frozen=True, tag="reload-config"):
    """Reads the configuration again, as SIGHUP does; :class:`Refused` names every mistake in it."""


class StopEngine(msgspec.Struct, frozen=True, tag="stop-engine"):
    """Drains and stops the engine, as SIGTERM does."""


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """From now on an :class:`Update` every ``interval`` seconds (0.25 at least) with the named topics.

    Topics: ``services``, ``sessions``, ``channels``, ``chids``, ``exchanges``, ``attempts``, ``events``, ``history``,
    ``histories``, ``tokens``, ``bans``; the status always comes. A further Watch on the same connection replaces
    this one.
    """

    topics: list[str]
    interval: float = 0.5
    service: str = ""
    """Limits sessions, channels, chids, attempts and history to one service."""


Request = (
    GetStatus | GetServices | GetSessions | GetChannels | GetEvents | GetChids | GetExchanges | GetExchange
    | GetAttempts | ReplayExchange | StartService | StopService | RestartService | KickSession | CloseChannel
    | SetReceivers | PunchAgain | ReloadConfig | StopEngine | Watch | GetAudit
    | GetTokens | CreateToken | ChangeToken | RotateToken | RevokeToken
    | GetBans | BanAddress | LiftBan | DrainService | PreviewReload
    | SetLimits
)  # fmt: skip

MIN_INTERVAL = 0.25
"""Seconds between two updates at the least: a person reads no faster, and the engine has tunnels to serve."""


class Ask(msgspec.Struct, frozen=True):
    """One request line."""

    id: int
    request: Request
    protocol: int = PROTOCOL
    means: Means = "command"


class Answer(msgspec.Struct, frozen=True):
    """One answer line; ``id`` is that of the ask."""

    id: int
    reply: Reply


encode = msgspec.json.Encoder().encode
"""Encodes an :class:`Ask` or :class:`Answer` to bytes, without the line's end."""

NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What is raised for what is none of ours: garbage, a text that is not UTF-8, and what is nested too deeply."""

decode_ask = msgspec.json.Decoder(Ask).decode
"""Decodes one request line; raises one of :data:`NOT_JSON` for garbage."""

decode_answer = msgspec.json.Decoder(Answer).decode
"""Decodes one answer line; raises one of :data:`NOT_JSON` for garbage."""
