"""Leave one out, full ranking: the last item of each user is the test, the one before it is not trained on (the published split).

No clock, so no time bias. Items of the history are not ranked, as in the published code. State under --out: a checkpoint
and the weights; started again, it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.transformer.recipes import LeaveOneOut
from models.transformer.data import Sequences
from models.transformer.evaluation import ranks
from models.transformer.training import Progress, fit
from models.transformer.weights import Weights


def run(recipe: LeaveOneOut, data: Path, out: Path, *, fraction: float, epochs: float | None, seed: int, progress: Callable[[Progress], None]) -> dict[str, float]:
    """HR@10 and NDCG@10 on the test, and on validation items. fraction: share of the users, in training and test."""
    out.mkdir(parents=True, exist_ok=True)
    table = np.loadtxt(data / recipe.file, dtype=np.int64)
    names, items = np.unique(table[:, 1], return_inverse=True)
    log = Sequences.of(table[:, 0], items)
    if fraction < 1:
        log = log.take(np.flatnonzero(np.random.default_rng(seed).random(log.n_users) < fraction))
    train = replace(recipe.train, seed=seed, epochs=epochs or recipe.train.epochs, checkpoint_s=30.0)
    kept = out / "weights.npz"
    before = time.process_time()
    if kept.exists():
        weights = Weights.load(kept)
    else:
        weights = fit(_without_last(log, 2), len(names), recipe.model, train, checkpoint=out / "checkpoint", progress=progress)
        weights.save(out / "part.npz")
        (out / "part.npz").replace(kept)
    found = {"n": float(log.n_users), "n_items": float(len(names)), "epochs": weights.train.epochs, "train_cpu_s": time.process_time() - before}
    for name, left in (("validation", 2), ("test", 1)):
        places = ranks(weights, _without_last(log, left), log.items[log.ends - left], exclude_seen=True)
        hit = places <= 10
        found[f"{name}_hr"], found[f"{name}_ndcg"] = float(hit.mean()), float(np.where(hit, 1 / np.log2(places + 1), 0).mean())
    return found


def _without_last(log: Sequences, n: int) -> Sequences:
    kept = np.ones(len(log.items), bool)
    for back in range(1, n + 1):
        kept[log.ends - back] = False
    return log.keep(kept)
