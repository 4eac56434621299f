"""ISGD: matrix factorisation by one stochastic gradient step an event, for positive-only feedback.

    err = 1 - p_u . q_i;   p_u += rate * (err * q_i - decay * p_u);   q_i += rate * (err * p_u - decay * q_i)

Both from the old values. Vectors begin as N(0, deviation). Items are ranked by |1 - p_u . q_i|, ascending.
Parameters: `n_factors`, `rate`, `decay`, `passes` (steps an event: sessions need many, for all that is
known of a user must be learned in a few events), `deviation`, `seed`.
Reference: Vinagre, Jorge, Gama, "Fast Incremental Matrix Factorization for Recommendation with Positive-Only Feedback",
UMAP 2014, algorithm 2. The paper steps q_i from the new p_u; the difference is of the order of rate squared.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.baselines.factors import Known, first_vectors
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class ISGD:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, n_factors: int = 64, rate: float = 0.4, decay: float = 0.1, passes: int = 10, deviation: float = 0.1,
                 seed: int = 7) -> None:
        self.name = "ISGD"
        self._n_factors, self._rate, self._decay, self._passes = n_factors, rate, decay, passes
        self._deviation, self._seed = deviation, seed
        self._known = Known()

    def start(self, log: Log) -> None:
        self._known.start(log)
        self._users = first_vectors(self._seed, log.n_users, self._n_factors, self._deviation)
        self._items = first_vectors(self._seed + 1, log.n_items, self._n_factors, self._deviation)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        predicted = self._users[users] @ self._items[: self._known.n_items].T
        return self._known.rank(-np.abs(1.0 - predicted), self._known.users[users], n)

    def learn(self, log: Log, first: int, last: int) -> None:
        _learn(self._users, self._items, log.users[first:last], log.items[first:last], self._rate, self._decay, self._passes, True)
        self._known.learn(log, first, last)

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users' vectors move by the same steps; items stand still."""
        users, items = log.users[first:last], log.items[first:last]
        _learn(self._users, self._items, users, items, self._rate, self._decay, self._passes, False)
        self._known.observe(log, first, last)


@njit(cache=True)
def step(p: np.ndarray, q: np.ndarray, target: float, rate: float, decay: float) -> None:
    """One gradient step of both vectors towards the target."""
    error = np.float32(target)
    for f in range(p.shape[0]):
        error -= p[f] * q[f]
    rate, decay = np.float32(rate), np.float32(decay)
    for f in range(p.shape[0]):
        old = p[f]
        p[f] += rate * (error * q[f] - decay * old)
        q[f] += rate * (error * old - decay * q[f])


@njit(cache=True)
def _learn(user_vectors: np.ndarray, item_vectors: np.ndarray, users: np.ndarray, items: np.ndarray, rate: float,
           decay: float, passes: int, items_too: bool) -> None:
    for at in range(users.shape[0]):
        q = item_vectors[items[at]] if items_too else item_vectors[items[at]].copy()
        for _ in range(passes):
            step(user_vectors[users[at]], q, 1.0, rate, decay)
