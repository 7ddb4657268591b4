"""The systems, one room each: jump and relay, server and client together."""
