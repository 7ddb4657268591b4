"""What an operator does to the engine by keys and commands: to the selected row, or to what is named."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tunnelconsole.control.messages import ChannelRow, ChidRow, Role, ServiceRow, SessionRow
from tunnelconsole.screens import limiting, sending
from tunnelconsole.screens.preferences import PreferencesFile
from tunnelconsole.screens.roles import refusal
from tunnelconsole.screens.steering import Steering, why_receivers_stay
from tunnelconsole.screens.tokening import Tokening
from tunnelconsole.screens.widgets.prompt import Prompt


class Operating(Tokening):
    """The frame, with the actions that change something.

    :param role: ``view`` refuses them.
    :param files: False saves nothing on this machine.
    :param options: those of :class:`~tunnelconsole.screens.frame.Frame`.
    """

    def __init__(self, socket_path: Path, *, role: Role = "operate", files: bool = True, **options: Any) -> None:
        if not files:
            options.setdefault("preferences", PreferencesFile.unsaved())
        super().__init__(socket_path, **options)
        self.role = role
        self.files = files
        self.steering = Steering(self)
        self._edited: ChidRow | None = None
        self._limited: tuple[str, Sequence[str]] | None = None

    def permits(self, action: str) -> bool:
        """Whether this console does what a key or a command asks for; says why not."""
        why, hint = refusal(action, self.role, files=self.files)
        if why:
            self.tell(why, hint=hint, trouble=True)
        return not why

    def _selected(self) -> Any:
        table = self.pane.table
        return None if table is None else table.selected

    def _steer(self, doing: Coroutine[Any, Any, None]) -> None:
        self.run_worker(doing, name="steer")

    def _service(self) -> str:
        row = self._selected()
        if isinstance(row, ServiceRow):
            return row.name
        self.tell("No service is selected")
        return ""

    def action_start(self) -> None:
        """Starts the selected service."""
        if name := self._service():
            self.action_start_named(name)

    def action_stop(self) -> None:
        """Stops the selected service."""
        if name := self._service():
            self.action_stop_named(name)

    def action_restart(self) -> None:
        """Restarts the selected service."""
        if name := self._service():
            self.action_restart_named(name)

    def action_start_named(self, name: str) -> None:
        """Starts a service."""
        self._steer(self.steering.start(name))

    def action_stop_named(self, name: str) -> None:
        """Stops a service."""
        self._steer(self.steering.stop(name))

    def action_restart_named(self, name: str) -> None:
        """Restarts a service."""
        self._steer(self.steering.restart(name))

    def action_drain(self) -> None:
        """Drains the selected service."""
        if name := self._service():
            self.action_drain_named(name)

    def action_drain_named(self, name: str) -> None:
        """Drains a service."""
        self._steer(self.steering.drain(name))

    def action_limits(self) -> None:
        """Asks for the limits of the selected service or session."""
        row = self._selected()
        if isinstance(row, ServiceRow):
            self._ask_limits(row.name, row.limits, limiting.OF_SERVICE)
        elif isinstance(row, SessionRow):
            self._ask_limits(row.id, row.limits, limiting.OF_SESSION)
        else:
            self.tell("Nothing is selected that has limits")

    def _ask_limits(self, target: str, limits: Mapping[str, float], names: Sequence[str]) -> None:
        self._edited, self._limited = None, (target, names)
        self.prompt.ask(f"limits of {target}:", limiting.written(limits, names), lambda _: [])

    def _take_limits(self, target: str, names: Sequence[str], text: str) -> None:
        try:
            request = limiting.read_limits(target, text, names)
        except ValueError as error:
            self.tell(f"The limits of {target} stay as they are: {error}", trouble=True)
            return
        self._steer(self.steering.limit(request))

    def action_kick(self) -> None:
        """Ends the selected session."""
        row = self._selected()
        if isinstance(row, SessionRow):
            self._steer(self.steering.kick(row))
        else:
            self.tell("No session is selected")

    def action_kick_named(self, key: str) -> None:
        """Ends a session."""
        self._steer(self.steering.kick_id(key))

    def action_close(self) -> None:
        """Closes the selected channel."""
        row = self._selected()
        if isinstance(row, ChannelRow):
            self._steer(self.steering.close(row))
        else:
            self.tell("No channel is selected")

    def action_close_named(self, key: str) -> None:
        """Closes a channel."""
        self._steer(self.steering.close_id(key))

    def action_reload(self) -> None:
        """Shows what a reload would change, and has the configuration read again where that is wanted."""
        self._steer(self.steering.reload())

    # the clients of channel servers

    def _chid(self) -> ChidRow | None:
        row = self._selected()
        if isinstance(row, ChidRow):
            return row
        self.tell("No chid is selected")
        return None

    def action_disconnect(self) -> None:
        """Disconnects the selected chid."""
        if row := self._chid():
            self._steer(self.steering.disconnect(row))

    def action_disconnect_named(self, chid: str) -> None:
        """Disconnects a chid."""
        self._steer(self.steering.disconnect_named(chid))

    def action_receivers(self) -> None:
        """Asks to whom the selected chid shall send."""
        row = self._chid()
        if row is None:
            return
        now = row if self.latest.chids is None else self.latest.chid(row.session)
        if now is None:
            self.tell(f"{row.chid} has left already")
        elif now.more_receivers:
            self._steer(self._edit(now))
        else:
            self.edit_receivers(now)

    def action_receivers_named(self, chid: str) -> None:
        """Asks to whom a chid shall send."""
        self._steer(self._edit_named(chid))

    async def _edit_named(self, chid: str) -> None:
        row = await self.steering.find_chid(chid)
        if row is not None:
            await self._edit(row)

    async def _edit(self, row: ChidRow) -> None:
        whole = await self.steering.with_every_receiver(row)
        if whole is not None:
            self.edit_receivers(whole)

    def edit_receivers(self, row: ChidRow) -> None:
        """Opens the list of a client's receivers, to be changed."""
        if why := why_receivers_stay(row, self.latest.service(row.service)):
            self.tell(why)
            return
        self._edited, self._limited = row, None
        complete = partial(sending.complete_receivers, known=self._receivers_known(row))
        self.prompt.ask(f"{row.chid} sends to, {sending.ALL} for all:", sending.written(row.receivers), complete)

    def _receivers_known(self, row: ChidRow) -> list[str]:
        there = [other.chid for other in self.latest.chids or () if other.service == row.service]
        return sorted({*there} - {row.chid} | {*row.receivers}, key=sending.natural)

    def on_prompt_answered(self, message: Prompt.Answered) -> None:
        """Receivers were written, or limits."""
        limited, self._limited = self._limited, None
        if limited is not None:
            self._take_limits(*limited, message.text)
            return
        row, self._edited = self._edited, None
        if row is None:
            return
        try:
            receivers = sending.read_receivers(message.text, self._receivers_known(row))
        except ValueError as error:
            self.tell(f"{row.chid} sends to whom it did: {error}", trouble=True)
            return
        self._steer(self.steering.set_receivers(row, receivers))
