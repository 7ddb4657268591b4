"""What a scripted engine may have to tell."""

from __future__ import annotations

import math

from msgspec.structs import replace

from attempt_rows import CONE, attempt, candidate, direct, moments, relayed
from exchange_rows import exchange, exchange_row, message
from screens.rows import NOW, ban, channel, chid, entry, event, history, service, session, status, token
from screens.scripted_engine import Script
from tunnelconsole.control.messages import ChidRow
from tunnelconsole.control.tokens import SecretRow
from tunnelconsole.screens.sending import Web, receiver


def quiet() -> Script:
    """One service, nobody attached."""
    return Script(status=status(), services=[service("home")])


def guessed() -> Script:
    """Two addresses guessed secrets, and an operator has banned a third."""
    return Script(
        status=status(),
        services=[service("home")],
        bans=[
            ban("192.0.2.7", turned_away=1234),
            ban("2001:db8:0:1::/64", since=NOW - 600, until=NOW + 1800, failures=25, turned_away=3),
            ban("203.0.113.9", service="", reason="by hand", failures=0, since=NOW - 7200, until=NOW + 500_000),
        ],
    )


def nothing() -> Script:
    """An engine without a single service."""
    return Script(status=status(services=0))


def evening() -> Script:
    """Servers and clients, some in trouble, one open to other machines, and traffic."""
    minutes = range(300)
    services = [
        service("home", sessions=3, channels=12, rate_in=2_900_000.0, rate_out=1_300_000.0, bytes_in=8 << 30,
                bytes_out=700 << 20, target="*.example.com:443, 10.0.0.0/8:*"),
        service("via-home", kind="jump-client", state="connected", address="127.0.0.1:1080", sessions=2, channels=9,
                rate_in=180_000.0, rate_out=22_000.0, bytes_in=3 << 20, bytes_out=9 << 20,
                target="SOCKS5 through home.example.net:9527"),
        service("edge", kind="relay-server", address="0.0.0.0:7000", sessions=1, channels=5, rate_in=75_000.0,
                bytes_in=1 << 30, bytes_out=5 << 30, exposed=True, target="public ports 7001-7020",
                notes={"fingerprint": "9f:86:d0:81:88:4c:7d:65:9a:2f:ea:a0:c5:5a:d0:15"}),
        service("lab", kind="jump-client", state="backoff", address="", since=NOW - 95, retry_at=NOW + 12, restarts=3,
                error="cannot reach lab.example.net:9527: connection refused",
                target="SOCKS5 through lab.example.net:9527"),
        service("partner", kind="relay-client", state="failed", address="", since=NOW - 40_000,
                error="the far end does not accept our secret", target="127.0.0.1:8080"),
        service("old", state="stopped", address="", since=NOW - 90_000),
    ]  # fmt: skip
    sessions = [
        session("s1", peer="198.51.100.7:40001", identity="alice", channels=8, rate_in=2_400_000.0, bytes_in=7 << 30),
        session("s2", peer="[2001:db8::17]:40002", identity="bob", channels=4, rate_in=500_000.0, rate_out=1_300_000.0),
        session("s3", peer="203.0.113.9:40003", identity="ci-runner", since=NOW - 200_000),
        session("s4", service="via-home", kind="jump-client", peer="127.0.0.1:51000", identity="anonymous", channels=9,
                rate_in=180_000.0, rate_out=22_000.0),
        session("s5", service="edge", kind="relay-server", peer="192.0.2.44:40005", identity="anonymous", channels=5,
                rate_in=75_000.0),
    ]  # fmt: skip
    channels = [
        channel("c1", label="www.example.com:443", rate_in=2_400_000.0, bytes_in=7 << 30, since=NOW - 7200),
        channel("c2", session="s2", peer="[2001:db8::17]:40002", label="db.internal:5432", rate_in=500_000.0,
                rate_out=1_300_000.0, path="tls"),
        channel("c3", session="s4", peer="127.0.0.1:51000", service="via-home", label="git.example.com:22",
                rate_in=180_000.0, rate_out=22_000.0),
        channel("c4", session="s5", peer="203.0.113.80:61000", service="edge", label="192.0.2.44:40005",
                rate_in=75_000.0, path="yamux"),
        channel("c5", session="s1", label="api.example.com:443", bytes_in=4096, since=NOW - 5),
    ]  # fmt: skip
    events = [
        event(1, "TunnelConsole 0.1.0 started with 6 services", type="engine-started", service="", time=NOW - 4000),
        event(2, "listens on 0.0.0.0:7000, which other machines can reach", level="warning", type="service-exposed",
              service="edge", time=NOW - 3998),
        event(3, "the far end does not accept our secret; it is not tried again", level="error",
              type="credentials-refused", service="partner", time=NOW - 3990),
        event(4, "alice attached from 198.51.100.7:40001", session="s1", time=NOW - 300),
        event(5, "198.51.100.66:51100 was refused: unknown secret", level="warning", type="session-refused",
              time=NOW - 200),
        event(6, "a channel to www.example.com:443 was opened", level="debug", type="channel-opened", session="s1",
              channel="c1", time=NOW - 120),
        event(7, "cannot reach lab.example.net:9527: connection refused; next try in 16s", level="warning",
              type="connect-failed", service="lab", time=NOW - 95),
        event(8, "bob attached from [2001:db8::17]:40002", session="s2", time=NOW - 60),
    ]  # fmt: skip
    return Script(
        status=status(services=6, sessions=5, channels=26, bytes_in=9 << 30, bytes_out=6 << 30, rate_in=3_155_000.0,
                      rate_out=1_322_000.0, faults=2),
        services=services,
        sessions=sessions,
        channels=channels,
        events=events,
        history=history(
            [2e6 + 1.1e6 * math.sin(minute / 17) for minute in minutes],
            [9e5 + 6e5 * math.sin(minute / 9) for minute in minutes],
        ),
        histories=[
            history(
                [1.9e6 + 1e6 * math.sin(minute / 17) for minute in minutes],
                [8e5 + 5e5 * math.sin(minute / 9) for minute in minutes],
                "home",
            ),
            history([max(0.0, 2e5 * math.sin(minute / 5)) for minute in minutes], [2e4 for _ in minutes], "via-home"),
            history([75e3 for _ in minutes[:20]], [0.0 for _ in minutes[:20]], "edge"),
        ],
    )  # fmt: skip


