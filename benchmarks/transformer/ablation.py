"""What each part of the model is worth: one change at a time, the same small budget, the first test of Diginetica by ADER's protocol.

Trained on period 0, tested on period 1. Each figure is kept under --out, so the table goes on where it stopped. A difference of
.006 in R@20 is one standard error at 7,500 beginnings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.transformer.ader import test_sessions, training_sessions
from benchmarks.transformer.recipes import Periods
from models.transformer.config import ModelConfig, TrainConfig
from models.transformer.evaluation import prefix_ranks
from models.transformer.training import Progress, fit

Change = tuple[dict[str, object], dict[str, object]]  # of ModelConfig, of TrainConfig

BASE: Change = ({"dropout": 0.3}, {"epochs": 12})
CHANGES: dict[str, Change] = {
    "base": ({}, {}),
    "block ligr": ({"block": "ligr"}, {}),
    "block hstu": ({"block": "hstu"}, {}),
    "head dot": ({"head": "dot"}, {}),
    "two blocks": ({"n_blocks": 2}, {}),
    "d 128": ({"d": 128}, {}),
    "dropout .1": ({"dropout": 0.1}, {}),
    "dropout .5": ({"dropout": 0.5}, {}),
    "full softmax": ({}, {"loss": "full"}),
    "uniform negatives": ({}, {"uniform": 1.0}),
    "128 negatives": ({}, {"n_negatives": 128}),
    "20 passes": ({}, {"epochs": 20}),
    "last event of each item only": ({}, {"distinct": True}),
}


def run(recipe: Periods, data: Path, out: Path, *, tested: float, seed: int, progress: Callable[[Progress], None], say: Callable[[str], None]) -> None:
    """A line for each change."""
    out.mkdir(parents=True, exist_ok=True)
    lesson, n_items = training_sessions(recipe, data)
    test = test_sessions(recipe, data, 1, n_items, fraction=1.0, seed=seed)
    test = test.take(np.flatnonzero(np.random.default_rng(seed).random(test.n_users) < tested))
    say("| | R@20 | MRR@20 | training, CPU s |\n| --- | --- | --- | --- |")
    for name, (model, train) in CHANGES.items():
        file = out / f"ablation_{name.replace(' ', '_')}.json"
        if not file.exists():
            before = time.process_time()
            shape: ModelConfig = replace(recipe.model, **{**BASE[0], **model})  # type: ignore[arg-type]
            way: TrainConfig = replace(recipe.first, seed=seed, **{**BASE[1], **train})  # type: ignore[arg-type]
            weights = fit(lesson, n_items, shape, way, progress=progress)
            spent = time.process_time() - before
            ranks = prefix_ranks(weights, test, distinct=way.distinct)
            hit = ranks <= 20
            file.write_text(json.dumps({"recall": float(hit.mean()), "mrr": float(np.where(hit, 1 / ranks, 0).mean()), "cpu_s": spent, "n": len(ranks)}))
        found = json.loads(file.read_text())
        say(f"| {name} | {found['recall']:.4f} | {found['mrr']:.4f} | {found['cpu_s']:.0f} |")
