"""A model that is retrained each event-time day: what it is trained on, and when.

In: events. Out: once event time has passed a day, the matrix of everything so far, and every user's row at any time.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
from numba import njit

from benchmarks.baselines.pairs import Pairs, add, no_pairs, with_room
from benchmarks.baselines.popularity import DAY_MS
from consumers.backtest.log import Log

LEAST_WEIGHT = 0.02  # of a faded pair: below it the pair is left out of training


class Diary:
    """Weights of (user, item): events, each counting 2^(-age / half_life)."""

    def __init__(self, half_life_days: float = math.inf) -> None:
        self._half_life_ms = half_life_days * DAY_MS

    def start(self, log: Log) -> None:
        self._shape = (log.n_users, log.n_items)
        self._pairs = no_pairs(log.n_users)
        self._day = -1
        self._now_ms = 0

    def learn(self, log: Log, first: int, last: int) -> bool:
        """Absorb; true where a day has passed, so that it is time to train."""
        self._pairs = with_room(self._pairs, last - first)
        self._now_ms = int(log.times_ms[last - 1])
        _learn(self._pairs, log.users[first:last], log.items[first:last], log.times_ms[first:last] / self._half_life_ms)
        day = self._now_ms // DAY_MS
        passed, self._day = 0 <= self._day != day, day
        return passed

    def matrix(self) -> scipy.sparse.csr_matrix:
        """(n_users, n_items) float32."""
        size = int(self._pairs.size[0])
        weights = np.exp2(self._pairs.level[:size] - self._now_ms / self._half_life_ms)
        kept = weights >= LEAST_WEIGHT
        places = (self._pairs.left[:size][kept], self._pairs.right[:size][kept])
        return scipy.sparse.csr_matrix((weights[kept].astype(np.float32), places), shape=self._shape)

    def rows(self, users: np.ndarray, now_ms: int) -> scipy.sparse.csr_matrix:
        """(B, n_items) float32, current to the last event."""
        rows, items, weights = _rows(self._pairs, users, now_ms / self._half_life_ms)
        return scipy.sparse.csr_matrix((weights.astype(np.float32), (rows, items)), shape=(len(users), self._shape[1]))


@njit(cache=True)
def _learn(pairs: Pairs, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
    for at in range(users.shape[0]):
        add(pairs, users[at], items[at], times[at])


@njit(cache=True)
def _rows(pairs: Pairs, users: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = 0
    for user in users:
        entry = pairs.head[user]
        while entry >= 0:
            n += 1
            entry = pairs.following[entry]
    rows, items, weights = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n)
    at = 0
    for row in range(users.shape[0]):
        entry = pairs.head[users[row]]
        while entry >= 0:
            rows[at], items[at], weights[at] = row, pairs.right[entry], 2.0 ** (pairs.level[entry] - now)
            at += 1
            entry = pairs.following[entry]
    return rows, items, weights
