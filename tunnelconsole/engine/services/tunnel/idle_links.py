"""Links to the service behind a tunnel that nobody uses now, each watched for its end."""

from __future__ import annotations

from typing import TypeVar, cast

from tunnelconsole.engine.services.spare import SparePool
from tunnelconsole.engine.transport.link import Link

IdleLink = TypeVar("IdleLink", bound=Link)


class IdleLinks(SparePool[IdleLink]):
    """One backend's. It owns them as long as they are here."""

    def keep(self, link: IdleLink) -> None:
        """Keeps a link for the next request, or ends it where there are enough."""
        link.owner = self
        if self.add(link):
            link.resume()
        else:
            self.drop(link)

    def link_received(self, link: Link, data: bytes) -> None:
        """A link that nobody uses says something: whose answer it was is not known any more."""
        self._lose(link)

    def link_ended(self, link: Link) -> None:
        """The client, or its service, closed it."""
        self._lose(link)

    def link_broken(self, link: Link, reason: str) -> None:
        """As :meth:`link_ended`."""
        self._lose(link)

    def link_deaf(self, link: Link) -> None:
        """As :meth:`link_ended`."""
        self._lose(link)

    def link_drained(self, link: Link) -> None:
        """Nothing waits to be sent on it."""

    def _lose(self, link: Link) -> None:
        if link in self:
            known = cast(IdleLink, link)
            self.remove(known)
            self.drop(known)
