"""The demonstration's engine: an ordinary daemon, on a leash that the demonstration holds."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

LEASH = 0
"""The descriptor on which a child notices that the demonstration is over: its standard input."""


def main(folder: Path) -> int:
    """The engine's process: the daemon, until the leash or a signal ends it; then its folder is removed."""
    signal.signal(signal.SIGTERM, _leave)  # until the daemon has a better answer to it
    threading.Thread(target=_end_with_the_leash, name="leash", daemon=True).start()
    try:
        from tunnelconsole.daemon import run  # noqa: PLC0415 - after the leash, which is there to be noticed early

        return run(folder / "config.toml")
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # whoever started us may have been killed, and cannot


def _leave(number: int, frame: object) -> None:
    raise SystemExit(0)


def _end_with_the_leash() -> None:
    while os.read(LEASH, 1):
        pass  # nothing is ever written to it
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
