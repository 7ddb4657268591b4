"""Whoever owns a link in a test, and remembers what they are told."""

from __future__ import annotations

from tunnelconsole.engine.transport.link import Link


class Owner:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.got = b""
        self.news: list[str] = []
        self.pauses = False
        """Whether it takes nothing more after each piece."""

    def link_received(self, link: Link, data: bytes) -> None:
        self.got += data
        if self.pauses:
            link.pause()

    def link_ended(self, link: Link) -> None:
        self.news.append("ended")

    def link_broken(self, link: Link, reason: str) -> None:
        self.news.append(f"broken: {reason}")

    def link_deaf(self, link: Link) -> None:
        self.news.append("deaf")

    def link_drained(self, link: Link) -> None:
        self.news.append("drained")
