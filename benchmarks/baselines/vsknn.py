"""VS-KNN: neighbours of the user's session among recent sessions, weighted by the place of what they share.

    sim(s, n)      = sum over shared j of place(j, s) / |s|,   place(j, s) = (position of j in s, 1 the first) / |s|
    score(u, i, t) = sum over the k nearest n that hold i of sim(s, n) * w(n) * (1 + idf_weight * idf(i))
                     + weight * popularity(i, t), the first part relative to its largest
    w(n)           = 1 - 0.1 * (how far back the latest shared item lies in s), at least 0.1

idf(i) = log(sessions / sessions that hold i), relative to its largest. Neighbours are searched among the `m` most recent
sessions that share an item; past and current sessions alike are updated at every event.
Parameters: `k`, `m`, `length` (items of the current session that count), `idf_weight`, `session` ("user", or "basket": past
sessions are baskets and the current one the user's last items), `popularity_days`, `popularity_weight`.
Reference: Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018, section 3.2 (V-SKNN).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmarks.baselines.popularity import DAY_MS, Trend
from benchmarks.baselines.ranked import best_touched, scale
from benchmarks.baselines.recent import Recent, append_all, back, held, no_items
from benchmarks.baselines.sessions import Sessions, candidates, learn, no_sessions, with_room
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class VSKNN:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, k: int = 100, m: int = 1000, length: int = 20, idf_weight: float = 1.0, session: str = "user",
                 popularity_days: float = 3.0, popularity_weight: float = 1e-3) -> None:
        self.name = "VS-KNN"
        self._k, self._m, self._length, self._idf_weight = k, m, length, idf_weight
        self._by_basket = session == "basket"
        self._weight = popularity_weight
        self._trend = Trend(popularity_days * DAY_MS)

    def start(self, log: Log) -> None:
        self._sessions = no_sessions(len(log.user_ids), len(log.item_ids), 50)
        self._recent = no_items(len(log.user_ids), self._length)
        self._total = np.zeros(len(log.item_ids))
        self._trend.start(len(log.item_ids))

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        shares, popular = self._trend.popular(n)
        ranking = Ranking(np.empty((len(users), n), np.int32), np.empty((len(users), n), np.float32))
        _rank(self._sessions, self._recent, users, self._by_basket, self._k, self._m, self._idf_weight, shares, popular,
              self._weight, self._total, *ranking)
        return ranking

    def learn(self, log: Log, first: int, last: int) -> None:
        self._sessions = with_room(self._sessions, last - first)
        part = slice(first, last)
        users, items, baskets = log.users[part], log.items[part], log.baskets[part]
        learn(self._sessions, self._by_basket, users, items, log.times_ms[part], baskets)
        append_all(self._recent, users, items)
        self._trend.learn(items, log.times_ms[part])

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users' last items move on; nothing else is learned."""
        append_all(self._recent, log.users[first:last], log.items[first:last])


@njit(cache=True)
def _rank(sessions: Sessions, recent: Recent, users: np.ndarray, by_basket: bool, k: int, m: int, idf_weight: float,
          shares: np.ndarray, popular: np.ndarray, weight: float, total: np.ndarray, out_items: np.ndarray,
          out_scores: np.ndarray) -> None:
    length, n_sessions = sessions.items.shape[1], sessions.sizes[0]
    steps_back = np.full(total.shape[0], -1, np.int64)  # of the current session's items
    marked, touched = np.full(n_sessions, -1, np.int64), np.empty(total.shape[0], np.int64)
    idf_of_one = math.log(n_sessions + 1.0)
    for row in range(users.shape[0]):
        user = users[row]
        n_current = held(recent, user)
        distinct, n_distinct = np.empty(n_current, np.int64), 0
        for step in range(n_current):
            item = back(recent, user, step)
            if steps_back[item] < 0:
                steps_back[item] = step
                distinct[n_distinct] = item
                n_distinct += 1
        own = -1 if by_basket else sessions.of_user[user]
        near = candidates(sessions, distinct[:n_distinct], own, m, marked, row)
        sims, latest = np.zeros(near.shape[0]), np.full(near.shape[0], n_current, np.int64)
        for at in range(near.shape[0]):
            session = near[at]
            for place in range(min(sessions.counts[session], length)):
                item = sessions.items[session, place]
                step = steps_back[item]
                if step < 0:
                    continue
                again = False
                for earlier in range(place):
                    again = again or sessions.items[session, earlier] == item
                if not again:
                    sims[at] += (n_current - step) / n_current / n_current
                    latest[at] = min(latest[at], step)
        order = np.argsort(-sims, kind="mergesort")[:k]
        n_touched = 0
        for at in order:
            session = near[at]
            value = sims[at] * max(1.0 - 0.1 * latest[at], 0.1)
            n_held = min(sessions.counts[session], length)
            for place in range(n_held):
                item = sessions.items[session, place]
                again = False
                for earlier in range(place):
                    again = again or sessions.items[session, earlier] == item
                if again or value <= 0.0:
                    continue
                if total[item] == 0.0:
                    touched[n_touched] = item
                    n_touched += 1
                total[item] += value * (1.0 + idf_weight * math.log((n_sessions + 1.0) / sessions.n_holding[item]) / idf_of_one)
        for at in range(n_distinct):
            steps_back[distinct[at]] = -1
        scale(total, touched, n_touched)
        best_touched(total, touched, n_touched, shares, popular, weight, out_items[row], out_scores[row])
