"""The channel system in a program: a stream to other clients of a channel server, named by their chids.

At a server in broadcast mode there are none, and ``tunnelconsole.channel.broadcast(server)`` sends to everybody else.

::

    server, mine, theirs = "hub.example.net:8601", "laptop", "desk"
    async with tunnelconsole.channel.connect(server, mine, receivers=[theirs], key="only we know") as (reader, writer):
        writer.write(b"are you there?\\n")
        print(await reader.readline())
"""

from __future__ import annotations

from tunnelconsole.engine.services.channel.connection import broadcast, connect
from tunnelconsole.engine.settings import SSHSettings, TLSSettings

__all__ = ["SSHSettings", "TLSSettings", "broadcast", "connect"]
