"""The gate: whether a candidate may take the place of what is served.

In: releases as workers would load them (so what is judged is what would be served, rounding and all), and the window's tests.
Out: a `Verdict` with its figures. A test is one event: whoever is judged ranks all items it knows for the history before it; an
item it does not know is a miss, equal scores count against it.

A candidate passes against the release that is served unless it is shown to be worse - the 95% interval of the difference in
NDCG@10, resampled by user, lies below 0 - or loses more than `TOLERATED` of it. The first release has to be better than what is popular.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from consumers.backtest.bootstrap import differences
from consumers.backtest.metrics import TARGET_METRICS
from consumers.trainer.window import Window, places_in
from models.graph import Graph, Sequences
from models.release import Release, dense
from models.user_row import N_ITEMS, to_ticks

METRIC = "ndcg@10"
SHOWN = ("hr@10", "ndcg@10", "hr@20", "mrr@20")
#: Of the incumbent's NDCG@10. A renewal that loses less brings new items for it, which the tests show only in part.
TOLERATED = 0.01
#: Scores that exist at a time.
N_SCORES = 16_000_000


@dataclass(frozen=True)
class Verdict:
    """passed; against: version of the release, or `popularity`; why: a sentence; figures: by judged and metric; difference of
    METRIC (value, low, high, share)."""

    passed: bool
    against: str
    why: str
    figures: dict[str, dict[str, float]]
    difference: dict[str, float]
    n_tests: int
    n_users: int
    notes: list[str] = field(default_factory=list)


def judge(window: Window, candidate: Release, incumbent: Release | None, *, seed: int) -> Verdict:
    """Compare; `incumbent` None: with what is popular."""
    ranks = {"candidate": ranks_of(window, candidate)}
    if incumbent is not None:
        against = incumbent.manifest.version
        ranks["incumbent"] = ranks_of(window, incumbent)
    else:
        against = "popularity"
        popular = [popular_ranks(window, counts) for counts in (np.bincount(window.items, minlength=len(window.keys)), window.recent)]
        ranks["popularity"] = max(popular, key=lambda found: float(TARGET_METRICS[METRIC](found).mean()))
    figures = {name: figures_of(found) for name, found in ranks.items()}
    ours, theirs = (TARGET_METRICS[METRIC](found)[:, None] for found in ranks.values())
    value, low, high, share = differences(window.testers, ours, theirs, seed=seed)[0]
    base = figures["incumbent" if incumbent is not None else "popularity"][METRIC]
    if incumbent is None:
        passed, rule = value > 0, "a first release has to be better than what is popular"
    else:
        passed = high >= 0 and value >= -TOLERATED * base
        rule = f"a release is renewed unless it is shown to be worse or loses more than {TOLERATED:.0%}"
    said = f"NDCG@10 {figures['candidate'][METRIC]:.4f} against {base:.4f} of {against}: {value:+.4f} (95%: {low:+.4f} to {high:+.4f}), " \
           f"{len(window.targets):,} events of {len(np.unique(window.testers)):,} users; {rule}"
    return Verdict(bool(passed), against, said, figures, {"value": value, "low": low, "high": high, "share": share},
                   len(window.targets), len(np.unique(window.testers)))


def figures_of(ranks: np.ndarray) -> dict[str, float]:
    """Means over the tests."""
    return {metric: float(TARGET_METRICS[metric](ranks).mean()) for metric in SHOWN}


def ranks_of(window: Window, release: Release) -> np.ndarray:
    """Rank of each target among the release's items (t,) int64, 0 for a miss."""
    shape, vectors = release.manifest.shape, dense(release)
    histories = _histories(window, release.keys, min(shape.max_len, N_ITEMS))
    users = Graph(release.graph, shape).users(histories, vectors, np.empty((0, shape.d), np.float32))
    targets = places_in(release.keys, window.targets)
    ranks = np.zeros(len(targets), np.int64)
    asked = np.flatnonzero((targets >= 0) & (histories.lengths > 0))
    for some in np.array_split(asked, max(1, len(asked) * len(vectors) // N_SCORES)):
        scores = users[some] @ vectors.T
        ranks[some] = (scores >= scores[np.arange(len(some)), targets[some]][:, None]).sum(axis=1)
    return ranks


def popular_ranks(window: Window, counts: np.ndarray) -> np.ndarray:
    """Rank of each target by how often each item was taken (n_items,), 0 for a miss."""
    targets = places_in(window.keys, window.targets)
    ordered = np.sort(counts)
    ranks = len(counts) - np.searchsorted(ordered, counts[targets], side="left")
    return np.where(targets >= 0, ranks, 0)


def _histories(window: Window, known: np.ndarray, most: int) -> Sequences:
    """As user rows would hold them: of the items that are known the newest, each with its last event."""
    n = len(window.targets)
    out = Sequences(np.zeros((n, most), np.int32), np.zeros((n, most), np.uint8), np.zeros((n, most), np.int64), np.zeros(n, np.int64),
                    np.zeros(n, np.uint64))
    places = places_in(known, window.test_items)
    begin = 0
    for k, end in enumerate(window.test_ends.tolist()):
        chosen: dict[int, int] = {}
        for j in range(end - 1, begin - 1, -1):
            if places[j] >= 0 and int(places[j]) not in chosen:
                chosen[int(places[j])] = j
                if len(chosen) == most:
                    break
        rows = list(chosen.values())[::-1]
        out.lengths[k] = len(rows)
        out.places[k, : len(rows)] = places[rows]
        out.types[k, : len(rows)] = window.test_types[rows]
        out.ticks[k, : len(rows)] = to_ticks(window.test_times_ms[rows])  # type: ignore[arg-type]  # of all of them
        begin = end
    return out


def told(verdict: Verdict) -> dict[str, Any]:
    """For a manifest, or for the file beside a candidate that did not pass."""
    return {**verdict.figures, "difference": {"metric": METRIC, **verdict.difference}, "against": verdict.against,
            "n_tests": verdict.n_tests, "n_test_users": verdict.n_users, "passed": verdict.passed, "why": verdict.why}
