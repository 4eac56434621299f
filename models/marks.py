"""Which users wait for a fresh list, and since which event: the arithmetic behind the low-water mark."""

from __future__ import annotations

import numba as nb
import numpy as np

#: No event waits.
CLEAN = -1


@nb.njit(cache=True, nogil=True)
def mark(
    slots: np.ndarray,
    offsets: np.ndarray,
    appended_ms: np.ndarray,
    outcome: np.ndarray,
    waiting_since: np.ndarray,
    produced_ms: np.ndarray,
    changed: np.ndarray,
    newly: np.ndarray,
) -> int:
    """Mark every user of a batch, also of events that were skipped: their lists may not have been published.

    waiting_since (R,) int64: offset of a user's first event that no published list reflects; produced_ms (R,) its
    append time; changed (R,) uint8: the row differs from the one in Redis. Fills `newly` (n,) with the slots that did
    not wait before, in order, and returns their number.
    """
    n_new = 0
    for e in range(slots.shape[0]):
        s = slots[e]
        if outcome[e] != 0:
            changed[s] = 1
        if waiting_since[s] == CLEAN:
            waiting_since[s] = offsets[e]
            produced_ms[s] = appended_ms[e]
            newly[n_new] = s
            n_new += 1
    return n_new


@nb.njit(cache=True, nogil=True)
def oldest_waiting(
    partitions: np.ndarray, waiting_since: np.ndarray, publishing_since: np.ndarray, n_partitions: int
) -> np.ndarray:
    """Per partition the lowest offset that no published list reflects, or the largest int64 where none waits."""
    oldest = np.full(n_partitions, np.iinfo(np.int64).max, np.int64)
    for s in range(partitions.shape[0]):
        p = partitions[s]
        if p < 0:
            continue
        if waiting_since[s] != CLEAN and waiting_since[s] < oldest[p]:
            oldest[p] = waiting_since[s]
        if publishing_since[s] != CLEAN and publishing_since[s] < oldest[p]:
            oldest[p] = publishing_since[s]
    return oldest
