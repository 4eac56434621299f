"""What one item's row remembers - counts in event-time buckets, its strongest successors - and how records fold into it.

Counts are fixed-point integers in rings of event-time buckets, so that sums commute: for any order in which the same
touches arrive, the rings end equal. A ring holds the newest `n` buckets that the item has seen; what is older is not
counted, whether it came late or was pushed out. Successors - items visited within a few steps of this one, after it or
before, which `models.history` says of both - are held the same way, `N_SUCCESSORS` of them; a full row drops the weakest,
and only there can the interleaving of partitions matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from models.row_formats import RowFormat

ROW_VERSION = 3
MAX_ID_BYTES = 128

#: Rings in the order in which they lie in `counts`: width of a bucket, number of buckets. 1 h, 1 d, 7 d, long.
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
RING_BUCKETS = np.array([12, 24, 14, 32], np.int64)
RING_START = np.concatenate([[0], np.cumsum(RING_BUCKETS)])
N_RINGS = len(RING_BUCKETS)
N_BUCKETS = int(RING_START[-1])
#: Buckets of the long ring, and of successors, per half-life: the long ring ends after 4 half-lives (6% of a weight).
LONG_PER_HALF_LIFE = 8

#: 32 lose 0.3 points of recall@20 where an item has many visits, 64 and 128 win 0.0 and 0.1 (product views, issue 4).
N_SUCCESSORS = 48
N_SUCCESSOR_BUCKETS = 4
#: In a touch `other` names no item: 0 says that the user had not had this one, AGAIN + gap code that he had, and how long ago.
#: An id's hash is as large once in 7e16.
AGAIN = np.uint64(2**64 - 256)
LAST_GAP = 255
#: Touches are counted up to here, and then no more.
MOST_TOUCHES = 2**31
#: Successor buckets are half a half-life wide: they end after 2 half-lives.
SUCCESSOR_PER_HALF_LIFE = 2

#: One item, the same bytes in memory and in Redis.
ITEM_ROW = np.dtype(
    [
        ("version", "<u2"),
        ("id_bytes", "<u2"),
        ("n_successors", "<u4"),
        ("hash", "<u8"),
        ("as_of", "<i8"),  # offset of the last interactions message folded in, -1 in an empty row
        ("first_ms", "<i8"),
        ("last_ms", "<i8"),
        ("touches", "<u4"),  # positive ones
        ("repeats", "<u4"),  # of these, by users whose rows held the item
        ("gaps", "<u8"),  # sum of the gap codes of these
        ("newest", "<i8", (N_RINGS,)),  # newest bucket of each ring, counted from the epoch
        ("counts", "<i4", (N_BUCKETS,)),
        ("newest_followed", "<i8"),
        ("successors", "<u8", (N_SUCCESSORS,)),
        ("followed", "<i4", (N_SUCCESSORS, N_SUCCESSOR_BUCKETS)),
        ("id", "u1", (MAX_ID_BYTES,)),
    ],
    align=True,
)

#: What is written and read; a new layout puts the one before into `older`.
FORMAT = RowFormat(ROW_VERSION, ITEM_ROW)


class ItemRules(NamedTuple):
    """Bucket widths from the settings: `ring_ms` (N_RINGS,) int64, `followed_ms` int."""

    ring_ms: np.ndarray
    followed_ms: int


def item_rules(popularity_half_life_ms: int, covisitation_half_life_ms: int) -> ItemRules:
    """Bucket widths for two half-lives in ms."""
    return ItemRules(
        np.array(
            [HOUR_MS // 12, DAY_MS // 24, 7 * DAY_MS // 14, max(1, popularity_half_life_ms // LONG_PER_HALF_LIFE)],
            np.int64,
        ),
        max(1, covisitation_half_life_ms // SUCCESSOR_PER_HALF_LIFE),
    )


@nb.njit(cache=True, nogil=True)
def _sum(count: int, weight: int) -> int:
    """A count that stops at the end of int32 (6.7 million purchases of one item in one bucket) instead of turning over."""
    total = np.int64(count) + np.int64(weight)
    if total > 2**31 - 1:
        total = np.int64(2**31 - 1)
    if total < -(2**31):
        total = np.int64(-(2**31))
    return int(total)


@nb.njit(cache=True, nogil=True)
def gap_code(gap_ms: int) -> int:
    """How long ago a user took the same item, in 1/16 of a doubling of 1 + days: a day is 16, a year 136."""
    return min(int(0.5 + 16.0 * np.log2(1.0 + max(0, gap_ms) / DAY_MS)), LAST_GAP)


@nb.vectorize([nb.boolean(nb.uint64)], cache=True)  # type: ignore[no-untyped-call, untyped-decorator]
def is_touch(other: np.uint64) -> bool:
    """Whether records with this `other` (any shape) are touches; if not, it names an item that was visited near."""
    return bool(other == 0 or other >= AGAIN)


@nb.njit(cache=True, nogil=True)
def _touch(row: np.void, time_ms: int, weight: int, other: np.uint64, rules: ItemRules) -> None:
    if weight > 0 and row["touches"] < MOST_TOUCHES:
        row["touches"] += 1
        if other >= AGAIN:
            row["repeats"] += 1
            row["gaps"] += np.uint64(other - AGAIN)
    for r in range(N_RINGS):
        size = RING_BUCKETS[r]
        start = RING_START[r]
        bucket = time_ms // rules.ring_ms[r]
        ahead = bucket - row["newest"][r]
        if ahead > 0:  # the cells between hold buckets that have left the ring
            for k in range(min(ahead, size)):
                row["counts"][start + (bucket - k) % size] = 0
            row["newest"][r] = bucket
        elif -ahead >= size:
            continue
        row["counts"][start + bucket % size] = _sum(row["counts"][start + bucket % size], weight)
    if row["first_ms"] == 0 or time_ms < row["first_ms"]:
        row["first_ms"] = time_ms
    row["last_ms"] = max(row["last_ms"], time_ms)


@nb.njit(cache=True, nogil=True)
def _drop_faded(row: np.void, n: np.int64) -> int:
    """Close the gaps of successors whose buckets are all empty, as if they had never come; returns what is left."""
    kept = 0
    for s in range(n):
        if not row["followed"][s].any():
            continue
        if kept < s:
            row["successors"][kept] = row["successors"][s]
            row["followed"][kept, :] = row["followed"][s]
        kept += 1
    for s in range(kept, n):
        row["successors"][s] = 0
        row["followed"][s, :] = 0
    row["n_successors"] = kept
    return kept


@nb.njit(cache=True, nogil=True)
def _follow(row: np.void, other: np.uint64, time_ms: int, weight: int, rules: ItemRules) -> None:
    size = N_SUCCESSOR_BUCKETS
    bucket = time_ms // rules.followed_ms
    ahead = bucket - row["newest_followed"]
    n = np.int64(row["n_successors"])
    if ahead > 0:
        for k in range(min(ahead, size)):
            cell = (bucket - k) % size
            for s in range(n):
                row["followed"][s, cell] = 0
        row["newest_followed"] = bucket
        n = np.int64(_drop_faded(row, n))
    elif -ahead >= size:
        return
    cell = bucket % size
    successors, followed = row["successors"], row["followed"]
    for s in range(n):  # hashes only: most records name a successor that stands, and counts lie elsewhere in memory
        if successors[s] == other:
            followed[s, cell] = _sum(followed[s, cell], weight)
            return
    if n < N_SUCCESSORS:
        weakest = n
        row["n_successors"] = n + 1
    else:
        weakest = np.int64(_weakest(row))
    successors[weakest] = other
    followed[weakest, :] = 0
    followed[weakest, cell] = weight


@nb.njit(cache=True, nogil=True)
def _weakest(row: np.void) -> int:
    """Place of the weakest successor of a full row; of equals the one with the largest hash, whatever came first."""
    successors, followed, factors = row["successors"], row["followed"], successor_factors(row["newest_followed"])
    weakest = 0
    least = np.inf
    for s in range(N_SUCCESSORS):
        strength = decayed(followed[s], factors)
        if strength < least or (strength == least and successors[s] > successors[weakest]):
            weakest, least = s, strength
    return weakest


@nb.njit(cache=True, nogil=True)
def successor_factors(newest: int) -> tuple[float, float, float, float]:
    """What a count in each of the N_SUCCESSOR_BUCKETS cells is worth when `newest` is the row's newest bucket."""
    one = 0.7071067811865476  # buckets are half a half-life wide
    two, three = one * one, one * one * one
    turn = newest % N_SUCCESSOR_BUCKETS
    if turn == 0:
        return 1.0, three, two, one
    if turn == 1:
        return one, 1.0, three, two
    if turn == 2:
        return two, one, 1.0, three
    return three, two, one, 1.0


