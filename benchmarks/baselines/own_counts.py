"""The user's own decayed frequencies, and popularity behind them: people buy again what they buy.

    score(u, i, t) = sum over own events e of i of 2^(-(t - t_e) / half_life) + weight * popularity(i, t)

popularity(i, t): decayed counts with a half-life of their own, relative to the most popular item's.
Parameters: `half_life_days` (90 is good on groceries), `popularity_days`, `popularity_weight`.
Reference: Hu, He, Gao, Zhang, "Modeling Personalized Item Frequency Information for Next-basket Recommendation",
SIGIR 2020 (frequencies decayed in time beat recurrent networks); here decayed continuously in event time.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmarks.baselines.pairs import Pairs, add, no_pairs, with_room
from benchmarks.baselines.popularity import DAY_MS, Trend
from benchmarks.baselines.ranked import best_touched
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class OwnCounts:
    """See the module; the tail of the list is popularity, so it is always full."""

    def __init__(self, *, half_life_days: float = 90.0, popularity_days: float = 7.0, popularity_weight: float = 1.0,
                 name: str = "own counts + popularity") -> None:
        self.name = name
        self._half_life_ms = half_life_days * DAY_MS
        self._weight = popularity_weight
        self._trend = Trend(popularity_days * DAY_MS)

    def start(self, log: Log) -> None:
        self._pairs = no_pairs(len(log.user_ids))
        self._total = np.zeros(len(log.item_ids))
        self._trend.start(len(log.item_ids))

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        shares, popular = self._trend.popular(n)
        ranking = Ranking(np.empty((len(users), n), np.int32), np.empty((len(users), n), np.float32))
        _rank(self._pairs, users, now_ms / self._half_life_ms, shares, popular, self._weight, self._total, *ranking)
        return ranking

    def learn(self, log: Log, first: int, last: int) -> None:
        self._pairs = with_room(self._pairs, last - first)
        _learn(self._pairs, log.users[first:last], log.items[first:last], log.times_ms[first:last] / self._half_life_ms)
        self._trend.learn(log.items[first:last], log.times_ms[first:last])

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users' counts grow; popularity stays."""
        self._pairs = with_room(self._pairs, last - first)
        _learn(self._pairs, log.users[first:last], log.items[first:last], log.times_ms[first:last] / self._half_life_ms)


@njit(cache=True)
def _learn(pairs: Pairs, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
    for at in range(users.shape[0]):
        add(pairs, users[at], items[at], times[at])


@njit(cache=True)
def _rank(pairs: Pairs, users: np.ndarray, now: float, shares: np.ndarray, popular: np.ndarray, weight: float,
          total: np.ndarray, out_items: np.ndarray, out_scores: np.ndarray) -> None:
    touched = np.empty(total.shape[0], np.int64)
    for row in range(users.shape[0]):
        n_touched, entry = 0, pairs.head[users[row]]
        while entry >= 0:
            item = pairs.right[entry]
            total[item] = max(math.exp2(pairs.level[entry] - now), 1e-300)  # 0 means untouched
            touched[n_touched] = item
            n_touched += 1
            entry = pairs.following[entry]
        best_touched(total, touched, n_touched, shares, popular, weight, out_items[row], out_scores[row])
