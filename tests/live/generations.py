"""Generations of state, for tests: commands run as an operator does, and what lies in Redis of one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.settings import Settings
from streams.keys import Keys
from tests.live.equality import Redis, item_rows

ROOT = Path(__file__).parent.parent.parent
COMMAND_S = 120.0


def start(settings: Settings, home: Path, *args: str) -> subprocess.Popen[str]:
    """A command under way."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
    env = {**inherited, **settings.environment(), "STREAMREC_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "infra.cli", *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(settings: Settings, home: Path, *args: str, code: int = 0) -> str:
    """What a command prints; its exit code must be `code`, and with another than 0 it is what it says on stderr."""
    began_s, done = time.monotonic(), start(settings, home, *args)
    try:
        out, err = done.communicate(timeout=COMMAND_S)
    finally:
        done.kill()
    print(f"streamrec {' '.join(args)}: {time.monotonic() - began_s:.1f} s")
    logs = "".join(f"\n{path}:\n{path.read_text(errors='replace')[-3000:]}" for path in home.rglob("worker*.log"))
    assert done.returncode == code, f"{args} ended with {done.returncode}: {out}{err}{logs}"
    return out if code == 0 else err


class Generation(Redis):
    """What a test reads of one generation; its lists are those that it writes as it stands, live or not."""

    def __init__(self, settings: Settings, name: str, *, is_live: bool = False) -> None:
        super().__init__(settings)
        self.keys = Keys(settings.prefix, name, is_live=is_live)

    def all_user_rows(self) -> dict[str, bytes]:
        return {user: row for p in range(self.settings.partitions) for user, row in self.user_rows(p).items()}

    def all_item_rows(self) -> dict[int, tuple[Any, ...]]:
        return item_rows(np.concatenate([self.item_rows(p) for p in range(self.settings.partitions)]))

    def traces(self, names: Sequence[str] = ()) -> set[bytes]:
        """Keys that lie under it."""
        return set(self.client.scan_iter(match=self.keys.everything + "*", count=1000))
