"""Inverted lists over vectors that move: each slot stands in the list of the centre that is nearest to it.

Lists hold slots, not vectors. Whoever searches reads the vectors as they are now, so a list that lags behind them costs a
little recall and never a wrong score. Near means Euclidean, also where the best dot products are wanted: lists by largest dot
product crowd round the longest centres, and need 2 to 10 times as many vectors read for the same recall.

Built by cutting in two until no list is longer than it may be; kept by looking at a few slots in turn (online k-means,
MacQueen 1967: a slot goes to the nearest centre, and draws it towards itself) and by cutting lists that have grown too
long (as SPFresh does, Xu et al., SOSP 2023). Work per call is bounded; nothing is ever rebuilt.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

#: Places in a list. Lists are cut earlier, at `length_of`.
WIDTH = 512
#: Vectors that say where a list is to be cut.
N_SAMPLE = 512
N_STEPS = 6
FAST = {"reassoc", "contract", "nsz"}


class Index(NamedTuple):
    """Arrays of the lists. Capacity L of lists, C of slots.

    centres (L, d) float32; halves (L,) float32: half of their squared norms, infinite where a list is not in use; members
    (L, WIDTH) int32 slots, of which sizes (L,) int32 are in use; list_of (C,) and place (C,) int32: where each slot stands,
    -1 in no list.
    """

    centres: np.ndarray
    halves: np.ndarray
    members: np.ndarray
    sizes: np.ndarray
    list_of: np.ndarray
    place: np.ndarray


def empty_index(n_lists: int, n_slots: int, d: int) -> Index:
    """Room for so many lists and slots."""
    return Index(
        centres=np.zeros((n_lists, d), np.float32),
        halves=np.full(n_lists, np.inf, np.float32),
        members=np.zeros((n_lists, WIDTH), np.int32),
        sizes=np.zeros(n_lists, np.int32),
        list_of=np.full(n_slots, -1, np.int32),
        place=np.zeros(n_slots, np.int32),
    )


def grown(old: Index, n_lists: int, n_slots: int) -> Index:
    """The same with more room."""
    new = empty_index(n_lists, n_slots, old.centres.shape[1])
    for was, now in zip(old, new, strict=True):
        now[: len(was)] = was
    return new


def length_of(n: int) -> int:
    """Longest list among n vectors: so many that choosing lists costs about what reading them does."""
    return int(min(max(32.0, 0.3 * n**0.5), WIDTH - WIDTH // 4))


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _side(vectors: np.ndarray, slot: int, two: np.ndarray, bias: np.float32) -> int:
    """Which of two centres is nearer."""
    ahead = -bias
    for f in range(vectors.shape[1]):
        ahead += vectors[slot, f] * (two[1, f] - two[0, f])
    return 1 if ahead > 0 else 0


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _bias(two: np.ndarray) -> np.float32:
    """Half the difference of the squared norms."""
    bias = np.float32(0)
    for f in range(two.shape[1]):
        bias += two[1, f] * two[1, f] - two[0, f] * two[0, f]
    return bias / np.float32(2)


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _two_means(vectors: np.ndarray, slots: np.ndarray, first: int, last: int, two: np.ndarray) -> None:
    """Two centres of slots[first:last], by 2-means of a sample that begins with vectors far apart."""
    n = last - first
    n_sample = min(n, N_SAMPLE)
    d = vectors.shape[1]
    start = slots[first + n // 2]
    for side in range(2):
        most = np.float32(-1)
        far = start
        for k in range(n_sample):
            slot = slots[first + k * n // n_sample]
            distance = np.float32(0)
            for f in range(d):
                away = vectors[slot, f] - vectors[start, f]
                distance += away * away
            if distance > most:
                most = distance
                far = slot
        two[side] = vectors[far]
        start = far
    sums = np.empty((2, d), np.float32)
    counts = np.empty(2, np.int64)
    for _ in range(N_STEPS):
        bias = _bias(two)
        sums[:] = 0
        counts[:] = 0
        for k in range(n_sample):
            slot = slots[first + k * n // n_sample]
            side = _side(vectors, slot, two, bias)
            counts[side] += 1
            for f in range(d):
                sums[side, f] += vectors[slot, f]
        for side in range(2):
            if counts[side]:
                for f in range(d):
                    two[side, f] = sums[side, f] / np.float32(counts[side])


@nb.njit(cache=True, nogil=True)
def _cut(vectors: np.ndarray, slots: np.ndarray, first: int, last: int, two: np.ndarray) -> int:
    """Order slots[first:last] by which of two centres is nearer; returns where the second begins, never at an end."""
    _two_means(vectors, slots, first, last, two)
    bias = _bias(two)
    a, b = first, last
    while a < b:
        slot = slots[a]
        if _side(vectors, slot, two, bias):
            b -= 1
            slots[a] = slots[b]
            slots[b] = slot
        else:
            a += 1
    if a == first or a == last:  # all the same
        return (first + last) // 2
    return a


@nb.njit(cache=True, nogil=True)
def cut_up(vectors: np.ndarray, n: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """All slots below n in an order in which lists lie one after another, none longer than `length`; and their ends."""
    slots = np.arange(n).astype(np.int32)
    ends = np.empty(n + 1, np.int64)
    n_lists = 0
    two = np.empty((2, vectors.shape[1]), np.float32)
    open_ends = [n]
    first = 0
    while len(open_ends):
        last = open_ends[-1]
        if last - first <= length:
            ends[n_lists] = last
            n_lists += 1
            first = last
            open_ends.pop()
        else:
            open_ends.append(_cut(vectors, slots, first, last, two))
    return slots, ends[:n_lists].copy()


@nb.njit(cache=True, nogil=True)
def put(index: Index, slot: int, to: int) -> None:
    """Put a slot that is in no list into one that has room."""
    index.members[to, index.sizes[to]] = slot
    index.place[slot] = index.sizes[to]
    index.list_of[slot] = to
    index.sizes[to] += 1


@nb.njit(cache=True, nogil=True)
def take(index: Index, slot: int) -> None:
    """Take a slot out of its list; the list's last one takes its place."""
    old = index.list_of[slot]
    index.sizes[old] -= 1
    other = index.members[old, index.sizes[old]]
    index.members[old, index.place[slot]] = other
    index.place[other] = index.place[slot]
    index.list_of[slot] = -1


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def set_centre(index: Index, at: int, centre: np.ndarray) -> None:
    """Move a centre."""
    half = np.float32(0)
    for f in range(centre.shape[0]):
        index.centres[at, f] = centre[f]
        half += centre[f] * centre[f]
    index.halves[at] = half / np.float32(2)


