"""What one user's row remembers, and how each event changes it.

A row keeps the user's last *distinct* items, in event-time order, each with its decayed weight, the time and type of its
last event; the fingerprints of the last event ids (to recognise duplicates); a Bloom filter of the items that must not
be shown again; counts by type. Distinct items rather than raw events, because what a person takes again and again is
the strongest signal there is where things repeat, and a fixed number of raw events would forget it within two baskets.

Rules, each deterministic in the order of the log, so that any split of it into batches gives the same bytes:
- order: by event time, kept to 1/256 s; among equal times the later absorbed stands later;
- a full row drops the item whose weight, decayed to the row's clock, is least in size (of equals the oldest), and keeps
  what it weighed for when it comes back (`models.ghosts`);
- an event more than `retention_ms` after the row's clock starts an empty row;
- an event whose fingerprint is among the last `N_EVENT_IDS` changes nothing but `as_of`.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from models.ghosts import bury, raise_ghost
from models.item_rows import AGAIN, gap_code
from models.lessons import ContextRules, Lessons, note
from models.user_row import N_EVENT_IDS, N_ITEMS, SEEN, age_ms, bloom_add, bloom_has, clear_row, ticks_at, to_ticks

#: One statement about items, for the partition of `item`: a touch (see `models.item_rows.AGAIN`) or "item was visited near other".
RECORD = np.dtype(
    [
        ("item", "<u8"),
        ("other", "<u8"),
        ("time_ms", "<i8"),
        ("weight", "<i4"),  # fixed point, WEIGHT_ONE = 1.0
        ("source", "<u4"),  # offset of the event, counted from the message's first
    ]
)
WEIGHT_ONE = 64


class HistoryRules(NamedTuple):
    """What the kernel needs of the settings. `type_seen` (N_TYPES,) uint8."""

    type_seen: np.ndarray
    half_life_ms: float
    retention_ms: int
    follow_window_ms: int
    follow_depth: int
    bloom_is_final: bool  # there are types whose items never come back: then the filter holds some of those


class Columns(NamedTuple):
    """A decoded batch of one partition in offset order, all (n,): see `absorb`."""

    slots: np.ndarray  # int32, row of the event's user
    offsets: np.ndarray  # int64
    items: np.ndarray  # uint64
    event_ids: np.ndarray  # uint64
    times_ms: np.ndarray  # int64, event time
    types: np.ndarray  # uint8
    weights: np.ndarray  # float32, what the event counts: a rating by its value


@nb.njit(cache=True, nogil=True)
def _forget_least(row: np.void, half_life_ms: float, weight: np.float32, ticks: int) -> int:
    """Index of the item that a full row drops for a newcomer, or -1 if the newcomer is the least itself."""
    half_life = half_life_ms * 0.256
    clock = to_ticks(row["clock_ms"])
    worst = -1
    least = abs(weight) * 2.0 ** (-(clock - ticks) / half_life)
    for k in range(row["n_items"] - 1, -1, -1):  # from the newest: of equals the oldest goes
        size = abs(row["weights"][k]) * 2.0 ** (-(clock - ticks_at(row, k)) / half_life)
        if size <= least:
            worst, least = k, size
    return worst


@nb.njit(cache=True, nogil=True)
def _move(row: np.void, source: int, target: int) -> None:
    row["items"][target] = row["items"][source]
    row["seconds"][target] = row["seconds"][source]
    row["fractions"][target] = row["fractions"][source]
    row["weights"][target] = row["weights"][source]
    row["types"][target] = row["types"][source]


@nb.njit(cache=True, nogil=True)
def _remember(
    row: np.void,
    item: np.uint64,
    time_ms: int,
    weight: np.float32,
    kind: int,
    seen: np.uint8,
    half_life_ms: float,
    bloom_is_final: bool,
) -> int:
    """Put one event's item into its place; returns its index, or -1 if a full row had no place for it."""
    n = int(row["n_items"])
    ticks = to_ticks(time_ms)
    half_life = half_life_ms * 0.256
    at = -1
    for k in range(n - 1, -1, -1):
        if row["items"][k] == item:
            at = k
            break
    if at >= 0:
        known, known_ticks = row["weights"][at], ticks_at(row, at)
        if (known < 0) != (weight < 0):
            known = np.float32(0)  # a change of mind does not have to win back what came before
        if ticks < known_ticks:  # late: adds weight, but the item's last event stays what it is
            if row["weights"][at] != 0 and (row["weights"][at] < 0) == (weight < 0):
                row["weights"][at] += np.float32(weight * 2.0 ** (-(known_ticks - ticks) / half_life))
            row["types"][at] |= seen
            return at
        weight = np.float32(weight + known * 2.0 ** (-(ticks - known_ticks) / half_life))
        seen |= row["types"][at] & SEEN
        for k in range(at, n - 1):
            _move(row, k + 1, k)
        n -= 1
    else:
        if bloom_is_final and bloom_has(row["bloom"], item):
            seen = np.uint8(SEEN)
        before = raise_ghost(row, item, ticks, half_life)
        if weight > 0:
            weight = np.float32(weight + before)
        if n == N_ITEMS:
            worst = _forget_least(row, half_life_ms, weight, ticks)
            if worst < 0:
                bury(row, item, float(weight), ticks, half_life)
                return -1
            bury(row, row["items"][worst], row["weights"][worst], ticks_at(row, worst), half_life)
            for k in range(worst, n - 1):
                _move(row, k + 1, k)
            n -= 1
    at = n
    while at > 0 and ticks_at(row, at - 1) > ticks:
        _move(row, at - 1, at)
        at -= 1
    row["items"][at] = item
    row["seconds"][at] = ticks // 256
    row["fractions"][at] = ticks % 256
    row["weights"][at] = weight
    row["types"][at] = kind | seen
    row["n_items"] = n + 1
    return at


