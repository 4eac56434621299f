"""RAISGD: ISGD, and with every event the items that nobody has taken for longest are taught to be none of this user's.

    before the event (u, i): for each of the first `n_negatives` items j of a queue: a step of (p_u, q_j) towards 0,
                             and j goes to the queue's end
    then:                    a step of (p_u, q_i) towards 1, and i goes to the queue's end

Items are ranked by |1 - p_u . q_i|, ascending.
Parameters: those of ISGD, and `n_negatives`, `both` (negatives move q_j too, else p_u alone).
Reference: Vinagre, Jorge, Gama, "Collaborative Filtering with Recency-based Negative Feedback", SAC 2015.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.baselines.isgd import ISGD, step
from consumers.backtest.log import Log

END = -1


class RAISGD(ISGD):
    """See the module. The queue is a linked list, so moving an item to its end costs the same however many there are."""

    def __init__(self, *, n_negatives: int = 1, both: bool = False, n_factors: int = 64, rate: float = 0.4, decay: float = 0.1,
                 passes: int = 10, deviation: float = 0.1, seed: int = 7) -> None:
        super().__init__(n_factors=n_factors, rate=rate, decay=decay, passes=passes, deviation=deviation, seed=seed)
        self.name = "RAISGD"
        self._n_negatives, self._both = n_negatives, both

    def start(self, log: Log) -> None:
        super().start(log)
        # a ring through n_items, which stands for both ends; -1: not in the queue
        self._before, self._after = np.full(log.n_items + 1, END, np.int64), np.full(log.n_items + 1, END, np.int64)
        self._before[-1] = self._after[-1] = log.n_items

    def learn(self, log: Log, first: int, last: int) -> None:
        _learn(self._users, self._items, self._before, self._after, log.users[first:last], log.items[first:last], self._rate,
               self._decay, self._passes, self._n_negatives, self._both, True)
        self._known.learn(log, first, last)

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users' vectors move by the same steps; items and the queue stand still."""
        _learn(self._users, self._items, self._before, self._after, log.users[first:last], log.items[first:last], self._rate,
               self._decay, self._passes, self._n_negatives, self._both, False)
        self._known.observe(log, first, last)


@njit(cache=True)
def to_end(before: np.ndarray, after: np.ndarray, item: int) -> None:
    """Move an item to the queue's end, or enter it there."""
    ends = before.shape[0] - 1
    if before[item] >= 0:
        after[before[item]], before[after[item]] = after[item], before[item]
    tail = before[ends]
    before[item], after[item] = tail, ends
    after[tail], before[ends] = item, item


@njit(cache=True)
def _learn(user_vectors: np.ndarray, item_vectors: np.ndarray, before: np.ndarray, after: np.ndarray, users: np.ndarray,
           items: np.ndarray, rate: float, decay: float, passes: int, n_negatives: int, both: bool, items_too: bool) -> None:
    ends = before.shape[0] - 1
    for at in range(users.shape[0]):
        p = user_vectors[users[at]]
        oldest = after[ends]
        for _ in range(n_negatives):
            if oldest == ends:
                break
            following = after[oldest]
            step(p, item_vectors[oldest] if both and items_too else item_vectors[oldest].copy(), 0.0, rate, decay)
            if items_too:
                to_end(before, after, oldest)
            oldest = following
        q = item_vectors[items[at]] if items_too else item_vectors[items[at]].copy()
        for _ in range(passes):
            step(p, q, 1.0, rate, decay)
        if items_too:
            to_end(before, after, items[at])
