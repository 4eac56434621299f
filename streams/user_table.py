"""Rows of the users in memory: a slab of fixed-size records, with a dictionary per partition from user id to slot.

Only rows that are whole in Redis and wait for nothing are evicted, those that were silent longest first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infra.settings import StreamrecError
from models.marks import CLEAN
from models.row_formats import RowFormat, UnknownRow, read
from models.user_row import EMPTY_ROW, FORMAT, N_EVENT_IDS, N_ITEMS, USER_ROW


class NewerRow(StreamrecError):
    """A row in Redis was written by a newer version of the worker."""


def remedy(version: int, rows: RowFormat) -> str:
    """What to do about a row of this version, where others can be read."""
    if 0 < version < rows.version:
        return "it is of an older worker, build new state from the log (docs/operations.md, Rebuild)"
    return "upgrade the worker"


class UserTable:
    """Rows of the users in memory. Arrays are indexed by slot; `partition` is -1 where a slot is free."""

    def __init__(self, n_partitions: int, max_users: int, initial: int = 1024) -> None:
        self.n_partitions = n_partitions
        self.max_users = max_users
        self.n_evicted = 0
        self.slots: list[dict[str, int]] = [{} for _ in range(n_partitions)]
        self.ids: list[str] = []
        self._free: list[int] = []
        self._allocate(initial, 0)

    def _allocate(self, capacity: int, kept: int) -> None:
        def grown(name: str, dtype: np.dtype | type, fill: int) -> None:
            array = np.full(capacity, fill, dtype) if fill else np.zeros(capacity, dtype)
            if kept:
                array[:kept] = getattr(self, name)
            setattr(self, name, array)

        grown("rows", USER_ROW, 0)
        grown("partition", np.int32, -1)
        grown("changed", np.uint8, 0)  # differs from Redis
        grown("saving", np.uint8, 0)  # a copy is on its way to Redis
        grown("waiting_since", np.int64, CLEAN)  # offset of the first event that no list reflects
        grown("publishing_since", np.int64, CLEAN)  # the same of a list that is on its way to Redis
        grown("produced_ms", np.int64, 0)  # append time of the event at waiting_since
        grown("used", np.int64, 0)  # clock of the table's last use of the slot
        self.ids.extend([""] * (capacity - kept))
        self._free.extend(range(capacity - 1, kept - 1, -1))

    rows: np.ndarray
    partition: np.ndarray
    changed: np.ndarray
    saving: np.ndarray
    waiting_since: np.ndarray
    publishing_since: np.ndarray
    produced_ms: np.ndarray
    used: np.ndarray

    def __len__(self) -> int:
        return len(self.ids) - len(self._free)

    def admit(self, partition: int, users: Sequence[str], stored: Sequence[bytes | None], now: int) -> None:
        """Give users a row: the stored bytes, or an empty one. Users already in memory keep theirs."""
        known = self.slots[partition]
        new: list[int] = []
        found: list[int] = []
        rows: list[bytes] = []
        for user, data in zip(users, stored, strict=True):
            if user in known:
                continue
            if not self._free:
                self._make_room(now)
            slot = self._free.pop()
            if data is None:
                new.append(slot)
            else:
                found.append(slot)
                rows.append(data)
            known[user] = slot
            self.ids[slot] = user
            self.partition[slot] = partition
            self.used[slot] = now  # at once, or making room for the next one would take it
        if new:
            self.rows[new] = EMPTY_ROW
        if found:
            self.rows[found] = read_rows(rows)

    def _make_room(self, now: int) -> None:
        """Evict the users that were silent longest and are whole in Redis; grow where there are none or room is left."""
        capacity = len(self.ids)
        if capacity >= self.max_users:
            clean = (self.changed | self.saving) == 0
            clean &= (self.waiting_since == CLEAN) & (self.publishing_since == CLEAN) & (self.used < now)
            candidates = np.flatnonzero(clean)
            if len(candidates):
                wanted = min(len(candidates), max(1, capacity // 16))
                oldest = candidates[np.argpartition(self.used[candidates], wanted - 1)[:wanted]]
                self.n_evicted += wanted
                self.release(oldest.tolist())
                return
        # at least a little beyond the limit where every row is unsaved: waiting here could wait for ever
        self._allocate(max(min(2 * capacity, self.max_users), capacity + 1024), capacity)

    def blank(self, slots: Sequence[int]) -> list[bool]:
        """Which of these users nothing is known of: they were erased."""
        return (self.rows["clock_ms"][slots] == 0).tolist()  # type: ignore[no-any-return]

    def release(self, slots: Sequence[int]) -> None:
        """Forget the users at these slots."""
        for slot in slots:
            del self.slots[self.partition[slot]][self.ids[slot]]
            self.ids[slot] = ""
        self.partition[slots] = -1
        self.changed[slots] = 0
        self.saving[slots] = 0
        self.waiting_since[slots] = CLEAN
        self.publishing_since[slots] = CLEAN
        self._free.extend(slots)

    def drop(self, partition: int) -> None:
        """Forget a whole partition."""
        self.release(list(self.slots[partition].values()))


def is_blank(rows: np.ndarray) -> np.ndarray:
    """Rows (n,) USER_ROW that have absorbed nothing, (n,) bool."""
    blank: np.ndarray = rows["clock_ms"] == 0
    return blank


def read_rows(data: Sequence[bytes]) -> np.ndarray:
    """User rows from their bytes, (n,) USER_ROW; raises `NewerRow` where this version cannot read one."""
    try:
        rows = read(data, FORMAT)
    except UnknownRow as error:
        raise NewerRow(
            f"a user row of version {error.version} with {error.n_bytes} bytes lies in Redis, this"
            f" worker reads version {FORMAT.version} with {USER_ROW.itemsize}: {remedy(error.version, FORMAT)}"
        ) from None
    if (rows["n_items"] > N_ITEMS).any() or (rows["next_id"] >= N_EVENT_IDS).any() or not np.isfinite(rows["weights"]).all():
        raise NewerRow("a user row in Redis holds numbers that no worker writes: something else has written to our keys")
    return rows
