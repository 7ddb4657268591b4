"""Payload sealed end to end between two clients of a channel server, who know the same passphrase. Loads the ciphers.

Each end sends a stream and answers the other's. A stream begins as :mod:`tunnelconsole.engine.wire.sealed_beginnings`
says. Records follow, each with a header of 4 bytes, big-endian: the two highest bits are its :class:`Kind`, the others
the length of what follows, which is its content sealed by AES-256-GCM, with the tag of 16 bytes behind it. The key is
scrypt's, of passphrase and salt; the nonce of 96 bits is the number of the record, from 0 on, big-endian; the header is
the associated data, and in the first record the answered salt behind it. So a record that was changed, left out, sent
twice or put elsewhere does not open, and neither does any of a stream that was recorded in another exchange, or that
comes back to its sender.

Text is followed by the record that ends it. Reports go in between and behind: how many records of the other stream have
come, and their text been handed on. What nobody has confirmed so may be lost, and is never taken for delivered: see
:mod:`tunnelconsole.engine.wire.sealed_accounts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_beginnings import (
    BEGINNING_LENGTH,
    MAGIC,
    NOBODYS,
    NOTHING,
    beginning_of,
    find_beginning,
    read_beginning,
)

#: Bytes of text in one record: one full socket read.
MAX_TEXT = 64 * 1024
#: Bytes of an AES-GCM tag.
TAG_LENGTH = 16
#: Bytes of a record's header.
HEADER_LENGTH = 4
#: Bytes of a report: its marks, and a number of records, big-endian.
REPORT_LENGTH = 1 + 8
#: Records in one stream: 256 TiB of full ones, well within what AES-GCM may seal with one key.
MAX_RECORDS = 2**32

_KIND_SHIFT = 30
_NONCE_LENGTH = 12
_ANEW = "its sender began another stream before the last record of this one"
_LOST = "its sender knows nothing of it any more"
_DID_NOT_OPEN = "what came to it was not what had been sealed for it"


class Kind(IntEnum):
    """What a record is."""

    TEXT = 0
    """Some of the stream's text."""
    REPORT = 1
    """What its sender has received; see :class:`Reported`."""
    END = 2
    """Nothing: all of the text has been sent."""
    BREAK = 3
    """There should have been more, and nothing follows; one byte of content says that a record did not open."""


_LENGTHS = {
    Kind.TEXT: range(TAG_LENGTH + 1, TAG_LENGTH + MAX_TEXT + 1),
    Kind.REPORT: range(TAG_LENGTH + REPORT_LENGTH, TAG_LENGTH + REPORT_LENGTH + 1),
    Kind.END: range(TAG_LENGTH, TAG_LENGTH + 1),
    Kind.BREAK: range(TAG_LENGTH, TAG_LENGTH + 2),
}


class Mark(IntFlag):
    """What a report says besides its number."""

    NONE = 0
    TAKES_NO_MORE = 1
    """Text that has not been received is thrown away when it comes."""
    DONE = 2
    """Both directions are over for the sender of the report, which only answers from now on, or has gone."""
    ASKS = 4
    """It wants a report at once."""
    HELD_UP = 8
    """It cannot hand text on for now, and does not answer as long as that is so."""


class Sealer:
    """Seals one stream.

    :param key: of the passphrase and ``salt``.
    :param salt: 16 random bytes that no other stream has.
    :param answered: the salt of the stream that the other end has begun.
    """

    __slots__ = ("_answered", "_cipher", "_over", "_prefix", "count", "end_at", "texts")

    def __init__(self, key: bytes, salt: bytes, answered: bytes) -> None:
        self._cipher = AESGCM(key)
        self._prefix = beginning_of(salt, answered)
        self._answered = answered
        self.count = 0
        """Records there are."""
        self.texts = 0
        """Records up to the last one with text."""
        self.end_at = 0
        """Records up to the end of the text; 0 before."""
        self._over = False

    def seal(self, text: bytes | memoryview) -> bytes:
        """Return what travels in place of ``text``, in as many records as it needs; of no text, at most the beginning.

        :raises RuntimeError: the stream has been finished.
        :raises ProtocolError: it has as many records as one may have.
        """
        view = memoryview(text)
        pieces = [self._take_prefix()]
        for start in range(0, len(view), MAX_TEXT):
            pieces += self._record(Kind.TEXT, view[start : start + MAX_TEXT])
            self.texts = self.count
        return b"".join(pieces)

    def end(self) -> bytes:
        """Return the record behind the last text; reports may follow.

        :raises RuntimeError: the stream is over.
        """
        record = b"".join((self._take_prefix(), *self._record(Kind.END)))
        self.end_at = self.count
        return record

    def report(self, count: int, marks: Mark = Mark.NONE) -> bytes:
        """Return the record that says that ``count`` records of the other stream have been received.

        :raises RuntimeError: the stream is over.
        """
        content = bytes((marks,)) + count.to_bytes(REPORT_LENGTH - 1, "big")
        return b"".join((self._take_prefix(), *self._record(Kind.REPORT, content)))

    def break_off(self, *, did_not_open: bool = False) -> bytes:
        """Return the record that ends the stream before its time.

        :param did_not_open: because something came that the other end has not sealed, or not so.
        :raises RuntimeError: it is over already.
        """
        final = b"".join((self._take_prefix(), *self._record(Kind.BREAK, bytes(did_not_open))))
        self._over = True
        return final

    def _take_prefix(self) -> bytes:
        prefix, self._prefix = self._prefix, b""
        return prefix

    def _record(self, kind: Kind, content: bytes | memoryview = b"") -> tuple[bytes, bytes]:
        if self._over:
            raise RuntimeError("the sealed stream is over")
        if self.count >= MAX_RECORDS:
            raise ProtocolError(f"the sealed stream has {MAX_RECORDS} records, and one may have no more; begin another")
        header = (len(content) + TAG_LENGTH | kind << _KIND_SHIFT).to_bytes(HEADER_LENGTH, "big")
        sealed = self._cipher.encrypt(_nonce(self.count), content, header + self._answered)
        self.count += 1
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
class Reported:
    """The other end has received so many records of ours, and handed on their text."""

    count: int
    marks: Mark


