"""Ghosts: of items that a full row has dropped, how much they weighed, in 4 bytes each, for when they come back.

A habit slower than the turnover of a row - coffee once a month, among 42 items bought since - would begin anew each time. (The
name is that of caches which remember what they evicted: Megiddo and Modha, "ARC", FAST 2003.)

A decaying weight is one number, the moment at which it will have decayed to 1: the same from whichever moment one looks. It is
kept in 1/64 half-lives (so a weight to 1%), modulo 65,535: it repeats after 1,024 half-lives, by when no row remembers.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.user_row import N_GHOSTS, to_ticks

PER_HALF_LIFE = 64.0
CODES = 65_535
#: Codes ahead of now at most: what a late event finds is not made larger than this.
MOST_AHEAD = 30 * 64


@nb.njit(cache=True, nogil=True)
def ghost_code(weight: float, ticks: int, half_life: float) -> int:
    """A positive weight as of `ticks`, 1 to CODES; half_life in ticks."""
    return int(np.int64(np.floor((np.log2(weight) + ticks / half_life) * PER_HALF_LIFE + 0.5)) % CODES) + 1


@nb.njit(cache=True, nogil=True)
def ghost_weight(code: int, ticks: int, half_life: float) -> float:
    """What it weighs at `ticks`."""
    now = int(np.int64(np.floor(ticks / half_life * PER_HALF_LIFE + 0.5)) % CODES) + 1
    ahead = (code - now + CODES + CODES // 2) % CODES - CODES // 2
    return float(2.0 ** (min(ahead, MOST_AHEAD) / PER_HALF_LIFE))


@nb.njit(cache=True, nogil=True)
def bury(row: np.void, item: np.uint64, weight: float, ticks: int, half_life: float) -> None:
    """Keep what an item weighs, in place of the lightest ghost, if that is lighter as of the row's clock."""
    if weight <= 0:
        return
    clock = to_ticks(row["clock_ms"])
    least = weight * 2.0 ** (-(clock - ticks) / half_life)
    lightest = -1
    for g in range(N_GHOSTS):
        code = int(row["ghost_weights"][g])
        kept = ghost_weight(code, clock, half_life) if code else 0.0
        if kept < least:
            lightest, least = g, kept
    if lightest >= 0:
        row["ghosts"][lightest] = item >> np.uint64(48)
        row["ghost_weights"][lightest] = ghost_code(weight, ticks, half_life)


@nb.njit(cache=True, nogil=True)
def raise_ghost(row: np.void, item: np.uint64, ticks: int, half_life: float) -> float:
    """What an item that comes back weighs at `ticks`, 0 if nothing is known; it is no ghost any more."""
    fingerprint = item >> np.uint64(48)
    for g in range(N_GHOSTS):
        if row["ghosts"][g] == fingerprint and row["ghost_weights"][g] != 0:
            weight = ghost_weight(int(row["ghost_weights"][g]), ticks, half_life)
            row["ghosts"][g] = 0
            row["ghost_weights"][g] = 0
            return weight
    return 0.0
