"""Windowed popularity: each item's share of what happened in the last hour, day, week, and over a long half-life.

The same for all users, so it is computed once for many: a dense share per item and window, and their mixture in order.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from models.item_rows import LONG_PER_HALF_LIFE, N_RINGS, RING_BUCKETS, RING_START, ItemRules

WINDOWS = ("popular_1h", "popular_1d", "popular_7d", "popular")


class Popularity(NamedTuple):
    """`mixture` (n_items,) float32: weighted sum of the window shares; `window` (n_items,) uint8: which one gave most;
    `order` (k,) int32: visible items, best first, ties by hash."""

    mixture: np.ndarray
    window: np.ndarray
    order: np.ndarray


@nb.njit(cache=True, nogil=True)
def _shares(
    item_rows: np.ndarray, visible: np.ndarray, now_ms: int, ring_ms: np.ndarray, weights: np.ndarray, shares: np.ndarray
) -> None:
    n_items = item_rows.shape[0]
    for r in range(N_RINGS):
        if weights[r] == 0:
            continue
        size = RING_BUCKETS[r]
        factors = np.ones(size)  # by age
        if r == N_RINGS - 1:
            for k in range(size):
                factors[k] = 2.0 ** (-k / LONG_PER_HALF_LIFE)
        bucket_now = now_ms // ring_ms[r]
        total = 0.0
        for i in range(n_items):
            if not visible[i]:
                continue
            newest = item_rows[i]["newest"][r]
            weight = 0.0
            cell = RING_START[r] + newest % size
            counts = item_rows[i]["counts"]
            for k in range(min(size, size - (bucket_now - newest), newest + 1)):
                weight += counts[cell] * factors[max(bucket_now - newest + k, 0)]
                cell = cell - 1 if cell > RING_START[r] else RING_START[r] + size - 1
            if weight > 0:
                shares[r, i] = weight
                total += weight
        if total > 0:
            for i in range(n_items):
                shares[r, i] /= total


def popularity(
    item_rows: np.ndarray, visible: np.ndarray, now_ms: int, rules: ItemRules, weights: np.ndarray, n_order: int
) -> Popularity:
    """Popularity of all items at event time `now_ms`; weights (4,) of the windows, `n_order` items in the order."""
    shares = np.zeros((N_RINGS, len(item_rows)), np.float32)
    _shares(item_rows, visible, now_ms, rules.ring_ms, weights, shares)
    weighted = shares * weights[:, None].astype(np.float32)
    mixture = weighted.sum(axis=0)
    shown = np.flatnonzero(visible)
    if len(shown) > n_order:
        shown = shown[np.argpartition(-mixture[shown], n_order - 1)[:n_order]]
    order = shown[np.lexsort((item_rows["hash"][shown], -mixture[shown]))]
    return Popularity(mixture, weighted.argmax(axis=0).astype(np.uint8), order.astype(np.int32))
