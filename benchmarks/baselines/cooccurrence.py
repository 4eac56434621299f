"""Session co-occurrence, or association rules of size two (AR): what stands in the same sessions as the user's last items.

    score(u, i, t) = sum over the last `context` items j of u, k back, of fade^k * n(j, i, t) / max_i' n(j, i', t)
                     + weight * popularity(i, t)
    n(j, i, t)     = sum over sessions with both of 2^(-(t - t_s) / half_life)

A session is a basket (groceries) or the user (data sets whose users are sessions). The pair counts when its second item
comes, within the session's last `reach` items.
Parameters: `session` ("basket" or "user"), `context`, `fade`, `half_life_days`, `popularity_days`, `popularity_weight`.
Reference: Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018, section 3.1 (AR);
several items of context and the fading are ours.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmarks.baselines.pairs import Pairs, add, no_pairs, with_room
from benchmarks.baselines.popularity import DAY_MS, Trend
from benchmarks.baselines.ranked import best_touched
from benchmarks.baselines.recent import Recent, append, append_all, back, held, no_items
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class CoOccurrence:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, session: str = "user", context: int = 1, fade: float = 0.9, half_life_days: float = math.inf,
                 reach: int = 30, popularity_days: float = 3.0, popularity_weight: float = 1e-3) -> None:
        self.name = "co-occurrence"
        self._by_basket = session == "basket"
        self._context, self._fade = context, fade
        self._half_life_ms = half_life_days * DAY_MS
        self._reach = reach
        self._weight = popularity_weight
        self._trend = Trend(popularity_days * DAY_MS)

    def start(self, log: Log) -> None:
        self._pairs = no_pairs(len(log.item_ids))
        self._session = no_items(len(log.user_ids), self._reach)
        self._recent = no_items(len(log.user_ids), self._context)
        self._total = np.zeros(len(log.item_ids))
        self._trend.start(len(log.item_ids))

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        shares, popular = self._trend.popular(n)
        ranking = Ranking(np.empty((len(users), n), np.int32), np.empty((len(users), n), np.float32))
        _rank(self._pairs, self._recent, users, self._fade, shares, popular, self._weight, self._total, *ranking)
        return ranking

    def learn(self, log: Log, first: int, last: int) -> None:
        self._pairs = with_room(self._pairs, (last - first) * self._reach * 2)
        part = slice(first, last)
        _learn(self._pairs, self._session, self._recent, self._by_basket, log.users[part], log.items[part], log.baskets[part],
               log.times_ms[part] / self._half_life_ms)
        self._trend.learn(log.items[part], log.times_ms[part])

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users' last items move on; nothing else is learned."""
        append_all(self._recent, log.users[first:last], log.items[first:last])


@njit(cache=True)
def _learn(pairs: Pairs, session: Recent, recent: Recent, by_basket: bool, users: np.ndarray, items: np.ndarray,
           baskets: np.ndarray, times: np.ndarray) -> None:
    for at in range(users.shape[0]):
        user, item = users[at], items[at]
        if by_basket and session.baskets[user] != baskets[at]:
            session.counts[user] = 0
        known = False
        for step in range(held(session, user)):
            known = known or back(session, user, step) == item
        if not known:
            for step in range(held(session, user)):
                other = back(session, user, step)
                add(pairs, other, item, times[at])
                add(pairs, item, other, times[at])
            append(session, user, item, baskets[at])
        append(recent, user, item, baskets[at])


@njit(cache=True)
def _rank(pairs: Pairs, recent: Recent, users: np.ndarray, fade: float, shares: np.ndarray, popular: np.ndarray, weight: float,
          total: np.ndarray, out_items: np.ndarray, out_scores: np.ndarray) -> None:
    touched = np.empty(total.shape[0], np.int64)
    for row in range(users.shape[0]):
        n_touched, share = 0, 1.0
        for step in range(held(recent, users[row])):
            first = pairs.head[back(recent, users[row], step)]
            entry, highest = first, -np.inf
            while entry >= 0:
                highest = max(highest, pairs.level[entry])
                entry = pairs.following[entry]
            entry = first
            while entry >= 0:
                item = pairs.right[entry]
                if total[item] == 0.0:
                    touched[n_touched] = item
                    n_touched += 1
                total[item] += share * max(2.0 ** (pairs.level[entry] - highest), 1e-200)
                entry = pairs.following[entry]
            share *= fade
        best_touched(total, touched, n_touched, shares, popular, weight, out_items[row], out_scores[row])
