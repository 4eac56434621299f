"""Is a difference more than noise? Paired bootstrap by user: what one person did is not independent, so whole users are drawn.

In: values of two contenders on the same targets. Out: their mean difference with its 95% interval. Drawn from a seed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

N_RESAMPLES = 2_000
#: With more users than this the intervals are narrow and draws are dear.
MANY_USERS, FEWER_RESAMPLES = 20_000, 500


class Difference(NamedTuple):
    """`value` = mean(a) - mean(b), its 95% interval, `share`: the difference as a share of mean(b) (0 where that is 0)."""

    value: float
    low: float
    high: float
    share: float


def differences(users: np.ndarray, a: np.ndarray, b: np.ndarray, *, seed: int = 42) -> list[Difference]:
    """Mean of a minus mean of b, column by column: users (n,), a and b (n, m), one row a target."""
    _, place = np.unique(users, return_inverse=True)
    n_users, m = int(place.max()) + 1, a.shape[1]
    delta = a - b
    sums = np.stack([np.bincount(place, delta[:, k], n_users) for k in range(m)] + [np.bincount(place, minlength=n_users)], axis=1)
    rng = np.random.default_rng(seed)
    n_resamples = N_RESAMPLES if n_users <= MANY_USERS else FEWER_RESAMPLES
    means = np.empty((n_resamples, m))
    for r in range(n_resamples):
        drawn = np.bincount(rng.integers(0, n_users, n_users), minlength=n_users).astype(np.float64) @ sums
        means[r] = drawn[:m] / max(1.0, float(drawn[m]))
    bounds = np.quantile(means, (0.025, 0.975), axis=0)  # (2, m)
    found = []
    for k in range(m):
        value, base = float(delta[:, k].mean()), float(b[:, k].mean())
        found.append(Difference(value, float(bounds[0, k]), float(bounds[1, k]), value / base if base else 0.0))
    return found
