"""Stand-ins for the programs that an engine starts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

LISTENS = f"""#!{sys.executable}
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
time.sleep(600)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str], str]:
    """Let a script be what a module takes for any program; returns the script's path."""

    def pretend(module: ModuleType, text: str) -> str:
        script = tmp_path / "program"
        script.write_text(text)
        script.chmod(0o755)
        monkeypatch.setattr(module, "program", lambda _: str(script))
        return str(script)

    return pretend
