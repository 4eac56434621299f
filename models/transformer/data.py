"""Sequences of events, and the batches that are cut from them. numpy and numba only.

A batch is rows of places. Windows (pieces of one user's sequence) are packed into rows one behind the other, and a place sees
only places of its own window; so padding is rare. One window a row is the same layout, with padding behind it.
Which windows share a batch is a function of seed and pass alone, so a resumed training finds the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numba as nb
import numpy as np

from models.user_row import N_ITEMS

#: Rows that are open at a time while windows are packed. More waste fewer places and take longer; 64 waste below 1%.
OPEN_ROWS = 64


class DataError(ValueError):
    """Arrays that are no sequences, or that do not fit the model; the message says what was found."""


@dataclass(frozen=True)
class Sequences:
    """All users' events: user k's are [ends[k - 1], ends[k]), oldest first.

    items (n,) int32, 0..n_items - 1; types (n,) uint8; times_ms (n,) int64, or None where there is no clock; ends (u,) int64.
    """

    items: np.ndarray
    types: np.ndarray
    times_ms: np.ndarray | None
    ends: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.items)
        if len(self.types) != n or (self.times_ms is not None and len(self.times_ms) != n):
            raise DataError(f"{n} items, {len(self.types)} types and {'no' if self.times_ms is None else len(self.times_ms)} times; expected as many of each")
        if (np.diff(self.ends, prepend=0) < 0).any() or (int(self.ends[-1]) if len(self.ends) else 0) != n:
            raise DataError(f"ends must not fall, and the last must be the number of events, {n}")

    @property
    def n_users(self) -> int:
        return len(self.ends)

    @property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64) if len(self.ends) else np.empty(0, np.int64)

    @classmethod
    def of(cls, users: np.ndarray, items: np.ndarray, types: np.ndarray | None = None, times_ms: np.ndarray | None = None) -> Sequences:
        """From events in order of time; users are in order of their first event."""
        _, first, place = np.unique(users, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first, kind="stable"), kind="stable")[place]
        order = np.argsort(rank, kind="stable")
        kinds = np.zeros(len(items), np.uint8) if types is None else types
        return cls(items[order].astype(np.int32), kinds[order].astype(np.uint8),
                   None if times_ms is None else times_ms[order].astype(np.int64), np.cumsum(np.bincount(rank)).astype(np.int64))

    def keep(self, events: np.ndarray) -> Sequences:
        """The chosen events (n,) bool; users may be left with none."""
        ends = np.concatenate([[0], np.cumsum(events)])[self.ends]
        return Sequences(self.items[events], self.types[events], None if self.times_ms is None else self.times_ms[events], ends.astype(np.int64))

    def take(self, users: np.ndarray) -> Sequences:
        """The chosen users (k,), in the order given."""
        sizes = (self.ends - self.starts)[users]
        ends = np.cumsum(sizes).astype(np.int64)
        rows = np.repeat(self.starts[users] - (ends - sizes), sizes) + np.arange(int(sizes.sum()))
        return Sequences(self.items[rows], self.types[rows], None if self.times_ms is None else self.times_ms[rows], ends)

    def as_rows(self, n: int = N_ITEMS) -> Sequences:
        """As a worker's user row remembers them: of each item its last event, and of these the newest n."""
        kept = np.zeros(len(self.items), bool)
        _last_events(self.items, self.starts, self.ends, n, kept)
        return self.keep(kept)

    def __add__(self, other: Sequences) -> Sequences:
        """Both, as users of their own."""
        times = None if self.times_ms is None or other.times_ms is None else np.concatenate([self.times_ms, other.times_ms])
        return Sequences(np.concatenate([self.items, other.items]), np.concatenate([self.types, other.types]), times,
                         np.concatenate([self.ends, other.ends + len(self.items)]))


