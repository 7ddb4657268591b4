"""The key that a shared passphrase and a salt make: scrypt (RFC 7914), which makes each guess cost time and memory.

It takes about a tenth of a second and gives the interpreter's lock away meanwhile: call it in a thread, and remember
what it returned for as long as the salt is the same.
"""

from __future__ import annotations

from hashlib import scrypt

#: scrypt's cost, block size and parallelism: 32 MiB and about 0.1 s a guess, twice what its inventor named for logins.
SCRYPT_N = 2**15
SCRYPT_R = 8
SCRYPT_P = 1
#: Bytes that scrypt may use: what the cost asks for (128 * N * r), and as much again for what OpenSSL adds.
SCRYPT_MEMORY = 2 * 128 * SCRYPT_N * SCRYPT_R
#: Bytes of a salt: 128 random bits never come twice.
SALT_LENGTH = 16
#: Bytes of a key: AES-256.
KEY_LENGTH = 32
#: Passwords that a server may have: each is tried on a newcomer's first line, and together that stays below 1 ms.
MAX_PASSWORDS = 64


def derive_key(passphrase: bytes, salt: bytes) -> bytes:
    """Return the key of :data:`KEY_LENGTH` bytes; slow on purpose.

    :param salt: :data:`SALT_LENGTH` bytes, which need not be secret.
    """
    return scrypt(passphrase, salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=SCRYPT_MEMORY, dklen=KEY_LENGTH)
