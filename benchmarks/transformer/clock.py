"""What the clock is worth where there is one: purchases of Complete Journey, with and without the bias by time, predicting the next
event or the next basket, from every event or from what user rows remember.

Households are a sample; learned is what came before the last tenth of the time, tested are baskets of the rest: the items that the household had
before the basket against each item in it, all items ranked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from consumers.backtest.datasets import load
from models.transformer.config import ModelConfig, TrainConfig
from models.transformer.data import Sequences
from models.transformer.evaluation import ranks
from models.transformer.training import Progress, fit

VARIANTS: dict[str, tuple[bool, bool, bool]] = {  # time, distinct, baskets
    "next event": (False, False, False), "next event, clock": (True, False, False), "next basket": (False, False, True),
    "next basket, clock": (True, False, True), "next basket, last event of each item, clock": (True, True, True)}


def run(*, fraction: float, epochs: float, n: int, seed: int, progress: Callable[[Progress], None], say: Callable[[str], None]) -> None:
    """fraction: share of the households; n: targets scored."""
    log = load("completejourney").log
    rng = np.random.default_rng(seed)
    here = (rng.random(log.n_users) < fraction)[log.users]
    users, items, times, baskets = log.users[here], log.items[here], log.times_ms[here], log.baskets[here]
    cut = times[0] + 0.9 * (times[-1] - times[0])
    names, place = np.unique(items[times < cut], return_inverse=True)
    lesson = Sequences.of(users[times < cut], place, times_ms=times[times < cut])
    known = np.isin(items, names)
    whole = Sequences.of(users[known], np.searchsorted(names, items[known]), times_ms=times[known])
    basket = Sequences.of(users[known], baskets[known]).items  # of each event, in the same order
    assert whole.times_ms is not None
    opens = np.maximum.accumulate(np.where(np.diff(basket, prepend=-1) != 0, np.arange(len(basket)), 0))  # first event of its basket
    start = np.repeat(whole.starts, whole.ends - whole.starts)
    asked = np.flatnonzero((whole.times_ms >= cut) & (opens > start))
    asked = np.sort(rng.permutation(asked)[:n])
    histories = _slices(whole, np.maximum(start[asked], opens[asked] - 500), opens[asked])
    say(f"{log.n_users * fraction:.0f} households, {len(lesson.items):,} purchases learned, {len(names):,} items, {len(asked):,} targets scored")
    say("| | HR@10 | NDCG@10 | training, CPU s |\n| --- | --- | --- | --- |")
    for name, (clock, distinct, baskets) in VARIANTS.items():
        before = time.process_time()
        weights = fit(lesson, len(names), ModelConfig(time=clock), TrainConfig(epochs=epochs, seed=seed, distinct=distinct, baskets=baskets), progress=progress)
        spent = time.process_time() - before
        places = ranks(weights, histories.as_rows() if distinct else histories, whole.items[asked])
        hit = places <= 10
        say(f"| {name} | {hit.mean():.4f} | {np.where(hit, 1 / np.log2(places + 1), 0).mean():.4f} | {spent:.0f} |")


def _slices(log: Sequences, starts: np.ndarray, ends: np.ndarray) -> Sequences:
    """Events [starts[k], ends[k]) as user k's."""
    sizes = ends - starts
    stops = np.cumsum(sizes)
    rows = np.repeat(starts - (stops - sizes), sizes) + np.arange(int(sizes.sum()))
    assert log.times_ms is not None
    return Sequences(log.items[rows], log.types[rows], log.times_ms[rows], stops)