def _with_senders(chids: list[ChidRow]) -> list[ChidRow]:
    """The clients, each with as many senders as really send to it."""
    web = Web(chids)
    return [replace(row, senders=sum(1 for _ in web.senders(receiver(row)))) for row in chids]


def hub() -> Script:
    """A channel server with a few clients: named receivers and all, one too slow, one that lost some, one away."""
    chids = [
        chid("desk", "laptop", "wall", rate_in=1_200_000.0, bytes_in=3 << 30, identity="alice", since=NOW - 7200),
        chid("laptop", "desk", rate_in=42_000.0, rate_out=1_200_900.0, bytes_in=9 << 20, bytes_out=3 << 30,
             identity="alice", peer="[2001:db8::17]:40002"),
        chid("news", rate_in=900.0, bytes_in=70_000, peer="203.0.113.9:40003"),
        chid("wall", "recorder", "archive", rate_out=1_200_900.0, bytes_out=3 << 30, undelivered=5 << 20,
             peer="203.0.113.10:40004"),
        chid("probe-7", "recorder", waits_for="recorder", bytes_in=48 << 20, peer="192.0.2.44:40005"),
        chid("recorder", "desk", waiting=256 << 10, dropped=1_300_000, bytes_out=40 << 20, peer="192.0.2.45:40006",
             identity="recorder"),
        chid("printer", "news", rate_out=900.0, ended=True, bytes_in=400, bytes_out=70_000),
    ]  # fmt: skip
    services = [
        service("hub", kind="channel-server", address="127.0.0.1:8601", sessions=len(chids), channels=len(chids),
                rate_in=1_243_000.0, rate_out=2_400_000.0, notes={"mode": "chan"}),
        service("home"),
    ]  # fmt: skip
    return Script(
        status=status(services=2, sessions=7, channels=7, rate_in=1_243_000.0, rate_out=2_400_000.0),
        services=services,
        chids=_with_senders(chids),
    )


