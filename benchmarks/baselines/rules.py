"""Sequential rules (SR): what followed the user's last item, updated at every event.

    score(u, i, t) = sum over the last `context` items j of u, k back, of fade^k * r(j, i, t) + weight * popularity(i, t)
    r(j, i, t)     = sum over earlier pairs (j at p, i at q > p, q - p <= steps) of 1 / (q - p) * 2^(-(t - t_q) / half_life)

The first part is relative to its largest. Plain SR looks at the last item alone: `context=1`.
Parameters: `steps` (how far back an item still counts as a predecessor), `context`, `fade`, `half_life_days` (infinite: nothing
fades), `popularity_days` and `popularity_weight` of the tail.
Reference: Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018, section 3.1 (SR);
the fading and longer contexts are ours.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmarks.baselines.pairs import Pairs, add, no_pairs, with_room
from benchmarks.baselines.popularity import DAY_MS, Trend
from benchmarks.baselines.ranked import best_touched, scale
from benchmarks.baselines.recent import Recent, append, append_all, back, held, no_items
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class SequentialRules:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, steps: int = 10, context: int = 1, fade: float = 0.7, half_life_days: float = math.inf,
                 popularity_days: float = 3.0, popularity_weight: float = 1e-3) -> None:
        self.name = "sequential rules"
        self._steps, self._context, self._fade = steps, context, fade
        self._half_life_ms = half_life_days * DAY_MS
        self._weight = popularity_weight
        self._trend = Trend(popularity_days * DAY_MS)

    def start(self, log: Log) -> None:
        self._pairs = no_pairs(len(log.item_ids))
        self._recent = no_items(len(log.user_ids), max(self._steps, self._context))
        self._total = np.zeros(len(log.item_ids))
        self._trend.start(len(log.item_ids))

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        shares, popular = self._trend.popular(n)
        ranking = Ranking(np.empty((len(users), n), np.int32), np.empty((len(users), n), np.float32))
        _rank(self._pairs, self._recent, users, self._context, self._fade, now_ms / self._half_life_ms, shares, popular,
              self._weight, self._total, *ranking)
        return ranking

    def learn(self, log: Log, first: int, last: int) -> None:
        self._pairs = with_room(self._pairs, (last - first) * self._steps)
        part = slice(first, last)
        _learn(self._pairs, self._recent, self._steps, log.users[part], log.items[part], log.times_ms[part] / self._half_life_ms)
        self._trend.learn(log.items[part], log.times_ms[part])

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users' last items move on; nothing else is learned."""
        append_all(self._recent, log.users[first:last], log.items[first:last])


@njit(cache=True)
def _learn(pairs: Pairs, recent: Recent, steps: int, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
    for at in range(users.shape[0]):
        user, item = users[at], items[at]
        for step in range(min(held(recent, user), steps)):
            add(pairs, back(recent, user, step), item, times[at] - math.log2(step + 1.0))
        append(recent, user, item, 0)


@njit(cache=True)
def _rank(pairs: Pairs, recent: Recent, users: np.ndarray, context: int, fade: float, now: float, shares: np.ndarray,
          popular: np.ndarray, weight: float, total: np.ndarray, out_items: np.ndarray, out_scores: np.ndarray) -> None:
    touched = np.empty(total.shape[0], np.int64)
    for row in range(users.shape[0]):
        n_touched, share = 0, 1.0
        for step in range(min(held(recent, users[row]), context)):
            entry = pairs.head[back(recent, users[row], step)]
            while entry >= 0:
                item = pairs.right[entry]
                if total[item] == 0.0:
                    touched[n_touched] = item
                    n_touched += 1
                total[item] += share * max(2.0 ** (pairs.level[entry] - now), 1e-200)  # 0 means untouched
                entry = pairs.following[entry]
            share *= fade
        scale(total, touched, n_touched)
        best_touched(total, touched, n_touched, shares, popular, weight, out_items[row], out_scores[row])
