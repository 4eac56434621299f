"""The k vectors with the largest dot product: exact in small catalogues, from inverted lists in large ones.

In: queries (B, d) and vectors (n, d), both float32. Out: slots and dot products, best first; ties go to the lower slot.
Scores are always those of the vectors as they are now. Vectors may move between calls, and new ones may follow behind the
old ones: a new one is found by the next search.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.inverted_lists import FAST, WIDTH, cut_up, empty_index, fill, grown, length_of, nearest, put_all, split
from models.top import BLOCK, TILE, block_maxima, bound_of, exact_search, room_for, sort_best

#: Up to so many vectors search is exact: beyond, lists are faster.
EXACT_UP_TO = 16_384
#: Vectors read for a query, on average, beyond that, times n ** 1/4, and more above so many: 3,000 of 100,000, 14,000 of a million.
#: Recall@100 is above 0.99 then on all that was measured (benchmarks/retrieval.py).
READ, MANY, READ_OF_MANY = 170.0, 100_000, 0.42
#: After so many moves slots are looked at, whether another list is nearer by now: so many of all, of the newest sixteenth, and of the
#: newest 256th, each in turn. A vector moves most when it is new: of what is missed otherwise, nearly all is new.
MOVES, N_LOOKED_AT = 32, 16
#: After many moves at once more are looked at, up to so many times as many: some milliseconds.
MOST_TIMES = 24
NEWEST = (1, 16, 256)
#: Until all have had a first look: so many of all.
N_FIRST_LOOKS = 256
#: Lists are dissolved when on average they are filled to less than one part in so many.
SPARSE = 4


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _read(queries: np.ndarray, b: int, vectors: np.ndarray, slots: np.ndarray, n: int, scores: np.ndarray) -> None:
    """Dot products of one query with n vectors; four at a time, whose sums run side by side."""
    k = 0
    while k + 4 <= n:
        i0, i1, i2, i3 = slots[k], slots[k + 1], slots[k + 2], slots[k + 3]
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for f in range(queries.shape[1]):
            q = queries[b, f]
            s0 += q * vectors[i0, f]
            s1 += q * vectors[i1, f]
            s2 += q * vectors[i2, f]
            s3 += q * vectors[i3, f]
        scores[k], scores[k + 1], scores[k + 2], scores[k + 3] = s0, s1, s2, s3
        k += 4
    while k < n:
        s0 = np.float32(0)
        for f in range(queries.shape[1]):
            s0 += queries[b, f] * vectors[slots[k], f]
        scores[k] = s0
        k += 1


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _read_for_two(
    queries: np.ndarray, a: int, b: int, vectors: np.ndarray, slots: np.ndarray, n: int, of_a: np.ndarray, of_b: np.ndarray
) -> None:
    """The same for two queries at once: most of the time goes into fetching vectors."""
    k = 0
    while k + 4 <= n:
        i0, i1, i2, i3 = slots[k], slots[k + 1], slots[k + 2], slots[k + 3]
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for f in range(queries.shape[1]):
            p, q = queries[a, f], queries[b, f]
            s0 += p * vectors[i0, f]
            s1 += p * vectors[i1, f]
            s2 += p * vectors[i2, f]
            s3 += p * vectors[i3, f]
            t0 += q * vectors[i0, f]
            t1 += q * vectors[i1, f]
            t2 += q * vectors[i2, f]
            t3 += q * vectors[i3, f]
        of_a[k], of_a[k + 1], of_a[k + 2], of_a[k + 3] = s0, s1, s2, s3
        of_b[k], of_b[k + 1], of_b[k + 2], of_b[k + 3] = t0, t1, t2, t3
        k += 4
    if k < n:
        _read(queries, a, vectors, slots[k:], n - k, of_a[k:])
        _read(queries, b, vectors, slots[k:], n - k, of_b[k:])


@nb.njit(cache=True, nogil=True)
def _choose_lists(nearness: np.ndarray, n_probes: int, lists: np.ndarray) -> int:
    """Fill `lists` with the n_probes lists, or a few more, with the largest nearness (L,); returns how many."""
    bound = bound_of(nearness, nearness.shape[0], n_probes)
    n = 0
    for at in range(nearness.shape[0]):
        if nearness[at] >= bound and n < lists.shape[0]:
            lists[n] = at
            n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _best_of_lists(
    queries: np.ndarray,
    vectors: np.ndarray,
    nearness: np.ndarray,
    members: np.ndarray,
    sizes: np.ndarray,
    n_probes: int,
    k: int,
    slots: np.ndarray,
    scores: np.ndarray,
) -> np.ndarray:
    """Best k of what stands in the lists with the largest `nearness` (B, L). Each list is read once, for all who want it.

    Returns how many vectors were read for each query; where that is less than k, nothing is filled in.
    """
    n_queries, n_lists = nearness.shape
    chosen = np.empty((n_queries, 2 * n_probes), np.int32)
    n_chosen = np.empty(n_queries, np.int64)
    ends = np.zeros(n_lists + 1, np.int64)
    n_read = np.zeros(n_queries, np.int64)
    for b in range(n_queries):
        n_chosen[b] = _choose_lists(nearness[b], n_probes, chosen[b])
        for c in range(n_chosen[b]):
            ends[chosen[b, c] + 1] += 1
            n_read[b] += sizes[chosen[b, c]]
    ends = np.cumsum(ends)
    wanted_by = np.empty(ends[n_lists], np.int32)
    for b in range(n_queries):
        for c in range(n_chosen[b]):
            wanted_by[ends[chosen[b, c]]] = b
            ends[chosen[b, c]] += 1
    most = n_read.max()
    rows, dots = np.empty((n_queries, most), np.int32), np.empty((n_queries, most), np.float32)
    n_filled = np.zeros(n_queries, np.int64)
    first = 0
    for at in range(n_lists):
        n, slots_of = sizes[at], members[at]
        for w in range(first, ends[at]):
            b = wanted_by[w]
            to = n_filled[b]
            for j in range(n):
                rows[b, to + j] = slots_of[j]
            if (w - first) % 2:
                a = wanted_by[w - 1]
                _read_for_two(queries, a, b, vectors, slots_of, n, dots[a, n_filled[a] - n :], dots[b, to:])
            elif w + 1 == ends[at]:
                _read(queries, b, vectors, slots_of, n, dots[b, to:])
            n_filled[b] = to + n
        first = ends[at]
    candidates, found = np.empty(most, np.int32), np.empty(most, np.float32)
    maxima = np.empty(most, np.float32)
    for b in range(n_queries):
        n = n_read[b]
        if n < k:
            continue
        bound = bound_of(maxima, block_maxima(dots[b], n, min(BLOCK, max(1, n // (4 * k))), maxima), k)
        n_found = 0
        for j in range(n):
            if dots[b, j] >= bound:
                candidates[n_found] = rows[b, j]
                found[n_found] = dots[b, j]
                n_found += 1
        sort_best(found, candidates, n_found, k, slots[b], scores[b])
    return n_read


class Retrieval:
    """Searches vectors that move, and keeps what it needs for that. The same calls give the same answers.

    >>> vectors = np.eye(3, dtype=np.float32)
    >>> slots, scores = Retrieval().search(np.array([[1, 3, 2]], np.float32), vectors, 2)
    >>> slots.tolist(), scores.tolist()
    ([[1, 2]], [[3.0, 2.0]])
    """

    def __init__(self, *, exact_up_to: int = EXACT_UP_TO, read: float = READ) -> None:
        self.exact_up_to, self.read = exact_up_to, read
        self._tiles: np.ndarray | None = None
        self._forget()

    def _forget(self) -> None:
        self.n_slots = self.n_lists = 0  # slots in lists; lists, those not in use among them
        self._next = [0] * len(NEWEST)  # how many were looked at
        self._moves = 0  # since then
        self._first_looks = 0  # so many slots have not been looked at since all was cut up
        self._index = empty_index(0, 0, 0)

    def search(self, queries: np.ndarray, vectors: np.ndarray, k: int, n_moves: int = MOVES) -> tuple[np.ndarray, np.ndarray]:
        """Best k of n vectors for each query: slots (B, k) int32 and dot products (B, k) float32, k cut to n. n_moves: how often
        about a vector has moved since the last call."""
        n, n_queries = len(vectors), len(queries)
        if n <= self.exact_up_to or k * 4 >= n:
            if self._tiles is None or self._tiles.shape[:2] != (-(-n // TILE), n_queries):
                self._tiles = room_for(n_queries, n)
            return exact_search(queries, vectors, k, self._tiles)
        self._moves += n_moves
        if n != self.n_slots or self._moves >= MOVES:
            self.keep(vectors)
        slots, scores = np.empty((n_queries, k), np.int32), np.empty((n_queries, k), np.float32)
        n_read = max(self.read * n**0.25 * max(1.0, n / MANY) ** READ_OF_MANY, 8.0 * k)
        n_probes = min(self.n_lists, max(8, int(n_read * self.n_lists / n) + 1))
        index = self._index
        nearness = queries @ index.centres[: self.n_lists].T
        n_read = _best_of_lists(queries, vectors, nearness, index.members, index.sizes, n_probes, k, slots, scores)
        for b in np.flatnonzero(n_read < k):  # its lists are almost empty
            slots[b : b + 1], scores[b : b + 1] = exact_search(queries[b : b + 1], vectors, k)
        return slots, scores

    def keep(self, vectors: np.ndarray) -> None:
        """Keep the lists: new slots get theirs, a few old ones are looked at again. `search` does this by itself, now and then.

        Costs a fraction of a millisecond; but a second for a million vectors of which most are new.
        """
        n = len(vectors)
        if n < self.n_slots or n > 2 * self.n_slots:
            self._build(vectors)
        if n > len(self._index.list_of):
            self._index = grown(self._index, len(self._index.sizes), 2 * n)
        for first in range(self.n_slots, n, TILE):
            self._put(vectors, np.arange(first, min(first + TILE, n), dtype=np.int32))
        times = min(max(1, self._moves // MOVES), MOST_TIMES)
        self.n_slots, self._moves = n, 0
        slots = []
        for turn, part in enumerate(NEWEST):
            window = -(-n // part)
            looks = min(window, N_FIRST_LOOKS if part == 1 and self._first_looks > 0 else N_LOOKED_AT * times)
            slots.append(n - 1 - (self._next[turn] + np.arange(looks)) % window)
            self._next[turn] += looks
        self._put(vectors, np.concatenate(slots).astype(np.int32), len(slots[0]))
        self._first_looks -= N_FIRST_LOOKS
        self._dissolve(vectors)

    def _build(self, vectors: np.ndarray) -> None:
        self._forget()
        n = len(vectors)
        slots, ends = cut_up(vectors, n, length_of(n))
        self._index = empty_index(2 * len(ends), 2 * n, vectors.shape[1])
        fill(self._index, vectors, slots, ends)
        self.n_lists, self.n_slots, self._first_looks = len(ends), n, n

    def _put(self, vectors: np.ndarray, slots: np.ndarray, n_drawing: int = 0) -> None:
        """Put slots into the lists where they belong now, and cut those that get too long."""
        lists = np.zeros(len(slots), np.int32)
        nearest(vectors[slots] @ self._index.centres[: self.n_lists].T, self._index.halves, lists)
        done, longest = 0, length_of(len(vectors))
        while done < len(slots):
            done = put_all(self._index, vectors, slots, lists, longest, done, n_drawing)
            longer = int(lists[done - 1])
            if self._index.sizes[longer] > longest:
                new = self._unused_list()  # first: the index may be replaced by a larger one
                split(self._index, vectors, longer, new)

    def _unused_list(self) -> int:
        unused = np.flatnonzero(np.isinf(self._index.halves[: self.n_lists]) & (self._index.sizes[: self.n_lists] == 0))
        if len(unused):
            return int(unused[0])
        if self.n_lists == len(self._index.sizes):
            self._index = grown(self._index, 2 * self.n_lists, len(self._index.list_of))
        self.n_lists += 1
        return self.n_lists - 1

    def _dissolve(self, vectors: np.ndarray) -> None:
        """Where lists have got too many and too short: the slots of the shortest go into others."""
        bearable = SPARSE * len(vectors) / length_of(len(vectors))
        if self.n_lists <= bearable:
            return
        used = np.flatnonzero(np.isfinite(self._index.halves[: self.n_lists]))
        too_many = int(min(len(used) - bearable, N_LOOKED_AT))
        if too_many <= 0:
            return
        shortest = used[np.argsort(self._index.sizes[used], kind="stable")[:too_many]]
        self._index.halves[shortest] = np.inf
        self._index.centres[shortest] = 0
        for at in shortest.tolist():
            slots = self._index.members[at, : self._index.sizes[at]].copy()
            if len(slots):
                self._put(vectors, slots)
