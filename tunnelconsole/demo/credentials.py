"""The demonstration's tokens: two that members of the channel server come in with, and one that nobody may use."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.tokens import ChangeToken, CreateToken, TokenMade

CAMERAS: Final = "cameras"
SENSORS: Final = "sensors"
CONTRACTOR: Final = "contractor"

TOKENS: tuple[CreateToken, ...] = (
    CreateToken(
        CAMERAS, {"kinds": ["channel"], "chids": ["camera", "recorder"], "bytes_per_day": "20GiB"}, expires="30d"
    ),
    CreateToken(
        SENSORS,
        {"kinds": ["channel"], "chids": ["door", "lift", "roof", "logger", "board"], "rate": "2MB/s", "sessions": 5},
        expires="60h",  # about to expire, which is marked
    ),
    CreateToken(CONTRACTOR, {"kinds": ["relay", "tunnel"], "hosts": ["*.localhost"], "sessions": 1}, expires="7d"),
)
"""None is for jump servers, which would need ciphers that take their time to load."""


async def make_tokens(control: Path) -> dict[str, str]:
    """Makes the tokens; returns their secrets by name.

    :raises EngineUnreachable: the engine has gone already.
    """
    secrets = {}
    async with await ControlClient.connect(control) as client:
        for wanted in TOKENS:
            made = await client.ask(wanted)
            if isinstance(made, TokenMade):
                secrets[made.name] = made.secret
        await client.ask(ChangeToken(CONTRACTOR, disabled=True))
    return secrets