def crowded_hub(count: int = 50) -> Script:
    """A channel server with many clients: cameras that send to walls and round in a ring, and a director to all."""
    walls = [f"wall-{number}" for number in range(1, 5)]
    cameras = [f"cam-{number:02}" for number in range(1, count - 4)]
    chids = [chid("director", rate_in=2_500.0), *(chid(wall, "director", rate_out=9e6) for wall in walls)]
    for number, camera in enumerate(cameras):
        to = [walls[number % 4], *(walls[:1] if number % 9 == 0 else []), cameras[(number + 1) % len(cameras)]]
        rate = (0.0, 3_000.0, 450_000.0, 12_000_000.0)[number % 7 % 4]
        slow = {"waits_for": "wall-3", "rate_in": 0.0} if number == 14 else {"rate_in": rate}
        chids.append(chid(camera, *dict.fromkeys(to), rate_out=rate, identity="studio", **slow))
    chids[3] = replace(chids[3], waiting=256 << 10, dropped=70_000)
    services = [service("hub", kind="channel-server", address="127.0.0.1:8601", sessions=count, channels=count)]
    return Script(status=status(sessions=count, channels=count), services=services, chids=_with_senders(chids))


USERS = b'{"users": [{"id": 7, "name": "Gr\xc3\xa9ta", "token": "[hidden]"}], "page": 2, "more": false}'


def tunnels() -> Script:
    """A tunnel's server and client, and requests of many kinds through them."""
    rows = [
        exchange_row("x1", target="/", started=NOW - 300, response_bytes=5120, content_type="text/html; charset=utf-8"),
        exchange_row("x2", target="/static/app.js?v=17", started=NOW - 299, seconds=0.0312, seconds_to_answer=0.004,
                     response_bytes=381_000, content_type="text/javascript"),
        exchange_row("x3", target="/logo.png", started=NOW - 298, status=304, seconds=0.0006, seconds_to_answer=0.0006),
        exchange_row("x4", target="/api/login", method="POST", started=NOW - 120, status=401, request_bytes=64,
                     response_bytes=31, content_type="application/json", peer="203.0.113.80:61000"),
        exchange_row("x5", target="/api/users?page=2&token=[hidden]", method="POST", started=NOW - 60, seconds=0.1234,
                     seconds_to_answer=0.0871, request_bytes=25, response_bytes=len(USERS),
                     content_type="application/json"),
        exchange_row("x6", target="/report", started=NOW - 45, status=502, seconds=0.002, seconds_to_answer=None,
                     error="the tunnel is there, but its local service refuses connections", host="shop.example.net",
                     peer="[2001:db8::17]:50100"),
        exchange_row("x7", target="/video.mp4", started=NOW - 40, seconds=12.4, seconds_to_answer=0.03,
                     response_bytes=88 << 20, content_type="video/mp4",
                     error="the visitor left before the exchange was complete"),
        exchange_row("x8", target="/api/users?page=2&token=[hidden]", method="POST", started=NOW - 20, seconds=0.1102,
                     seconds_to_answer=0.08, request_bytes=25, response_bytes=len(USERS), replay_of="x5",
                     content_type="application/json"),
        exchange_row("x9", target="/events", started=NOW - 9, seconds=None, seconds_to_answer=0.01, response_bytes=2048,
                     content_type="text/event-stream"),
        exchange_row("x10", target="/slow", started=NOW - 3, seconds=None, seconds_to_answer=None, status=0,
                     service="web-app"),
    ]  # fmt: skip
    browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox"
    form = "Content-Type: application/x-www-form-urlencoded"
    asked = ["Host: app.example.net:8080", browser, "Accept: application/json", form, "Content-Length: 25"]
    answered = ["Content-Type: application/json", f"Content-Length: {len(USERS)}", "Server: example"]
    target = rows[4].target
    hidden = exchange(
        message(f"POST {target} HTTP/1.1", *asked, "Authorization: Bearer [hidden]",
                "Cookie: sid=[hidden]; theme=[hidden]", body=b"user=me&password=[hidden]"),
        message("HTTP/1.1 200 OK", *answered, "Set-Cookie: sid=[hidden]; Path=/; HttpOnly", body=USERS),
        url=f"http://app.example.net:8080{target}", hidden=7,
    )  # fmt: skip
    plain = exchange(
        message("POST /api/users?page=2&token=t0k3n HTTP/1.1", *asked, "Authorization: Bearer eyJhbGciOi",
                "Cookie: sid=c00k1e; theme=dark", body=b"user=me&password=s3cr3t!!"),
        message("HTTP/1.1 200 OK", *answered, "Set-Cookie: sid=c00k1e; Path=/; HttpOnly",
                body=USERS.replace(b"[hidden]", b"u53r-t0k3n")),
        url="http://app.example.net:8080/api/users?page=2&token=t0k3n", revealed=True,
    )  # fmt: skip
    video = exchange(
        message("GET /video.mp4 HTTP/1.1", "Host: app.example.net", "Range: bytes=0-"),
        message("HTTP/1.1 200 OK", "Content-Type: video/mp4", body=bytes(range(256)) * 256, cut=True),
    )
    refused = exchange(message("GET /report HTTP/1.1", "Host: shop.example.net"))
    again = replace(hidden, row=rows[7])
    return Script(
        status=status(services=2, sessions=2, channels=3),
        services=[
            service("web", kind="tunnel-server", address="127.0.0.1:8080", sessions=1, channels=3),
            service("web-app", kind="tunnel-client", state="connected", address="http://app.example.net:8080",
                    target="localhost:3000 via http://app.example.net:8080"),
        ],
        exchanges=rows,
        opened={
            ("x5", False): replace(hidden, row=rows[4]),
            ("x5", True): replace(plain, row=replace(rows[4], target="/api/users?page=2&token=t0k3n")),
            ("x6", False): replace(refused, row=rows[5]),
            ("x7", False): replace(video, row=rows[6]),
            ("x8", False): again,
            ("x10", False): replace(refused, row=rows[9]),
        },
        replayed=again,
    )  # fmt: skip


