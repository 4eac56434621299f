"""River's biased matrix factorisation, online: ratings of 1 for what is taken, of 0 for what is drawn.

    r(u, i) = mean + b_u + b_i + p_u . q_i,   one step of stochastic gradient descent a rating

With ones alone there is nothing to learn, so every event brings `n_negatives` ratings of 0 for items drawn uniformly from
those seen. River scores one pair at a time, in Python; here the vectors it moved are copied into arrays after every call
of `learn`, and all items are ranked by one product of matrices: the same scores.
Parameters: `n_factors`, `rate`, `decay`, `n_negatives`, `seed`.
Reference: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.factors import Known
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log


class OnlineBiasedMF:
    """See the module. Needs the package river (the extra `baselines`)."""

    def __init__(self, *, n_factors: int = 32, rate: float = 0.05, decay: float = 0.0, n_negatives: int = 2,
                 seed: int = 7) -> None:
        self.name = "BiasedMF"
        self._n_factors, self._rate, self._decay, self._n_negatives, self._seed = n_factors, rate, decay, n_negatives, seed
        self._known = Known()

    def start(self, log: Log) -> None:
        from river import optim, reco

        self._known.start(log)
        self._model = reco.BiasedMF(
            n_factors=self._n_factors, bias_optimizer=optim.SGD(self._rate), latent_optimizer=optim.SGD(self._rate),
            l2_bias=self._decay, l2_latent=self._decay, seed=self._seed,
            latent_initializer=optim.initializers.Normal(sigma=0.1, seed=self._seed))
        self._random = np.random.default_rng(self._seed)
        self._seen: list[int] = []
        self._is_seen = np.zeros(log.n_items, np.bool_)
        self._biases = np.zeros(log.n_items, np.float32)
        self._vectors = np.zeros((log.n_items, self._n_factors), np.float32)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        n_items, known = self._known.n_items, self._known.users[users]
        vectors = np.stack([self._model.u_latents[user] if there else np.zeros(self._n_factors)
                            for user, there in zip(users.tolist(), known.tolist(), strict=True)]).astype(np.float32)
        # mean and b_u are the same for all items of a user
        return self._known.rank(vectors @ self._vectors[:n_items].T + self._biases[:n_items], known, n)

    def learn(self, log: Log, first: int, last: int) -> None:
        moved = set()
        learn_one = self._model.learn_one
        for user, item in zip(log.users[first:last].tolist(), log.items[first:last].tolist(), strict=True):
            if not self._is_seen[item]:
                self._is_seen[item] = True
                self._seen.append(item)
            learn_one(user, item, 1.0)
            moved.add(item)
            for draw in self._random.integers(len(self._seen), size=self._n_negatives).tolist():
                other = self._seen[draw]
                learn_one(user, other, 0.0)
                moved.add(other)
        changed = list(moved)
        self._biases[changed] = [self._model.i_biases[item] for item in changed]
        self._vectors[changed] = [self._model.i_latents[item] for item in changed]
        self._known.learn(log, first, last)
