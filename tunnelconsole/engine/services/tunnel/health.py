"""Whether the service behind a tunnel's client works, as the client finds out by asking it at an interval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from tunnelconsole.engine.services.send_proxy import SendProxy, announce
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.http.head import HeadReader, ResponseHead, parse_response, serialize
from tunnelconsole.errors import ConnectFailed

HealthCheck = Literal["none", "tcp", "http"]
"""What is asked: nothing, whether it takes a connection, or whether it answers a GET with a status from 200 to 399."""

HEALTH_INTERVAL: Final = 10.0
"""Seconds between two checks: frp's, whose users know it."""

HEALTH_TIMEOUT: Final = 3.0
"""Seconds that a check may take: frp's."""

HEALTH_FAILURES: Final = 1
"""Checks that fail in a row until the service counts as unhealthy: frp's."""

AGAIN: Final = 1.0
"""Seconds after a failed check until the next one, if the interval is longer: visitors wait until it is back."""

HEALTHY_STATUSES: Final = range(200, 400)
"""Statuses of a service that works: what proxies commonly take, since a page may be elsewhere."""

_READ: Final = 4096


class Health:
    """What is known of one service.

    :param target: where it is.
    :param path: what is asked for; None to ask only for a connection.
    :param host: what it is told as ``Host``.
    :param interval: seconds between two checks.
    :param timeout: seconds that one may take.
    :param failures: those in a row until it counts as unhealthy.
    :param changed: told each time that it has become healthy or unhealthy, and why.
    :param send_proxy: how it is told that no visitor comes; None where it does not want to be told who does.
    """

    def __init__(
        self,
        target: HostPort,
        path: str | None,
        *,
        host: str,
        interval: float,
        timeout: float,
        failures: int,
        changed: Callable[[bool, str], None],
        send_proxy: SendProxy | None = None,
    ) -> None:
        self._target = target
        self._request = b""
        if path is not None:
            lines = [f"Host: {host}", "User-Agent: tunnelconsole-health", "Accept: */*", "Connection: close"]
            self._request = serialize(f"GET {path} HTTP/1.1", lines)
        self._interval = interval
        self._timeout = timeout
        self._most_failures = failures
        self._changed = changed
        self._send_proxy = send_proxy
        self._failures = 0
        self._doubted = asyncio.Event()
        self.healthy = True
        """Whether it may get visitors: until it has failed, it is taken to work."""

    def doubt(self) -> None:
        """A visitor could not be led to it: the next check is now."""
        self._doubted.set()

    async def watch(self) -> None:
        """Checks until cancelled."""
        while True:
            self._doubted.clear()
            reason = await self._check()
            self._judge(reason)
            pause = min(self._interval, AGAIN) if reason else self._interval
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._doubted.wait()

    def _judge(self, reason: str) -> None:
        self._failures = self._failures + 1 if reason else 0
        healthy = self._failures < self._most_failures if self.healthy else not reason
        if healthy != self.healthy:
            self.healthy = healthy
            self._changed(healthy, reason)

    async def _check(self) -> str:
        """Why the service does not work; "" when it does."""
        try:
            async with asyncio.timeout(self._timeout):
                end = await dial(self._target.host, self._target.port, self._timeout)
                try:
                    if self._send_proxy is not None:
                        announce(end.socket, self._send_proxy, visitor="")
                    return await self._ask(end) if self._request else ""
                finally:
                    end.close()
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"
        except ConnectFailed as error:
            return error.message
        except ProtocolError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    async def _ask(self, end: End) -> str:
        await send_all(end, self._request)
        reader, head = HeadReader(request=False), None
        data = b""
        while head is None or head.status < HEALTHY_STATUSES.start:
            head, data = await _next_head(end, reader, data)
        return "" if head.status in HEALTHY_STATUSES else f"it answered {head.status}"


async def _next_head(end: End, reader: HeadReader, data: bytes) -> tuple[ResponseHead, bytes]:
    """The head of the next answer, and what came behind it.

    :raises ProtocolError: there is none.
    """
    while (found := reader.receive_data(data)) is None:
        data = await receive(end, _READ)
        if not data:
            raise ProtocolError("it closed without an answer")
    return parse_response(found[0]), found[1]
