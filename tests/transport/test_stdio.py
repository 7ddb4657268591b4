"""Standard input and output joined with a connection, in a process of its own: there is one pair of them in each."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from waiting import until_true

JOIN = """
import asyncio, sys
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.stdio import join_stdio
from tunnelconsole.errors import ConnectFailed

async def join():
    await join_stdio(await dial("127.0.0.1", int(sys.argv[1])), sys.argv[2].encode())

try:
    asyncio.run(join())
except (ConnectFailed, OSError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

PIPE, PAYLOAD = subprocess.PIPE, os.urandom(1024 * 1024) * 3 + b"the end"

PATIENCE = 30
"""Seconds until a process or a read counts as stuck."""

Stream = int | IO[bytes]


@contextmanager
def joined(
    stdin: Stream = PIPE, stdout: Stream = PIPE, early: str = ""
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """The process, and the far side of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        command = [sys.executable, "-c", JOIN, str(server.getsockname()[1]), early]
        with subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=PIPE) as process:
            try:
                far, _ = server.accept()
                far.settimeout(PATIENCE)
                with far:
                    yield process, far
            finally:
                process.kill()


def write_and_close(stdin: IO[bytes]) -> None:
    with stdin:
        stdin.write(PAYLOAD)


def read_to_end(far: socket.socket) -> bytes:
    pieces = []
    while piece := far.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def test_all_of_standard_input_arrives_and_its_end_is_a_half_close() -> None:
    with joined() as (process, far):
        assert process.stdin is not None
        writing = threading.Thread(target=write_and_close, args=(process.stdin,))
        writing.start()
        assert read_to_end(far) == PAYLOAD
        writing.join()
        far.sendall(b"got it")
        far.close()
        assert process.stdout is not None
        assert process.stdout.read() == b"got it"
        assert process.wait(PATIENCE) == 0


def test_standard_output_ends_with_the_far_side_while_standard_input_goes_on() -> None:
    with joined() as (process, far):
        assert process.stdin is not None
        assert process.stdout is not None
        far.sendall(b"bye")
        far.shutdown(socket.SHUT_WR)
        assert process.stdout.read() == b"bye"
        process.stdin.write(b"one more thing")
        process.stdin.close()
        assert read_to_end(far) == b"one more thing"
        assert process.wait(PATIENCE) == 0


def test_the_process_ends_with_the_far_side_although_standard_input_stays_open() -> None:
    with joined() as (process, far):
        far.sendall(PAYLOAD)
        far.close()
        assert process.stdout is not None
        assert process.stdout.read() == PAYLOAD
        assert process.wait(PATIENCE) == 0


def test_bytes_that_came_early_come_out_first() -> None:
    with joined(early="early ") as (process, far):
        far.sendall(b"late")
        far.close()
        assert process.stdout is not None
        assert process.stdout.read() == b"early late"


def test_regular_files_are_read_and_written(tmp_path: Path) -> None:
    question, answer = tmp_path / "question", tmp_path / "answer"
    question.write_bytes(PAYLOAD)
    with question.open("rb") as stdin, answer.open("wb") as stdout, joined(stdin, stdout) as (process, far):
        assert read_to_end(far) == PAYLOAD
        far.sendall(PAYLOAD[::-1])
        far.close()
        assert process.wait(PATIENCE) == 0
    assert answer.read_bytes() == PAYLOAD[::-1]


def test_one_socket_serves_as_both() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, joined(theirs.fileno(), theirs.fileno()) as (process, far):
        ours.sendall(b"question")
        ours.shutdown(socket.SHUT_WR)
        assert read_to_end(far) == b"question"
        far.sendall(b"answer")
        far.close()
        assert ours.recv(100) == b"answer"
        assert process.wait(PATIENCE) == 0


def test_a_terminal_is_left_as_it_was_found() -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with joined(theirs, theirs) as (process, far):
        os.write(ours, b"typed\n")
        assert far.recv(100) == b"typed\n"
        far.close()
        assert process.wait(PATIENCE) == 0
    assert termios.tcgetattr(theirs) == before
    assert os.get_blocking(theirs)
    os.close(ours)
    os.close(theirs)


def test_descriptors_that_somebody_made_non_blocking_work_too() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with joined(reading) as (process, far):
        os.close(reading)
        far.sendall(b"hello")
        assert process.stdout is not None
        assert process.stdout.read(5) == b"hello"
        os.write(writing, b"late")
        os.close(writing)
        assert read_to_end(far) == b"late"
        far.close()
        assert process.wait(PATIENCE) == 0


def test_a_far_side_that_does_not_read_stops_the_writer() -> None:
    with joined() as (process, far):
        assert process.stdin is not None
        writer = process.stdin.fileno()
        os.set_blocking(writer, False)
        looks: list[int] = []

        def stands_still() -> bool:
            looks.append(fill(writer))
            return not any(looks[-20:])

        until_true(stands_still)
        process.stdin.close()
        assert len(read_to_end(far)) == sum(looks) < 64 * 1024 * 1024


def fill(descriptor: int) -> int:
    """Writes as much as is taken at once; returns how many bytes that were."""
    written = 0
    with suppress(BlockingIOError):
        while True:
            written += os.write(descriptor, bytes(1 << 16))
    return written


def test_a_reset_is_an_error_and_not_an_end() -> None:
    with joined() as (process, far):
        assert process.stdout is not None
        far.sendall(b"!")
        assert process.stdout.read(1) == b"!"  # so that it is the joint that breaks, and not the dial
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        assert process.stderr is not None
        assert b"the connection broke off" in process.stderr.read()
        assert process.wait(PATIENCE) == 1


def test_the_far_side_sees_a_reset_when_standard_output_has_no_reader() -> None:
    with joined() as (process, far):
        assert process.stdout is not None
        process.stdout.close()
        far.sendall(b"anybody there?")
        with pytest.raises(ConnectionResetError):
            far.recv(1)
        assert process.stderr is not None
        assert b"BrokenPipeError" in process.stderr.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_standard_output_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("wb") as full, joined(stdout=full) as (process, far):
        far.sendall(b"too much")
        assert process.stderr is not None
        assert b"No space left on device" in process.stderr.read()
        assert process.wait(PATIENCE) == 1
