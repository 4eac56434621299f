"""The release after an erasure is trained without him: from the log, from a training that was broken off, and nowhere in what it leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("torch")

from consumers.event_log.erasing import rows_of  # noqa: E402
from consumers.lease import Lease  # noqa: E402
from consumers.trainer import Trainer  # noqa: E402
from infra.settings import Settings  # noqa: E402
from models.release import read  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, events  # noqa: E402
from tests.live.dying_forks import Place, dies_at  # noqa: E402
from tests.live.test_erasing import HE, ask  # noqa: E402
from tests.live.test_trainer import put  # noqa: E402

ITEM = "only-he-took-this"


def train(settings: Settings) -> str:
    return asyncio.run(Trainer(settings).train_once())[0]


def items_of(settings: Settings, tmp_path: Path, version: str) -> int:
    """Items of a candidate, released or kept."""
    return read(str(tmp_path / "trainer" / "trainings" / version / "candidate"), version).manifest.shape.n_items


@pytest.mark.timeout(600)
def test_the_next_release_is_trained_without_him(namespace: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.trainer.service.Lease", partial(Lease, session_ms=6_000))
    settings = namespace(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=QUICK, erasure_key="k")
    world = events(1, 90)
    his = [event | {"user_id": HE, "event_id": f"h{n}", "item_id": ITEM, "session_id": HE, "properties": {"name": HE}} for n, event in enumerate(world[:200])]
    put(settings, sorted(world + his, key=lambda event: event["timestamp"]))  # type: ignore[arg-type, return-value]
    with_him = train(settings)
    assert items_of(settings, tmp_path, with_him) == 31

    # broken off while it learns, and erased before it goes on
    assert dies_at(Place("models.transformer.training", "_Loop._one_step", 5), lambda: train(settings))
    plan = tmp_path / "trainer" / "job" / "plan.json"
    begun = json.loads(plan.read_bytes())["version"]
    asyncio.run(ask(settings, HE))
    without = train(settings)
    assert without not in (begun, with_him), "it begins anew"
    assert items_of(settings, tmp_path, without) == 30, "the item that only he took is none"
    assert not rows_of(tmp_path / "trainer" / "log", HE, 1 << 62)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and HE.encode() in path.read_bytes()]
    assert not left, "byte by byte, in the log, in trainings and in releases"
