"""Services in each other's way: two that listen in one place, and a client that would connect to itself.

Only what is certain is told. What a name means is not looked up, but for ``localhost``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tunnelconsole.config.reader import Reader
from tunnelconsole.engine.access import plain_address
from tunnelconsole.engine.settings import HostPort, ListenAddress, PortRange, via_of
from tunnelconsole.engine.transport.listener import is_loopback
from tunnelconsole.engine.wire.hostport import format_host_port

_ANY_IPV4, _ANY = "0.0.0.0", "::"  # noqa: S104 looked for, not listened on

_WHERE_ANY_LEADS = {_ANY_IPV4: "127.0.0.1", _ANY: "::1"}
"""What whoever dials the address of any host gets to."""


class Claim(NamedTuple):
    """Ports that one key of the configuration takes for itself."""

    key: str
    host: str
    first: int
    last: int

    def __str__(self) -> str:
        address = format_host_port(self.host, self.first)
        return address if self.first == self.last else f"{address}-{self.last}"

    def overlaps(self, other: Claim) -> bool:
        """Whether a port of both is the same one."""
        return self.first <= other.last and other.first <= self.last and _same_host(self.host, other.host)


def claims(path: str, values: Mapping[str, object]) -> Iterator[Claim]:
    """What a service takes once it runs.

    :param path: of its table.
    :param values: those of its settings that could be read.
    """
    for key, value in values.items():
        if isinstance(value, ListenAddress) and value.port:
            yield Claim(f"{path}.{key}", value.host, value.port, value.port)
    ports, bind = values.get("ports"), values.get("bind")
    if isinstance(ports, PortRange) and ports.first and isinstance(bind, str):
        yield Claim(f"{path}.ports", bind, ports.first, ports.last)


def beyond_loopback(address: ListenAddress) -> bool:
    """Whether others than this machine may reach it, as far as its name tells."""
    return not is_loopback(_plain(address.host))


def check_listening(
    reader: Reader, services: Mapping[str, Mapping[str, object]], metrics: ListenAddress | None = None
) -> None:
    """Notes every place where services, or a service and itself, are in each other's way.

    :param services: by the path of each table, those of its settings that could be read. One that is not enabled takes
        nothing.
    :param metrics: what the engine takes for itself.
    """
    taken = list(claims("engine", {"metrics": metrics}))
    for path, values in services.items():
        _check_loop(reader, path, values)
        for claim in claims(path, values) if values.get("enabled") else ():
            for other in taken:
                if claim.overlaps(other):
                    reader.wrong(claim.key, f"{claim} overlaps with {other.key}, which is {other}; choose another port")
            taken.append(claim)


def _check_loop(reader: Reader, path: str, values: Mapping[str, object]) -> None:
    """Notes a client whose server is itself."""
    key = "connect" if values.get("connect") is not None else "server"
    listen, server = values.get("listen"), values.get(key)
    if not isinstance(listen, ListenAddress) or not isinstance(server, HostPort) or "connect" not in values:
        return
    if via_of(server) is not None:
        return  # that port is the SSH host's
    if server.port == listen.port and _leads_back(server.host, listen.host):
        reader.wrong(f"{path}.{key}", f"{server} is its own {path}.listen, so it would connect to itself")


def _same_host(one: str, other: str) -> bool:
    """Whether nobody can listen on a port of one host while somebody does on that of the other."""
    hosts = {_plain(one), _plain(other)}
    if len(hosts) == 1 or _ANY in hosts:
        return True
    return _ANY_IPV4 in hosts and all(_is_ipv4(host) for host in hosts)


def _leads_back(dialled: str, listened: str) -> bool:
    """Whether whoever dials this host gets to who listens on that one, on this very machine."""
    dialled, listened = _plain(dialled), _plain(listened)
    dialled = _WHERE_ANY_LEADS.get(dialled, dialled)
    return dialled == listened or (
        is_loopback(dialled) and listened in (_ANY_IPV4, _ANY) and _same_host(dialled, listened)
    )


def _plain(host: str) -> str:
    """A host in the form in which it can be compared."""
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        return host if "%" in host else str(plain_address(host))
    except ValueError:
        return host.lower()


def _is_ipv4(host: str) -> bool:
    return not host.strip("0123456789.")
