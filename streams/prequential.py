"""Test, then learn: before a batch is absorbed, the fusion is asked what it would have shown, and taught what was taken.

In: a decoded batch whose users are all in memory, and their rows as they stand before it. Out: lessons for the fusion, a few
baskets each. Only events that open something new for their user - later than his row's clock - are asked about, together
with what he took at the same moment; so a lesson never sees an item of its own basket, and redelivered events give none.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from infra.settings import Settings
from models.fusion import Lesson
from models.hashing import find_all
from models.item_rows import DAY_MS, HOUR_MS
from streams.decode import Decoded
from streams.refresh import Refresher
from streams.users import UserSide

#: Baskets of one lesson: one step of the fusion. More would learn slower, fewer would be more bytes.
BASKETS = 4
#: Baskets of one batch that are asked about; on a backlog batches are long, and not every basket is needed to learn.
MOST_BASKETS = 64
#: On a backlog the item side is seconds behind the user side, which may be weeks of events. What is popular then is not what was popular when the
#: basket came, and a fusion that learns from it trusts the wrong channels once the two are together again.
STALE_MS = DAY_MS
EVER = (-(1 << 62), 1 << 62)


@nb.njit(cache=True, nogil=True)
def openings(
    rows: np.ndarray,
    slots: np.ndarray,
    offsets: np.ndarray,
    times_ms: np.ndarray,
    items: np.ndarray,
    weights: np.ndarray,
    span_ms: tuple[int, int],
    most: int,
    users: np.ndarray,
    taken: np.ndarray,
    ends: np.ndarray,
) -> int:
    """The first `most` baskets that events open: fills `users` (most,), their items one after the other into `taken` (n,)
    and where each ends into `ends` (most,); returns their number. weights (n,): what the events count;
    span_ms: first and last time of events that may open one."""
    n = 0
    n_taken = 0
    for e in range(slots.shape[0]):
        if n == most:
            break
        row = rows[slots[e]]
        opens = weights[e] > 0 and row["n_items"] > 0 and offsets[e] > row["as_of"] and times_ms[e] > row["clock_ms"]
        opens = opens and span_ms[0] <= times_ms[e] <= span_ms[1]
        for k in range(n):
            opens = opens and users[k] != slots[e]
        if not opens:
            continue
        for t in range(e, slots.shape[0]):
            if slots[t] == slots[e] and times_ms[t] == times_ms[e] and weights[t] > 0:
                taken[n_taken] = items[t]
                n_taken += 1
        users[n] = slots[e]
        ends[n] = n_taken
        n += 1
    return n


class Prequential:
    """Asks the fusion of a refresher; changes nothing."""

    def __init__(self, settings: Settings, users: UserSide, refresher: Refresher) -> None:
        self._users, self._refresher = users, refresher
        self._learn = settings.learn == "on"
        self._renewed_ms = 0

    def lessons(self, partition: int, decoded: Decoded, *, behind: bool = False) -> list[Lesson]:
        """What a batch teaches, to be called before it is absorbed. behind: there is a backlog, in which items are of another time than users."""
        if not self._learn or not len(decoded.slots) or not self._refresher.items.n_items:
            return []
        table, items = self._users.table, self._refresher.items
        n = len(decoded.slots)
        users, ends = np.empty(MOST_BASKETS, np.int32), np.empty(MOST_BASKETS, np.int64)
        taken = np.empty(n, np.uint64)
        n_baskets = openings(
            table.rows,
            np.array(decoded.slots, np.int32),
            np.array(decoded.offsets, np.int64),
            np.array(decoded.times_ms, np.int64),
            np.array(decoded.items, np.uint64),
            self._users.weights(decoded),
            (items.clock_ms - STALE_MS, items.clock_ms + STALE_MS) if behind else EVER,
            MOST_BASKETS,
            users,
            taken,
            ends,
        )
        if n_baskets == 0:
            return []
        if items.clock_ms - self._renewed_ms >= HOUR_MS:
            self._refresher.renew_popularity()
            self._renewed_ms = items.clock_ms
        found = np.empty((1, n), np.int32)
        find_all(items.keys, items.cells, taken[None, : ends[n_baskets - 1]], found[:, : ends[n_baskets - 1]])
        lessons = []
        for first in range(0, n_baskets, BASKETS):
            last = min(first + BASKETS, n_baskets)
            start = int(ends[first - 1]) if first else 0
            targets = found[0, start : ends[last - 1]]
            lessons.append(self._refresher.lesson(users[first:last].tolist(), targets, ends[first:last] - start))
        return lessons
