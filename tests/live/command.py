"""`streamrec` as a person calls it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.settings import Settings

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 180.0


def environment(settings: Settings) -> dict[str, str]:
    """That in which commands speak of this system."""
    return {**os.environ, **settings.environment(), "PYTHONPATH": str(ROOT)}


def streamrec(settings: Settings, *args: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    env = {**environment(settings), **({"STREAMREC_HOME": str(home)} if home else {})}
    return subprocess.run([sys.executable, "-m", "infra.cli", *args], capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT, env=env)
