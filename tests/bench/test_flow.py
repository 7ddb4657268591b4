"""The load generator against its own sink, and against a jump server of a few lines."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bench import ours
from bench.flow import Flow, build
from bench.measures import LARGE_ANSWER
from bench.processes import BenchError, free_port
from bench.route import Route

pytestmark = pytest.mark.system("cc")

CHALLENGE = b"0123456789abcdefghijABCDEFGHIJxy"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("flow"))


@pytest.fixture
def flow(program: Path, tmp_path: Path) -> Flow:
    return Flow(program, tmp_path)


@pytest.fixture
def direct(flow: Flow) -> Iterator[Route]:
    with flow.sink() as port:
        yield Route(port)


def test_bulk_to_the_sink_counts_every_byte(flow: Flow, direct: Route) -> None:
    result = flow.bulk(direct, "up", 0.05)
    assert result.bytes > 0
    assert result.lost == 0


def test_bulk_from_the_sink_counts_every_byte(flow: Flow, direct: Route) -> None:
    result = flow.bulk(direct, "down", 0.05)
    assert result.bytes > 0
    assert result.lost == 0


def test_round_trips_are_summed_up_as_median_and_tail(flow: Flow, direct: Route) -> None:
    result = flow.ping(direct, 50)
    assert result.count == 50
    assert 0 < result.p50_us <= result.p99_us


def test_each_new_connection_is_counted_once(flow: Flow, direct: Route) -> None:
    result = flow.connections(direct, 101, 4)
    assert (result.opened, result.failed) == (101, 0)


def test_new_connections_that_nobody_takes_are_counted_as_failed(flow: Flow) -> None:
    result = flow.connections(Route(free_port()), 5, 2)
    assert (result.opened, result.failed) == (0, 5)


def test_held_connections_are_all_there_after_the_wait(flow: Flow, direct: Route) -> None:
    with flow.holding(direct, 20) as (opened, holder):
        assert (opened.held, opened.failed) == (20, 0)
        ended = flow.release(holder)
    assert (ended.held, ended.lost) == (20, 0)


def test_held_connections_that_the_far_end_dropped_are_counted_as_lost(flow: Flow) -> None:
    with ExitStack() as stack:
        sink = ExitStack()
        route = Route(sink.enter_context(flow.sink()))
        _, holder = stack.enter_context(flow.holding(route, 20))
        sink.close()
        assert flow.release(holder).lost == 20


def test_what_one_client_of_a_channel_server_sends_to_eight_is_counted_at_all_of_them(
    flow: Flow, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        route = ours.open_fan(stack, tmp_path, 0)
        result = flow.fan(route, 0.05)
    assert result.bytes > 0
    assert result.bytes % ours.FAN == 0
    assert result.lost == 0


@pytest.mark.parametrize(("path", "length"), [("/", 3), ("/large", LARGE_ANSWER)])
def test_the_sink_answers_requests_small_and_large_on_one_connection(direct: Route, path: str, length: int) -> None:
    with closing(HTTPConnection("127.0.0.1", direct.port, timeout=10)) as connection:
        for _ in range(2):
            connection.request("GET", path)
            assert len(connection.getresponse().read()) == length


def test_a_route_that_nobody_listens_on_is_an_error(flow: Flow) -> None:
    with pytest.raises(BenchError, match="no connection"):
        flow.bulk(Route(free_port()), "up", 0.05)


@pytest.mark.parametrize("length", [1, 23, 24, 31, 32, 95, 96, 255])
def test_the_jump_handshake_is_right_for_secrets_of_every_length(flow: Flow, direct: Route, length: int) -> None:
    secret = "s" * length
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_serve_one_jump, args=(listener, secret))
        server.start()
        route = Route(
            listener.getsockname()[1], handshake={"JUMP_TARGET": f"127.0.0.1:{direct.port}", "JUMP_SECRET": secret}
        )
        result = flow.ping(route, 3)
        server.join()
    assert result.count == 3


@pytest.mark.parametrize(
    "arguments", [[], ["sink"], ["bulk", "80", "sideways", "1"], ["ping", "x", "1"], ["conn", "80", "1", "0"]]
)
def test_wrong_usage_is_told_apart_from_a_failure(program: Path, arguments: list[str]) -> None:
    answer = subprocess.run([program, *arguments], capture_output=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr.startswith(b"usage:")


def _serve_one_jump(listener: socket.socket, secret: str) -> None:
    """One connection as a jump host would serve it, echoing instead of dialling; refuses a wrong digest."""
    peer, _ = listener.accept()
    with peer, peer.makefile("rwb") as stream:
        stream.write(bytes([len(CHALLENGE)]) + CHALLENGE)
        stream.flush()
        digest = stream.read(21)
        right = digest == b"\x14" + hashlib.sha1(CHALLENGE + secret.encode()).digest()
        stream.write(b"\x00" if right else b"\x01\x05wrong")
        stream.flush()
        if not right:
            return
        stream.read(stream.read(1)[0])
        stream.write(b"\x00")
        stream.flush()
        stream.read(1)  # what the sink would take as the order to echo
        while block := stream.read(64):
            stream.write(block)
            stream.flush()
