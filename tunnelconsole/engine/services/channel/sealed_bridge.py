"""Joins a local end with the channel server so that the server sees only ciphertext. Importing this loads the ciphers.

:mod:`tunnelconsole.engine.wire.sealed_records` has the streams, one each way. Each exchange has two of its own: a local
end and its next one never share any.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress

from tunnelconsole.engine.services.channel.bridge import SILENCE, Ended, Outcome
from tunnelconsole.engine.services.channel.inlet import Inlet
from tunnelconsole.engine.services.channel.sealed_halves import OpeningHalf, SealingHalf
from tunnelconsole.engine.services.channel.uplink import GARBAGE_TIME
from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.half import Half
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.streams import Join
from tunnelconsole.engine.wire.passphrase import SALT_LENGTH, derive_key
from tunnelconsole.engine.wire.sealed_records import NOTHING, Sealer, find_beginning, find_caller, last_caller


class SharedKey:
    """The passphrase that two clients share, and what it makes with the salt of a stream."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._spare: tuple[bytes, asyncio.Future[bytes]] | None = None

    def derive(self, salt: bytes) -> asyncio.Future[bytes]:
        """The key of the stream with ``salt``, made in a thread."""
        return asyncio.get_running_loop().run_in_executor(None, derive_key, self._text, salt)

    def own(self) -> tuple[bytes, asyncio.Future[bytes]]:
        """The salt and the key of a stream of ours."""
        self.prepare()
        own, self._spare = self._spare, None
        if own is None:
            raise RuntimeError("nothing was prepared")
        return own

    def prepare(self) -> None:
        """Makes the key of our next stream beforehand: it takes a tenth of a second."""
        if self._spare is None:
            salt = secrets.token_bytes(SALT_LENGTH)
            self._spare = salt, self.derive(salt)


