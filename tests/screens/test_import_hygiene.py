"""What is loaded when: naming the console costs nothing, and the console never loads the engine."""

from __future__ import annotations

import subprocess
import sys


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_naming_the_screens_does_not_load_their_framework() -> None:
    assert _loaded_by("import tunnelconsole.screens").isdisjoint({"textual", "rich"})


def test_the_console_does_not_load_the_engine() -> None:
    loaded = _loaded_by("import tunnelconsole.screens.app")
    assert not {name for name in loaded if name.startswith("tunnelconsole.engine")}


def test_what_few_consoles_need_is_not_loaded_before_the_first_paint() -> None:
    assert _loaded_by("import tunnelconsole.screens.app").isdisjoint({"pyperclip", "textual.widgets._data_table"})
