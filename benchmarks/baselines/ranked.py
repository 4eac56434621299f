"""Exact top n: what every baseline ends with.

In: scores, dense `(B, n_items)` or as a scratch row with the list of items it touches. Out: a `Ranking`.
Only items that were seen compete, all of them. Equal scores are ordered by a hash of the item: an index tells an item's
age (indices are by first appearance), and a list must not profit from that.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from consumers.backtest.contender import Ranking

NOTHING = -1


@njit(cache=True, inline="always")
def _hashed(item: int) -> np.uint32:
    return np.uint32((np.uint64(item) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32))


@njit(cache=True)
def _worse(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    if score_a != score_b:
        return score_a < score_b
    return _hashed(item_a) < _hashed(item_b)


@njit(cache=True)
def push(scores: np.ndarray, items: np.ndarray, size: int, score: float, item: int) -> int:
    """Offer one item to the heap of the best; its worst stands at 0. Returns the heap's new size."""
    n = scores.shape[0]
    if size < n:
        at = size
        size += 1
        while at > 0:
            parent = (at - 1) >> 1
            if not _worse(score, item, scores[parent], items[parent]):
                break
            scores[at], items[at] = scores[parent], items[parent]
            at = parent
        scores[at], items[at] = score, item
        return size
    if n == 0 or not _worse(scores[0], items[0], score, item):
        return size
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and _worse(scores[child + 1], items[child + 1], scores[child], items[child]):
            child += 1
        if not _worse(scores[child], items[child], score, item):
            break
        scores[at], items[at] = scores[child], items[child]
        at = child
    scores[at], items[at] = score, item
    return size


@njit(cache=True)
def drain(scores: np.ndarray, items: np.ndarray, size: int, out_items: np.ndarray, out_scores: np.ndarray) -> None:
    """Empty the heap into a row, best first; -1 and the last score behind its end."""
    n_full = size
    while size > 0:
        out_items[size - 1] = items[0]
        out_scores[size - 1] = scores[0]
        size -= 1
        score, item = scores[size], items[size]
        at = 0
        while True:
            child = 2 * at + 1
            if child >= size:
                break
            if child + 1 < size and _worse(scores[child + 1], items[child + 1], scores[child], items[child]):
                child += 1
            if not _worse(scores[child], items[child], score, item):
                break
            scores[at], items[at] = scores[child], items[child]
            at = child
        scores[at], items[at] = score, item
    out_items[n_full:] = NOTHING
    out_scores[n_full:] = out_scores[n_full - 1] if n_full else 0.0


@njit(cache=True)
def _best_of_rows(dense: np.ndarray, seen: np.ndarray, out_items: np.ndarray, out_scores: np.ndarray) -> None:
    n = out_items.shape[1]
    scores, items = np.empty(n, np.float64), np.empty(n, np.int64)
    for row in range(dense.shape[0]):
        size = 0
        for item in range(dense.shape[1]):
            if seen[item] and (size < n or dense[row, item] >= scores[0]):
                size = push(scores, items, size, dense[row, item], item)
        drain(scores, items, size, out_items[row], out_scores[row])


@njit(cache=True)
def best_touched(total: np.ndarray, touched: np.ndarray, n_touched: int, shares: np.ndarray, popular: np.ndarray,
                 share_weight: float, out_items: np.ndarray, out_scores: np.ndarray) -> None:
    """Top n of `total + share_weight * shares` over all items, where `total` is 0 but at `touched`, and cleared by this call.

    An untouched item beyond the n most `popular` cannot be in the list, so nothing else need be looked at.
    """
    n = out_items.shape[0]
    scores, items, size = np.empty(n, np.float64), np.empty(n, np.int64), 0
    for at in range(n_touched):
        item = touched[at]
        size = push(scores, items, size, total[item] + share_weight * shares[item], item)
    for at in range(popular.shape[0]):
        item = popular[at]
        if item >= 0 and total[item] == 0.0:
            size = push(scores, items, size, share_weight * shares[item], item)
    for at in range(n_touched):
        total[touched[at]] = 0.0
    drain(scores, items, size, out_items, out_scores)


@njit(cache=True)
def scale(total: np.ndarray, touched: np.ndarray, n_touched: int) -> None:
    """Divide by the largest, so that the weight of popularity means the same in every list."""
    highest = 0.0
    for at in range(n_touched):
        highest = max(highest, total[touched[at]])
    if highest > 0.0:
        for at in range(n_touched):
            total[touched[at]] = max(total[touched[at]] / highest, 1e-300)


def best_of_rows(dense: np.ndarray, seen: np.ndarray, n: int) -> Ranking:
    """The n best items of each row of `dense (B, n_items)` among those `seen (n_items,) bool`."""
    items = np.empty((len(dense), n), np.int32)
    scores = np.empty((len(dense), n), np.float32)
    _best_of_rows(dense, seen, items, scores)
    return Ranking(items, scores)
