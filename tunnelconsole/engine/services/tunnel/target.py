"""What a tunnel's client leads to: a port of this machine, another address, or a folder; and the URL of the tunnel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

import msgspec

from tunnelconsole.engine.settings import HostPort, ServerAddress, split_ssh
from tunnelconsole.engine.transport.dialer import Address, numeric
from tunnelconsole.engine.wire.hostport import parse_host_port
from tunnelconsole.engine.wire.http.head import HttpError, check_host

_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#@]+)/?", re.IGNORECASE)


class TunnelURL(msgspec.Struct, frozen=True):
    """A tunnel's public URL, ``http://app.example.net:8080``; its host is the public hostname.

    ``ssh://gate.example.net/http://app.example.net:8080`` is the same tunnel, reached through an SSH host.
    """

    scheme: str
    address: ServerAddress
    host: str
    """As it is told the server: the port only where it stands in the URL."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a URL.

        :raises ValueError: it is not one; the text says how one is written.
        """
        via, text = split_ssh(text)
        found = _URL.fullmatch(text.strip())
        wrong = f'"{text}" is not the URL of a tunnel; write one as "http://app.example.net:8080", without a path'
        if found is None:
            raise ValueError(wrong)
        scheme, host = found["scheme"].lower(), found["host"]
        has_port = re.search(r":[0-9]+$", host) is not None
        try:
            check_host(host)
            host_port = parse_host_port(host if has_port else f"{host}:{_DEFAULT_PORTS[scheme]}")
        except (HttpError, ValueError):
            raise ValueError(wrong) from None
        return cls(scheme, ServerAddress(*host_port, via), host)


class Target(msgspec.Struct, frozen=True):
    """Where visitors' requests are led."""

    address: HostPort | None
    """None for a folder."""
    folder: str = ""

    def __str__(self) -> str:
        return str(self.address) if self.address is not None else self.folder

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``"3000"``, ``"host:port"``, or a folder, which has a slash or begins with a dot.

        :raises ValueError: it is none of them; the text says how they are written.
        """
        if text.isascii() and text.isdecimal():
            text = f"localhost:{text}"
        elif "/" in text or text.startswith((".", "~")):
            return cls(None, text)
        try:
            return cls(HostPort(*parse_host_port(text)))
        except ValueError as error:
            raise ValueError(f'{error}; a target is a port, "host:port", or a folder such as "./public"') from None

    def resolve(self, base: Path) -> Self:
        """The same target, a folder as an absolute path that starts at ``base``."""
        if not self.folder:
            return self
        return type(self)(None, str(base / Path(self.folder).expanduser()))

    def addresses(self) -> list[Address] | None:
        """Where to dial; None when a name has to be looked up first."""
        if self.address is None:
            raise ValueError(f"{self.folder} is a folder, which cannot be dialled")
        host, port = self.address.host, self.address.port
        # A service of this machine may listen on either; no resolver need be asked for that.
        hosts = ("127.0.0.1", "::1") if host.lower() == "localhost" else (host,)
        found = [numeric(each, port) for each in hosts]
        return [address for address in found if address is not None] or None
