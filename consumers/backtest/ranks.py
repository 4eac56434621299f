"""The rank of what a user took, in the list that stood before: pessimistic, and exact about what a list does not say.

A target's rank is the number of listed items whose score is at least its own, so ties are never in its favour. A group of
equal scores that the list's end cuts has members nobody saw: it counts as a miss, unless the list holds every item there is.
"""

from __future__ import annotations

import numba as nb
import numpy as np

ALL, NEW, REPEAT = 0, 1, 2
DEPTH = 200  # ranks beyond count as misses
MISS = 0
#: What a list can have wrong, as `find_ranks` returns it.
UNSEEN, TWICE, RISING = 1, 2, 3


@nb.njit(cache=True, nogil=True)
def _has(items: np.ndarray, baskets: np.ndarray, start: int, end: int, item: int, before: int) -> bool:
    """Whether `item` stands in items[start:end] (ascending), first had before basket `before`."""
    low, high = start, end
    while low < high:
        middle = (low + high) // 2
        if items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return bool(low < end and items[low] == item and baskets[low] < before)


@nb.njit(cache=True, nogil=True)
def find_ranks(
    items: np.ndarray,
    scores: np.ndarray,
    users: np.ndarray,
    baskets: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    repeats: int,
    pair_start: np.ndarray,
    pair_items: np.ndarray,
    pair_basket: np.ndarray,
    known: np.ndarray,
    n_known: int,
    mark: np.ndarray,
    out: np.ndarray,
) -> tuple[int, int, int]:
    """Fill `out` (n_targets,) int16 with ranks 1 to DEPTH, MISS else; returns (what is wrong, row, place), zeros if nothing.

    items (B, n), scores (B, n): lists, closed up in place to those that `repeats` leaves (ALL, NEW to the user, REPEAT);
    users (B,), baskets (B,) their running numbers; starts (B + 1,) into `targets`, items; known (n_items,) bool: learned so
    far, `n_known` of them; mark (n_items,) int64 scratch, -1; pair_*: see Facts.
    """
    width = items.shape[1]
    for b in range(items.shape[0]):
        first, end = pair_start[users[b]], pair_start[users[b] + 1]
        full = width > 0 and items[b, width - 1] >= 0 and width < n_known
        last_score = scores[b, width - 1] if full else np.float32(0)
        kept = 0
        wrong, at = 0, 0
        for k in range(width):
            item = items[b, k]
            if item < 0:
                break
            if not known[item]:
                wrong, at = UNSEEN, k
                break
            if mark[item] >= 0:
                wrong, at = TWICE, k
                break
            if k and not scores[b, k] <= scores[b, k - 1]:  # a score that is no number fails too
                wrong, at = RISING, k
                break
            mark[item] = k
        for k in range(width):
            item = items[b, k]
            if item < 0:
                break
            mark[item] = -1
            if repeats != ALL and _has(pair_items, pair_basket, first, end, item, baskets[b]) != (repeats == REPEAT):
                continue
            items[b, kept], scores[b, kept] = item, scores[b, k]
            kept += 1
        if wrong:
            return wrong, b, at
        items[b, kept:] = -1
        for t in range(starts[b], starts[b + 1]):
            out[t] = MISS
            for k in range(kept):
                if items[b, k] != targets[t]:
                    continue
                score = scores[b, k]
                rank = k + 1
                while rank < kept and scores[b, rank] == score:
                    rank += 1
                if rank <= DEPTH and not (full and score == last_score):
                    out[t] = rank
                break
    return 0, 0, 0
