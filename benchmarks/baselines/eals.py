"""eALS online: weighted matrix factorisation whose missing data count by popularity, one coordinate after the other.

    J = sum over taken (u, i) of w_ui (1 - p_u . q_i)^2 + sum over all others of c_i (p_u . q_i)^2 + decay (|P|^2 + |Q|^2)
    c_i = missing * f_i^exponent / mean over j of f_j^exponent, at most 1,    f_i: users who took i

An event sets w_ui = `new_weight` and minimises J exactly in each coordinate of p_u, then of q_i, `passes` times. What all
others contribute comes from the caches sum c_i q_i q_i' and sum p_u p_u', moved along with every vector. Each event-time
day c_i and the caches are renewed, and `sweeps` times all vectors are solved once more, with w_ui = 1 for what is older.
Parameters: `n_factors`, `missing` (the paper's c0 divided by the number of items, which grows here), `exponent`, `decay`,
`new_weight`, `passes`, `sweeps`, `deviation`, `seed`.
Reference: He, Zhang, Kan, Chua, "Fast Matrix Factorization for Online Recommendation with Implicit Feedback", SIGIR 2016,
sections 4.2 and 4.3. The paper fits offline first and never again; the daily sweeps stand for that.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.eals_solver import learn, nothing_taken, show, sweep_items, sweep_users, with_room
from benchmarks.baselines.factors import Known, first_vectors
from benchmarks.baselines.popularity import DAY_MS
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class EALS:
    """See the module. A user without history gets popularity."""

    def __init__(self, *, n_factors: int = 32, missing: float = 0.01, exponent: float = 0.4, decay: float = 0.01,
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
        self._taken = nothing_taken(log.n_users, log.n_items)
        self._n_taken, self._day = 0, -1
        self._shown, self._n_shown = nothing_taken(log.n_users, log.n_items), 0
        self._shown_vectors = np.zeros_like(self._users)
        self._missing_weights = np.zeros(log.n_items, np.float32)
        self._caches = np.zeros((2, self._n_factors, self._n_factors), np.float32)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        vectors = np.where(self._shown.user_size[users, None] > 0, self._shown_vectors[users], self._users[users])
        return self._known.rank(vectors @ self._items[: self._known.n_items].T, self._known.users[users], n)

    def learn(self, log: Log, first: int, last: int) -> None:
        self._known.learn(log, first, last)
        self._taken = with_room(self._taken, self._n_taken + last - first)
        self._n_taken = learn(self._taken, self._n_taken, self._users, self._items, self._missing_weights, self._caches,
                               log.users[first:last], log.items[first:last], self._new_weight, self._decay, self._passes)
        day = int(log.times_ms[last - 1] // DAY_MS)
        if day != self._day:
            self._renew()
            self._day = day

    def observe(self, log: Log, first: int, last: int) -> None:
        """These users have vectors of their own for lists, which no item ever learns from."""
        users = log.users[first:last]
        n_copied = int(self._taken.user_size[np.unique(users)].sum())
        self._shown = with_room(self._shown, self._n_shown + n_copied + last - first)
        self._n_shown = show(self._shown, self._n_shown, self._taken, self._shown_vectors, self._items, self._missing_weights,
                             self._caches[0], users, log.items[first:last], self._new_weight, self._decay, self._passes)
        self._known.observe(log, first, last)

    def _renew(self) -> None:
        powers = np.where(self._taken.item_size > 0, self._taken.item_size.astype(np.float64) ** self._exponent, 0.0)
        # an item's first event finds it with a weight, as of one user; no missing pair weighs more than one that was taken
        weights = self._missing * np.maximum(powers, 1.0) / powers[powers > 0].mean()
        self._missing_weights = np.minimum(weights, 1.0).astype(np.float32)
        if self._sweeps:
            self._taken.weights[: self._n_taken] = 1.0
        seen_users, seen_items = np.flatnonzero(self._taken.user_size), np.flatnonzero(self._taken.item_size)
        for turn in range(self._sweeps + 1):
            p, q = self._users[seen_users], self._items[seen_items]
            self._caches[0] = (q * self._missing_weights[seen_items][:, None]).T @ q
            if turn < self._sweeps:
                sweep_users(self._taken, seen_users, self._users, self._items, self._missing_weights, self._caches[0], self._decay)
                p = self._users[seen_users]
            self._caches[1] = p.T @ p
            if turn < self._sweeps:
                sweep_items(self._taken, seen_items, self._users, self._items, self._missing_weights, self._caches[1], self._decay)
