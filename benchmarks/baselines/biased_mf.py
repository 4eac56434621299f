"""River's biased matrix factorisation, online: ratings of 1 for what is taken, of 0 for what is drawn.

    r(u, i) = mean + b_u + b_i + p_u . q_i,   one step of stochastic gradient descent a rating, on the squared error:
    g = 2 (r(u, i) - rating);   v -= rate * (g * dr/dv + decay * v) for each of b_u, b_i, p_u, q_i, all from the old values

With ones alone there is nothing to learn, so every event brings `n_negatives` ratings of 0 for items drawn uniformly from
those seen. River scores and learns one pair at a time, in Python; here its steps are compiled (a test holds them equal to
`river.reco.BiasedMF`) and all items are ranked by one product of matrices.
Parameters: `n_factors`, `rate`, `decay`, `n_negatives`, `deviation` (of first vectors), `seed`.
Reference: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from benchmarks.baselines.factors import Known, first_vectors
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class Rated(NamedTuple):
    """The model: ratings are mean + user_biases + item_biases + users . items."""

    users: np.ndarray  # (n_users, n_factors) float64, as in river
    items: np.ndarray
    user_biases: np.ndarray
    item_biases: np.ndarray
    mean: np.ndarray  # (2,) of the ratings so far, and their number
    seen: np.ndarray  # (n_items,) int64: items by first appearance, as many as `n_seen`
    n_seen: np.ndarray  # (1,) int64
    is_seen: np.ndarray  # (n_items,) bool
    state: np.ndarray  # (1,) uint64 of the random numbers


class OnlineBiasedMF:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, n_factors: int = 32, rate: float = 0.05, decay: float = 0.0, n_negatives: int = 2,
                 deviation: float = 0.1, seed: int = 7) -> None:
        self.name = "BiasedMF"
        self._n_factors, self._rate, self._decay, self._n_negatives = n_factors, rate, decay, n_negatives
        self._deviation, self._seed = deviation, seed
        self._known = Known()

    def start(self, log: Log) -> None:
        self._known.start(log)
        self._model = Rated(
            *(first_vectors(self._seed + side, n, self._n_factors, self._deviation).astype(np.float64)
              for side, n in enumerate((log.n_users, log.n_items))),
            np.zeros(log.n_users), np.zeros(log.n_items), np.zeros(2), np.zeros(log.n_items, np.int64), np.zeros(1, np.int64),
            np.zeros(log.n_items, np.bool_), np.array([self._seed * 2 + 1], np.uint64),
        )

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        n_items = self._known.n_items
        # mean and b_u are the same for all items of a user
        scores = self._model.users[users] @ self._model.items[:n_items].T + self._model.item_biases[:n_items]
        return self._known.rank(scores, self._known.users[users], n)

    def learn(self, log: Log, first: int, last: int) -> None:
        _learn(self._model, log.users[first:last], log.items[first:last], self._rate, self._decay, self._n_negatives, True)
        self._known.learn(log, first, last)

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users' vectors move by the same steps; items stand still."""
        model = self._model._replace(state=self._model.state.copy())
        _learn(model, log.users[first:last], log.items[first:last], self._rate, self._decay, self._n_negatives, False)
        self._known.observe(log, first, last)


@njit(cache=True)
def rate_one(model: Rated, user: int, item: int, rating: float, rate: float, decay: float, items_too: bool) -> None:
    """One step of river's `learn_one`; the mean is that of the ratings up to this one."""
    if items_too:
        model.mean[1] += 1.0
        model.mean[0] += (rating - model.mean[0]) / model.mean[1]
    p, q = model.users[user], model.items[item]
    predicted = model.mean[0] + model.user_biases[user] + model.item_biases[item]
    for f in range(p.shape[0]):
        predicted += p[f] * q[f]
    gradient = 2.0 * (predicted - rating)
    model.user_biases[user] -= rate * (gradient + decay * model.user_biases[user])
    if items_too:
        model.item_biases[item] -= rate * (gradient + decay * model.item_biases[item])
    for f in range(p.shape[0]):
        old = p[f]
        p[f] -= rate * (gradient * q[f] + decay * old)
        if items_too:
            q[f] -= rate * (gradient * old + decay * q[f])


@njit(cache=True)
def _learn(model: Rated, users: np.ndarray, items: np.ndarray, rate: float, decay: float, n_negatives: int, items_too: bool) -> None:
    for at in range(users.shape[0]):
        user, item = users[at], items[at]
        if items_too and not model.is_seen[item]:
            model.is_seen[item] = True
            model.seen[model.n_seen[0]] = item
            model.n_seen[0] += 1
        rate_one(model, user, item, 1.0, rate, decay, items_too)
        for _ in range(n_negatives if model.n_seen[0] else 0):
            model.state[0] = model.state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            drawn = (model.state[0] >> np.uint64(33)) % np.uint64(model.n_seen[0])
            rate_one(model, user, model.seen[drawn], 0.0, rate, decay, items_too)
