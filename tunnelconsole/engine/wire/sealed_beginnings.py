"""How a sealed stream begins, and how beginnings are found among bytes that belong to nothing.

A beginning has :data:`BEGINNING_LENGTH` bytes: :data:`MAGIC`, a salt of 16 random bytes, the stream's own, and the salt
of the stream that it answers, which is :data:`NOBODYS` as long as none has been heard of. What follows one is in
:mod:`tunnelconsole.engine.wire.sealed_records`.

The channel server drops what it gets for a client that is not there, and tells nobody. So each end says its beginning
again and again, with the salt that it heard last, until it is answered itself, and only then sends a record. Bytes
before a beginning are what is left of a stream that nobody waits for any more. Whoever has joined, or gets such bytes,
says :data:`NOTHING`, with which no stream begins: who believes to be in an exchange with it then knows better.
"""

from __future__ import annotations

from tunnelconsole.engine.wire.passphrase import SALT_LENGTH

#: Bytes with which a stream begins; the digits are the version of what these modules describe.
MAGIC = b"TCSEAL02"
#: The salt that is answered while none has been heard.
NOBODYS = bytes(SALT_LENGTH)
#: Bytes of a beginning.
BEGINNING_LENGTH = len(MAGIC) + 2 * SALT_LENGTH


def beginning_of(salt: bytes, answered: bytes = NOBODYS) -> bytes:
    """Return the beginning of the stream with ``salt``, as an answer to the stream with ``answered``."""
    return MAGIC + salt + answered


#: What says that there is no stream here, or not any more.
NOTHING = beginning_of(NOBODYS)


def read_beginning(data: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return the salt of a stream, and the one that it answers."""
    salt = bytes(data[len(MAGIC) : len(MAGIC) + SALT_LENGTH])
    return salt, bytes(data[len(MAGIC) + SALT_LENGTH : BEGINNING_LENGTH])


def find_beginning(data: bytes | bytearray) -> tuple[int, bool]:
    """Return where in ``data`` the first beginning is, and whether it is there as a whole.

    What comes before belongs to nothing. The place is the length of ``data`` when no beginning is there.
    """
    place = data.find(MAGIC)
    if place >= 0:
        return place, len(data) - place >= BEGINNING_LENGTH
    last = range(max(0, len(data) - len(MAGIC) + 1), len(data))
    return next((start for start in last if MAGIC.startswith(data[start:])), len(data)), False


def is_beginnings(data: bytes) -> bool:
    """Return whether ``data`` is beginnings, and nothing else."""
    places = range(0, len(data), BEGINNING_LENGTH)
    return not len(data) % BEGINNING_LENGTH and all(data.startswith(MAGIC, place) for place in places)


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
        salt, _ = read_beginning(data[place:])
        data = data[place + BEGINNING_LENGTH :]
        place, is_whole = find_caller(data)
    return salt
