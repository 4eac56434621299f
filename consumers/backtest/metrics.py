"""From ranks to figures: one number a target (HR, NDCG, MRR) or a basket (recall, hit), and the strata they are told by.

A target is one event of a basket; with one relevant item NDCG is 1 / log2(1 + rank) and MRR is 1 / rank, 0 beyond the cut.
A basket's recall is the share of its distinct items in the list, its hit whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from consumers.backtest.bootstrap import Difference, differences
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


class Units(NamedTuple):
    """What is counted, all (T,): a target's user, basket (numbered from 0), whether it is the basket's first of its item, and
    whether the user has had it before. Saved with the ranks, they let contenders of different runs be compared."""

    users: np.ndarray
    baskets: np.ndarray
    distinct: np.ndarray
    repeat: np.ndarray


def units_of(result: Result) -> Units:
    """The units of a pass."""
    targets, facts = result.plan.targets, result.facts
    baskets = np.repeat(np.arange(len(result.plan.scored)), np.diff(result.plan.starts))
    return Units(result.log.users[targets], baskets, facts.distinct[targets], facts.repeat[targets])


def views(units: Units, ranks: np.ndarray, apart: np.ndarray, repeats: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(targets (T,) bool, ranks (T,)) of the strata that claims are made of and, where all items are ranked, of `VIEWS`."""
    whole, repeat = np.ones(len(ranks), bool), units.repeat
    found = {"all": (whole, ranks), "repeat": (repeat, ranks), "new to user": (~repeat, ranks)}
    if repeats == "all":
        found |= {TWO_LISTS: (whole, np.where(repeat, ranks, apart)), ONLY_REPEATS: (repeat, apart), ONLY_NEW: (~repeat, apart)}
    return {name: (within, ranks) for name, (within, ranks) in found.items() if within.any()}


class Values:
    """Metric values of ranks (T,) int16: per target or per basket, with the unit's user."""

    def __init__(self, units: Units, ranks: np.ndarray) -> None:
        self._units, self._ranks = units, ranks

    def of(self, metric: str, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values, users) of the targets in `within` (T,) bool, or of the baskets that have such targets."""
        if metric in TARGET_METRICS:
            return TARGET_METRICS[metric](self._ranks[within]), self._units.users[within]
        chosen = within & self._units.distinct
        _, first, basket = np.unique(self._units.baskets[chosen], return_index=True, return_inverse=True)
        ranks = self._ranks[chosen]
        found, size = np.bincount(basket, (ranks > 0) & (ranks <= 20)), np.bincount(basket)
        values = found / size if metric == "recall@20" else (found > 0).astype(np.float64)
        return values, self._units.users[chosen][first]


def difference(
    units: Units, ours: np.ndarray, theirs: np.ndarray, within: np.ndarray, metrics: Sequence[str] = CHOSEN, *, seed: int = 42
) -> dict[str, Difference]:
    """By how much ranks `ours` (T,) are better than `theirs` on the same targets, by metric, with 95% intervals."""
    found: dict[str, Difference] = {}
    for names in ([m for m in metrics if m in TARGET_METRICS], [m for m in metrics if m in BASKET_METRICS]):
        if not names:
            continue
        columns = []
        for ranks in (ours, theirs):
            pairs = [Values(units, ranks).of(metric, within) for metric in names]
            columns.append(np.stack([values for values, _ in pairs], axis=1))
            users = pairs[0][1]
        found |= zip(names, differences(users, columns[0], columns[1], seed=seed), strict=True)
    return found


def figures(result: Result, judged: Judged) -> dict[str, dict[str, float | int]]:
    """Means of all metrics by stratum and view, with the number of targets `n`; empty ones are left out."""
    units = units_of(result)
    groups = {name: (within, judged.ranks) for name, within in strata(result.facts, result.plan).items() if within.any()}
    groups |= views(units, judged.ranks, judged.apart, result.rules.repeats)
    return {
        name: {"n": int(within.sum()), **{metric: float(Values(units, ranks).of(metric, within)[0].mean()) for metric in METRICS}}
        for name, (within, ranks) in groups.items()
    }


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
