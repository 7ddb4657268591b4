"""Jump: dial out through a host that has the better route.

The server (:mod:`.server`) checks a secret and dials what the client asks for; the client (:mod:`.client`) offers that
to local programs as a SOCKS5 or HTTP CONNECT proxy or as one fixed target; :mod:`.connection` reaches a target through
a server.
"""
