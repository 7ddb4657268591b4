"""Where the system's programs are that some tests need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])
"""The PATH, and the folders of administrators' programs such as sshd and nft, which a user's PATH often lacks."""


def find(tool: str) -> str | None:
    """The absolute path of a program, or None where it is not installed."""
    return shutil.which(tool, path=SYSTEM_PATH)


def what_is_missing(tools: Iterable[str]) -> str | None:
    """Which programs are not installed, in words; None when all are."""
    missing = [tool for tool in tools if find(tool) is None]
    if not missing:
        return None
    return f"needs {', '.join(missing)}: not installed; as root on Debian, `make test` installs it"


def path_of(tool: str) -> str:
    """The absolute path of a program that the test's ``system`` mark has named.

    :raises LookupError: it is not installed, so the test lacks its mark.
    """
    path = find(tool)
    if path is None:
        raise LookupError(f"{tool} is not installed; mark the test with @pytest.mark.system({tool!r})")
    return path
