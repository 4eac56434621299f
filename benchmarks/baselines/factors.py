"""What factor models share: where vectors begin, and ranking all seen items by a product of matrices.

In: vectors of the users asked for and of all items. Out: a `Ranking`; users who have no vector yet get popularity.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.popularity import DAY_MS, Trend
from benchmarks.baselines.ranked import best_of_rows
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


def first_vectors(seed: int, n_rows: int, n_factors: int, deviation: float) -> np.ndarray:
    """(n_rows, n_factors) float32, normal: a row is a user's or item's vector on its first event."""
    return np.random.default_rng(seed).normal(0.0, deviation, (n_rows, n_factors)).astype(np.float32)


class Known:
    """Which users and items have been seen, and the popularity shown to a user who was not."""

    def __init__(self, popularity_days: float = 3.0) -> None:
        self._trend = Trend(popularity_days * DAY_MS)

    def start(self, log: Log) -> None:
        self._trend.start(log.n_items)
        self.users = np.zeros(log.n_users, np.bool_)

    def learn(self, log: Log, first: int, last: int) -> None:
        self._trend.learn(log.items[first:last], log.times_ms[first:last])
        self.users[log.users[first:last]] = True

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users have something to go by; popularity stays."""
        self.users[log.users[first:last]] = True

    @property
    def n_items(self) -> int:
        """No item seen so far has this number or a higher one: what need not be multiplied."""
        return int(np.flatnonzero(self.items)[-1]) + 1 if self.items.any() else 0

    @property
    def items(self) -> np.ndarray:
        """(n_items,) bool."""
        return self._trend.seen

    def rank(self, scores: np.ndarray, has_vector: np.ndarray, n: int) -> Ranking:
        """Top n of `scores` (B, at least n_items of them); of popularity where `has_vector` (B,) is false."""
        n_scored = scores.shape[1]
        if not has_vector.all():
            scores[~has_vector] = self._trend.shares()[:n_scored]
        return best_of_rows(scores, self.items[:n_scored], n)
