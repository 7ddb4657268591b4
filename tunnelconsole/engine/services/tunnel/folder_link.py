"""The link on which a folder answers one request, as if a service did."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import BinaryIO, Final

from tunnelconsole.engine.services.tunnel.folder import Answer, Folder
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.link import LinkOwner

FILE_READ: Final = 256 * 1024
"""Bytes of a file read at once, in a thread; so large that waking the thread does not count."""


class FolderLink:
    """One request's link: what is written to it is not needed, what comes is the folder's answer.

    :param target: a path with its query.
    :param values: of the request's head, by name in lower case.
    """

    path = "file"
    plain = False

    def __init__(
        self, folder: Folder, tasks: Tasks, owner: LinkOwner, method: str, target: str, values: Mapping[str, str]
    ) -> None:
        self.owner = owner
        self.blocked = False
        self.reading = False
        self.ended = False
        self._goes_on = asyncio.Event()
        self._task = tasks.start(self._answer(folder, method, target, values), f"answer from {target}")

    async def _answer(self, folder: Folder, method: str, target: str, values: Mapping[str, str]) -> None:
        opening = asyncio.get_running_loop().run_in_executor(None, folder.answer, method, target, values)
        try:
            answer = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_forget)  # the thread goes on, and may open a file yet
            raise
        except Exception:
            self._breaks("the folder could not be read")  # else the visitor waits in vain for what has failed
            raise
        try:
            await self._goes_on.wait()
            self.owner.link_received(self, answer.first)
            if answer.file is not None:
                await self._send(answer.file, answer.length)
        except OSError as error:  # of the disk, which is no fault of ours
            self._breaks(error.strerror or str(error))
        finally:
            if answer.file is not None:
                answer.file.close()

    async def _send(self, file: BinaryIO, left: int) -> None:
        while left and not self.ended:
            data = await asyncio.to_thread(file.read, min(left, FILE_READ))
            await self._goes_on.wait()
            if not data:  # it has become shorter
                self.ended = True
                self.owner.link_ended(self)
                return
            left -= len(data)
            self.owner.link_received(self, data)

    def _breaks(self, reason: str) -> None:
        if not self.ended:
            self.ended = True
            self.owner.link_broken(self, reason)

    def write(self, data: bytes) -> bool:
        """Takes the request, which is known already."""
        return True

    def pause(self) -> None:
        """See :class:`~tunnelconsole.engine.transport.link.Link`, as the others."""
        self.reading = False
        self._goes_on.clear()

    def resume(self) -> None:
        """The owner takes more."""
        self.reading = True
        self._goes_on.set()

    def close(self) -> None:
        """The request is over; the file is closed."""
        self.ended = True
        if self._task is not asyncio.current_task():
            self._task.cancel()

    def abort(self) -> None:
        """As :meth:`close`."""
        self.close()


def _forget(opening: asyncio.Future[Answer]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        file = opening.result().file
        if file is not None:
            file.close()
