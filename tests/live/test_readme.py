"""The README's examples, as a stranger runs them: each Python block as a script of its own against a live system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consumers.reader import Reader
from infra.settings import Settings
from infra.stack import WorkerProcess

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SCRIPT_DEADLINE_S = 60.0
LIST_DEADLINE_S = 30.0


def test_the_examples_run(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], tmp_path: Path,
                          wait_until: Callable[..., Any]) -> None:
    writing = [block for block in BLOCKS if "consumers.producer" in block]
    reading = [block for block in BLOCKS if "consumers.reader" in block]
    assert len(writing) == len(reading) == 2 and len(BLOCKS) == 4, "a block is new: say here what it must do"
    settings = namespace()
    worker = start_worker(settings)
    worker.wait_ready()

    def run(block: str) -> str:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=SCRIPT_DEADLINE_S, cwd=tmp_path,
                              env={**os.environ, **settings.environment(), "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, f"{block}\nsaid:\n{done.stdout}{done.stderr}\n{worker.log[-1000:]}"
        return done.stdout

    said = [run(block) for block in writing]
    assert said[0].startswith("in Kafka: Receipt(") and "not sent: event_type" in said[1]

    with Reader(settings) as reader:  # a person reads what was printed meanwhile; a list takes some milliseconds
        wait_until(lambda: {"i7", "i3", "i9"} <= set(reader.get("u42").items) and not reader.get("u43").fallback, LIST_DEADLINE_S,
                   "the list of u42 knows the three items of the examples, and u43 has one")
    sync, asynchronous = (run(block) for block in reading)
    assert "because of repeat" in sync and "a stranger gets what is popular: True" in sync
    assert re.search(r"^u42 \[.*'i7'.*\] his own$", asynchronous, re.MULTILINE)
    assert re.search(r"^nobody .* popular$", asynchronous, re.MULTILINE)
    assert "Staleness(workers=1, ready=1" in asynchronous
