"""What happens at an SSH server and nowhere else."""

from __future__ import annotations

from typing import ClassVar

from tunnelconsole.engine.events import Event, Level
from tunnelconsole.engine.floods import Cause


class LoggedIn(Event, frozen=True, kw_only=True):
    """Somebody has proven a key, and given what else is asked of them."""

    type: ClassVar[str] = "logged-in"
    level: ClassVar[Level] = "info"
    peer: str
    identity: str
    role: str
    key: str
    """Its fingerprint."""

    def text(self) -> str:
        return f"{self.identity} logged in from {self.peer} as {self.role} with {self.key}"


class _FileWarning(Event, frozen=True, kw_only=True):
    """Something in the files that say who may come in is of no use."""

    level: ClassVar[Level] = "warning"
    reason: str

    def text(self) -> str:
        return self.reason


class KeysIgnored(_FileWarning, frozen=True, kw_only=True):
    """A line of the file of keys, or all of it, lets nobody in."""

    type: ClassVar[str] = "keys-ignored"


class FactorWithoutKey(_FileWarning, frozen=True, kw_only=True):
    """A second factor is set for somebody who has no key."""

    type: ClassVar[str] = "factor-without-key"


class _Refused(Event, frozen=True, kw_only=True):
    """Somebody with a key was refused something."""

    level: ClassVar[Level] = "warning"
    peer: str
    identity: str
    reason: str

    def text(self) -> str:
        return f"refused {self.identity} from {self.peer}: {self.reason}"

    def flooded_by(self) -> Cause:
        return Cause(self.identity, self.reason)


class WrongAnswer(_Refused, frozen=True, kw_only=True):
    """Somebody has proven a key, and then given a wrong one-time code or password."""

    type: ClassVar[str] = "wrong-answer"


class RefusedRequest(_Refused, frozen=True, kw_only=True):
    """Somebody who has logged in asked for what there is not, or what they may not."""

    type: ClassVar[str] = "refused-request"
