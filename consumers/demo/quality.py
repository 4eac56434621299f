"""How good the lists were: baskets of which an item stood in the list that lay there before, and plain popularity's share.

In: for each basket the lists as read before it was sent. Out: hit@10 with an interval. Every list is judged by the same
baskets, and none by one that was known when it was made.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

K = 10
N_RESAMPLES = 2_000


class Share(NamedTuple):
    """A share with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


class Hits:
    """Hits of some lists, basket by basket. `names` of the lists; one is the first, which the others stand beside."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.users: list[str] = []
        self._hit: list[list[bool]] = []
        self._found = np.zeros(len(self.names), np.int64)
        self._hits = np.zeros(len(self.names), np.int64)
        self.n_items = 0

    def add(self, user: str, bought: Collection[str], lists: Sequence[Sequence[str]]) -> list[bool]:
        """Judge one basket: the first K of each list against what was bought; returns which had a hit."""
        basket = set(bought)
        found = [len(basket.intersection(shown[:K])) for shown in lists]
        hit = [n > 0 for n in found]
        self.users.append(user)
        self._hit.append(hit)
        self._found += found
        self._hits += hit
        self.n_items += len(basket)
        return hit

    def __len__(self) -> int:
        return len(self.users)

    def share(self, name: str) -> float:
        """Share of baskets with a hit so far."""
        return float(self._hits[self.names.index(name)]) / max(1, len(self))

    def found(self, name: str) -> float:
        """Share of the purchases that stood in the list."""
        return float(self._found[self.names.index(name)]) / max(1, self.n_items)

    def interval(self, name: str, *, seed: int = 0) -> Share:
        """Share of baskets with a hit; 95% interval by drawing users anew (their baskets are not independent)."""
        hit = np.array([row[self.names.index(name)] for row in self._hit], np.float64)
        return bootstrap(self.users, hit, seed)

    def difference(self, name: str, other: str, *, seed: int = 0) -> Share:
        """By how much the one's share exceeds the other's, on the same baskets."""
        a, b = self.names.index(name), self.names.index(other)
        return bootstrap(self.users, np.array([float(row[a]) - float(row[b]) for row in self._hit]), seed)


def bootstrap(users: Sequence[str], values: np.ndarray, seed: int) -> Share:
    """Mean of `values` (n,), one a basket, and the 2.5% and 97.5% quantiles of it over resampled users."""
    if not len(values):
        return Share(0.0, 0.0, 0.0)
    _, place = np.unique(np.array(users), return_inverse=True)
    n = int(place.max()) + 1
    sums, counts = np.bincount(place, values, n), np.bincount(place, minlength=n)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)
    means = (times @ sums) / np.maximum(1, times @ counts)
    low, high = np.quantile(means, (0.025, 0.975))
    return Share(float(sums.sum() / counts.sum()), float(low), float(high))


class PlainPopularity:
    """The most bought items, by counts that decay with `half_life_ms`, exact as of every purchase added.

    items: names; codes (n,) int64 index into them and times_ms (n,) int64, what was bought so far.
    """

    def __init__(self, items: Sequence[str], codes: np.ndarray, times_ms: np.ndarray, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        # counts are kept as of a fixed moment, so that one purchase changes one number: later ones count more than 1
        self._origin_ms = int(times_ms.max(initial=0))
        self._names = list(items)
        self._codes = {name: code for code, name in enumerate(self._names)}
        self._counts = np.bincount(codes, self._weight(times_ms), len(self._names))

    def _weight(self, time_ms: np.ndarray | int) -> np.ndarray:
        return np.asarray(np.exp2((np.asarray(time_ms) - self._origin_ms) / self._half_life_ms))

    def add(self, items: Sequence[str], time_ms: int) -> None:
        """Count one basket."""
        weight = float(self._weight(time_ms))
        for item in items:
            code = self._codes.get(item)
            if code is None:
                code = self._codes[item] = len(self._names)
                self._names.append(item)
                self._counts = np.append(self._counts, 0.0)
            self._counts[code] += weight

    def top(self, k: int = K) -> list[str]:
        """The k most popular now."""
        k = min(k, len(self._counts))
        if k == 0:
            return []
        best = np.argpartition(-self._counts, k - 1)[:k]
        return [self._names[code] for code in best[np.argsort(-self._counts[best], kind="stable")]]
