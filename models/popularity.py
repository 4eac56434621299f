"""Windowed popularity: each item's share of what happened in the last hour, day, week, and over a long half-life.

The same for all users, so it is computed once for many: a dense share per item and window, and their mixture in order.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from models.fastlog import log_all
from models.item_rows import DAY_MS, LONG_PER_HALF_LIFE, N_RINGS, RING_BUCKETS, RING_START, ItemRules

WINDOWS = ("popular_1h", "popular_1d", "popular_7d", "popular")
#: So many of the top of each window are candidates for everybody.
N_PICKS = (20, 40, 80, 80)
#: What fusion is told of each item, near 0 and between -4 and 4: log share in each window, log age, log
#: time since it was last taken, log share of takings by people who had had it before, and their mean gap, log(1 + days).
N_FACTS = 8
AGE, IDLE, REPEATS, GAP = range(N_RINGS, N_RINGS + 4)
LEAST_SHARE = np.float32(1e-6)


class Popularity(NamedTuple):
    """`mixture` (n_items,) float32: weighted sum of the window shares; `window` (n_items,) uint8: which one gave most;
    `order` (k,) int32: visible items, best first, ties by hash; `picks` (p,) int32: the top of each window that has weight;
    `facts` (n_items, N_FACTS) float32; `fingerprints` (n_items,) uint16 of the items' hashes, by which ghosts know them."""

    mixture: np.ndarray
    window: np.ndarray
    order: np.ndarray
    picks: np.ndarray
    facts: np.ndarray
    fingerprints: np.ndarray


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
    facts = np.empty((N_FACTS, len(item_rows)), np.float32)
    _facts(item_rows, now_ms, shares, facts)
    weighted = shares * weights[:, None].astype(np.float32)
    mixture = weighted.sum(axis=0)
    shown = np.flatnonzero(visible)
    if len(shown) > n_order:
        shown = shown[np.argpartition(-mixture[shown], n_order - 1)[:n_order]]
    order = shown[np.lexsort((item_rows["hash"][shown], -mixture[shown]))]
    tops = [_top(shares[r], item_rows["hash"], N_PICKS[r]) for r in np.flatnonzero(weights > 0)]
    picks = np.unique(np.concatenate(tops)) if tops else np.empty(0, np.int64)
    return Popularity(mixture, weighted.argmax(axis=0).astype(np.uint8), order.astype(np.int32), picks.astype(np.int32),
                      np.ascontiguousarray(facts.T), (item_rows["hash"] >> np.uint64(48)).astype(np.uint16))


@nb.njit(cache=True, nogil=True)
def _facts(item_rows: np.ndarray, now_ms: int, shares: np.ndarray, facts: np.ndarray) -> None:
    facts[:] = 0
    one, days = np.float32(1.0), np.float32(1.0 / DAY_MS)
    for i in range(item_rows.shape[0]):
        facts[AGE, i] = one + days * np.float32(max(0, now_ms - item_rows[i]["first_ms"]))
        facts[IDLE, i] = one + days * np.float32(max(0, now_ms - item_rows[i]["last_ms"]))
        row = item_rows[i]
        # shrunk to what is usual: a fifth are repeats, after 20 days
        facts[REPEATS, i] = (np.float32(row["repeats"]) + np.float32(2.0)) / (np.float32(row["touches"]) + np.float32(10.0))
        gaps = np.float32(row["gaps"]) * np.float32(0.6931472 / 16.0)
        facts[GAP, i] = (gaps + np.float32(9.0)) / (np.float32(row["repeats"]) + np.float32(3.0))
    for f in range(N_RINGS + 3):
        if f < N_RINGS:
            facts[f] = shares[f] + LEAST_SHARE
        log_all(facts[f])
        if f < N_RINGS:
            facts[f] = (facts[f] + np.float32(9.0)) * np.float32(0.5)
    facts[AGE] -= np.float32(4.0)
    facts[IDLE] -= np.float32(1.0)
    facts[REPEATS] += np.float32(1.5)


def with_new(popular: Popularity, n_items: int) -> Popularity:
    """The same with items that have come since: of them nothing is known but that they are new."""
    n = n_items - len(popular.mixture)
    if n <= 0:
        return popular
    unknown = np.zeros((n, N_FACTS), np.float32)
    unknown[:, :N_RINGS] = (np.log(LEAST_SHARE) + 9.0) / 2.0
    unknown[:, AGE], unknown[:, IDLE], unknown[:, REPEATS], unknown[:, GAP] = -4.0, -1.0, np.log(0.2) + 1.5, 3.0
    return popular._replace(
        mixture=np.concatenate([popular.mixture, np.zeros(n, np.float32)]),
        window=np.concatenate([popular.window, np.zeros(n, np.uint8)]),
        facts=np.concatenate([popular.facts, unknown]),
        fingerprints=np.concatenate([popular.fingerprints, np.zeros(n, np.uint16)]),
    )


def _top(shares: np.ndarray, hashes: np.ndarray, n: int) -> np.ndarray:
    """The n largest that are not 0; of equals the ones with the lowest hashes."""
    bar = np.partition(shares, len(shares) - n)[len(shares) - n] if len(shares) > n else np.float32(0)
    above, level = np.flatnonzero(shares > bar), np.flatnonzero((shares == bar) & (shares > 0))
    return np.concatenate([above, level[np.argsort(hashes[level])][: n - len(above)]])
