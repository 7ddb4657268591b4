"""The jump system in a program: dial out through a host that has the better route.

::

    server, secret, target = "home.example.net:9527", "superBigSecret", "www.example.com:80"
    async with tunnelconsole.jump.connect(server, secret, target) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print(await reader.read())
"""

from __future__ import annotations

from tunnelconsole.engine.services.jump.connection import connect
from tunnelconsole.engine.settings import SSHSettings, TLSSettings

__all__ = ["SSHSettings", "TLSSettings", "connect"]
