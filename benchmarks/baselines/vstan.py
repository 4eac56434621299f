"""VSTAN: VS-KNN with time, place and rarity, every one of them a decay of its own.

    w1(j)          = exp(-steps back of j in s / place) * (1 + idf_weight * idf(j))
    sim(s, n)      = sum over shared j of w1(j) / sqrt(|s| |n|) * exp(-(t - t_n) / age)
    w3(i, n)       = exp(-|p_i - p*| / near) * (before, if p_i < p*; here, if p_i = p*)
    score(u, i, t) = sum over the k nearest n, over the places of i in n, of sim(s, n) * w3(i, n) * (1 + idf_weight * idf(i))
                     + weight * popularity(i, t), the first part relative to its largest

p*: the place in n of the shared item that the user saw last. idf(i) = log(sessions / sessions that hold i), relative to
its largest. Neighbours are searched among the `m` most recent sessions that share one of the user's last `length`
items; past and current sessions alike are updated at every event.
Parameters: `k`, `m`, `length`, `place` (items), `age_days`, `near` (items), `before`, `here`, `idf_weight`, `session` ("user",
or "basket": past sessions are baskets and the current one the user's last items), `popularity_days`, `popularity_weight`.
Reference: Garg et al., "Sequence and Time Aware Neighborhood for Session-based Recommendations: STAN", SIGIR 2019;
Ludewig, Mauro, Latifi, Jannach, "Empirical Analysis of Session-based Recommendation Algorithms", UMUAI 2021 (VSTAN). The
weights of what stands `before` and `here` are ours.
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


class VSTAN:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, k: int = 500, m: int = 2000, length: int = 10, place: float = 2.0, age_days: float = 20.0,
                 near: float = 3.0, before: float = 1.0, here: float = 1.0, idf_weight: float = 1.0, session: str = "user",
                 popularity_days: float = 3.0, popularity_weight: float = 1e-3) -> None:
        self.name = "VSTAN"
        self._k, self._m, self._length = k, m, length
        self._decays = np.array([place, age_days * DAY_MS, near, before, here, idf_weight])
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
        _rank(self._sessions, self._recent, users, now_ms, self._by_basket, self._k, self._m, self._decays, shares, popular,
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
def _rank(sessions: Sessions, recent: Recent, users: np.ndarray, now_ms: int, by_basket: bool, k: int, m: int, decays: np.ndarray,
          shares: np.ndarray, popular: np.ndarray, weight: float, total: np.ndarray, out_items: np.ndarray,
          out_scores: np.ndarray) -> None:
    place_decay, age, near_decay, before, here, idf_weight = decays
    length, n_sessions = sessions.items.shape[1], sessions.sizes[0]
    weights, steps_back = np.zeros(total.shape[0]), np.zeros(total.shape[0], np.int64)  # of the current session's items
    marked, touched = np.full(n_sessions, -1, np.int64), np.empty(total.shape[0], np.int64)
    idf_of_one = math.log(n_sessions + 1.0)
    for row in range(users.shape[0]):
        user = users[row]
        n_current = held(recent, user)
        distinct, n_distinct = np.empty(n_current, np.int64), 0
        for step in range(n_current):
            item = back(recent, user, step)
            if weights[item] == 0.0:
                idf = math.log((n_sessions + 1.0) / sessions.n_holding[item]) / idf_of_one
                weights[item] = math.exp(-step / place_decay) * (1.0 + idf_weight * idf)
                steps_back[item] = step
                distinct[n_distinct] = item
                n_distinct += 1
        own = -1 if by_basket else sessions.of_user[user]
        found = candidates(sessions, distinct[:n_distinct], own, m, marked, row)
        sims, anchors = np.zeros(found.shape[0]), np.zeros(found.shape[0], np.int64)
        for at in range(found.shape[0]):
            session, latest = found[at], n_current
            count = sessions.counts[session]
            for place in range(max(0, count - length), count):
                item = sessions.items[session, place % length]
                if weights[item] == 0.0:
                    continue
                sims[at] += weights[item]
                for earlier in range(max(0, count - length), place):
                    if sessions.items[session, earlier % length] == item:
                        sims[at] -= weights[item]
                        break
                if steps_back[item] <= latest:
                    latest, anchors[at] = steps_back[item], place
            sims[at] *= math.exp(-(now_ms - sessions.times_ms[session]) / age) / math.sqrt(n_current * min(count, length))
        n_touched = 0
        for at in np.argsort(-sims, kind="mergesort")[:k]:
            session, count = found[at], sessions.counts[found[at]]
            for place in range(max(0, count - length), count):
                item, away = sessions.items[session, place % length], place - anchors[at]
                value = sims[at] * math.exp(-abs(away) / near_decay)
                value *= before if away < 0 else here if away == 0 else 1.0
                if value <= 0.0:
                    continue
                if total[item] == 0.0:
                    touched[n_touched] = item
                    n_touched += 1
                total[item] += value * (1.0 + idf_weight * math.log((n_sessions + 1.0) / sessions.n_holding[item]) / idf_of_one)
        for at in range(n_distinct):
            weights[distinct[at]] = 0.0
        scale(total, touched, n_touched)
        best_touched(total, touched, n_touched, shares, popular, weight, out_items[row], out_scores[row])
