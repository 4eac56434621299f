"""eALS online: weighted matrix factorisation whose missing data count by popularity, one coordinate after the other.

    J = sum over taken (u, i) of w_ui (1 - p_u . q_i)^2 + sum over all others of c_i (p_u . q_i)^2 + decay (|P|^2 + |Q|^2)
    c_i = missing * f_i^exponent / sum over j of f_j^exponent,    f_i: users who took i

An event sets w_ui = `new_weight` and minimises J exactly in each coordinate of p_u, then of q_i, `passes` times. What all
others contribute comes from the caches sum c_i q_i q_i' and sum p_u p_u', moved along with every vector. Each event-time
day c_i and the caches are renewed, and `sweeps` times all vectors are solved once more, with w_ui = 1 for what is older.
Parameters: `n_factors`, `missing` (the paper's c0), `exponent`, `decay`, `new_weight`, `passes`, `sweeps`, `deviation`, `seed`.
Reference: He, Zhang, Kan, Chua, "Fast Matrix Factorization for Online Recommendation with Implicit Feedback", SIGIR 2016,
sections 4.2 and 4.3. The paper fits offline first and never again; the daily sweeps stand for that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from benchmarks.baselines.factors import Known, first_vectors
from benchmarks.baselines.popularity import DAY_MS
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log

END = -1


class Taken(NamedTuple):
    """Distinct pairs, a linked list a user and one an item."""

    keys: dict  # numba typed: user * n_items + item -> entry
    users: np.ndarray
    items: np.ndarray
    weights: np.ndarray  # float32
    of_user: np.ndarray  # (capacity,) next entry of the same user
    of_item: np.ndarray
    user_head: np.ndarray
    item_head: np.ndarray
    user_size: np.ndarray
    item_size: np.ndarray


class EALS:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, n_factors: int = 32, missing: float = 512.0, exponent: float = 0.4, decay: float = 0.01,
                 new_weight: float = 1.0, passes: int = 1, sweeps: int = 1, deviation: float = 0.1, seed: int = 7) -> None:
        self.name = "eALS"
        self._n_factors, self._missing, self._exponent, self._decay = n_factors, missing, exponent, decay
        self._new_weight, self._passes, self._sweeps = new_weight, passes, sweeps
        self._deviation, self._seed = deviation, seed
        self._known = Known()

    def start(self, log: Log) -> None:
        self._known.start(log)
        self._users = np.zeros((log.n_users, self._n_factors), np.float32)  # nothing random stays in one who did little
        self._items = first_vectors(self._seed, log.n_items, self._n_factors, self._deviation)
        self._taken = _nothing_taken(log.n_users, log.n_items)
        self._n_taken, self._day = 0, -1
        self._missing_weights = np.zeros(log.n_items, np.float32)
        self._caches = np.zeros((2, self._n_factors, self._n_factors), np.float32)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        return self._known.rank(self._users[users] @ self._items[: self._known.n_items].T, self._known.users[users], n)

    def learn(self, log: Log, first: int, last: int) -> None:
        self._known.learn(log, first, last)
        self._taken = _with_room(self._taken, self._n_taken + last - first)
        self._n_taken = _learn(self._taken, self._n_taken, self._users, self._items, self._missing_weights, self._caches,
                               log.users[first:last], log.items[first:last], self._new_weight, self._decay, self._passes)
        day = int(log.times_ms[last - 1] // DAY_MS)
        if day != self._day:
            self._renew()
            self._day = day

    def _renew(self) -> None:
        powers = np.where(self._taken.item_size > 0, self._taken.item_size.astype(np.float64) ** self._exponent, 0.0)
        # an item's first event finds it with a weight, as of one user; no missing pair weighs more than one that was taken
        self._missing_weights = np.minimum(self._missing * np.maximum(powers, 1.0) / powers.sum(), 1.0).astype(np.float32)
        if self._sweeps:
            self._taken.weights[: self._n_taken] = 1.0
        seen_users, seen_items = np.flatnonzero(self._taken.user_size), np.flatnonzero(self._taken.item_size)
        for turn in range(self._sweeps + 1):
            p, q = self._users[seen_users], self._items[seen_items]
            self._caches[0] = (q * self._missing_weights[seen_items][:, None]).T @ q
            if turn < self._sweeps:
                _sweep_users(self._taken, seen_users, self._users, self._items, self._missing_weights, self._caches[0], self._decay)
                p = self._users[seen_users]
            self._caches[1] = p.T @ p
            if turn < self._sweeps:
                _sweep_items(self._taken, seen_items, self._users, self._items, self._missing_weights, self._caches[1], self._decay)


def _nothing_taken(n_users: int, n_items: int) -> Taken:
    from numba import types
    from numba.typed import Dict

    return Taken(Dict.empty(types.int64, types.int64), *(np.empty(1 << 14, np.int64) for _ in range(2)), np.empty(1 << 14, np.float32),
                 *(np.empty(1 << 14, np.int64) for _ in range(2)), np.full(n_users, END, np.int64), np.full(n_items, END, np.int64),
                 np.zeros(n_users, np.int64), np.zeros(n_items, np.int64))


def _with_room(taken: Taken, n: int) -> Taken:
    if n <= len(taken.users):
        return taken
    def larger(a: np.ndarray) -> np.ndarray:
        return np.concatenate([a, np.empty(n, a.dtype)])
    return taken._replace(users=larger(taken.users), items=larger(taken.items), weights=larger(taken.weights),
                          of_user=larger(taken.of_user), of_item=larger(taken.of_item))


@njit(cache=True, fastmath=True)
def _solve(vector: np.ndarray, others: np.ndarray, weights: np.ndarray, missing: np.ndarray, cache: np.ndarray, share: float, decay: float) -> None:
    """Each coordinate of one vector to its minimum, given (n_factors, m) vectors of what it was taken with.

    `missing` (m,) are the weights that these pairs have within the cache, whose part counts `share` times.
    """
    n_factors, m = others.shape
    predicted = np.zeros(m, np.float32)
    for f in range(n_factors):
        for at in range(m):
            predicted[at] += vector[f] * others[f, at]
    for f in range(n_factors):
        above, below = np.float32(0.0), np.float32(0.0)
        old = vector[f]
        for at in range(m):
            value, surplus = others[f, at], weights[at] - missing[at]
            above += (weights[at] - surplus * (predicted[at] - old * value)) * value
            below += surplus * value * value
        rest = np.float32(0.0)
        for g in range(n_factors):
            rest += vector[g] * cache[f, g]
        rest -= old * cache[f, f]
        new = (above - np.float32(share) * rest) / (below + np.float32(share) * cache[f, f] + np.float32(decay))
        vector[f] = new
        for at in range(m):
            predicted[at] += (new - old) * others[f, at]


@njit(cache=True)
def _solve_user(taken: Taken, user: int, user_vectors: np.ndarray, item_vectors: np.ndarray, missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    m, at, entry = taken.user_size[user], 0, taken.user_head[user]
    others, weights, own = np.empty((item_vectors.shape[1], m), np.float32), np.empty(m, np.float32), np.empty(m, np.float32)
    while entry >= 0:
        item = taken.items[entry]
        for f in range(item_vectors.shape[1]):
            others[f, at] = item_vectors[item, f]
        weights[at], own[at] = taken.weights[entry], missing[item]
        at += 1
        entry = taken.of_user[entry]
    _solve(user_vectors[user], others, weights, own, cache, 1.0, decay)


@njit(cache=True)
def _solve_item(taken: Taken, item: int, user_vectors: np.ndarray, item_vectors: np.ndarray, missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    m, at, entry = taken.item_size[item], 0, taken.item_head[item]
    others, weights = np.empty((item_vectors.shape[1], m), np.float32), np.empty(m, np.float32)
    while entry >= 0:
        user = taken.users[entry]
        for f in range(item_vectors.shape[1]):
            others[f, at] = user_vectors[user, f]
        weights[at] = taken.weights[entry]
        at += 1
        entry = taken.of_item[entry]
    _solve(item_vectors[item], others, weights, np.full(m, missing[item], np.float32), cache, missing[item], decay)


@njit(cache=True)
def _sweep_users(taken: Taken, users: np.ndarray, user_vectors: np.ndarray, item_vectors: np.ndarray, missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    for user in users:
        _solve_user(taken, user, user_vectors, item_vectors, missing, cache, decay)


@njit(cache=True)
def _sweep_items(taken: Taken, items: np.ndarray, user_vectors: np.ndarray, item_vectors: np.ndarray, missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    for item in items:
        _solve_item(taken, item, user_vectors, item_vectors, missing, cache, decay)


@njit(cache=True)
def _move(cache: np.ndarray, old: np.ndarray, new: np.ndarray, weight: float) -> None:
    for f in range(cache.shape[0]):
        for g in range(cache.shape[0]):
            cache[f, g] += np.float32(weight) * (new[f] * new[g] - old[f] * old[g])


@njit(cache=True)
def _learn(taken: Taken, n_taken: int, user_vectors: np.ndarray, item_vectors: np.ndarray, missing: np.ndarray, caches: np.ndarray,
           users: np.ndarray, items: np.ndarray, new_weight: float, decay: float, passes: int) -> int:
    n_items = item_vectors.shape[0]
    for at in range(users.shape[0]):
        user, item = users[at], items[at]
        if taken.item_size[item] == 0:  # in the cache before it is used: what is taken from the cache must have been in it
            _move(caches[0], np.zeros_like(item_vectors[item]), item_vectors[item], missing[item])
        key = np.int64(user) * n_items + item
        entry = np.int64(n_taken)
        if key in taken.keys:
            entry = taken.keys[key]
        else:
            n_taken += 1
            taken.keys[key] = entry
            taken.users[entry], taken.items[entry] = user, item
            taken.of_user[entry], taken.of_item[entry] = taken.user_head[user], taken.item_head[item]
            taken.user_head[user] = taken.item_head[item] = entry
            taken.user_size[user] += 1
            taken.item_size[item] += 1
        taken.weights[entry] = new_weight
        for _ in range(passes):
            old = user_vectors[user].copy()
            _solve_user(taken, user, user_vectors, item_vectors, missing, caches[0], decay)
            _move(caches[1], old, user_vectors[user], 1.0)
            old = item_vectors[item].copy()
            _solve_item(taken, item, user_vectors, item_vectors, missing, caches[1], decay)
            _move(caches[0], old, item_vectors[item], missing[item])
    return n_taken
