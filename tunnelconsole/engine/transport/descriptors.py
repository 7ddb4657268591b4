"""Descriptors: how many newcomers may take, so that there are always some left for whoever must look after the engine.

The system gives out the lowest number that is free (POSIX.1-2017, "File Descriptor Allocation"). So a number from
:func:`ceiling` on says that all below it are taken, and no counting is needed.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from contextlib import suppress

RESERVE = 128
"""Descriptors that no newcomer takes: 64 for consoles and commands, and as many for the configuration, certificates,
the state, the log, and the threads that look up names."""

RESERVE_SHARE = 4
"""Where so few descriptors are allowed that the reserve would be more than one in so many, it is one in so many."""


def limit() -> int:
    """Descriptors that this process may have."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if allowed == resource.RLIM_INFINITY else allowed


def raise_limit() -> None:
    """Allows this process as many descriptors as its hard limit does: a channel takes two.

    For programs of ours; one that embeds an engine decides for itself.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS has a lower limit of the kernel's than the one it reports
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ceiling() -> int:
    """Descriptors that there may be before the reserve is touched, and the number of the first that would touch it."""
    allowed = limit()
    return allowed - min(RESERVE, allowed // RESERVE_SHARE)


def spare(descriptor: int) -> bool:
    """Whether a newcomer may take a descriptor.

    :param descriptor: any that is open; it is looked which number a second one would get.
    """
    try:
        number = os.dup(descriptor)
    except OSError:
        return False
    os.close(number)
    return number < ceiling()


def exhausted() -> OSError:
    """What is wrong when newcomers may take none, and how to allow more."""
    return OSError(
        errno.EMFILE,
        f"{ceiling()} of {limit()} descriptors are in use, and the others are kept for consoles and commands; "
        "allow more with LimitNOFILE= of the systemd unit, or with ulimit -n",
    )
