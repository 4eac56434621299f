"""A release that was trained on a file and announced: running workers serve it, and a worse one changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from infra.settings import Settings  # noqa: E402
from infra.stack import WorkerProcess  # noqa: E402
from streams.announcements import announced  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, events  # noqa: E402
from tests.live.command import streamrec  # noqa: E402
from tests.live.equality import Redis, wait_drained  # noqa: E402

STEP_S = 60.0


@pytest.mark.timeout(400)
def test_announced_and_served(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], tmp_path: Path,
                              wait_until: Callable[..., Any]) -> None:
    settings = namespace(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=QUICK)
    sent = events(1, 150)
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in sent))
    start_worker(settings)
    assert streamrec(settings, "import", str(file), home=tmp_path).returncode == 0
    wait_drained(settings)
    done = streamrec(settings, "train", str(file), "--announce")
    assert done.returncode == 0, done.stderr
    said = asyncio.run(announced(settings))
    assert said is not None and f"release {said.version} is announced" in done.stdout

    one = sent[0]["user_id"]
    again = tmp_path / "again.jsonl"
    again.write_text(json.dumps({**sent[0], "event_id": "once more", "timestamp": sent[-1]["timestamp"]}) + "\n")
    wait_until(lambda: said.version in json.loads(streamrec(settings, "models", "list", "--json").stdout)["workers"].values(), STEP_S, "served")
    assert streamrec(settings, "import", str(again), home=tmp_path).returncode == 0
    wait_until(lambda: Redis(settings).lists()[one]["model"] == f"fusion-1+{said.version[-6:]}", STEP_S, "his list names it")

    worse = streamrec(settings, "train", str(file), "--announce", "--json", "--set", "train_model=d=8,epochs=0.02")
    assert not json.loads(worse.stdout)["passed"]
    assert asyncio.run(announced(settings)) == said
