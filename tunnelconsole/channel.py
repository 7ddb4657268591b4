"""The channel system in a program: a stream to other clients of a channel server, named by their chids.

::

    server, mine, theirs = "hub.example.net:8601", "laptop", "desk"
    async with tunnelconsole.channel.connect(server, mine, receivers=[theirs], key="only we know") as (reader, writer):
        writer.write(b"are you there?\\n")
        print(await reader.readline())
"""

from __future__ import annotations

from tunnelconsole.engine.services.channel.connection import connect
from tunnelconsole.engine.settings import TLSSettings

__all__ = ["TLSSettings", "connect"]
