"""BPR retrained each event-time day; the algorithm is `implicit`'s.

    maximise sum over taken (u, i), others j of log sigmoid(p_u . q_i + b_i - p_u . q_j - b_j) - decay (...)

Each day it goes on from yesterday's factors by `iterations` passes over all pairs (the first day by ten times as many). Who
was not there this morning gets popularity.
Parameters: `n_factors`, `rate`, `decay`, `iterations`, `half_life_days` (a pair faded below 0.02 is left out), `seed`.
Reference: Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.baselines.daily import Diary
from benchmarks.baselines.factors import Known
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class DailyBPR:
    """See the module. Needs the package implicit (the extra `baselines`)."""

    def __init__(self, *, n_factors: int = 64, rate: float = 0.05, decay: float = 0.01, iterations: int = 5,
                 half_life_days: float = math.inf, seed: int = 7) -> None:
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        self.name = "BPR daily"
        self._n_factors, self._iterations, self._seed = n_factors, iterations, seed
        self._make = lambda: BayesianPersonalizedRanking(
            factors=n_factors, learning_rate=rate, regularization=decay, num_threads=1, random_state=seed)
        self._diary = Diary(half_life_days)
        self._known = Known()

    def start(self, log: Log) -> None:
        self._known.start(log)
        self._diary.start(log)
        self._model = self._make()
        random = np.random.default_rng(self._seed)
        # the last column is the item's bias, against a 1 of every user; vectors begin small for those still to come too
        self._model.user_factors, self._model.item_factors = (
            ((random.random((n, self._n_factors + 1), np.float32) - 0.5) / self._n_factors).astype(np.float32)
            for n in (log.n_users, log.n_items))
        self._model.user_factors[:, -1] = 1.0
        self._trained = np.zeros(log.n_users, np.bool_)
        self._n_trained = 0

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        scores = self._model.user_factors[users] @ self._model.item_factors[: self._known.n_items].T
        return self._known.rank(scores, self._trained[users], n)

    def learn(self, log: Log, first: int, last: int) -> None:
        self._known.learn(log, first, last)
        if self._diary.learn(log, first, last):
            matrix = self._diary.matrix()
            self._model.iterations = self._iterations * (1 if self._n_trained else 10)
            self._model.fit(matrix, show_progress=False)
            self._trained = np.diff(matrix.indptr) > 0
            self._n_trained += 1

    def observe(self, log: Log, first: int, last: int) -> None:
        """Vectors come by training alone: nothing changes."""
