"""Which kinds of service there are."""

from __future__ import annotations

from typing import Any

from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.channel.client import ChannelClient, ChannelClientSettings
from tunnelconsole.engine.services.channel.server import ChannelServer, ChannelServerSettings
from tunnelconsole.engine.services.jump.client import JumpClient, JumpClientSettings
from tunnelconsole.engine.services.jump.server import JumpServer, JumpServerSettings
from tunnelconsole.engine.services.punch.client import PunchClient, PunchClientSettings
from tunnelconsole.engine.services.punch.server import PunchServer, PunchServerSettings
from tunnelconsole.engine.services.relay.client import RelayClient, RelayClientSettings
from tunnelconsole.engine.services.relay.server import RelayServer, RelayServerSettings
from tunnelconsole.engine.services.service import Service, ServiceSettings
from tunnelconsole.engine.services.ssh.server import SSHServer, SSHServerSettings
from tunnelconsole.engine.services.tunnel.client import TunnelClient, TunnelClientSettings
from tunnelconsole.engine.services.tunnel.server import TunnelServer, TunnelServerSettings

KINDS: dict[str, tuple[type[ServiceSettings], type[Service[Any]]]] = {
    JumpServer.kind: (JumpServerSettings, JumpServer),
    JumpClient.kind: (JumpClientSettings, JumpClient),
    RelayServer.kind: (RelayServerSettings, RelayServer),
    RelayClient.kind: (RelayClientSettings, RelayClient),
    TunnelServer.kind: (TunnelServerSettings, TunnelServer),
    TunnelClient.kind: (TunnelClientSettings, TunnelClient),
    ChannelServer.kind: (ChannelServerSettings, ChannelServer),
    ChannelClient.kind: (ChannelClientSettings, ChannelClient),
    PunchServer.kind: (PunchServerSettings, PunchServer),
    PunchClient.kind: (PunchClientSettings, PunchClient),
    SSHServer.kind: (SSHServerSettings, SSHServer),
}
"""Settings and service class of each ``kind`` that a configuration may name."""

_SERVICE_OF = dict(KINDS.values())


def make_service(name: str, settings: ServiceSettings, node: Node) -> Service[Any]:
    """The service that these settings describe, stopped.

    :raises KeyError: the settings are of no kind listed here.
    """
    return _SERVICE_OF[type(settings)](name, settings, node)


def kind_of(settings: ServiceSettings) -> str:
    """The ``kind`` that a configuration names for these settings.

    :raises KeyError: they are of no kind listed here.
    """
    return _SERVICE_OF[type(settings)].kind