@nb.njit(cache=True, nogil=True)
def _known_event(row: np.void, event_id: np.uint64) -> bool:
    """Whether the event was absorbed before; if not, it is noted in place of the oldest."""
    low = np.uint32(event_id & np.uint64(0xFFFFFFFF))
    high = np.uint8((event_id >> np.uint64(32)) & np.uint64(0xFF))
    for k in range(N_EVENT_IDS):
        if row["event_ids_low"][k] == low and row["event_ids_high"][k] == high:
            return True
    row["event_ids_low"][row["next_id"]] = low
    row["event_ids_high"][row["next_id"]] = high
    row["next_id"] = (row["next_id"] + 1) % N_EVENT_IDS
    return False


@nb.njit(cache=True, nogil=True)
def _mark_seen(row: np.void, item: np.uint64) -> None:
    for k in range(int(row["n_items"])):
        if row["items"][k] == item:
            row["types"][k] |= SEEN


@nb.njit(cache=True, nogil=True)
def _gap(row: np.void, item: np.uint64, time_ms: int) -> np.uint64:
    """What a touch says of the time since the user's last one of this item: 0 if the row holds none."""
    for k in range(np.int64(row["n_items"])):
        if row["items"][k] == item and row["weights"][k] > 0:
            return AGAIN + np.uint64(gap_code(age_ms(row, k, time_ms)))
    return np.uint64(0)


@nb.njit(cache=True, nogil=True)
def _say(
    records: np.ndarray, n: int, item: np.uint64, other: np.uint64, time_ms: int, weight: int, source: np.uint32
) -> int:
    """Append one record; returns the new number."""
    records[n]["item"] = item
    records[n]["other"] = other
    records[n]["time_ms"] = time_ms
    records[n]["weight"] = weight
    records[n]["source"] = source
    return n + 1


@nb.njit(cache=True, nogil=True)
def absorb(
    rows: np.ndarray,
    batch: Columns,
    rules: HistoryRules,
    outcome: np.ndarray,
    records: np.ndarray,
    base_offset: int,
    context_rules: ContextRules,
    lessons: Lessons,
) -> tuple[int, int, int]:
    """Apply a batch to its rows, in order; returns how many `records`, lessons and context entries were emitted.

    rows (R,) USER_ROW; outcome (n,) uint8, set to 0 for skipped (already absorbed), 1 absorbed, 2 duplicate event id;
    records (>= n * (1 + 2 * follow_depth),) RECORD, `source` counted from `base_offset`; lessons: room for
    n heads and n * N_CONTEXT entries.
    """
    n_records = n_lessons = n_context = 0
    weights = np.empty(N_ITEMS, np.float64)
    for e in range(batch.slots.shape[0]):
        row = rows[batch.slots[e]]
        if batch.offsets[e] <= row["as_of"]:  # the row guard: redelivery changes nothing
            outcome[e] = 0
            continue
        row["as_of"] = batch.offsets[e]
        time_ms, item, kind = batch.times_ms[e], batch.items[e], batch.types[e]
        if row["clock_ms"] > 0 and time_ms > row["clock_ms"] + rules.retention_ms:
            clear_row(row)
        if _known_event(row, batch.event_ids[e]):
            outcome[e] = 2
            continue
        outcome[e] = 1
        row["counts"][kind] += 1
        row["clock_ms"] = max(row["clock_ms"], time_ms)
        weight = batch.weights[e]
        if weight < 0 or rules.type_seen[kind]:
            bloom_add(row["bloom"], item)
        if weight == 0:
            if rules.type_seen[kind] == 1:
                _mark_seen(row, item)
            continue
        source = np.uint32(batch.offsets[e] - base_offset)
        end = note(row, item, time_ms, weight, source, context_rules, lessons, n_lessons, n_context, weights)
        if end > n_context:
            n_lessons, n_context = n_lessons + 1, end
        seen = np.uint8(SEEN) if rules.type_seen[kind] == 1 else np.uint8(0)
        gap = _gap(row, item, time_ms)
        _remember(row, item, time_ms, weight, kind, seen, rules.half_life_ms, rules.bloom_is_final)
        n_records = _say(records, n_records, item, gap, time_ms, round(weight * WEIGHT_ONE), source)
        if weight < 0:
            continue
        rank = 0
        for k in range(int(row["n_items"]) - 1, -1, -1):
            before_ms = age_ms(row, k, time_ms)
            if rank == rules.follow_depth or before_ms > rules.follow_window_ms:
                break
            if before_ms < 0 or row["items"][k] == item or row["weights"][k] <= 0:
                continue
            rank += 1
            other, strength = row["items"][k], WEIGHT_ONE // rank
            # of both, whichever came first: 3 points of recall@20 on product views, where most items have few visits;
            # what came before stands with 5/8 in the row of what came after, unless they are of one basket
            back = strength if before_ms == 0 else strength * 5 // 8
            n_records = _say(records, n_records, other, item, time_ms, strength, source)
            n_records = _say(records, n_records, item, other, time_ms, back, source)
    return n_records, n_lessons, n_context
