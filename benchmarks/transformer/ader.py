"""ADER's protocol: for t = 0, 1, ... learn all periods up to t, test every beginning of every session of period t + 1.

Items never seen in training are taken out of the test, sessions left with one item are dropped, all items seen so far are
ranked, seen ones too; R@20 and MRR@20 (0 beyond 20), the mean over the tests. The weights of period t begin those of t + 1;
with each new period sessions of older ones are learned again: all, or so many (`replay`), drawn anew, newer ones likelier.

State under --out: weights and a checkpoint, and of each test a line of JSON; started again, it goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.transformer.recipes import Periods
from models.transformer.data import Sequences
from models.transformer.evaluation import prefix_ranks
from models.transformer.training import Progress, fit
from models.transformer.weights import Weights

#: An older period's sessions are this much less likely to be learned again than those of the next.
FADE = 0.9


def run(recipe: Periods, data: Path, out: Path, *, periods: int, fraction: float, tested: float, scratch: bool, seed: int, progress: Callable[[Progress], None], say: Callable[[str], None]) -> list[dict[str, float]]:
    """Figures of each test. periods: how many tests at most; fraction: share of the sessions, in training and test; tested: share of the test's;
    scratch: all periods are learned anew for each test, from nothing."""
    out.mkdir(parents=True, exist_ok=True)
    events = [_read(data / recipe.folder / f"period_{t}.txt", fraction, seed) for t in range(min(periods, 16) + 1)]
    number = _numbers(events)
    logs = [Sequences.of(sessions, number[items]) for sessions, items in events]
    figures, weights = [], None
    for t in range(len(logs) - 1):
        file, kept = out / f"test_{t + 1}.json", out / f"weights_{t}.npz"
        n_items = 1 + max(int(log.items.max()) for log in logs[:t + 1])
        if not file.exists():
            before = time.process_time()
            if kept.exists():
                weights = Weights.load(kept)
            else:
                anew = scratch or not t
                old = None if anew else Weights.load(out / f"weights_{t - 1}.npz")
                train = replace(recipe.first if anew else recipe.then, seed=seed + t, checkpoint_s=30.0)
                weights = fit(_lesson(logs[:t + 1], float("inf") if scratch else recipe.replay, seed), n_items, recipe.model, train, start=old, checkpoint=out / "checkpoint", progress=progress)
                weights.save(out / "part.npz")
                (out / "part.npz").replace(kept)
                (out / "checkpoint").unlink(missing_ok=True)
            trained = time.process_time()
            test = _test(logs[t + 1], n_items, tested, seed + t)
            ranks = prefix_ranks(weights, test)
            hit = ranks <= 20
            found = {"period": t + 1, "n": len(ranks), "n_items": n_items, "recall": float(hit.mean()), "mrr": float(np.where(hit, 1 / ranks, 0).mean()),
                     "train_cpu_s": trained - before, "test_cpu_s": time.process_time() - trained}
            file.write_text(json.dumps(found))
            if t:
                (out / f"weights_{t - 1}.npz").unlink(missing_ok=True)
        figures.append(json.loads(file.read_text()))
        say("period {period:2d}  R@20 {recall:.4f}  MRR@20 {mrr:.4f}  {n} beginnings, {n_items} items, {train_cpu_s:.0f} + {test_cpu_s:.0f} CPU s".format(**figures[-1]))
    return figures


def training_sessions(recipe: Periods, data: Path) -> tuple[Sequences, int]:
    """Period 0, and the number of its items."""
    events = [_read(data / recipe.folder / "period_0.txt", 1.0, 0)]
    log = Sequences.of(events[0][0], _numbers(events)[events[0][1]])
    return log, int(log.items.max()) + 1


def test_sessions(recipe: Periods, data: Path, period: int, n_items: int, *, fraction: float, seed: int) -> Sequences:
    """The sessions that weights of n_items items are tested with in a period."""
    events = [_read(data / recipe.folder / f"period_{t}.txt", fraction, seed) for t in range(period + 1)]
    return _test(Sequences.of(events[-1][0], _numbers(events)[events[-1][1]]), n_items, 1.0, seed)


def _read(path: Path, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sessions and items of a period, in order of time."""
    table = np.loadtxt(path, dtype=np.int64)
    if fraction < 1:
        chosen = np.random.default_rng(seed).random(int(table[:, 0].max()) + 1) < fraction
        table = table[chosen[table[:, 0]]]
    return table[:, 0], table[:, 1]


def _numbers(events: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """New number of each item: order of first appearance, so that the items known after period t are 0..n - 1."""
    items = np.concatenate([items for _, items in events])
    names, first = np.unique(items, return_index=True)
    number = np.full(int(items.max()) + 1, -1)
    number[names] = np.argsort(np.argsort(first))
    return number


def _lesson(logs: list[Sequences], replay: float, seed: int) -> Sequences:
    """The newest period, and some of the sessions before it."""
    new, old = logs[-1], logs[:-1]
    if not old:
        return new
    past = old[0]
    for log in old[1:]:
        past = past + log
    weight = np.concatenate([np.full(log.n_users, FADE ** (len(old) - k)) for k, log in enumerate(old)])
    n = int(min(replay * new.n_users, past.n_users))
    rng = np.random.default_rng([seed, len(logs)])
    # exponential races: the n smallest are a draw without putting back, likelier by weight (Efraimidis, Spirakis 2006)
    chosen = np.argsort(rng.exponential(size=past.n_users) / weight)[:n]
    return new + past.take(np.sort(chosen))


def _test(log: Sequences, n_items: int, share: float, seed: int) -> Sequences:
    known = log.keep(log.items < n_items)
    sessions = np.flatnonzero(known.ends - known.starts > 1)
    return known.take(sessions[np.random.default_rng(seed).random(len(sessions)) < share])