@dataclass(frozen=True)
class Batch:
    """Rows of places, R of L each. What stands in padding (window -1) means nothing.

    items, targets (R, L) int32: what was taken, and what was next (-1: not asked); types (R, L) uint8; ages (R, L) float32:
    seconds from the event to the newest of its window (0 without a clock); windows (R, L) int32; again (R, L) int32: place in
    the row at which the same item comes again within the window, L if it does not. What training asks: places (N,) int64, in
    rows laid end to end, and what they should predict, wanted (N,) int32.
    """

    items: np.ndarray
    targets: np.ndarray
    types: np.ndarray
    ages: np.ndarray
    windows: np.ndarray
    again: np.ndarray
    places: np.ndarray
    wanted: np.ndarray


@dataclass(frozen=True)
class Plan:
    """Where windows go. first, size, column (w,) int64: in `Sequences` and in its row; rows (r + 1,): windows of row k are [rows[k], rows[k + 1]).

    newest: a window ends with what was taken last, so its last place has no target. stop (n,) int64: what event k should predict
    are the events [k + 1, stop[k]); None: one, the next. before (n + 1,) int64: how many the events before k should predict.
    """

    first: np.ndarray
    size: np.ndarray
    column: np.ndarray
    rows: np.ndarray
    newest: bool = False
    stop: np.ndarray | None = None
    before: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        return len(self.rows) - 1

    def n_wanted(self, rows: np.ndarray) -> int:
        """What the places of these rows should predict, together."""
        windows = np.concatenate([np.arange(self.rows[row], self.rows[row + 1]) for row in rows])
        if self.before is None:
            return int(self.size[windows].sum())
        return int((self.before[self.first[windows] + self.size[windows]] - self.before[self.first[windows]]).sum())


def plan(sequences: Sequences, max_len: int, row_len: int, rng: np.random.Generator, baskets: bool = False) -> Plan:
    """Cut sequences into windows of at most max_len pairs (item, next item), shuffle them, pack them into rows of row_len.

    Each pair is in one window. Where a sequence that needs several is cut is drawn anew, so that an early place of a window in
    one pass is a late one in another. baskets: a place predicts each event of the next moment, and only the last place of a
    moment predicts at all, so nothing of a basket is history to the rest of it.
    """
    pairs = np.maximum(sequences.ends - sequences.starts - 1, 0)
    head = np.where(pairs > max_len, rng.integers(1, max_len + 1, len(pairs)), pairs)
    count = np.where(pairs > 0, 1 + -(-(pairs - head) // max_len), 0)
    user = np.repeat(np.arange(len(pairs)), count)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    begin = np.where(nth > 0, head[user] + (nth - 1) * max_len, 0)
    size = np.where(nth > 0, np.minimum(max_len, pairs[user] - begin), head[user])
    order = rng.permutation(len(user))
    first, size = (sequences.starts[user] + begin)[order], size[order]
    row, column, n_rows = _pack(size.astype(np.int64), row_len)
    by_row = np.argsort(row, kind="stable")
    rows = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))])
    stop = _next_moment(sequences) if baskets else None
    before = None if stop is None else np.concatenate([[0], np.cumsum(stop - np.arange(1, len(stop) + 1))])
    return Plan(first[by_row], size[by_row], column[by_row], rows.astype(np.int64), stop=stop, before=before)


def one_a_row(sequences: Sequences, max_len: int) -> Plan:
    """The newest max_len events of each user, a row each, as histories to be asked about: the last event is an input too."""
    size = np.minimum(sequences.ends - sequences.starts, max_len)
    return Plan(sequences.ends - size, size, np.zeros(len(size), np.int64), np.arange(len(size) + 1), newest=True)


