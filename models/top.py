"""The best k of many: exact search, and what picks the best of scores; ties go to the lower slot.

A heap of 100 costs a mispredicted branch at most levels of every insertion. Here a bound that k of the maxima of short
blocks reach is one that at least k scores reach, and few more; only those are sorted.
"""

from __future__ import annotations

import numba as nb
import numpy as np

#: Vectors of a tile: scores of a batch stay in the second cache.
TILE = 2_048
BLOCK = 64
N_BINS = 256
#: What rounding may take away from a bound, as a share of the largest value.
ROUNDING = 1e-6


@nb.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def bound_of(values: np.ndarray, n: int, k: int) -> np.float32:
    """A bound that at least k of values[:n] reach, and not many more unless they are equal; k <= n.

    Read off a histogram: no branch depends on a value.
    """
    least, most = values[0], values[0]
    for j in range(n):
        least = min(least, values[j])
        most = max(most, values[j])
    if not most - least > np.float32(1e-30):
        return np.float32(least)
    counts = np.zeros(N_BINS, np.int32)
    scale = np.float32(N_BINS - 1) / (most - least)
    for j in range(n):
        counts[min(N_BINS - 1, int((values[j] - least) * scale))] += 1
    reached, at = 0, N_BINS
    while reached < k:
        at -= 1
        reached += counts[at]
    rounding = np.float32(ROUNDING) * max(abs(least), abs(most))
    return np.float32(least + (np.float32(at) - np.float32(0.01)) / scale - rounding)


@nb.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def block_maxima(scores: np.ndarray, n: int, width: int, maxima: np.ndarray) -> int:
    """Maxima of scores[:n] in blocks of `width`; returns how many."""
    m = 0
    for first in range(0, n, width):
        most = scores[first]
        for j in range(first + 1, min(first + width, n)):
            most = max(most, scores[j])
        maxima[m] = most
        m += 1
    return m


@nb.njit(cache=True, nogil=True)
def sort_best(scores: np.ndarray, slots: np.ndarray, n: int, k: int, best_slots: np.ndarray, best_scores: np.ndarray) -> None:
    """Fill the best k of n in order: larger scores first, of equals the lower slot. n >= k; `scores` float32."""
    bits = scores.view(np.uint32)
    keys = np.empty(n, np.uint64)
    for j in range(n):
        high = bits[j] if scores[j] != np.float32(0) else np.uint32(0)  # -0 is 0
        # floats in the order of their bits: negative ones turned round, so that all compare as whole numbers
        high = np.uint32(~high) if high >> np.uint32(31) else np.uint32(high | np.uint32(0x80000000))
        keys[j] = (np.uint64(np.uint32(~high)) << np.uint64(32)) | np.uint64(slots[j])
    if n > 4 * k:  # many ties
        keys = np.partition(keys, k - 1)[:k].copy()
    keys.sort()
    bits_of_one = np.empty(1, np.uint32)
    as_float = bits_of_one.view(np.float32)
    for j in range(k):
        best_slots[j] = np.int32(keys[j] & np.uint64(0xFFFFFFFF))
        high = np.uint32(~np.uint32(keys[j] >> np.uint64(32)))
        bits_of_one[0] = np.uint32(high & np.uint32(0x7FFFFFFF)) if high >> np.uint32(31) else np.uint32(~high)
        best_scores[j] = as_float[0]


@nb.njit(cache=True, nogil=True)
def _best_of_tiles(tiles: np.ndarray, n: int, k: int, slots: np.ndarray, scores: np.ndarray) -> None:
    """Best k of n scores for each query, from `tiles` (n_tiles, B, TILE)."""
    maxima = np.empty(n // BLOCK + tiles.shape[0], np.float32)
    candidates, found = np.empty(n + 1, np.int32), np.empty(n + 1, np.float32)
    for b in range(tiles.shape[1]):
        m = 0
        for t in range(tiles.shape[0]):
            m += block_maxima(tiles[t, b], min(TILE, n - t * TILE), BLOCK, maxima[m:])
        bound = bound_of(maxima, m, k) if m >= k else np.float32(-np.inf)
        n_found = 0
        for at in range(m):
            if maxima[at] < bound:
                continue
            t, first = at // (TILE // BLOCK), at % (TILE // BLOCK) * BLOCK
            for j in range(first, min(first + BLOCK, n - t * TILE)):
                if tiles[t, b, j] >= bound:
                    candidates[n_found] = t * TILE + j
                    found[n_found] = tiles[t, b, j]
                    n_found += 1
        sort_best(found, candidates, n_found, k, slots[b], scores[b])


def room_for(n_queries: int, n: int) -> np.ndarray:
    """Memory for all scores, (n_tiles, n_queries, TILE) float32."""
    return np.empty((-(-n // TILE), n_queries, TILE), np.float32)


def exact_search(
    queries: np.ndarray, vectors: np.ndarray, k: int, tiles: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Best k of n vectors for each query: slots (B, k) int32 and dot products (B, k) float32, k cut to n.

    tiles: what `room_for` returned; asking the system for that memory anew costs as much as a tenth of the search.
    """
    n, n_queries = len(vectors), len(queries)
    k = min(k, n)
    slots, scores = np.empty((n_queries, k), np.int32), np.empty((n_queries, k), np.float32)
    if not k or not n_queries:
        return slots, scores
    if tiles is None:
        tiles = room_for(n_queries, n)
    for t in range(len(tiles)):
        tile = vectors[t * TILE : (t + 1) * TILE]
        np.matmul(queries, tile.T, out=tiles[t, :, : len(tile)])
    _best_of_tiles(tiles, n, k, slots, scores)
    return slots, scores