def punches() -> Script:
    """Punch clients of some rooms: tries that came to everything that they can, and two under way."""
    words = "NAT with the next port for each destination; drops strangers"
    counting = replace(CONE, mapping="sequential", words=words, address="203.0.113.7:40777")
    guessed = [f"203.0.113.7:{40778 + number}" for number in range(6)]
    attempts = [
        direct("p1", started=NOW - 7300),
        relayed("p2", service="to-lab", room="lab", started=NOW - 600),
        attempt(
            "p3", service="to-lab", room="lab", state="failed", started=NOW - 400, seconds=3.4, syns=61, ours=CONE,
            theirs=counting,
            reason="no connection came through within 2.5 s",
            candidates=[
                candidate("203.0.113.7:40777", "mapped", "silent", tries=2, ms=3390.0),
                *(candidate(guess, "predicted", "refused" if at % 2 else "silent", tries=9, ms=900.0 + 7 * at)
                  for at, guess in enumerate(guessed)),
                candidate("198.51.100.9:51000", "accepted", "wrong peer", tries=0, ms=2100.0),
            ],
            timeline=moments(
                (0.0, "observing"), (190.0, "offered"), (240.0, "plans to try the next 20 ports of its NAT"),
                (300.0, "racing"), (301.0, "trying", "203.0.113.7:40777"),
                *((302.0 + at, "trying", guess) for at, guess in enumerate(guessed)),
                *((900.0 + 7 * at, "refused", guess) for at, guess in enumerate(guessed) if at % 2),
                (2000.0, "accepted", "198.51.100.9:51000"), (2001.0, "connected", "198.51.100.9:51000"),
                (2100.0, "wrong peer", "198.51.100.9:51000"), (3390.0, "silent", "203.0.113.7:40777"),
                *((3390.0, "silent", guess) for at, guess in enumerate(guessed) if at % 2 == 0), (3400.0, "failed"),
            ),
        ),
        attempt("p4", service="to-attic", room="attic", state="left", seconds=12.0, started=NOW - 300,
                reason="the other side left"),
        attempt(
            "p5", service="to-lab", room="lab", state="racing", started=NOW - 1.2, syns=4, ours=CONE,
            theirs=replace(CONE, address="203.0.113.7:40790"),
            candidates=[candidate("203.0.113.7:40790", "mapped", "trying", tries=3, ms=420.0),
                        candidate("192.168.7.9:40790", "host", "unreachable", tries=2, ms=421.0)],
            timeline=moments((0.0, "observing"), (210.0, "offered"), (300.0, "plans to dial its addresses"),
                             (410.0, "racing"), (420.0, "trying", "203.0.113.7:40790"),
                             (421.0, "unreachable", "192.168.7.9:40790")),
        ),
        attempt("p6", service="to-attic", room="attic", started=NOW - 200),
    ]  # fmt: skip
    names = {"to-desk": "desk", "to-lab": "lab", "to-attic": "attic"}
    services = [
        service(name, kind="punch-client", state="connected", address="127.0.0.1:5901", sessions=1,
                target=f"room {room} at meet.example.net:7900", notes={"room": room})
        for name, room in names.items()
    ]  # fmt: skip
    return Script(status=status(services=3, sessions=2), services=services, attempts=attempts)


