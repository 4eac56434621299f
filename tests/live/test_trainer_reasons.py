"""What starts a training, end to end: workers judge their lists, lists begin to miss, and the trainer hears of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from consumers.trainer import Trainer, triggers  # noqa: E402
from infra.settings import Settings  # noqa: E402
from infra.stack import WorkerProcess  # noqa: E402
from streams.announcements import announced  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, events  # noqa: E402
from tests.live.pages import metric  # noqa: E402
from tests.live.test_trainer import put  # noqa: E402

STEP_S = 300.0
USERS, ROUNDS = 40, 80
Namespace = Callable[..., Settings]


class Baskets:
    """One event of each user a round: his own two items in turn, or what nobody ever had."""

    def __init__(self, settings: Settings) -> None:
        self.n = 0
        self._settings = settings

    def send(self, own: bool) -> None:
        put(self._settings, [self._event(user, own) for user in range(USERS)])

    def _event(self, user: int, own: bool) -> dict[str, Any]:
        self.n += 1
        item = f"own{user}-{self.n // USERS % 2}" if own else f"unheard{self.n}"
        return {"event_id": f"d{self.n}", "user_id": f"d{user}", "item_id": item, "event_type": "purchase", "timestamp": time.time_ns() // 1_000_000}


@pytest.mark.timeout(1200)
def test_lists_that_miss_for_good_start_a_training(namespace: Namespace, start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any],
                                                   tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "REST_S", 0)  # ten minutes between two trainings
    settings = namespace(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=QUICK, train_every_s=0,
                         train_on_drift="on", train_log_flush_s=1)
    put(settings, events(1, 150))
    worker = start_worker(settings)
    worker.wait_ready()
    trainer = Trainer(settings)
    serving = threading.Thread(target=_serve, args=(trainer, stop := threading.Event(), failed := []), daemon=True)
    serving.start()
    try:
        wait_until(lambda: asyncio.run(announced(settings)) or failed, STEP_S, "the first training")
        assert not failed
        baskets = Baskets(settings)

        def goes_on(own: bool) -> bool:
            baskets.send(own)
            return bool(failed)

        wait_until(lambda: goes_on(True) or metric(worker, "streamrec_hit_rate") > 0.8, STEP_S, "lists hit")
        for _ in range(ROUNDS):  # so long that a fall is beyond chance
            baskets.send(True)
        began = {plan.parent.name for plan in (tmp_path / "trainer" / "trainings").glob("*/plan.json")}
        before = metric(worker, "streamrec_drifts_total")
        wait_until(lambda: goes_on(False) or metric(worker, "streamrec_drifts_total") > before, STEP_S, "the worker sees the fall")

        def renewed() -> list[dict[str, Any]]:
            goes_on(False)
            plans = [json.loads(plan.read_bytes()) for plan in (tmp_path / "trainer" / "trainings").glob("*/plan.json") if plan.parent.name not in began]
            return [plan for plan in plans if plan["reason"] == "the hit rate has fallen for good"]

        (plan, *_) = wait_until(lambda: failed or renewed(), STEP_S, "the fall has started a training")
        assert not failed and plan["parent"] is not None
        assert all(json.loads((tmp_path / "trainer" / "trainings" / name / "plan.json").read_bytes())["reason"] == "the first one" for name in began)
    finally:
        stop.set()
        serving.join(STEP_S)
    assert not serving.is_alive()


def _serve(trainer: Trainer, stop: threading.Event, failed: list[BaseException]) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(trainer.serve())
        while not stop.is_set() and not task.done():
            await asyncio.sleep(0.1)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass

    try:
        asyncio.run(run())
    except BaseException as error:  # noqa: BLE001 - the test has to hear of it
        failed.append(error)
