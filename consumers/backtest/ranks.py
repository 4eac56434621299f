"""The rank of what a user took, in the list that stood before: pessimistic, and exact about what a list does not say.

A target's rank is the number of listed items whose score is at least its own, so ties are never in its favour. A group of
equal scores that the list's end cuts has members nobody saw: it counts as a miss, unless the list holds every item there is.
Apart is the rank among items of the target's own kind: those that the user has had before, or those that are new to him.
"""

from __future__ import annotations

import numba as nb
import numpy as np

DEPTH = 200  # ranks beyond count as misses
MISS = 0
#: What a list can have wrong, as `find_ranks` returns it.
UNSEEN, TWICE, RISING = 1, 2, 3


@nb.njit(cache=True, nogil=True)
def _wrong(items: np.ndarray, scores: np.ndarray, known: np.ndarray, place: np.ndarray) -> tuple[int, int, int]:
    """Note each item's place in one list; returns (what is wrong or 0, where, the list's length)."""
    for k in range(items.shape[0]):
        item = items[k]
        if item < 0:
            return 0, k, k
        if not known[item]:
            return UNSEEN, k, k
        if place[item] >= 0:
            return TWICE, k, k
        if not scores[k] <= (scores[k - 1] if k else np.float32(np.inf)):  # a score that is no number fails too
            return RISING, k, k
        place[item] = k
    return 0, 0, items.shape[0]


@nb.njit(cache=True, nogil=True)
def find_ranks(
    items: np.ndarray,
    scores: np.ndarray,
    users: np.ndarray,
    baskets: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    pair_start: np.ndarray,
    pair_items: np.ndarray,
    pair_basket: np.ndarray,
    known: np.ndarray,
    n_known: int,
    place: np.ndarray,
    own: np.ndarray,
    out: np.ndarray,
    apart: np.ndarray,
) -> tuple[int, int, int]:
    """Fill `out` and `apart` (n_targets,) int16 with ranks 1 to DEPTH, MISS else; returns (what is wrong, row, where) or zeros.

    items (B, n), scores (B, n): lists; users (B,), baskets (B,) their running numbers; starts (B + 1,) into `targets`, items;
    known (n_items,) bool: learned so far, `n_known` of them; place (n_items,) int32, -1, and own (n_items,) bool: scratch;
    pair_*: see Facts.
    """
    width = items.shape[1]
    n_own = np.empty(width + 1, np.int32)  # of the first so many items of a list, how many the user has had
    for b in range(items.shape[0]):
        wrong, at, length = _wrong(items[b], scores[b], known, place)
        for p in range(pair_start[users[b]], pair_start[users[b] + 1]):
            own[pair_items[p]] = pair_basket[p] < baskets[b]
        n_own[0] = 0
        for k in range(length):
            n_own[k + 1] = n_own[k] + own[items[b, k]]
        cut = width > 0 and length == width and width < n_known
        for t in range(starts[b], starts[b + 1]):
            out[t] = apart[t] = MISS
            end = place[targets[t]]
            if end < 0:
                continue
            score = scores[b, end]
            if cut and score == scores[b, width - 1]:
                continue
            end += 1
            while end < length and scores[b, end] == score:
                end += 1
            same_kind = n_own[end] if own[targets[t]] else end - n_own[end]
            out[t] = end if end <= DEPTH else MISS
            apart[t] = same_kind if same_kind <= DEPTH else MISS
        for k in range(length):
            place[items[b, k]] = -1
        for p in range(pair_start[users[b]], pair_start[users[b] + 1]):
            own[pair_items[p]] = False
        if wrong:
            return wrong, b, at
    return 0, 0, 0


@nb.njit(cache=True, nogil=True)
def keep_kind(
    items: np.ndarray,
    users: np.ndarray,
    baskets: np.ndarray,
    repeat: bool,
    pair_start: np.ndarray,
    pair_items: np.ndarray,
    pair_basket: np.ndarray,
    own: np.ndarray,
) -> None:
    """Close lists (B, n) up in place to items that the user has had before his basket (`repeat`), or has not."""
    for b in range(items.shape[0]):
        for p in range(pair_start[users[b]], pair_start[users[b] + 1]):
            own[pair_items[p]] = pair_basket[p] < baskets[b]
        kept = 0
        for k in range(items.shape[1]):
            item = items[b, k]
            if item >= 0 and own[item] == repeat:
                items[b, kept] = item
                kept += 1
        items[b, kept:] = -1
        for p in range(pair_start[users[b]], pair_start[users[b] + 1]):
            own[pair_items[p]] = False
