"""What ``punch`` and ``nat`` do: standard input and output through a punched connection, and a look from outside."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunnelconsole.cli.standalone import cancelled_by, in_own_words
from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.services.punch.by_hand import ByHand
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.stdio import join_stdio, stdio_through
from tunnelconsole.errors import CertificateRefused, CertificateRejected, ConnectFailed, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.punch.meeting import Meeting
    from tunnelconsole.engine.services.punch.outside import Outside, Rendezvous

TERMINAL: Final = Path("/dev/tty")
"""Where the user is asked: standard input is what is sent."""

LINE: Final = 4096
"""Bytes of an answer, the most that a terminal gives at once."""

PROVIDER_TIME: Final = 10.0
"""Seconds that who is asked for our public address has to answer."""

PROVIDER_BYTES: Final = 256
"""Bytes of its answer that are read: an address has less than 50."""

PROVIDER_HANDLERS: Final = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
)
"""What may be asked for it: the web, and neither files nor FTP, which the library would fetch as well."""

Narrate = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Manners:
    """How a command goes about it."""

    narrate: Narrate
    """Told in a sentence what happens."""
    wait: float | None
    """Seconds for the other side to come; None: for ever."""
    verbose: bool
    """Whether each attempt is told in full at the end."""


async def room(meeting: Meeting, manners: Manners) -> None:
    """Joins standard input and output with the other end of a room, until both directions have ended.

    A SIGTERM or SIGHUP, such as ssh's for its ProxyCommand, ends it once what was written just before has been sent.

    :raises CredentialsRefused: the rendezvous is not the one that was pinned.
    :raises ConnectFailed: it cannot be reached or does not want us, nobody came in time, or the connection broke off.
    :raises OSError: standard input cannot be read, or standard output not written.
    """
    # Only here: cryptography costs 10 MiB and a tenth of a second, and by hand there is none.
    from tunnelconsole.engine.services.punch.connection import RoomConnection  # noqa: PLC0415

    connection = RoomConnection(meeting, manners.narrate)
    with cancelled_by(signal.SIGTERM, signal.SIGHUP):
        try:
            await connection.open(manners.wait)
            await stdio_through(connection.join)
        except (CertificateRejected, CertificateRefused) as error:
            raise in_own_words(error) from error
        finally:
            await connection.close()
            _tell(connection.attempts, manners)


async def by_hand(
    port: int, peer: Sequence[str], rendezvous: Rendezvous | None, provider: str, manners: Manners
) -> None:
    """Joins standard input and output with somebody whose addresses the user knows, over a plain connection.

    :param port: of this host that is punched; 0 takes any free one.
    :param peer: the addresses; when there are none, the user is asked for them.
    :param rendezvous: asked for our public address; None when it is not.
    :param provider: URL of who is asked for it in its place; empty when nobody is.
    :raises TunnelConsoleError: what is to be done cannot be.
    :raises OSError: standard input cannot be read, or standard output not written.
    """
    hand = ByHand(port)
    holding = Tasks("by hand", lambda _, error: manners.narrate(f"the public address is not asked for again: {error}"))
    with cancelled_by(signal.SIGTERM, signal.SIGHUP):
        try:
            await _introduce(hand, rendezvous, provider, manners.narrate)
            if not peer:
                holding.start(hand.hold(), "hold")
                peer = await _ask_for_addresses()
                await holding.close()
            manners.narrate(f"trying {', '.join(peer)}")
            reached = await hand.attempt(peer, manners.wait or 0)
            manners.narrate(f"direct: {reached.address} ({reached.method}); nothing here is encrypted")
        except (CertificateRejected, CertificateRefused) as error:
            raise in_own_words(error) from error
        except ValueError as error:
            raise TunnelConsoleError(f"--peer: {error}") from error
        finally:
            await holding.close()
            hand.close()
            _tell(hand.attempts, manners)
        await join_stdio(SocketEnd(reached.sock), b"")


async def _introduce(hand: ByHand, rendezvous: Rendezvous | None, provider: str, narrate: Narrate) -> None:
    """Says what the other user has to be told."""
    narrate(f"local address {', '.join(hand.local_addresses)}")
    if rendezvous is not None:
        await hand.ask(rendezvous)
    elif provider:
        await hand.take_from(lambda: asyncio.to_thread(_fetch, provider))
    if hand.public_address:
        narrate(f"public address {hand.public_address}")
    else:
        narrate("public address not known: --server asks a punch server, --public-from whom you name")
    if hand.nat is not None and hand.nat.moves:
        narrate(f"{hand.nat}: by hand that will hardly work; meet in a room")


def _fetch(url: str) -> str:
    """What a URL of HTTP or HTTPS answers; where it leads elsewhere, that has to be one, too.

    :raises ConnectFailed: nothing.
    """
    opener = urllib.request.OpenerDirector()
    for handler in PROVIDER_HANDLERS:
        opener.add_handler(handler())
    try:
        with opener.open(url, timeout=PROVIDER_TIME) as answer:
            return str(answer.read(PROVIDER_BYTES).decode("ascii", errors="replace"))
    except urllib.error.HTTPError as error:
        reason = f"it answers {error.code}"
        error.close()
    except OSError as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            reason = f"no answer within {PROVIDER_TIME:g} s"
        else:
            reason = (cause.strerror or str(cause)).lower() if isinstance(cause, OSError) else str(cause)
    except (http.client.HTTPException, ValueError):
        reason = "what it answers is no HTTP"
    raise ConnectFailed(f"cannot ask {url} for the public address: {reason}")


async def _ask_for_addresses() -> list[str]:
    """The other side's addresses, as the user types them.

    :raises TunnelConsoleError: there is nobody to ask, or no answer.
    """
    try:
        descriptor = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        raise TunnelConsoleError("there is no terminal to ask for the other side's addresses", "give --peer") from error
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        loop.remove_reader(descriptor)
        if not typed.done():
            typed.set_result(os.read(descriptor, LINE))

    try:
        os.write(descriptor, b"addresses of the other side, with commas between them: ")
        loop.add_reader(descriptor, read)
        answer = (await typed).decode(errors="replace").strip()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    if not answer:
        raise TunnelConsoleError("no addresses were given", "give --peer")
    return [part.strip() for part in answer.split(",")]


def _tell(attempts: Sequence[Attempt], manners: Manners) -> None:
    """Tells what was tried, in full."""
    if not manners.verbose:
        return
    from tunnelconsole.cli.attempt_tables import told  # noqa: PLC0415 - few ask for that
    from tunnelconsole.control.snapshot import attempt_row  # noqa: PLC0415 - as above

    for attempt in attempts:
        for sentence in told(attempt_row(attempt, whole=True)):
            manners.narrate(sentence)


async def examine(rendezvous: Rendezvous) -> Outside:
    """What a rendezvous sees of us.

    :raises CredentialsRefused: it is not the one that was pinned.
    :raises ConnectFailed: it cannot be reached, or not where it observes.
    """
    from tunnelconsole.engine.services.punch.outside import look  # noqa: PLC0415 - see room()

    try:
        return await look(rendezvous)
    except (CertificateRejected, CertificateRefused) as error:
        raise in_own_words(error) from error