@dataclass(frozen=True, slots=True)
class Ended:
    """The text is complete. Reports may follow."""


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """The stream is over before its time, as its sender says; the reason may be empty."""

    reason: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """Where a record was due there was a beginning, which nobody has sealed: it is the first of ``leftover``."""

    reason: str


OpenerEvent = Heard | KeyWanted | Opened | Reported | Ended | BrokenOff | Superseded


class _Step(Enum):
    SEARCH = 1
    KEY = 2
    RECORDS = 3
    OVER = 4


class Opener:
    """Opens the stream that answers ours; what comes before it is thrown away.

    :param own_salt: of our stream.
    """

    __slots__ = ("_buffer", "_cipher", "_ended", "_own_salt", "_salt", "_step", "count", "thrown_away")

    def __init__(self, own_salt: bytes) -> None:
        self._own_salt = own_salt
        self._buffer = bytearray()
        self._salt = b""
        self._cipher: AESGCM | None = None
        self._ended = False
        self.count = 0
        """Records that were opened."""
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
        """What came behind the last record that was opened; empty where there was none."""
        return bytes(self._buffer) if self._step in (_Step.RECORDS, _Step.OVER) else b""

    @property
    def holds_part(self) -> bool:
        """Whether a record has come in part."""
        return bool(self._buffer)

    def receive_data(self, data: bytes) -> list[OpenerEvent]:
        """Take bytes, split anywhere, and return what they caused.

        :raises ProtocolError: they are not what was sealed; or too much came before the key was there, or when the
            stream was over.
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

    def _search(self) -> list[OpenerEvent]:
        events: list[OpenerEvent] = []
        while self._step is _Step.SEARCH:
            place, is_whole = find_beginning(self._buffer)
            del self._buffer[:place]
            self.thrown_away += place
            if not is_whole:
                break
            salt, answered = read_beginning(self._buffer)
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
                        self._step = _Step.OVER
                        events.append(Superseded(_LOST if beginning == NOTHING else _ANEW))
                        break
                    start += BEGINNING_LENGTH
                    continue
                kind, length = self._read_header(header)
                end = start + HEADER_LENGTH + length
                if len(buffer) < end:
                    break
                with buffer[start + HEADER_LENGTH : end] as sealed:
                    content = self._open(sealed, header)
                start = end
                events.append(self._event(kind, content))
        del self._buffer[:start]
        return events

    def _says_it_again(self, beginning: bytes) -> bool:
        """Whether a beginning where a record was due is that of this stream, said again before its first record."""
        if not beginning.startswith(MAGIC):
            self._read_header(beginning[:HEADER_LENGTH])  # no record has this length, and it says so
        return not self.count and beginning == beginning_of(self._salt, self._own_salt)

    def _event(self, kind: Kind, content: bytes) -> OpenerEvent:
        if kind is Kind.REPORT:
            return Reported(int.from_bytes(content[1:], "big"), Mark(content[0]))
        if kind is Kind.BREAK:
            self._step = _Step.OVER
            return BrokenOff(_DID_NOT_OPEN if content else "")
        if self._ended:
            raise ProtocolError(f"record {self.count - 1} of the sealed stream is text behind its end")
        if kind is Kind.END:
            self._ended = True
            return Ended()
        return Opened(content)

    def _read_header(self, header: bytes) -> tuple[Kind, int]:
        number = int.from_bytes(header, "big")
        kind, length = Kind(number >> _KIND_SHIFT), number & ((1 << _KIND_SHIFT) - 1)
        if length not in _LENGTHS[kind]:
            raise ProtocolError(f"record {self.count} of the sealed stream has {length} bytes, which none may have")
        if self.count >= MAX_RECORDS:
            raise ProtocolError(f"the sealed stream has more than {MAX_RECORDS} records")
        return kind, length

    def _open(self, sealed: memoryview, header: bytes) -> bytes:
        if self._cipher is None:
            raise RuntimeError("a record before there is a key")
        associated = header if self.count else header + self._own_salt
        try:
            text = self._cipher.decrypt(_nonce(self.count), sealed, associated)
        except InvalidTag:
            raise ProtocolError(self._explain()) from None
        self.count += 1
        return text

    def _explain(self) -> str:
        if self.count == 0:
            return "the sealed stream does not open: its sender has another key, or its first record was changed"
        return f"record {self.count} of the sealed stream does not open: it was changed, repeated, or one is missing"


def _nonce(count: int) -> bytes:
    return count.to_bytes(_NONCE_LENGTH, "big")
