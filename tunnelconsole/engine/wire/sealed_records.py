"""Payload sealed end to end between two clients of a channel server, who know the same passphrase. Loads the ciphers.

Each end sends a stream and answers the other's. A stream has a beginning of :data:`BEGINNING_LENGTH` bytes:
:data:`MAGIC`, a salt of 16 random bytes, its own, and the salt of the stream that it answers, which is
:data:`NOBODYS` as long as none has been heard of. Records follow, each with a header of 4 bytes, big-endian: the
highest bit is set in the last record of the stream, the next one in a last record behind which there should have been
more, the others are the length of what follows, which is the text (:data:`MAX_TEXT` bytes at most) sealed by
AES-256-GCM, with its tag of 16 bytes behind it. The key is scrypt's, of passphrase and salt; the nonce of 96 bits is
the number of the record, from 0 on, big-endian; the header is the associated data, and in the first record the answered
salt behind it. So a record that was changed, left out, sent twice or put elsewhere does not open, and neither does any
of a stream that was recorded in another exchange, or that comes back to its sender. A stream that stops before its last
record, which alone may be empty, was cut short.

The channel server drops what it gets for a client that is not there, and tells nobody. So each end says its beginning
again and again, with the salt that it heard last, until it is answered itself, and only then sends a record. Bytes
before a beginning are what is left of a stream that nobody waits for any more. Whoever has joined, or gets such bytes,
says :data:`NOTHING`, with which no stream begins: who believes to be in an exchange with it then knows better.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.passphrase import SALT_LENGTH

#: Bytes with which a stream begins; the digits are the version of what this module describes.
MAGIC = b"TCSEAL01"
#: The salt that is answered while none has been heard.
NOBODYS = bytes(SALT_LENGTH)
#: Bytes of a beginning.
BEGINNING_LENGTH = len(MAGIC) + 2 * SALT_LENGTH
#: Bytes of text in one record: one full socket read.
MAX_TEXT = 64 * 1024
#: Bytes of an AES-GCM tag.
TAG_LENGTH = 16
#: Bytes of a record's header.
HEADER_LENGTH = 4
#: Records in one stream: 256 TiB of full ones, well within what AES-GCM may seal with one key.
MAX_RECORDS = 2**32

_LAST = 0x8000_0000
_BROKEN_OFF = 0x4000_0000
_NONCE_LENGTH = 12
_ANEW = "its sender began another stream before the last record of this one"
_LOST = "its sender knows nothing of it any more"


def beginning_of(salt: bytes, answered: bytes = NOBODYS) -> bytes:
    """Return the beginning of the stream with ``salt``, as an answer to the stream with ``answered``."""
    return MAGIC + salt + answered


#: What says that there is no stream here, or not any more.
NOTHING = beginning_of(NOBODYS)


class Sealer:
    """Seals one stream.

    :param key: of the passphrase and ``salt``.
    :param salt: 16 random bytes that no other stream has.
    :param answered: the salt of the stream that the other end has begun.
    """

    __slots__ = ("_answered", "_cipher", "_count", "_over", "_prefix")

    def __init__(self, key: bytes, salt: bytes, answered: bytes) -> None:
        self._cipher = AESGCM(key)
        self._prefix = beginning_of(salt, answered)
        self._answered = answered
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
        sealed = self._cipher.encrypt(_nonce(self._count), text, header + self._answered)
        self._count += 1
        self._answered = b""
        return header, sealed


@dataclass(frozen=True, slots=True)
class Heard:
    """The other end has begun a stream with this salt, and has not heard of ours yet: answer it."""

    salt: bytes


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """The other end answers our stream with one that has this salt: from now on it takes records of ours.

    Make the key of passphrase and salt, in a thread, and call ``use_key``. Read nothing meanwhile: what arrives earlier
    is kept, up to ``MAX_EARLY_DATA`` bytes.
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


OpenerEvent = Heard | KeyWanted | Opened | Ended | BrokenOff


class _Step(Enum):
    SEARCH = 1
    KEY = 2
    RECORDS = 3
    ENDED = 4


