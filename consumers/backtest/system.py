"""The running system on a recorded log: events become the messages that a producer would send, and the lockstep engine
absorbs and folds them. The wall clock is event time.

Users and items are known to the judge by number and to the system by row; here lies the way between.
"""

from __future__ import annotations

import msgspec
import numpy as np

from consumers.backtest.log import Log
from consumers.backtest.releases import Releases
from infra.settings import Settings
from models.recall import Recall
from streams.engine import Engine, LogRecord
from streams.events import EVENT_TYPES, Event
from streams.partitioner import partitions_of

#: Rows of users silent for longer than the retention are looked for whenever so many users have come.
FORGET_EVERY = 50_000


class System:
    """An engine fed from a log. Told the same twice, as by several contenders that share it, it absorbs once. `store`: of the releases
    that it serves, each from the moment at which its data end."""

    def __init__(self, settings: Settings, store: str | None = None) -> None:
        self.settings, self.store = settings, store

    def start(self, log: Log) -> None:
        """Forget everything."""
        self.now_ms = 0
        self.engine = Engine(self.settings, clock_ms=lambda: self.now_ms)
        self._releases = Releases(self.store) if self.store else None
        self._learned = 0  # events of the log so far
        self._user_ids = log.user_ids
        self._partition = partitions_of(log.user_ids, self.settings.partitions)
        self._offsets = [0] * self.settings.partitions
        self._numbers = {item: k for k, item in enumerate(log.item_ids)}
        self._to_log = np.full(1024, -1, np.int32)
        self._n_named = 0
        self._encode = msgspec.json.Encoder().encode
        self._forget_at = FORGET_EVERY

    def learn(self, log: Log, first: int, last: int) -> None:
        """Absorb and fold events [first, last)."""
        if last <= self._learned:
            return
        for partition, records in self._records(log, first, last):
            self.engine.absorb(partition, records)
        self._after(log, last)
        self._name_items()

    def observe(self, log: Log, first: int, last: int) -> None:
        """Users' rows change; what absorbing says about items is dropped."""
        if last <= self._learned:
            return
        users = self.engine.state.users
        for partition, records in self._records(log, first, last):
            decoded = users.decode(partition, records)
            users.admit(partition, decoded, [None] * len(decoded.missing))
            users.absorb(partition, decoded, records[-1].offset + 1)
            users.take_records(partition)
            users.take_lessons(partition)
        self._after(log, last)

    def move_to(self, now_ms: int) -> None:
        """It is this late, at least."""
        self.now_ms = max(self.now_ms, now_ms)

    def slots_of(self, users: np.ndarray) -> np.ndarray:
        """Rows of users, (B,) int64, -1 for those without one."""
        slots, ids, partition = self.engine.state.users.table.slots, self._user_ids, self._partition
        return np.array([slots[partition[u]].get(ids[u], -1) for u in users.tolist()], np.int64)

    def numbers_of(self, slots: np.ndarray) -> np.ndarray:
        """The log's numbers of items by their slots, int32, -1 stays -1."""
        return np.where(slots >= 0, self._to_log[slots], -1).astype(np.int32)

    def _records(self, log: Log, first: int, last: int) -> list[tuple[int, list[LogRecord]]]:
        """Messages of these events by partition, as they would lie in the `events` topic."""
        encode, user_ids, item_ids, offsets = self._encode, log.user_ids, log.item_ids, self._offsets
        partitions = self._partition[log.users[first:last]].tolist()
        users, items = log.users[first:last].tolist(), log.items[first:last].tolist()
        types, times = log.types[first:last].tolist(), log.times_ms[first:last].tolist()
        baskets = log.baskets[first:last].tolist()
        # NaN says that there is none
        values = [None] * (last - first) if log.values is None else [v if v == v else None for v in log.values[first:last].tolist()]
        records: dict[int, list[LogRecord]] = {}
        for k, p in enumerate(partitions):
            event = Event(
                str(first + k), user_ids[users[k]], item_ids[items[k]], EVENT_TYPES[types[k]],
                times[k], values[k], str(baskets[k]),
            )
            records.setdefault(p, []).append(LogRecord(offsets[p], times[k], encode(event)))
            offsets[p] += 1
        return sorted(records.items())

    def _after(self, log: Log, last: int) -> None:
        """Time has moved on; nobody waits for a published list; who is silent for too long is forgotten."""
        self._learned = last
        self.move_to(int(log.times_ms[last - 1]))
        if self._releases and (release := self._releases.due(self.now_ms)):
            items = self.engine.state.items
            self.engine.state.refresher.serve(Recall(release, items.rows[: items.n_items]))
        users = self.engine.state.users
        for partition, queue in enumerate(users.queues):
            if queue:
                users.published(users.take_waiting(partition, len(queue)))
        table = users.table
        if len(table) > self._forget_at:
            # their next event would start an empty row anyway; a worker evicts them
            silent = table.rows["clock_ms"] < self.now_ms - self.settings.retention_s * 1000
            table.release(np.flatnonzero(silent & (table.partition >= 0)).tolist())
            self._forget_at = len(table) + FORGET_EVERY

    def _name_items(self) -> None:
        """Numbers in the log of the items that have come since."""
        items = self.engine.state.items
        if len(self._to_log) < items.n_items:
            grown = np.full(2 * items.n_items, -1, np.int32)
            grown[: len(self._to_log)] = self._to_log
            self._to_log = grown
        for slot in range(self._n_named, items.n_items):
            self._to_log[slot] = self._numbers[items.ids[slot]]
        self._n_named = items.n_items
