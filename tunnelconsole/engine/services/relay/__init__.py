"""Relay: give a service behind NAT a public TCP port.

The server (:mod:`.server`) opens a public port for each backend (:mod:`.backend`, :mod:`.ports`); the client
(:mod:`.client`) is the backend, and leads visitors to its target.
"""