class Opener:
    """Opens the stream that answers ours; what comes before it is thrown away.

    :param own_salt: of our stream.
    """

    __slots__ = ("_buffer", "_cipher", "_count", "_own_salt", "_salt", "_step", "thrown_away")

    def __init__(self, own_salt: bytes) -> None:
        self._own_salt = own_salt
        self._buffer = bytearray()
        self._salt = b""
        self._cipher: AESGCM | None = None
        self._count = 0
        self._step = _Step.SEARCH
        self.thrown_away = 0
        """Bytes that belong to nothing that could be opened here."""

    @property
    def begun(self) -> bool:
        """Whether the stream that answers ours has begun."""
        return self._step is not _Step.SEARCH

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

        :raises ProtocolError: they are not what was sealed; or too much came before the key was there, or behind the
            end.
        """
        self._buffer += data
        if self._step is _Step.SEARCH:
            return self._search()
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
        if self._step not in (_Step.SEARCH, _Step.ENDED):
            raise ProtocolError("the sealed stream was cut short: the bytes ended before its last record")

    def _search(self) -> list[OpenerEvent]:
        events: list[OpenerEvent] = []
        while self._step is _Step.SEARCH:
            place, is_whole = find_beginning(self._buffer)
            del self._buffer[:place]
            self.thrown_away += place
            if not is_whole:
                break
            salt, answered = _read_beginning(self._buffer)
            del self._buffer[:BEGINNING_LENGTH]
            if answered == self._own_salt:
                self._salt = salt
                self._step = _Step.KEY
                events.append(KeyWanted(salt))
            elif salt == self._own_salt:  # somebody sends us our own
                self.thrown_away += BEGINNING_LENGTH
            elif salt != NOBODYS:
                events.append(Heard(salt))
        return events

    def _read_records(self) -> list[OpenerEvent]:
        events: list[OpenerEvent] = []
        start = 0
        with memoryview(self._buffer) as buffer:
            while self._step is _Step.RECORDS and len(buffer) - start >= HEADER_LENGTH:
                header = bytes(buffer[start : start + HEADER_LENGTH])
                if MAGIC.startswith(header):
                    if len(buffer) - start < BEGINNING_LENGTH:
                        break
                    beginning = bytes(buffer[start : start + BEGINNING_LENGTH])
                    if not self._says_it_again(beginning):
                        self._step = _Step.ENDED
                        events.append(BrokenOff(_LOST if beginning == NOTHING else _ANEW))
                        break
                    start += BEGINNING_LENGTH
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

    def _says_it_again(self, beginning: bytes) -> bool:
        """Whether a beginning where a record was due is that of this stream, said again before its first record."""
        if not beginning.startswith(MAGIC):
            self._read_header(beginning[:HEADER_LENGTH])  # no record has this length, and it says so
        return not self._count and beginning == beginning_of(self._salt, self._own_salt)

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
        associated = header if self._count else header + self._own_salt
        try:
            text = self._cipher.decrypt(_nonce(self._count), sealed, associated)
        except InvalidTag:
            raise ProtocolError(self._explain()) from None
        self._count += 1
        return text

    def _explain(self) -> str:
        if self._count == 0:
            return "the sealed stream does not open: its sender has another key, or its first record was changed"
        return f"record {self._count} of the sealed stream does not open: it was changed, repeated, or one is missing"


def find_beginning(data: bytes | bytearray) -> tuple[int, bool]:
    """Return where in ``data`` the first beginning is, and whether it is there as a whole.

    What comes before belongs to nothing. The place is the length of ``data`` when no beginning is there.
    """
    place = data.find(MAGIC)
    if place >= 0:
        return place, len(data) - place >= BEGINNING_LENGTH
    last = range(max(0, len(data) - len(MAGIC) + 1), len(data))
    return next((start for start in last if MAGIC.startswith(data[start:])), len(data)), False


def find_caller(data: bytes | bytearray) -> tuple[int, bool]:
    """As :func:`find_beginning`, but for those that say :data:`NOTHING`."""
    place, is_whole = find_beginning(data)
    while is_whole and data[place : place + BEGINNING_LENGTH] == NOTHING:
        skipped = place + BEGINNING_LENGTH
        further, is_whole = find_beginning(data[skipped:])
        place = skipped + further
    return place, is_whole


def last_caller(data: bytes) -> bytes | None:
    """Return the salt of the last stream that begins in ``data``; None when there is none."""
    salt = None
    place, is_whole = find_caller(data)
    while is_whole:
        salt, _ = _read_beginning(data[place:])
        data = data[place + BEGINNING_LENGTH :]
        place, is_whole = find_caller(data)
    return salt


def _read_beginning(data: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return the salt of a stream, and the one that it answers."""
    salt = bytes(data[len(MAGIC) : len(MAGIC) + SALT_LENGTH])
    return salt, bytes(data[len(MAGIC) + SALT_LENGTH : BEGINNING_LENGTH])


def _nonce(count: int) -> bytes:
    return count.to_bytes(_NONCE_LENGTH, "big")
