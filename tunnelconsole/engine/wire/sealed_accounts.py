"""What an end of a sealed exchange knows to have arrived: nothing counts as delivered that the other has not confirmed.

An end confirms by reports, which say how many records of the other stream it has received and handed on. Records open
only in their order, so one number says it all. An exchange goes well when this has happened:

1. An end has sent all its text, and the other has confirmed that; or the other takes no more, and had confirmed all of
   the text before.
2. It has received all of the other's text; or it takes no more, and has said so.
3. Then it is done, says so, and asks for a report. It leaves when it knows that the other end has heard this: when the
   other is done too, or has confirmed this report.

Who is done has all that it wants, and that is known at both ends but for the last word. So it may leave without having
been answered; but as long as it waits for the answer it learns when the other end is not content.
"""

from __future__ import annotations

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_records import Mark, Reported, Sealer


class Accounts:
    """What one end knows.

    :param sealer: of its stream.
    """

    __slots__ = (
        "_confirmed",
        "_done_at",
        "_sealer",
        "_some_refused",
        "other_is_done",
        "other_is_held_up",
        "other_takes_no_more",
    )

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._confirmed = 0
        self._done_at = 0
        self._some_refused = False
        self.other_takes_no_more = False
        self.other_is_done = False
        self.other_is_held_up = False

    def text_refused(self) -> None:
        """There was text that was not even sent, because the other end takes no more."""
        self._some_refused = True

    def said_done(self) -> None:
        """The report that says that we are done has been sealed."""
        self._done_at = self._sealer.count

    def hear(self, report: Reported) -> None:
        """Takes a report of the other end.

        :raises ProtocolError: it confirms what there has not been, or takes something back.
        """
        if not self._confirmed <= report.count <= self._sealer.count:
            raise ProtocolError(
                f"the other end confirms {report.count} records; there are {self._sealer.count}, and it had confirmed "
                f"{self._confirmed}"
            )
        self._confirmed = report.count
        self.other_takes_no_more |= Mark.TAKES_NO_MORE in report.marks
        self.other_is_done |= Mark.DONE in report.marks
        self.other_is_held_up = Mark.HELD_UP in report.marks

    @property
    def has_ended(self) -> bool:
        """Whether our text is over."""
        return bool(self._sealer.end_at)

    @property
    def done(self) -> bool:
        """Whether we have said that we are done."""
        return bool(self._done_at)

    @property
    def has_all_text(self) -> bool:
        """Whether the other end has all the text there is so far."""
        return self._confirmed >= self._sealer.texts and not self._some_refused

    @property
    def has_all(self) -> bool:
        """Whether our text is over, and the other end has what it wants of it."""
        if self.other_takes_no_more and self.has_all_text:
            return self.has_ended
        return self.has_ended and self._confirmed >= self._sealer.end_at

    @property
    def refused(self) -> bool:
        """Whether there is text that the other end will never take."""
        return self.other_takes_no_more and not self.has_all_text

    @property
    def waits(self) -> bool:
        """Whether a word of the other end is due."""
        if self.done:
            return True
        if self.refused:
            return False
        return not (self.has_all if self.has_ended else self.has_all_text)

    @property
    def parted(self) -> bool:
        """Whether the other end knows that we are done."""
        return self.done and (self.other_is_done or self._confirmed >= self._done_at)
