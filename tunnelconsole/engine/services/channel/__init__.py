"""Channel: a stream between clients named by channel id, from any to any, or a broadcast.

The server (:mod:`.server`) lets clients in; its hub (:mod:`.hub`) passes what one party (:mod:`.party`) sends on to
those it is for (:mod:`.routes`). What a slow receiver has not taken waits in its outbox (:mod:`.outbox`), what is for a
receiver that is not there yet in :mod:`.hold`; what is lost is counted and told (:mod:`.drops`). One to one, bytes go
straight from socket to socket (:mod:`.direct`).

The client (:mod:`.client`) joins a server (:mod:`.connection`) and bridges one local end after the other over that
connection (:mod:`.uplink`, :mod:`.inlet`): as it is (:mod:`.bridge`), or sealed for the client at the other end
(:mod:`.sealed_bridge`, :mod:`.sealed_halves`, :mod:`.sealed_vigil`, :mod:`.sealed_key`), one after the other
(:mod:`.sealed_bridging`) or one that has a connection of its own (:mod:`.sealed_join`).
"""