class SealedBridge:
    """Joins ``local`` with ``hub``, sealed, until both streams are over; as a flow its remote party is the local end.

    It owns ``local`` and closes it; ``hub`` stays open.

    :param early: what the channel server brought before.
    :param pace: limits both directions together to a rate; None for no limit.
    :param patience: seconds that a local end which has closed its sending side is kept while the other end has not
        come; None for ever.
    """

    __slots__ = (
        "_ended",
        "_garbage_timer",
        "_inlet",
        "_key",
        "_local",
        "_loop",
        "_over",
        "_own_key",
        "_patience",
        "_patience_timer",
        "_peer_key",
        "_receives",
        "_to_hub",
        "_to_local",
        "hub",
    )
    path = "sealed"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local: End,
        hub: End,
        key: SharedKey,
        ended: Ended,
        *,
        early: bytes = b"",
        pace: Pace | None = None,
        patience: float | None = None,
    ) -> None:
        self._loop = loop
        self._local = local
        self.hub = hub
        self._key = key
        self._ended = ended
        self._over = False
        self._receives = True
        self._inlet: Inlet | None = None
        self._garbage_timer: asyncio.TimerHandle | None = None
        self._patience = patience
        self._patience_timer: asyncio.TimerHandle | None = None
        self._peer_key: asyncio.Future[bytes] | None = None
        salt, self._own_key = key.own()
        self._own_key.add_done_callback(self._open_when_ready)
        self._to_hub = SealingHalf(self, loop, local, pace, salt)
        self._to_local = OpeningHalf(self, loop, local, pace, salt)
        self._to_local.start(early)
        self._to_hub.start(b"")
        self._wait_for_company()

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the local end."""
        return self._to_hub.total

    @property
    def bytes_out(self) -> int:
        """Bytes that were opened for it."""
        return self._to_local.total

    def abort(self, reason: str) -> None:
        """Ends it now, with a reset to the local end; the other end is told that it broke off."""
        self._end(reason)

    def stop_receiving(self) -> None:
        """Takes no more from the channel server: it ends once what the local end sent has been delivered."""
        self._receives = False
        if self._to_hub.opened:
            self._to_local.cut()
            self.half_ended()

    # What its directions tell; see Exchange.

    def heard(self, salt: bytes) -> None:
        self._to_hub.answer(salt)

    def answered(self, salt: bytes) -> None:
        self._to_hub.answer(salt)
        self._peer_key = self._key.derive(salt)
        self._peer_key.add_done_callback(self._use_peer_key)

    def broken_off(self, reason: str) -> None:
        self._end(f"the other end broke off: {reason}", told=True)

    def garbage(self) -> None:
        if self._garbage_timer is None:
            self._garbage_timer = self._loop.call_later(GARBAGE_TIME, self._look_whether_all_is_garbage)

    def fault(self, reason: str) -> None:
        self._end(reason, fault=True)

    def hub_ended(self) -> None:
        self._lose_hub("the channel server closed the connection")

    def half_ended(self) -> None:
        if self._over or not self._to_local.over:
            return
        if self._to_hub.over:
            self._end("")
        elif self._inlet is None:
            leftover = self._to_local.leftover
            self._inlet = Inlet(self._loop, self.hub, leftover, self._begun_anew, self._lose_hub, search=find_beginning)

    def half_broken(self, half: Half, error: OSError, *, sending: bool) -> None:
        if (half is self._to_hub) == sending:
            self._lose_hub(f"the connection to the channel server broke: {error.strerror or error}")
        elif not sending:
            self._end(f"the local end broke off: {error.strerror or error}")
        else:
            # What it sent before it closed may still be on its way to us; it is a whole only if it closed in order.
            self._to_hub.source_broken = not isinstance(error, BrokenPipeError)
            half.cut()
            self.half_ended()

    # How it is done.

    def _use_peer_key(self, made: asyncio.Future[bytes]) -> None:
        if not self._over and not self._to_local.over:
            self._to_local.use_key(made.result())
        self._open_when_ready()

    def _open_when_ready(self, _: object = None) -> None:
        """Sends what there is once both keys are made: the other end may have broken off already."""
        ready = self._own_key.done() and self._peer_key is not None and self._peer_key.done()
        if ready and not self._over and not self._to_hub.opened:
            self._to_hub.open(self._own_key.result())
            if not self._receives:
                self.stop_receiving()

    def _begun_anew(self) -> None:
        self._end("the other end began anew", told=True)

    def _wait_for_company(self) -> None:
        if self._patience is not None:
            gone = self._to_hub.source_ended
            self._patience_timer = self._loop.call_later(self._patience, self._look_whether_alone, gone)

    def _look_whether_alone(self, gone: bool) -> None:
        """Ends it when the other end has not come, and the local end had gone when this was looked at last."""
        self._patience_timer = None
        if self._to_local.begun:
            return
        if gone:
            self._end("the local end had gone before the other end came")
        else:
            self._wait_for_company()

    def _look_whether_all_is_garbage(self) -> None:
        self._garbage_timer = None
        if not self._to_local.begun:
            self.fault(
                f"what came for {GARBAGE_TIME:g} s does not answer us; has its sender a key, and not to others too?"
            )

    def _lose_hub(self, reason: str) -> None:
        self._end(reason, hub_lost=True)

    def _end(self, reason: str, *, hub_lost: bool = False, fault: bool = False, told: bool = False) -> None:
        """Ends it.

        :param reason: empty where both streams are over in order.
        :param told: the other end is done with it, and need not be told.
        """
        if self._over:
            return
        self._over = True
        for timer in (self._garbage_timer, self._patience_timer):
            if timer is not None:
                timer.cancel()
        left = self._inlet.take() if self._inlet is not None else self._to_local.leftover
        key = self._own_key.result() if self._own_key.done() else None
        unsent = b"" if hub_lost or told else self._to_hub.last_words(key)
        self._to_local.cut()
        self._to_hub.cut()
        if reason:
            self._local.abort()
        else:
            self._local.close()
        self._loop.call_soon(self._ended, Outcome(reason, left, unsent, hub_lost, fault))


class SealedBridging:
    """Local ends are bridged sealed, as :class:`~tunnelconsole.engine.services.channel.uplink.Bridging`.

    :param key: the passphrase.
    """

    search = staticmethod(find_caller)
    nothing = NOTHING

    def __init__(self, key: str) -> None:
        self._key = SharedKey(key)

    def start(
        self, local: End, hub: End, ended: Ended, early: bytes, pace: Pace | None, others: Callable[[], bool] | None
    ) -> SealedBridge:
        loop = asyncio.get_running_loop()
        return SealedBridge(loop, local, hub, self._key, ended, early=early, pace=pace, patience=SILENCE)

    def prepare(self) -> None:
        self._key.prepare()

    async def refusal(self, early: bytes) -> bytes:
        caller = last_caller(early)
        if caller is None:
            return b""
        salt, key = self._key.own()
        return Sealer(await key, salt, caller).finish(broken_off=True)


def sealed_join(hub: End, key: str, early: bytes) -> Join:
    """Joins one local end with the connection to a channel server, which is closed with it."""

    def join(plane: Plane, local: End, finished: Finished) -> SealedBridge:
        def ended(outcome: Outcome) -> None:
            part(hub, outcome.unsent)
            finished(outcome.reason)

        return SealedBridge(plane.loop, local, hub, SharedKey(key), ended, early=early)

    return join


def part(hub: End, words: bytes) -> None:
    """Closes the connection to a channel server, with as much of our last words as it takes now."""
    with suppress(OSError):
        rest = memoryview(words)
        while rest:
            rest = rest[hub.send(rest) :]
        hub.send_eof()
    with suppress(OSError):
        while hub.receive(READ_SIZE):
            pass  # closing with something unread would be a reset, which may overtake what we said
    hub.close()
