"""The k vectors with the largest dot product: exact search.

In: queries (B, d) and vectors (n, d). Out: slots and dot products, best first. Ties go to the lower slot.
"""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def _sift_down(scores: np.ndarray, slots: np.ndarray, at: int, n: int) -> None:
    # a heap whose root is the worst that is kept: lowest score, of equals the highest slot
    while True:
        worst = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < n and (
                scores[child] < scores[worst] or (scores[child] == scores[worst] and slots[child] > slots[worst])
            ):
                worst = child
        if worst == at:
            return
        scores[at], scores[worst] = scores[worst], scores[at]
        slots[at], slots[worst] = slots[worst], slots[at]
        at = worst


@nb.njit(cache=True, nogil=True)
def _top(scores: np.ndarray, top_slots: np.ndarray, top_scores: np.ndarray) -> None:
    k = top_slots.shape[1]
    for b in range(scores.shape[0]):
        heap_scores, heap_slots = top_scores[b], top_slots[b]
        for j in range(k):
            heap_scores[j] = scores[b, j]
            heap_slots[j] = j
        for j in range(k // 2 - 1, -1, -1):
            _sift_down(heap_scores, heap_slots, j, k)
        bound = heap_scores[0]
        for j in range(k, scores.shape[1]):
            if scores[b, j] > bound:
                heap_scores[0] = scores[b, j]
                heap_slots[0] = j
                _sift_down(heap_scores, heap_slots, 0, k)
                bound = heap_scores[0]
        for n in range(k - 1, 0, -1):
            heap_scores[0], heap_scores[n] = heap_scores[n], heap_scores[0]
            heap_slots[0], heap_slots[n] = heap_slots[n], heap_slots[0]
            _sift_down(heap_scores, heap_slots, 0, n)


def search(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Best k of n vectors for each query: slots (B, k) int32 and dot products (B, k) float32, k cut to n."""
    k = min(k, len(vectors))
    slots, scores = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
    if k:
        _top(queries @ vectors.T, slots, scores)
    return slots, scores
