"""What an operator does with hole punches: opens them, and has them tried again."""

from __future__ import annotations

from tunnelconsole.control.attempts import AttemptRow, Attempts, GetAttempts, PunchAgain
from tunnelconsole.control.messages import Done, Update
from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.screens.attempt import AttemptPane
from tunnelconsole.screens.inspecting import Inspecting


class Punching(Inspecting):
    """The frame, with the actions about hole punches too; its parameters are those of ``Frame``."""

    def arrive(self) -> None:
        super().arrive()
        pane = self._punch()
        if pane is not None:  # anew each time: another engine may have another attempt of this id
            pane.begin(self.place.attempt)
            self._load_punch()

    def _updated(self, update: Update) -> None:
        super()._updated(update)
        pane = self._punch()
        if pane is None or pane.attempt is None or self.frozen is not None:
            return
        row = self.latest.attempt(pane.key)
        if row is not None and _progress(row) != _progress(pane.attempt):
            self._load_punch()

    def _punch(self) -> AttemptPane | None:
        pane = self.pane
        return pane if isinstance(pane, AttemptPane) else None

    def _load_punch(self) -> None:
        self.run_worker(self._bring_punch(self.place.attempt), name="punch", group="punch", exclusive=True)

    async def _bring_punch(self, key: str) -> None:
        try:
            reply = await self.ask(GetAttempts(id=key))
        except TunnelConsoleError as error:
            pane = self._punch()
            if pane is not None and pane.key == key:
                pane.fail(error.message, error.hint)
            return
        pane = self._punch()
        if pane is not None and pane.key == key and isinstance(reply, Attempts) and reply.rows:
            pane.bring(reply.rows[0])

    def action_retry(self) -> None:
        """Has the service of the punch that is opened, or selected, look for a direct way now."""
        pane = self._punch()
        row = pane.attempt if pane is not None else self.pane.table.selected if self.pane.table is not None else None
        if isinstance(row, AttemptRow):
            self.action_retry_named(row.service)
        else:
            self.tell("No punch is selected", hint=":retry SERVICE names the punch client")

    def action_retry_named(self, service: str) -> None:
        """Has a service look for a direct way now."""
        self.run_worker(self._retry(service), name="retry")

    async def _retry(self, service: str) -> None:
        try:
            reply = await self.ask(PunchAgain(service))
        except TunnelConsoleError as error:
            self.tell(error.message, hint=error.hint, trouble=True)
            return
        self.tell(reply.text if isinstance(reply, Done) else "Done", hint="it shows among the punches")


def _progress(row: AttemptRow) -> tuple[str, int, int, float | None]:
    """What shows that there is more to tell, of a row of an update or of a whole one."""
    return (
        row.state,
        len(row.candidates) + row.more_candidates,
        len(row.timeline) + row.more_moments,
        row.seconds,
    )
