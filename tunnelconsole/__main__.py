"""``python -m tunnelconsole`` is ``tunnelconsole``."""

from __future__ import annotations

import sys

from tunnelconsole.cli import main

if __name__ == "__main__":
    sys.exit(main())
