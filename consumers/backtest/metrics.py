"""From ranks to figures: one number a target (HR, NDCG, MRR) or a basket (recall, hit), and the strata they are told by.

A target is one event of a basket; with one relevant item NDCG is 1 / log2(1 + rank) and MRR is 1 / rank, 0 beyond the cut.
A basket's recall is the share of its distinct items in the list, its hit whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from consumers.backtest.facts import Facts
from consumers.backtest.plan import DAY_MS, Plan
from consumers.backtest.protocol import Judged, Result

#: Metrics of a target, from ranks (T,) with 0 for a miss.
TARGET_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
for _k in (10, 20, 50, 200):
    TARGET_METRICS[f"hr@{_k}"] = lambda ranks, k=_k: ((ranks > 0) & (ranks <= k)).astype(np.float64)  # type: ignore[misc]
TARGET_METRICS["ndcg@10"] = lambda ranks: np.where((ranks > 0) & (ranks <= 10), 1 / np.log2(1.0 + np.maximum(ranks, 1)), 0.0)
for _k in (10, 20):
    TARGET_METRICS[f"mrr@{_k}"] = lambda ranks, k=_k: np.where((ranks > 0) & (ranks <= k), 1 / np.maximum(ranks, 1), 0.0)  # type: ignore[misc]
BASKET_METRICS = ("recall@20", "hit@20")
METRICS = (*TARGET_METRICS, *BASKET_METRICS)
#: What differences are shown for.
CHOSEN = ("hr@10", "hr@20", "ndcg@10", "mrr@20", "recall@20", "hit@20")


def strata(facts: Facts, plan: Plan) -> dict[str, np.ndarray]:
    """Which targets belong to which stratum, (T,) bool by name; `all` is the first."""
    prior, age = facts.prior[plan.targets], facts.age_ms[plan.targets]
    repeat = facts.repeat[plan.targets]
    return {
        "all": np.ones(len(plan.targets), bool),
        "repeat": repeat,
        "new to user": ~repeat,
        "history 0": prior == 0,
        "history 1-4": (prior >= 1) & (prior < 5),
        "history 5-19": (prior >= 5) & (prior < 20),
        "history 20+": prior >= 20,
        "item never seen": age < 0,
        "item < 1 d": (age >= 0) & (age < DAY_MS),
        "item < 7 d": (age >= DAY_MS) & (age < 7 * DAY_MS),
        "item older": age >= 7 * DAY_MS,
    }


#: Further views of the same lists, where all items are ranked: what is counted, and what it is told of.
TWO_LISTS, ONLY_REPEATS, ONLY_NEW = "all, two lists", "only repeats ranked", "only new ranked"
VIEWS = {
    TWO_LISTS: "all targets: repeats in the whole list, what is new to the user in the list without what he has had",
    ONLY_REPEATS: "repeats in a list of nothing but what the user has had",
    ONLY_NEW: "what is new to the user in the list without what he has had",
}


def grouped(result: Result, judged: Judged) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(targets (T,) bool, ranks (T,)) by stratum and, where all items are ranked, by view; empty ones are left out."""
    found = {name: (within, judged.ranks) for name, within in strata(result.facts, result.plan).items()}
    if result.rules.repeats == "all":
        repeat = found["repeat"][0]
        found[TWO_LISTS] = (found["all"][0], np.where(repeat, judged.ranks, judged.apart))
        found[ONLY_REPEATS], found[ONLY_NEW] = (repeat, judged.apart), (~repeat, judged.apart)
    return {name: (within, ranks) for name, (within, ranks) in found.items() if within.any()}


class Values:
    """Metric values of ranks (T,) int16: per target or per basket, with the unit's user."""

    def __init__(self, result: Result, ranks: np.ndarray) -> None:
        self._plan, self._facts, self._ranks = result.plan, result.facts, ranks
        self._users = result.log.users[result.plan.targets]
        self._of_basket = np.repeat(np.arange(len(result.plan.scored)), np.diff(result.plan.starts))

    def of(self, metric: str, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values, users) of the targets in `within` (T,) bool, or of the baskets that have such targets."""
        if metric in TARGET_METRICS:
            return TARGET_METRICS[metric](self._ranks[within]), self._users[within]
        chosen = within & self._facts.distinct[self._plan.targets]
        basket = self._of_basket[chosen]
        ranks = self._ranks[chosen]
        found = np.bincount(basket, (ranks > 0) & (ranks <= 20), len(self._plan.scored))
        size = np.bincount(basket, minlength=len(self._plan.scored))
        there = size > 0
        values = found[there] / size[there] if metric == "recall@20" else (found[there] > 0).astype(np.float64)
        first = np.unique(self._of_basket[chosen], return_index=True)[1]
        return values, self._users[chosen][first]


def figures(result: Result, judged: Judged) -> dict[str, dict[str, float | int]]:
    """Means of all metrics by stratum and view, with the number of targets `n`."""
    found: dict[str, dict[str, float | int]] = {}
    for name, (within, ranks) in grouped(result, judged).items():
        values = Values(result, ranks)
        found[name] = {"n": int(within.sum()), **{metric: float(values.of(metric, within)[0].mean()) for metric in METRICS}}
    return found


def over_time(result: Result, judged: Judged, n_bins: int = 40) -> list[dict[str, float]]:
    """Figures by the log's periods, or by stretches of equal length: `period`, `start_ms`, `n`, metrics of targets."""
    times = result.log.times_ms[result.plan.targets]
    if result.log.periods is not None:
        bins = result.log.periods[result.plan.targets].astype(np.int64)
        n_bins = int(bins.max()) + 1
    else:
        span = max(1, int(times[-1] - times[0]) + 1)
        n_bins = max(1, min(n_bins, span // DAY_MS or n_bins))
        bins = (times - times[0]) * n_bins // span
    counts = np.bincount(bins, minlength=n_bins)
    means = {m: np.bincount(bins, TARGET_METRICS[m](judged.ranks), n_bins) / np.maximum(counts, 1) for m in TARGET_METRICS}
    return [
        {"period": int(b), "start_ms": int(times[bins == b][0]), "n": int(counts[b]), **{m: float(means[m][b]) for m in means}}
        for b in np.flatnonzero(counts)
    ]


def period_mean(bins: list[dict[str, float]]) -> dict[str, float]:
    """Metrics of targets, meant over periods that count the same, whatever happened in each."""
    return {metric: sum(b[metric] for b in bins) / len(bins) for metric in TARGET_METRICS}
