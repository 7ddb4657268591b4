"""Public keys that look right at first sight, and break what decodes them."""

from __future__ import annotations

import base64


def damaged_rsa_line() -> str:
    """A modulus that begins with a set bit, and so is negative: whoever cut the leading zero makes one."""
    return _line("ssh-rsa", b"\x01\x00\x01", b"\x80" * 256)


def damaged_ecdsa_line() -> str:
    """A point that is not on its curve."""
    return _line("ecdsa-sha2-nistp256", b"nistp256", b"\x04" + b"\x01" * 64)


def _line(kind: str, *fields: bytes) -> str:
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in (kind.encode(), *fields))
    return f"{kind} {base64.b64encode(blob).decode()} damaged"
