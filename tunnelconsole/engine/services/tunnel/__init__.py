"""Tunnel: give a web service behind NAT a public hostname, HTTP and HTTPS.

The server (:mod:`.server`) takes tunnel clients (:mod:`.backend`) and leads visitors (:mod:`.visitor`) by the host that
they ask for (:mod:`.routes`). The client (:mod:`.client`) leads their requests (:mod:`.local`) to the local service, or
answers them from a folder (:mod:`.folder`). Both are joints of visitors and services (:mod:`.http_pump`), and keep what
passed last for whoever wants to look (:mod:`.inspector`).
"""
