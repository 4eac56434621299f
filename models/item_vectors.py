"""Vectors of a worker's items: those of a release where it has them, else the mean of those of the items they were seen with.

The released vectors stay in one array; those of the items that the worker has stand first, so that a search reads no others: a
release may know ten times as many. Items that come later have theirs in a second array. Of those in no release it is the mean
of the released vectors of their neighbours, at their length, made anew now and then, as what is seen goes on; until a neighbour is known
there is none.
"""

from __future__ import annotations

from collections import deque

import numba as nb
import numpy as np

from models.candidates import ItemIndex
from models.hashing import find_slot, rebuild
from models.item_rows import decayed, successor_factors
from models.release import Release, dense

#: New items whose vectors are made, or made anew, in one call: a tenth of a millisecond at most.
N_LOOKED_AT = 12


@nb.njit(cache=True, nogil=True)
def _bring_forward(
    hashes: np.ndarray, keys: np.ndarray, cells: np.ndarray, vectors: np.ndarray, of: np.ndarray, place: np.ndarray, slots: np.ndarray
) -> int:
    """Exchange rows of `vectors` so that those of `hashes` stand first; returns how many do. Fills `place` and `slots`.

    keys, cells: table from hashes to rows; of (n,) uint64: the rows' hashes.
    """
    n = 0
    for slot in range(hashes.shape[0]):
        row = find_slot(keys, cells, hashes[slot])
        if row < 0:
            continue
        for f in range(vectors.shape[1]):
            kept = vectors[row, f]
            vectors[row, f] = vectors[n, f]
            vectors[n, f] = kept
        of[row], of[n] = of[n], of[row]
        _point(keys, cells, of[row], row)
        _point(keys, cells, of[n], n)
        place[slot] = n
        slots[n] = slot
        n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _point(keys: np.ndarray, cells: np.ndarray, key: np.uint64, row: int) -> None:
    mask = np.uint64(keys.shape[0] - 1)
    cell = key & mask
    while keys[cell] != key:
        cell = (cell + np.uint64(1)) & mask
    cells[cell] = row


@nb.njit(cache=True, nogil=True)
def _mean(
    row: np.void, index_keys: np.ndarray, index_cells: np.ndarray, place: np.ndarray, released: np.ndarray, out: np.ndarray
) -> bool:
    """The mean of the released vectors of an item's neighbours, by how strongly they are, as long as these are on average: a plain
    mean is shorter the more they differ, and a short vector has low scores with everybody. False where there are none."""
    factors = successor_factors(row["newest_followed"])
    total = lengths = 0.0
    out[:] = 0
    for s in range(np.int64(row["n_successors"])):
        other = find_slot(index_keys, index_cells, row["successors"][s])
        if other < 0 or other >= place.shape[0]:
            continue
        at = place[other]
        strength = decayed(row["followed"][s], factors)
        if at < 0 or at >= released.shape[0] or strength <= 0:
            continue
        total += strength
        square = np.float32(0)
        for f in range(out.shape[0]):
            out[f] += np.float32(strength) * released[at, f]
            square += released[at, f] * released[at, f]
        lengths += strength * np.sqrt(square)
    length = np.sqrt((out * out).sum())
    if length > 0:
        out *= np.float32(lengths / total / length)
    return bool(length > 0)


class ItemVectors:
    """Vectors of a release over the items that a worker has. Takes the release's arrays over, which nobody else may use then.

    `released` (n, d) float32, the first `n_known` of them of items that were there at the start, of the item slots in `slots`;
    `new` and `new_slots`, the first `n_new` of each: those of items that came later. `place` (>= n items,) int32 by item slot: row
    of `released`, or n + row of `new`, -1 where there is none.
    """

    def __init__(self, release: Release, item_rows: np.ndarray) -> None:
        plain = release.vectors.dtype == np.float32 and release.vectors.flags.writeable
        self.released = release.vectors if plain else dense(release)
        n, d = self.released.shape
        of = np.array(release.keys)
        self._index = index_of(of)
        self._n_met = len(item_rows)
        self.place, self.slots = np.full(self._n_met + 1024, -1, np.int32), np.empty(n, np.int32)
        hashes = np.ascontiguousarray(item_rows["hash"])
        self.n_known = _bring_forward(hashes, *self._index, self.released, of, self.place, self.slots)
        self.new, self.new_slots = np.empty((0, d), np.float32), np.empty(0, np.int32)
        self.n_new = 0
        self.n_late = 0  # items among the new ones that the release knows
        self._waiting = deque(np.flatnonzero(self.place[: self._n_met] < 0).tolist())  # item slots without any vector
        self._turn = 0

    def follow(self, item_rows: np.ndarray, find: ItemIndex) -> None:
        """Meet items that have come since the last call, and look at some of those that the release does not know."""
        n = len(item_rows)
        if n > len(self.place):
            place = np.full(n + n // 4 + 1024, -1, np.int32)
            place[: self._n_met] = self.place[: self._n_met]
            self.place = place
        for slot in range(self._n_met, n):
            row = find_slot(*self._index, item_rows["hash"][slot])
            if row >= 0:
                self._append(slot, self.released[row])
                self.place[slot] = row
                self.n_late += 1
            else:
                self._waiting.append(slot)
        self._n_met = n
        mean = np.empty(self.released.shape[1], np.float32)
        n_waiting = min(len(self._waiting), N_LOOKED_AT)
        for _ in range(n_waiting):
            slot = self._waiting.popleft()
            if _mean(item_rows[slot], *find, self.place, self.released, mean):
                self._append(slot, mean)
                self.place[slot] = len(self.released) + self.n_new - 1
            else:
                self._waiting.append(slot)
        for _ in range(min(self.n_new, N_LOOKED_AT - n_waiting)):
            self._turn = (self._turn + 1) % self.n_new
            slot = self.new_slots[self._turn]
            if self.place[slot] >= len(self.released) and _mean(item_rows[slot], *find, self.place, self.released, mean):
                self.new[self._turn] = mean

    def _append(self, slot: int, vector: np.ndarray) -> None:
        if self.n_new == len(self.new):
            more = self.n_new + 256
            self.new = np.concatenate([self.new, np.empty((more, self.new.shape[1]), np.float32)])
            self.new_slots = np.concatenate([self.new_slots, np.empty(more, np.int32)])
        self.new[self.n_new], self.new_slots[self.n_new] = vector, slot
        self.n_new += 1


def index_of(hashes: np.ndarray) -> ItemIndex:
    """A table from hashes to their rows."""
    size = max(1024, 1 << (2 * len(hashes) - 1).bit_length())
    index = ItemIndex(np.zeros(size, np.uint64), np.zeros(size, np.int32))
    rebuild(*index, hashes, len(hashes))
    return index
