"""Payload sealed end to end between two clients of a channel server, who know the same passphrase. Loads the ciphers.

A stream begins with :data:`MAGIC` and a salt of 16 random bytes, its own. Records follow, each with a header of 4
bytes, big-endian: the highest bit is set in the last record of the stream, the next one in a last record behind which
there should have been more, the others are the length of what follows, which is the text (:data:`MAX_TEXT` bytes at
most) sealed by AES-256-GCM, with its tag of 16 bytes behind it. The key is scrypt's, of passphrase and salt; the nonce
of 96 bits is the number of the record, from 0 on, big-endian; the header is the associated data. So a record that was
changed, left out, sent twice or put elsewhere does not open. A stream that stops before its last record, which alone
may be empty, was cut short. Another stream may follow a last record.

A server drops what it gets for a client that is not there, so a sender cannot know whether its beginning arrives. It
may say it again until its first record. Another beginning in its place is that of somebody who came instead; behind a
first record, where another record is due, it says that the stream before it was cut short.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.passphrase import SALT_LENGTH

#: Bytes with which a stream begins; the digits are the version of what this module describes.
MAGIC = b"TCSEAL01"
#: Bytes of text in one record: one full socket read.
MAX_TEXT = 64 * 1024
#: Bytes of an AES-GCM tag.
TAG_LENGTH = 16
#: Bytes of a record's header.
HEADER_LENGTH = 4
#: Records in one stream: 256 TiB of full ones, well within what AES-GCM may seal with one key.
MAX_RECORDS = 2**32
#: Beginnings, each of another stream, without a record: somebody who keeps us deriving keys, or a crowd of senders.
MAX_BEGINNINGS = 64
#: Salts remembered, so that a stream that was recorded cannot be played again: hours of reconnecting every second.
REMEMBERED_SALTS = 16 * 1024

_LAST = 0x8000_0000
_BROKEN_OFF = 0x4000_0000
_BEGINNING_LENGTH = len(MAGIC) + SALT_LENGTH
_NONCE_LENGTH = 12


def beginning_of(salt: bytes) -> bytes:
    """Return the beginning of the stream with this salt."""
    return MAGIC + salt


class Sealer:
    """Seals one stream.

    :param key: of the passphrase and ``salt``.
    :param salt: 16 random bytes that no other stream has.
    """

    __slots__ = ("_cipher", "_count", "_over", "_prefix")

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._cipher = AESGCM(key)
        self._prefix = beginning_of(salt)
        self._count = 0
        self._over = False

    def seal(self, text: bytes | memoryview) -> bytes:
        """Return what travels in place of ``text``, in as many records as it needs; of no text, at most the beginning.

        :raises RuntimeError: the stream has been finished.
        :raises ProtocolError: it has as many records as one may have.
        """
        view = memoryview(text)
        pieces = [self._take_prefix()]
        for start in range(0, len(view), MAX_TEXT):
            pieces += self._record(view[start : start + MAX_TEXT], 0)
        return b"".join(pieces)

    def finish(self, *, broken_off: bool = False) -> bytes:
        """Return the record that ends the stream.

        :param broken_off: there should have been more; else the stream ends in order.
        :raises RuntimeError: it has been finished already.
        """
        flags = _LAST | _BROKEN_OFF if broken_off else _LAST
        finish = b"".join((self._take_prefix(), *self._record(memoryview(b""), flags)))
        self._over = True
        return finish

    def _take_prefix(self) -> bytes:
        prefix, self._prefix = self._prefix, b""
        return prefix

    def _record(self, text: memoryview, flags: int) -> tuple[bytes, bytes]:
        if self._over:
            raise RuntimeError("the sealed stream has been finished")
        if self._count >= MAX_RECORDS:
            raise ProtocolError(f"the sealed stream has {MAX_RECORDS} records, and one may have no more; begin another")
        header = (len(text) + TAG_LENGTH | flags).to_bytes(HEADER_LENGTH, "big")
        sealed = self._cipher.encrypt(_nonce(self._count), text, header)
        self._count += 1
        return header, sealed


class SeenSalts:
    """The salts of streams of which a record was opened, and our own: none of them may begin another."""

    __slots__ = ("_salts",)

    def __init__(self) -> None:
        self._salts: OrderedDict[bytes, None] = OrderedDict()

    def check(self, salt: bytes) -> None:
        """Accept a salt that is new.

        :raises ProtocolError: it was seen before.
        """
        if salt in self._salts:
            raise ProtocolError("a sealed stream came again that had been here before; somebody repeats what was sent")

    def add(self, salt: bytes) -> None:
        """Remember ``salt``, and forget the oldest of more than :data:`REMEMBERED_SALTS`.

        :raises ProtocolError: it was seen before.
        """
        self.check(salt)
        self._salts[salt] = None
        if len(self._salts) > REMEMBERED_SALTS:
            self._salts.popitem(last=False)


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """The stream told its salt; make the key of passphrase and salt, in a thread, and call ``use_key``.

    Read nothing meanwhile: what arrives earlier is kept, up to ``MAX_EARLY_DATA`` bytes. Comes again, with another
    salt, when another sender begins before the first record.
    """

    salt: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """Text of the stream, in its order."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is complete. What came behind it is in ``leftover``: another stream, if anything."""


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """The stream is over, and not complete. What came behind it is in ``leftover``: another stream, if anything."""

    reason: str


