"""Weights of pairs (left, right), every one that ever occurred: the memory beneath rules and own counts.

An open-addressing hash finds a pair; the pairs of one left id hang in a linked list, which a ranking walks. A weight is a
sum of 2^time, held as a base-2 logarithm (see `popularity.add_levels`), so decay costs nothing when nothing happens.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

END = -1


class Pairs(NamedTuple):
    """Arrays that numba takes as they are. `size[0]` entries are in use."""

    slots: np.ndarray  # (power of two,) int32 entry, -1 empty
    left: np.ndarray  # (capacity,) int32
    right: np.ndarray  # (capacity,) int32
    level: np.ndarray  # (capacity,) float64 log2 of the sum
    following: np.ndarray  # (capacity,) int32 next entry of the same left id
    head: np.ndarray  # (n_left,) int32
    size: np.ndarray  # (1,) int64


def no_pairs(n_left: int, capacity: int = 1 << 16) -> Pairs:
    return Pairs(np.full(2 * capacity, END, np.int32), np.empty(capacity, np.int32), np.empty(capacity, np.int32),
                 np.empty(capacity, np.float64), np.empty(capacity, np.int32), np.full(n_left, END, np.int32),
                 np.zeros(1, np.int64))


@njit(cache=True)
def _slot(slots: np.ndarray, lefts: np.ndarray, rights: np.ndarray, left: int, right: int) -> int:
    key = np.uint64((np.int64(left) << np.int64(32)) | np.int64(right))
    key = (key ^ (key >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    at = np.int64((key ^ (key >> np.uint64(29))) & np.uint64(slots.shape[0] - 1))
    while slots[at] >= 0 and (lefts[slots[at]] != left or rights[slots[at]] != right):
        at = (at + 1) & (slots.shape[0] - 1)
    return at


@njit(cache=True)
def add(pairs: Pairs, left: int, right: int, level: float) -> None:
    """Add 2^level to the pair. There must be room: see `with_room`."""
    at = _slot(pairs.slots, pairs.left, pairs.right, left, right)
    entry = pairs.slots[at]
    if entry < 0:
        entry = pairs.size[0]
        pairs.size[0] = entry + 1
        pairs.slots[at] = entry
        pairs.left[entry], pairs.right[entry], pairs.level[entry] = left, right, level
        pairs.following[entry] = pairs.head[left]
        pairs.head[left] = entry
        return
    high, low = max(pairs.level[entry], level), min(pairs.level[entry], level)
    pairs.level[entry] = high + math.log2(1.0 + 2.0 ** (low - high))


@njit(cache=True)
def _refill(pairs: Pairs) -> None:
    for entry in range(pairs.size[0]):
        pairs.slots[_slot(pairs.slots, pairs.left, pairs.right, pairs.left[entry], pairs.right[entry])] = entry


def with_room(pairs: Pairs, n_more: int) -> Pairs:
    """The same pairs with room for n_more new ones."""
    size, capacity = int(pairs.size[0]), len(pairs.left)
    if size + n_more <= capacity:
        return pairs
    while capacity < size + n_more:
        capacity *= 2
    grown = no_pairs(0, capacity)._replace(head=pairs.head, size=pairs.size)
    for old, new in zip(pairs[1:5], grown[1:5], strict=True):
        new[:size] = old[:size]
    _refill(grown)
    return grown
