"""Why a training starts, what the setting of the model may say, and what is said where packages are missing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consumers.trainer.configs import configs, warm
from consumers.trainer.triggers import REST_S, Circumstances, DriftWatch, reason_to_train
from infra.settings import Settings, SettingsError
from models.fusion import Lesson
from streams.lessons import Noted, no_lessons, pack

ROOT = Path(__file__).parent.parent.parent.parent
DAY_S = 86_400


def reason(since_s: float | None, n_new: int = 1, n_drifts: int = 0, **settings: object) -> str | None:
    now_ms = 1_763_778_821_000
    began = None if since_s is None else int(now_ms - since_s * 1000)
    return reason_to_train(Settings(**settings), Circumstances(now_ms, began, n_new, n_drifts))  # type: ignore[arg-type]


def test_reasons() -> None:
    assert reason(None) == "the first one" and reason(None, 0) is None
    assert reason(None, 5, train_events=10) is None and reason(None, 10, train_events=10) == "10 events, the first ones"
    assert reason(None, 10**6, train_every_s=0, train_on_drift="off") is None
    assert reason(3_599, train_every_s=3_600) is None and reason(3_600, train_every_s=3_600) == "3,600 s since the last one"
    assert reason(DAY_S, 0, train_every_s=3_600) is None  # nothing new to learn
    assert reason(DAY_S, 9, train_every_s=0, train_events=10) is None
    assert reason(DAY_S, 10, train_every_s=0, train_events=10) == "10 new events"
    assert reason(DAY_S, 1, 1, train_every_s=0) == "the hit rate has fallen for good"
    assert reason(DAY_S, 1, 1, train_every_s=0, train_on_drift="off") is None
    assert reason(REST_S - 1, 100, 1, train_every_s=0, train_events=10) is None  # not again at once
    assert reason(10, 1, train_every_s=5) == "5 s since the last one"  # unless the clock says so


def test_every_lesson_of_a_batch_is_watched_once() -> None:
    """Lessons of one batch have one source; what is sent again after a crash counts no more."""
    gradient = np.zeros(3, np.float32)

    def message(source: int, n_hits: int) -> bytes:
        (packed,) = pack([Noted(1, source, no_lessons(), [(source, Lesson(gradient, 4, 4, n_hits, n_hits, 0.0))] * 3)])
        return packed

    async def watched(sent: list[bytes]) -> DriftWatch:
        watch = DriftWatch(Settings(partitions=2))
        for value in sent:
            watch.take(value)
        return watch

    good, bad = [message(source, 4) for source in range(60)], [message(60 + source, 0) for source in range(60)]
    assert asyncio.run(watched(good + bad)).n_drifts > 0
    watch = asyncio.run(watched([*good, b"", *good, *good]))
    assert watch.n_drifts == 0 and watch.n_judged == 180
    assert asyncio.run(watched(good + [message(59, 0)] * 200)).n_drifts == 0


def test_the_model_can_be_chosen() -> None:
    model, train = configs(Settings(train_model="d=128, block=sasrec,epochs=2.5,learning_rate=1e-3,compile=on"), seed=7)
    assert (model.d, model.block, train.epochs, train.learning_rate, train.compile, train.seed) == (128, "sasrec", 2.5, 1e-3, True, 7)
    assert model.time and train.distinct and train.baskets and model.n_types == 9
    assert warm(train).epochs == 1.25


@pytest.mark.parametrize(("text", "said"), [
    ("width=3", "expected name=value with one of d, n_blocks"), ("d=wide", "'wide' is no value of d"), ("n_types=3", "expected name=value"),
    ("d=65", "must be divisible by n_heads"), ("compile=maybe", "no value of compile"), ("block=mamba", "sasrec, hstu or ligr"), ("d", "no value of d")])
def test_a_wrong_model_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        configs(Settings(train_model=text), seed=1)


def test_missing_packages_are_one_sentence() -> None:
    script = ("import importlib.util as u, sys; find = u.find_spec\n"
              "u.find_spec = lambda name, *a: None if name in ('torch', 'onnx') else find(name, *a)\n"
              "from consumers.trainer.learning import check_packages\ncheck_packages()")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert 'training needs torch, onnx, which are not installed: pip install "streamrec[train]"' in done.stderr


def test_the_trainer_is_imported_without_torch() -> None:
    script = "import sys, consumers.trainer, infra.cli.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60).returncode == 0