OpenerEvent = KeyWanted | Opened | Ended | BrokenOff


class _Step(Enum):
    BEGINNING = 1
    KEY = 2
    RECORDS = 3
    ENDED = 4


class Opener:
    """Opens one stream.

    :param seen: the salts that may not come again.
    """

    __slots__ = ("_beginnings", "_buffer", "_cipher", "_count", "_salt", "_seen", "_step")

    def __init__(self, seen: SeenSalts) -> None:
        self._seen = seen
        self._buffer = bytearray()
        self._salt = b""
        self._beginnings = 0
        self._cipher: AESGCM | None = None
        self._count = 0
        self._step = _Step.BEGINNING

    @property
    def begun(self) -> bool:
        """Whether anything of the stream has come."""
        return self._step is not _Step.BEGINNING or bool(self._buffer)

    @property
    def waits_for_key(self) -> bool:
        """Whether it goes on only with :meth:`use_key`."""
        return self._step is _Step.KEY

    @property
    def leftover(self) -> bytes:
        """What came behind the last record; empty until :class:`Ended` or :class:`BrokenOff`."""
        return bytes(self._buffer) if self._step is _Step.ENDED else b""

    def receive_data(self, data: bytes) -> list[OpenerEvent]:
        """Take bytes, split anywhere, and return what they caused.

        :raises ProtocolError: they are no sealed stream, one that was here before, or not what was sealed; or too much
            came before the key was there, or behind the end.
        """
        self._buffer += data
        if self._step is _Step.BEGINNING:
            return self._read_beginning()
        if self._step is _Step.RECORDS:
            return self._read_records()
        if len(self._buffer) > MAX_EARLY_DATA:
            raise ProtocolError(f"more than {MAX_EARLY_DATA} bytes came before the sealed stream could go on")
        return []

    def use_key(self, key: bytes) -> list[OpenerEvent]:
        """Go on with the key that was wanted; return what was waiting for it.

        :raises RuntimeError: none was wanted.
        :raises ProtocolError: as :meth:`receive_data`.
        """
        if self._step is not _Step.KEY:
            raise RuntimeError("use_key() without a key that was wanted")
        self._cipher = AESGCM(key)
        self._step = _Step.RECORDS
        return self._read_records()

    def receive_eof(self) -> None:
        """Take the end of the bytes.

        :raises ProtocolError: it came before the stream was complete.
        """
        if self.begun and self._step is not _Step.ENDED:
            raise ProtocolError("the sealed stream was cut short: the bytes ended before its last record")

    def _read_beginning(self) -> list[OpenerEvent]:
        if not MAGIC.startswith(self._buffer[: len(MAGIC)]):
            raise ProtocolError(
                "what arrives does not begin like a sealed stream: its sender has no key, or began before we came"
            )
        salt = b""
        while len(self._buffer) >= _BEGINNING_LENGTH and self._buffer.startswith(MAGIC):
            salt = bytes(self._buffer[len(MAGIC) : _BEGINNING_LENGTH])  # of several, only the last one goes on
            del self._buffer[:_BEGINNING_LENGTH]
        return [self._begin(salt)] if salt else []

    def _begin(self, salt: bytes) -> KeyWanted:
        self._seen.check(salt)
        self._beginnings += 1
        if self._beginnings > MAX_BEGINNINGS:
            raise ProtocolError(
                f"{MAX_BEGINNINGS} sealed streams have begun without a record; are there several senders?"
            )
        self._salt = salt
        self._step = _Step.KEY
        return KeyWanted(salt)

    def _read_records(self) -> list[OpenerEvent]:
        events: list[OpenerEvent] = []
        start = 0
        with memoryview(self._buffer) as buffer:
            while self._step is _Step.RECORDS and len(buffer) - start >= HEADER_LENGTH:
                header = bytes(buffer[start : start + HEADER_LENGTH])
                if MAGIC.startswith(header):
                    beginning = bytes(buffer[start : start + _BEGINNING_LENGTH])
                    if len(beginning) < _BEGINNING_LENGTH:
                        break
                    if self._read_further_beginning(beginning, events):
                        start += _BEGINNING_LENGTH
                    continue
                length, flags = self._read_header(header)
                end = start + HEADER_LENGTH + length
                if len(buffer) < end:
                    break
                with buffer[start + HEADER_LENGTH : end] as sealed:
                    text = self._open(sealed, header)
                start = end
                if text:
                    events.append(Opened(text))
                if flags:
                    self._step = _Step.ENDED
                    events.append(BrokenOff("its sender broke off") if flags & _BROKEN_OFF else Ended())
        del self._buffer[:start]
        return events

    def _read_further_beginning(self, beginning: bytes, events: list[OpenerEvent]) -> bool:
        """Read a beginning where a record was due; return whether it belongs to this stream, or to what it becomes."""
        salt = beginning[len(MAGIC) :]
        if not beginning.startswith(MAGIC):
            self._read_header(beginning[:HEADER_LENGTH])  # no record has this length, and it says so
        if self._count:
            self._seen.check(salt)
            self._step = _Step.ENDED
            events.append(BrokenOff("its sender began another stream before the last record of this one"))
            return False
        if salt != self._salt:
            events.append(self._begin(salt))
        return True

    def _read_header(self, header: bytes) -> tuple[int, int]:
        number = int.from_bytes(header, "big")
        flags = number & _LAST and number & (_LAST | _BROKEN_OFF)
        length = number & ~flags
        shortest = TAG_LENGTH if flags else TAG_LENGTH + 1
        if not shortest <= length <= MAX_TEXT + TAG_LENGTH:
            raise ProtocolError(f"record {self._count} of the sealed stream has {length} bytes, which none may have")
        if self._count >= MAX_RECORDS:
            raise ProtocolError(f"the sealed stream has more than {MAX_RECORDS} records")
        return length, flags

    def _open(self, sealed: memoryview, header: bytes) -> bytes:
        if self._cipher is None:
            raise RuntimeError("a record before there is a key")
        try:
            text = self._cipher.decrypt(_nonce(self._count), sealed, header)
        except InvalidTag:
            raise ProtocolError(self._explain()) from None
        if not self._count:
            self._seen.add(self._salt)
        self._count += 1
        return text

    def _explain(self) -> str:
        if self._count == 0:
            return "the sealed stream does not open: its sender has another key, or its first record was changed"
        return f"record {self._count} of the sealed stream does not open: it was changed, repeated, or one is missing"


def _nonce(count: int) -> bytes:
    return count.to_bytes(_NONCE_LENGTH, "big")