ALICE = "ssh alice SHA256:ZvO5KjoLbNlR/9bSbgidp8Qz/aZKF+Gj5BbpdaWORms"

LONG = (
    f"the configuration has mistakes: {'; '.join(f'service.s{number}.listen: expected a port' for number in range(9))}"
)


def trail() -> Script:
    """Root has stopped home, Alice was refused something, and a reload was a mistake."""
    return Script(
        status=status(),
        services=[service("home", state="stopped")],
        events=[event(1, "an entry", type="audited")],
        audit=[
            entry(-1, "stop-engine", who="engine", via="engine", object="process 1"),
            entry(1, "stop-service", text="service home is stopped"),
            entry(
                2, "kick-session", who=ALICE, via="ssh", object="s9", outcome="refused", text="there is no session s9"
            ),
            entry(3, "reload-config", via="console", object="", outcome="refused", text=LONG),
        ],
    )


def credentials() -> Script:
    """Tokens in every state: one in use and near its quota, one about to expire, one being rotated, and some over."""
    rotated = [SecretRow(created=NOW - 40 * 86400, expires=NOW + 7200), SecretRow(created=NOW - 3600, expires=None)]
    tokens = [
        token("alice", expires=NOW + 29 * 86400, last_used=NOW - 300, sessions=2, channels=7, bytes_today=9_900_000_000,
              rights={"kinds": ["relay", "tunnel"], "hosts": ["*.alice.example.net"],
                      "ports": ["7001-7010", "9000-9000"], "rate": 1_000_000.0, "sessions": 5,
                      "bytes_per_day": 10 << 30}),
        token("build-farm", last_used=NOW - 7200, rights={"kinds": ["jump"], "destinations": ["*.example.com:443"],
                                                          "clients": ["192.0.2.0/24"]}),
        token("contractor", expires=NOW + 30 * 3600, last_used=NOW - 90_000, bytes_today=52 << 20,
              rights={"kinds": ["channel"], "chids": ["desk", "lab-*"], "requests": 2.5}),
        token("intern", state="disabled", expires=NOW + 60 * 86400, rights={"kinds": ["punch"], "rooms": ["lab"]}),
        token("mirror", state="exhausted", expires=NOW + 400 * 86400, last_used=NOW - 1200, bytes_today=1 << 30,
              rights={"bytes_per_day": 1 << 30}),
        token("moving", secrets=rotated, last_used=NOW - 60),
        token("old", state="expired", expires=NOW - 86400 * 3),
        token("setup", state="used", last_used=NOW - 86400 * 12, rights={"one_time": True, "sessions": 1}),
    ]  # fmt: skip
    sessions = [
        session("s1", service="edge", kind="relay-server", identity="alice", token="alice", channels=5, since=NOW - 300,
                bytes_in=9_000_000_000, bytes_out=890_000_000, rate_in=850_000.0),
        session("s2", service="web", kind="tunnel-server", identity="alice", token="alice", channels=2,
                peer="[2001:db8::17]:40002", since=NOW - 90_000, bytes_in=40_000, bytes_out=9 << 20),
        session("s3", identity="alice", peer="203.0.113.9:40003"),  # by a secret in the configuration, of the same name
    ]  # fmt: skip
    services = [
        service("home", sessions=1),
        service("edge", kind="relay-server", address="127.0.0.1:7000", sessions=1),
        service("web", kind="tunnel-server", address="127.0.0.1:8080", sessions=1),
    ]
    return Script(
        status=status(services=3, sessions=3, channels=7), services=services, sessions=sessions, tokens=tokens
    )
