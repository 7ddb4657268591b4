"""What an operator does with the audit trail: sees it, brought up to date whenever somebody does something."""

from __future__ import annotations

from tunnelconsole.control import figures
from tunnelconsole.control.audit import Audit, AuditRow, GetAudit
from tunnelconsole.control.messages import Update
from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.screens.audit import AuditPane, whole
from tunnelconsole.screens.punching import Punching
from tunnelconsole.screens.widgets.dialog import Choice, Question

ENTRIES_ASKED = 1000
"""Entries that are shown, the newest: more than anybody leafs through; ``audit --export`` has all."""


class Auditing(Punching):
    """The frame, with the audit trail too; its parameters are those of ``Frame``."""

    _audited: tuple[int, int] = (0, 0)
    """The engine's process and the event of the last entry that was asked for."""

    def arrive(self) -> None:
        super().arrive()
        if isinstance(self.pane, AuditPane):
            self._load_audit()

    def _updated(self, update: Update) -> None:
        super()._updated(update)
        if isinstance(self.pane, AuditPane) and self.frozen is None and self._last_audited() != self._audited:
            self._load_audit()

    def _last_audited(self) -> tuple[int, int]:
        status = self.latest.status
        last = next((row.id for row in reversed(self.latest.events) if row.type == "audited"), 0)
        return (0 if status is None else status.pid), last

    def _load_audit(self) -> None:
        self._audited = self._last_audited()
        self.run_worker(self._bring_audit(), name="audit", group="audit", exclusive=True)

    async def _bring_audit(self) -> None:
        try:
            reply = await self.ask(GetAudit(ENTRIES_ASKED))
        except TunnelConsoleError as error:
            if isinstance(pane := self.pane, AuditPane):
                pane.fail(error.message, error.hint)
            return
        if isinstance(pane := self.pane, AuditPane) and isinstance(reply, Audit):
            pane.bring(reply.rows)

    def show_entry(self, row: AuditRow) -> None:
        """Shows all of an entry, whatever room its line has."""
        heading, sentences = whole(row, figures.date_and_time(row.time, self.zone))
        self.push_screen(Question[None](heading, sentences, [Choice("c", "Close", None)]))