@nb.njit(cache=True, nogil=True)
def decayed(followed: np.ndarray, factors: tuple[float, float, float, float]) -> float:
    """Weight of one successor, `followed` (N_SUCCESSOR_BUCKETS,), by the factors of its row."""
    return float(
        followed[0] * factors[0] + followed[1] * factors[1] + followed[2] * factors[2] + followed[3] * factors[3]
    )


@nb.njit(cache=True, nogil=True)
def successor_strengths(row: np.void) -> np.ndarray:
    """Decayed weights of a row's neighbours as of its newest bucket, (n_successors,) float64."""
    strengths, factors = np.empty(np.int64(row["n_successors"])), successor_factors(row["newest_followed"])
    for s in range(len(strengths)):
        strengths[s] = decayed(row["followed"][s], factors)
    return strengths


@nb.njit(cache=True, nogil=True)
def fold(
    rows: np.ndarray,
    slots: np.ndarray,
    records: np.ndarray,
    message_offset: int,
    rules: ItemRules,
    changed: np.ndarray,
) -> None:
    """Fold the records of one interactions message into the rows at `slots` (n_records,) int32.

    A row whose `as_of` is at or past the message already holds it (its partition's checkpoint was older): no change.
    Rows of this message carry `as_of = message_offset` only after all of its records, hence the second loop.
    """
    for r in range(records.shape[0]):
        slot = slots[r]
        row = rows[slot]
        if row["as_of"] >= message_offset:
            continue
        changed[slot] = 1
        if is_touch(records[r]["other"]):
            _touch(row, records[r]["time_ms"], records[r]["weight"], records[r]["other"], rules)
        else:
            _follow(row, records[r]["other"], records[r]["time_ms"], records[r]["weight"], rules)
    for r in range(records.shape[0]):
        row = rows[slots[r]]
        row["as_of"] = max(row["as_of"], message_offset)
