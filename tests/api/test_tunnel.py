"""``tunnelconsole.tunnel`` in a program."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunnelconsole
from loopback import nobody, target
from tunnel_peers import HOST, Service, visiting
from tunnelconsole import tunnel
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, ListenFailed
from tunnelconsole.tunnel import Refused, Request, State, TunnelClient, TunnelServer
from waiting import until


def url_of(server: TunnelServer, host: str = HOST) -> str:
    return f"http://{host}:{server.address.rpartition(':')[2]}"


async def test_a_service_is_exposed_until_the_block_ends() -> None:
    local = Service()
    async with TunnelServer() as server, target(local.serve) as far:
        async with tunnel.expose(url_of(server), str(far.address), connect=server.address) as exposed:
            assert exposed.url == url_of(server)
            assert server.tunnels == [f"http://{HOST}:{server.address.rpartition(':')[2]}"]
            async with visiting(server.address) as visitor:
                assert (await visitor.get("/a")).body == b"GET /a of 0"
        await until(lambda: not server.tunnels)


async def test_a_folder_is_exposed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    async with (
        TunnelServer() as server,
        tunnel.expose(url_of(server), str(tmp_path), connect=server.address),
        visiting(server.address) as visitor,
    ):
        assert (await visitor.get("/a.txt")).body == b"text"


@pytest.mark.parametrize("kind", ["plain", "raising", "async", "async raising", "broken"])
async def test_a_tunnel_may_be_refused_with_a_reason(kind: str) -> None:
    def plain(request: Request) -> str | None:
        return None if request.get("User-Agent") == "us" else f"{request.host} is not for {request.peer.split(':')[0]}"

    def raising(request: Request) -> None:
        raise Refused(plain(request) or "")

    async def later(request: Request) -> str | None:
        return plain(request)

    async def later_raising(request: Request) -> None:
        raising(request)

    def broken(request: Request) -> None:
        raise RuntimeError(request.host)

    callbacks = {"plain": plain, "raising": raising, "async": later, "async raising": later_raising, "broken": broken}
    reason = "could not be decided" if kind == "broken" else f"{HOST} is not for 127.0.0.1"
    async with TunnelServer(authenticate=callbacks[kind]) as server:
        with pytest.raises(CredentialsRefused, match=reason):
            async with tunnel.expose(url_of(server), "3000", connect=server.address):
                pass


@pytest.mark.parametrize("later", [False, True])
async def test_a_visit_may_be_refused_with_a_reason(later: bool) -> None:
    seen: list[Request] = []

    def access(request: Request) -> str | None:
        seen.append(request)
        return "not for you" if request.target.startswith("/private") else None

    async def access_later(request: Request) -> str | None:
        return access(request)

    local = Service()
    async with (
        TunnelServer(access=access_later if later else access) as server,
        target(local.serve) as far,
        tunnel.expose(url_of(server), str(far.address), connect=server.address),
        visiting(server.address) as visitor,
    ):
        assert (await visitor.get("/public")).status == 200
        got = await visitor.get("http://app.example.net/private", "X-A: 1", "X-A: 2")
        assert (got.status, b"not for you" in got.body) == (403, True)
        assert (await visitor.get("/public")).status == 200
        assert [(each.method, each.target) for each in seen] == [
            ("GET", "/public"),
            ("GET", "/private"),
            ("GET", "/public"),
        ]
        assert seen[1]["x-a"] == "1, 2"
        assert len(local.seen) == 2


async def test_tunnels_that_come_and_go_are_told() -> None:
    told: list[tuple[str, ...]] = []
    async with TunnelServer(
        on_connection=lambda url, peer: told.append(("here", url, peer)),
        on_disconnection=lambda url, peer, _: told.append(("gone", url, peer)),
    ) as server:
        async with tunnel.expose(url_of(server), "3000", connect=server.address):
            assert [what for what, *_ in told] == ["here"]
        await until(lambda: len(told) == 2)
        assert told[0][1:] == told[1][1:]
        assert told[0][1] == url_of(server)


async def test_a_client_tells_its_states() -> None:
    states: list[State] = []
    async with TunnelServer() as server:
        async with TunnelClient(url_of(server), 3000, connect=server.address, on_state=states.append) as client:
            assert client.state is State.CONNECTED
            assert client.url == url_of(server)
            server.service.cut_all("for a test")
            await until(lambda: State.DISCONNECTED in states)
            await until(lambda: client.state is State.CONNECTED)
        assert states == [State.CONNECTING, State.CONNECTED, State.DISCONNECTED] * 2


async def test_tokens_say_who_may_have_a_tunnel() -> None:
    async with TunnelServer(tokens={"alice": "a"}) as server:
        async with tunnel.expose(url_of(server), "3000", token="a", connect=server.address):
            (session,) = server.service.attached
            assert session.identity == "alice"
        with pytest.raises(CredentialsRefused, match="the token is not known"):
            async with tunnel.expose(url_of(server), "3000", token="b", connect=server.address):
                pass


async def test_a_server_that_cannot_be_reached_is_told() -> None:
    with pytest.raises(ConnectFailed, match="connection refused"):
        async with tunnel.expose("http://app.example.net", "3000", connect=str(nobody())):
            pass


async def test_a_place_that_is_taken_is_told() -> None:
    async with TunnelServer() as server:
        with pytest.raises(ListenFailed, match="in use"):
            async with TunnelServer(server.address):
                pass


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"listen": "nowhere"}, "host:port"),
        ({"certificate": "a.crt"}, "key missing"),
        ({"hosts_allow": ("a b",)}, "is not a host"),
        ({"tokens": {"alice": ""}}, "an empty token"),
    ],
)
def test_settings_that_are_wrong_are_told(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TunnelServer(**settings)  # type: ignore[arg-type]


def test_the_module_is_part_of_the_package() -> None:
    assert tunnelconsole.tunnel is tunnel
