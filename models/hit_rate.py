"""How often the lists are right, and whether that has changed: the drift signal.

In: for each lesson of the fusion, of how many baskets an item stood among the first ten of the list that the user would have
been shown, filters and all. ADWIN (Bifet and Gavalda 2007, as in
river) keeps a window as long as its mean stays the same, and cuts it where it does not; a cut downwards is drift.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from river.drift.adwin import ADWIN

#: How long a list is judged by.
N_SHOWN = 10
#: Chance of a false alarm at each look.
DELTA = 0.002


@nb.njit(cache=True, nogil=True)
def count_hits(shown: np.ndarray, taken: np.ndarray, ends: np.ndarray) -> int:
    """Of how many baskets an item was shown: shown (B, n) int32 item slots, taken (T,) those of basket b until ends[b]; negative
    ones are no item."""
    n_hits, start = 0, 0
    for b in range(shown.shape[0]):
        hit = False
        for t in range(start, ends[b]):
            for k in range(shown.shape[1]):
                hit = hit or (taken[t] >= 0 and shown[b, k] == taken[t])
        n_hits += hit
        start = ends[b]
    return n_hits


class HitRate:
    """Share of baskets with a hit among the first ten, over a window in which it has not changed.

    >>> hits = HitRate()
    >>> for good in [8] * 400 + [1] * 200:
    ...     hits.add(good, 10)
    >>> hits.n_drifts > 0 and hits.value < 0.2
    True
    """

    def __init__(self) -> None:
        self._window = ADWIN(delta=DELTA)
        self.n_drifts = 0

    @property
    def value(self) -> float:
        """The share, 0 before anything is known."""
        return float(self._window.estimation)

    def add(self, n_hits: int, n: int) -> None:
        """Count n baskets, of which n_hits had a hit."""
        if n <= 0:
            return
        before = self.value
        self._window.update(n_hits / n)
        if self._window.drift_detected and self.value < before:
            self.n_drifts += 1
