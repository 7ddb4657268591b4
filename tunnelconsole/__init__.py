"""TunnelConsole: one console for every kind of TCP tunnel.

What a program of your own can use, typed, and loaded when it is first touched:

- :mod:`tunnelconsole.jump`, :mod:`tunnelconsole.relay`, :mod:`tunnelconsole.channel`, :mod:`tunnelconsole.tunnel` and
  :mod:`tunnelconsole.punch`: one system each, for a connection through a jump host, for a public port of a local
  service, for a stream to others by their channel ids, for a public hostname of a local web service, and for a direct
  connection between two hosts behind NATs.
- :class:`Engine`: any number of services on your own event loop, each described by its settings
  (:class:`JumpServerSettings` and so on), which are made of :class:`HostPort`, :class:`ListenAddress`,
  :class:`PortRange`, :class:`Secret`, :class:`TLSSettings`, and for servers that are reached through an SSH host
  :class:`ServerAddress` and :class:`SSHSettings`. Its ``tokens`` are the credentials of its servers' clients, each with
  :class:`TokenRights`.
- :mod:`tunnelconsole.errors`: everything that these raise on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunnelconsole import channel, errors, jump, punch, relay, tunnel
    from tunnelconsole.engine.engine import Engine
    from tunnelconsole.engine.services.channel.client import ChannelClientSettings
    from tunnelconsole.engine.services.channel.server import ChannelServerSettings
    from tunnelconsole.engine.services.jump.client import JumpClientSettings
    from tunnelconsole.engine.services.jump.server import JumpServerSettings
    from tunnelconsole.engine.services.punch.client import PunchClientSettings
    from tunnelconsole.engine.services.punch.server import PunchServerSettings
    from tunnelconsole.engine.services.relay.client import RelayClientSettings
    from tunnelconsole.engine.services.relay.server import RelayServerSettings
    from tunnelconsole.engine.services.tunnel.client import TunnelClientSettings
    from tunnelconsole.engine.services.tunnel.server import TunnelServerSettings
    from tunnelconsole.engine.settings import (
        HostPort,
        ListenAddress,
        PortRange,
        Secret,
        ServerAddress,
        SSHSettings,
        TLSSettings,
    )
    from tunnelconsole.engine.tokens.rights import TokenRights

__version__ = "0.1.0"

__all__ = [
    "ChannelClientSettings",
    "ChannelServerSettings",
    "Engine",
    "HostPort",
    "JumpClientSettings",
    "JumpServerSettings",
    "ListenAddress",
    "PortRange",
    "PunchClientSettings",
    "PunchServerSettings",
    "RelayClientSettings",
    "RelayServerSettings",
    "SSHSettings",
    "Secret",
    "ServerAddress",
    "TLSSettings",
    "TokenRights",
    "TunnelClientSettings",
    "TunnelServerSettings",
    "__version__",
    "channel",
    "errors",
    "jump",
    "punch",
    "relay",
    "tunnel",
]

_MODULES = ("channel", "errors", "jump", "punch", "relay", "tunnel")
_CLASSES = {
    "ChannelClientSettings": "tunnelconsole.engine.services.channel.client",
    "ChannelServerSettings": "tunnelconsole.engine.services.channel.server",
    "Engine": "tunnelconsole.engine.engine",
    "HostPort": "tunnelconsole.engine.settings",
    "JumpClientSettings": "tunnelconsole.engine.services.jump.client",
    "JumpServerSettings": "tunnelconsole.engine.services.jump.server",
    "ListenAddress": "tunnelconsole.engine.settings",
    "PortRange": "tunnelconsole.engine.settings",
    "PunchClientSettings": "tunnelconsole.engine.services.punch.client",
    "PunchServerSettings": "tunnelconsole.engine.services.punch.server",
    "RelayClientSettings": "tunnelconsole.engine.services.relay.client",
    "RelayServerSettings": "tunnelconsole.engine.services.relay.server",
    "SSHSettings": "tunnelconsole.engine.settings",
    "Secret": "tunnelconsole.engine.settings",
    "ServerAddress": "tunnelconsole.engine.settings",
    "TLSSettings": "tunnelconsole.engine.settings",
    "TokenRights": "tunnelconsole.engine.tokens.rights",
    "TunnelClientSettings": "tunnelconsole.engine.services.tunnel.client",
    "TunnelServerSettings": "tunnelconsole.engine.services.tunnel.server",
}


if not TYPE_CHECKING:  # a checker knows the names above, and shall not think that there are any others

    def __getattr__(name: str) -> object:
        """Loads what is asked for (PEP 562), so that a command which needs none of it starts at once."""
        from importlib import import_module  # noqa: PLC0415 - lazy, as everything here

        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name in _CLASSES:
            return getattr(import_module(_CLASSES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
