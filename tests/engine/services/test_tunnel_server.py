"""The tunnel server: clients by hand as the original's, and their visitors, on real sockets."""

from __future__ import annotations

from loopback import told
from tunnel_peers import HOST, ok, web
from tunnelconsole.engine.events import BackendAttached
from yamux_frames import FIN, WINDOW, data, frame


async def test_an_originals_client_gets_a_tunnel_and_its_visitors_requests() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET /a?b=c HTTP/1.1\r\nHost: {HOST}:{at.address.rpartition(':')[2]}\r\n\r\n".encode())
        stream_id = await client.visitor()
        request = (await client.peer.find(0, stream_id)).payload
        assert request.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: app.example.net")
        await client.peer.send(data(stream_id, ok(b"from behind")), frame(WINDOW, FIN, stream_id))
        got = await visitor.response()
        assert (got.status, got.body) == (200, b"from behind")
        await client.peer.find(WINDOW, stream_id, FIN)
        (attached,) = told(at.engine, BackendAttached)
        assert attached.address == f"http://{HOST}"
