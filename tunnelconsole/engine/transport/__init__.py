"""Sockets, TLS, the pump, and yamux over a socket: all that moves bytes, and nothing that decides."""
