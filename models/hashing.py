"""Stable 64-bit names for ids, and a hash table from them to array slots.

Items are named inside by a 64-bit hash of their id: rows stay fixed-size and kernels need no strings. Among 1 million
items the chance that any two collide is 3e-8 (birthday bound n^2 / 2^65).
"""

from __future__ import annotations

import numba as nb
import numpy as np
import xxhash

#: Marks an empty cell of the table and "no item" in a row; no id hashes to it.
NO_HASH = np.uint64(0)
NO_SLOT = -1


def stable_hash(text: str) -> int:
    """64-bit hash of an id, the same on every machine and in every version of this project; never 0."""
    return xxhash.xxh3_64_intdigest(text.encode()) or 1


@nb.njit(cache=True, nogil=True)
def find_slot(keys: np.ndarray, slots: np.ndarray, key: np.uint64) -> int:
    """Slot of `key` in the open-addressing table (`keys` (C,) uint64, `slots` (C,) int32, C a power of 2), or -1."""
    mask = np.uint64(keys.shape[0] - 1)
    cell = key & mask  # xxh3 is uniform in its low bits: no further mixing
    while True:
        found = keys[cell]
        if found == key:
            return int(slots[cell])
        if found == np.uint64(0):
            return -1
        cell = (cell + np.uint64(1)) & mask


@nb.njit(cache=True, nogil=True)
def put_slot(keys: np.ndarray, slots: np.ndarray, key: np.uint64, slot: int) -> None:
    """Insert a key that is not in the table; the caller keeps the table at most half full."""
    mask = np.uint64(keys.shape[0] - 1)
    cell = key & mask
    while keys[cell] != np.uint64(0):
        cell = (cell + np.uint64(1)) & mask
    keys[cell] = key
    slots[cell] = slot


@nb.njit(cache=True, nogil=True)
def rebuild(keys: np.ndarray, slots: np.ndarray, hashes: np.ndarray, n: int) -> None:
    """Fill an empty table with `hashes[:n]`, slot i for hash i."""
    for slot in range(n):
        if hashes[slot] != np.uint64(0):
            put_slot(keys, slots, hashes[slot], slot)


def scratch(array: np.ndarray, n: int) -> np.ndarray:
    """An int32 array of at least `n` times -1: the given one, or a larger one. Kernels leave it as they found it, so that
    a call for a few users does not pay for filling a cell for every item."""
    return array if len(array) >= n else np.full(max(1024, 2 * n), -1, np.int32)


@nb.njit(cache=True, nogil=True)
def find_all(keys: np.ndarray, slots: np.ndarray, wanted: np.ndarray, found: np.ndarray) -> None:
    """Fill `found` (B, H) int32 with the slots of `wanted` (B, H) uint64, -1 where unknown."""
    for b in range(wanted.shape[0]):
        for h in range(wanted.shape[1]):
            found[b, h] = find_slot(keys, slots, wanted[b, h]) if wanted[b, h] != np.uint64(0) else -1