def batch(sequences: Sequences, where: Plan, rows: np.ndarray, row_len: int) -> Batch:
    """The chosen rows of a plan."""
    shape = (len(rows), row_len)
    counts = where.rows[rows + 1] - where.rows[rows]
    chosen = np.repeat(where.rows[rows] - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
    size = where.size[chosen]
    flat = np.repeat(np.repeat(np.arange(len(rows)), counts) * row_len + where.column[chosen] - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    source = np.repeat(where.first[chosen] - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    items, targets, windows = np.zeros(shape, np.int32), np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    types, ages = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    items.ravel()[flat] = sequences.items[source]
    types.ravel()[flat] = sequences.types[source]
    windows.ravel()[flat] = np.repeat(np.arange(len(chosen)), size)
    targets.ravel()[flat] = sequences.items[np.minimum(source + 1, len(sequences.items) - 1)]
    if where.newest:
        targets.ravel()[flat[np.cumsum(size)[size > 0] - 1]] = -1
    if sequences.times_ms is not None:
        newest = np.repeat(sequences.times_ms[where.first[chosen] + size - 1], size)
        ages.ravel()[flat] = np.maximum(newest - sequences.times_ms[source], 0) / 1e3
    again = np.full(shape, row_len, np.int32)
    _next_same(items, windows, again)
    places, wanted = flat[targets.ravel()[flat] >= 0], targets.ravel()[flat]
    wanted = wanted[wanted >= 0]
    if where.stop is not None:
        n = where.stop[source] - source - 1
        places = np.repeat(flat, n)
        wanted = sequences.items[np.repeat(source + 1 - (np.cumsum(n) - n), n) + np.arange(int(n.sum()))]
    return Batch(items, targets, types, ages, windows, again, places, wanted)


def _next_moment(sequences: Sequences) -> np.ndarray:
    """Of each event that is the last of its moment, the end of the user's next moment; of others, and of the last of all, k + 1."""
    if sequences.times_ms is None:
        raise DataError("baskets are events of one moment, and these sequences have no clock; train without `baskets`")
    n = len(sequences.items)
    last = np.ones(n, bool)  # of its moment
    last[:-1] = sequences.times_ms[1:] != sequences.times_ms[:-1]
    final = sequences.ends[sequences.ends > sequences.starts] - 1
    last[final] = True
    ends = np.flatnonzero(last)
    stop = np.arange(1, n + 1)
    stop[ends[:-1]] = ends[1:] + 1
    stop[final] = final + 1
    return stop


def rows_of(n_rows: int, n: int) -> Iterator[np.ndarray]:
    """All rows in order, n at a time."""
    for start in range(0, n_rows, n):
        yield np.arange(start, min(start + n, n_rows))


@nb.njit(cache=True)
def _pack(sizes: np.ndarray, row_len: int) -> tuple[np.ndarray, np.ndarray, int]:
    """First fit among the open rows; where none has room, the fullest is closed. Returns row and column of each window."""
    n = len(sizes)
    row, column = np.empty(n, np.int64), np.empty(n, np.int64)
    number, used = np.full(OPEN_ROWS, -1, np.int64), np.full(OPEN_ROWS, row_len, np.int64)
    n_rows = 0
    for k in range(n):
        best = -1
        for o in range(OPEN_ROWS):
            if number[o] >= 0 and used[o] + sizes[k] <= row_len and (best < 0 or used[o] > used[best]):
                best = o
        if best < 0:
            best = 0
            for o in range(OPEN_ROWS):
                if number[o] < 0 or used[o] > used[best]:
                    best = o
                    if number[o] < 0:
                        break
            number[best], used[best] = n_rows, 0
            n_rows += 1
        row[k], column[k] = number[best], used[best]
        used[best] += sizes[k]
    return row, column, n_rows


@nb.njit(cache=True)
def _next_same(items: np.ndarray, windows: np.ndarray, again: np.ndarray) -> None:
    n_rows, row_len = items.shape
    for r in range(n_rows):
        for i in range(row_len):
            j = i + 1
            while j < row_len and windows[r, i] >= 0 and windows[r, j] == windows[r, i]:
                if items[r, j] == items[r, i]:
                    again[r, i] = j
                    break
                j += 1


@nb.njit(cache=True)
def _last_events(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, n: int, kept: np.ndarray) -> None:
    for u in range(len(ends)):
        found, at = 0, ends[u] - 1
        while at >= starts[u] and found < n:
            seen = False
            for later in range(at + 1, ends[u]):
                if kept[later] and items[later] == items[at]:
                    seen = True
                    break
            if not seen:
                kept[at] = True
                found += 1
            at -= 1
