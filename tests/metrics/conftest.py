"""Both loops must pass, and leave nothing behind."""

from __future__ import annotations

from left_behind import nothing_left_behind, pytest_asyncio_loop_factories

__all__ = ["nothing_left_behind", "pytest_asyncio_loop_factories"]
