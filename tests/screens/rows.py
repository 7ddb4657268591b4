"""Rows to show: each with everything filled in, and any of it changed by name."""

from __future__ import annotations

from typing import Any

from tunnelconsole.control.audit import AuditRow
from tunnelconsole.control.bans import BanRow
from tunnelconsole.control.messages import ChannelRow, ChidRow, EventRow, History, ServiceRow, SessionRow, Status
from tunnelconsole.control.tokens import SecretRow, TokenRow

NOW = 1_750_000_000.0
"""The present of every test: 2025-06-15 15:06:40 UTC."""


def service(name: str, **facts: Any) -> ServiceRow:
    """A jump server that listens, and has nobody attached."""
    usual: dict[str, Any] = {
        "kind": "jump-server", "state": "listening", "address": "127.0.0.1:9527", "sessions": 0, "channels": 0,
        "bytes_in": 0, "bytes_out": 0, "rate_in": 0.0, "rate_out": 0.0, "error": None, "since": NOW - 3600,
        "retry_at": None, "restarts": 0, "exposed": False, "target": "", "notes": {},
    }  # fmt: skip
    return ServiceRow(name=name, **(usual | facts))


def session(key: str, **facts: Any) -> SessionRow:
    """Alice, attached to home for a minute."""
    usual: dict[str, Any] = {
        "service": "home", "kind": "jump-server", "peer": "198.51.100.7:40001", "identity": "alice", "since": NOW - 60,
        "channels": 0, "bytes_in": 0, "bytes_out": 0, "rate_in": 0.0, "rate_out": 0.0,
    }  # fmt: skip
    return SessionRow(id=key, **(usual | facts))


def channel(key: str, **facts: Any) -> ChannelRow:
    """A channel of Alice's to a web server."""
    usual: dict[str, Any] = {
        "session": "s1", "service": "home", "identity": "alice", "label": "www.example.com:443",
        "peer": "198.51.100.7:40001", "since": NOW - 30, "bytes_in": 0, "bytes_out": 0, "rate_in": 0.0,
        "rate_out": 0.0, "path": "splice",
    }  # fmt: skip
    return ChannelRow(id=key, **(usual | facts))


def chid(name: str, *receivers: str, **facts: Any) -> ChidRow:
    """An anonymous client of the hub that sends to these, or to all, and has sent nothing yet."""
    usual: dict[str, Any] = {
        "service": "hub", "session": f"s-{name}", "channel": f"c-{name}", "peer": "198.51.100.7:40001",
        "identity": "anonymous", "since": NOW - 600, "senders": 0, "bytes_in": 0, "bytes_out": 0, "rate_in": 0.0,
        "rate_out": 0.0, "waiting": 0, "dropped": 0, "undelivered": 0, "ended": False, "waits_for": "", "path": "tcp",
    }  # fmt: skip
    return ChidRow(chid=name, receivers=list(receivers), **(usual | facts))


def ban(address: str, **facts: Any) -> BanRow:
    """One that guessed the secret of home a minute ago, for ten minutes."""
    usual: dict[str, Any] = {
        "service": "home", "reason": "wrong secret", "failures": 10, "turned_away": 0, "since": NOW - 60,
        "until": NOW + 540,
    }  # fmt: skip
    return BanRow(address=address, **(usual | facts))


def event(key: int, text: str, **facts: Any) -> EventRow:
    """Something that happened at home, a second after the one before."""
    usual: dict[str, Any] = {
        "time": NOW - 100 + key, "level": "info", "type": "session-opened", "service": "home", "session": "",
        "channel": "",
    }  # fmt: skip
    return EventRow(id=key, text=text, **(usual | facts))


def status(**facts: Any) -> Status:
    """A node that has run for an hour."""
    usual: dict[str, Any] = {
        "version": "0.1.0", "pid": 4711, "uptime": 3600.0, "services": 1, "sessions": 0, "channels": 0, "bytes_in": 0,
        "bytes_out": 0, "rate_in": 0.0, "rate_out": 0.0, "memory": 48 << 20, "cpu": 0.4, "faults": 0,
        "config": "/etc/tunnelconsole/config.toml", "draining": False,
    }  # fmt: skip
    return Status(**(usual | facts))


def history(rate_in: list[float], rate_out: list[float], service: str = "", first: int = 0) -> History:
    """Throughput, a value a second."""
    return History(service=service, first=first, interval=1.0, rate_in=rate_in, rate_out=rate_out)


def entry(key: int, action: str, **facts: Any) -> AuditRow:
    """Something that root did by a command, a second after the entry before."""
    usual: dict[str, Any] = {
        "time": NOW - 100 + key, "who": "user root (uid 0)", "via": "command", "object": "home", "outcome": "done",
        "text": "",
    }  # fmt: skip
    return AuditRow(id=key, action=action, **(usual | facts))


def token(name: str, **facts: Any) -> TokenRow:
    """A token for everything, made a month ago, and never used."""
    usual: dict[str, Any] = {
        "state": "active", "created": NOW - 30 * 86400, "expires": None, "last_used": None, "sessions": 0,
        "channels": 0, "bytes_today": 0, "rights": {}, "secrets": [SecretRow(created=NOW - 30 * 86400, expires=None)],
    }  # fmt: skip
    return TokenRow(name=name, **(usual | facts))
