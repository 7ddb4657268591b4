"""What an operator does about bans: lifts one, or sets one by hand."""

from __future__ import annotations

from typing import Any

from tunnelconsole.control.bans import BanAddress, BanRow, LiftBan
from tunnelconsole.control.messages import ChidRow, Done, Request
from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.screens.operating import Operating
from tunnelconsole.screens.widgets.prompt import Prompt

DEFAULT_TIME = "1h"
"""How long a ban by hand lasts unless it is said."""

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""The units in which it may be said."""


def read_ban(text: str) -> BanAddress:
    """Reads ``ADDRESS`` or ``ADDRESS TIME``, the time such as ``30m``, ``2h`` or ``7d``.

    :raises ValueError: it is neither; the text says how one is written.
    """
    address, _, time = " ".join(text.split()).partition(" ")
    time = time or DEFAULT_TIME
    number, unit = time[:-1], time[-1]
    if not address or unit not in SECONDS or not (number.isascii() and number.isdecimal()) or len(number) > 9:
        raise ValueError(f"{text.strip()!r} is no ban; write one as 192.0.2.7 or 192.0.2.7 {DEFAULT_TIME}")
    return BanAddress(address, float(int(number) * SECONDS[unit]))


class Banning(Operating):
    """The frame, with the actions about bans too; its parameters are those of ``Operating``."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._asks_whom = False

    def action_unban(self) -> None:
        """Lets the selected address connect again."""
        row = self._selected()
        if isinstance(row, BanRow):
            self.action_unban_named(row.address)
        else:
            self.tell("No ban is selected", hint=":unban ADDRESS names one")

    def action_unban_named(self, address: str) -> None:
        """Lets an address connect again."""
        self._steer(self._change(LiftBan(address)))

    def action_ban(self) -> None:
        """Asks whom to ban."""
        self._edited, self._asks_whom = None, True
        self.prompt.ask(f"ban which address, for {DEFAULT_TIME} or the time behind it:", "", lambda _: [])

    def action_ban_named(self, text: str) -> None:
        """Bans an address."""
        try:
            request = read_ban(text)
        except ValueError as error:
            self.tell(str(error), trouble=True)
            return
        self._steer(self._change(request))

    def edit_receivers(self, row: ChidRow) -> None:
        self._asks_whom = False
        super().edit_receivers(row)

    def on_prompt_answered(self, message: Prompt.Answered) -> None:
        """An address was written."""
        asked, self._asks_whom = self._asks_whom, False
        if asked:
            self.action_ban_named(message.text)

    async def _change(self, request: Request) -> None:
        try:
            reply = await self.ask(request)
        except TunnelConsoleError as error:
            self.tell(error.message, hint=error.hint, trouble=True)
            return
        self.tell(reply.text if isinstance(reply, Done) else "Done")
