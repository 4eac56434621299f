"""iALS retrained each event-time day, with and without fold-in; the algorithm is `implicit`'s.

    J = sum over all (u, i) of (1 + c_ui) (r_ui - p_u . q_i)^2 + decay (|P|^2 + |Q|^2),   c_ui = alpha * faded count of (u, i)

Each day it goes on from yesterday's factors by `iterations` (the first day by three times as many). With fold-in a user's
vector is solved anew, before every list, from his history up to now against the items' vectors of this morning; without,
it is this morning's, and who was not there then gets popularity. Items new today score 0 until tomorrow.
Parameters: `fold_in`, `n_factors`, `alpha`, `decay`, `iterations`, `half_life_days` (of an event's weight), `seed`.
Reference: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008; on its tuning: Rendle,
Krichene, Zhang, Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.baselines.daily import Diary
from benchmarks.baselines.factors import Known, first_vectors
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log

AT_REST = 1e-3  # a vector whose largest coordinate is below begins anew


class DailyIALS:
    """See the module. Needs the package implicit (the extra `baselines`)."""

    def __init__(self, *, fold_in: bool, n_factors: int = 64, alpha: float = 10.0, decay: float = 1.0, iterations: int = 3,
                 half_life_days: float = math.inf, seed: int = 7) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        self.name = "iALS daily, fold-in" if fold_in else "iALS daily"
        self._fold_in, self._n_factors, self._iterations, self._seed = fold_in, n_factors, iterations, seed
        self._make = lambda: AlternatingLeastSquares(factors=n_factors, alpha=alpha, regularization=decay, num_threads=1)
        self._diary, self._shown = Diary(half_life_days), Diary(half_life_days)
        self._known = Known()

    def start(self, log: Log) -> None:
        self._known.start(log)
        self._diary.start(log)
        self._shown.start(log)
        self._model = self._make()
        self._model.user_factors = first_vectors(self._seed, log.n_users, self._n_factors, 0.01)
        self._first_items = first_vectors(self._seed + 1, log.n_items, self._n_factors, 0.01)
        self._model.item_factors = self._first_items.copy()
        self._trained = np.zeros(log.n_users, np.bool_)
        self._n_trained = 0

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        if self._fold_in and self._n_trained:
            rows = self._diary.rows(users, now_ms) + self._shown.rows(users, now_ms)
            vectors = self._model.recalculate_user(users, rows)
            has_vector = np.abs(vectors).max(axis=1) > 0  # not of one who took nothing, or what is new today alone
        else:
            vectors, has_vector = self._model.user_factors[users], self._trained[users]
        return self._known.rank(vectors @ self._model.item_factors[: self._known.n_items].T, has_vector, n)

    def learn(self, log: Log, first: int, last: int) -> None:
        self._known.learn(log, first, last)
        if self._diary.learn(log, first, last):
            matrix = self._diary.matrix()
            # zero is a fixed point of ALS: a vector that has no events yet, or shrank when there were few, would stay there
            still = np.abs(self._model.item_factors).max(axis=1) < AT_REST
            self._model.item_factors[still] = self._first_items[still]
            self._model.iterations = self._iterations * (1 if self._n_trained else 3)
            self._model.fit(matrix, show_progress=False)
            self._trained = np.diff(matrix.indptr) > 0
            self._n_trained += 1

    def observe(self, log: Log, first: int, last: int) -> None:
        """With fold-in these users' rows grow, for lists but not for training."""
        self._shown.learn(log, first, last)