@nb.njit(cache=True, nogil=True, fastmath={*FAST, "nnan"})
def nearest(dots: np.ndarray, halves: np.ndarray, found: np.ndarray) -> None:
    """The list nearest to each vector, from its dot products with the centres (n, L), which it spoils."""
    for i in range(dots.shape[0]):
        best = np.float32(-3e38)
        for at in range(dots.shape[1]):
            dots[i, at] -= halves[at]
            best = max(best, dots[i, at])
        for at in range(dots.shape[1]):
            if dots[i, at] == best:
                found[i] = at
                break


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _draw(index: Index, at: int, vectors: np.ndarray, slot: int) -> None:
    """A slot draws its centre towards itself, the more the shorter its list is."""
    share = np.float32(1) / np.float32(max(index.sizes[at], 8))
    for f in range(vectors.shape[1]):
        index.centres[at, f] += share * (vectors[slot, f] - index.centres[at, f])
    set_centre(index, at, index.centres[at])


@nb.njit(cache=True, nogil=True)
def put_all(
    index: Index, vectors: np.ndarray, slots: np.ndarray, lists: np.ndarray, longest: int, first: int, n_drawing: int
) -> int:
    """Put slots[first:] where they belong now, up to one that makes a list too long; returns how many are done in all.

    Of those that stay where they are only the first n_drawing draw their centre: each slot as often as any other, or
    centres would follow those that are looked at most.
    """
    for k in range(first, slots.shape[0]):
        slot, to = slots[k], lists[k]
        moves = index.list_of[slot] != to
        if moves:
            if index.list_of[slot] >= 0:
                take(index, slot)
            put(index, slot, to)
        if moves or k < n_drawing:
            _draw(index, to, vectors, slot)
        if index.sizes[to] > longest:
            return k + 1
    return int(slots.shape[0])


@nb.njit(cache=True, nogil=True)
def split(index: Index, vectors: np.ndarray, old: int, new: int) -> None:
    """Cut one list in two: the second part becomes list `new`, which is empty."""
    two = np.empty((2, vectors.shape[1]), np.float32)
    n = index.sizes[old]
    slots = index.members[old, :n].copy()
    middle = _cut(vectors, slots, 0, n, two)
    index.sizes[old] = 0
    for k in range(n):
        put(index, slots[k], old if k < middle else new)
    set_centre(index, old, two[0])
    set_centre(index, new, two[1])


@nb.njit(cache=True, nogil=True)
def fill(index: Index, vectors: np.ndarray, slots: np.ndarray, ends: np.ndarray) -> None:
    """Make lists of what `cut_up` returned, each round the mean of its vectors."""
    first = 0
    centre = np.empty(vectors.shape[1], np.float32)
    for at in range(ends.shape[0]):
        centre[:] = 0
        for k in range(first, ends[at]):
            put(index, slots[k], at)
            for f in range(centre.shape[0]):
                centre[f] += vectors[slots[k], f]
        centre /= np.float32(ends[at] - first)
        set_centre(index, at, centre)
        first = ends[at]
