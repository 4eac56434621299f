"""The product under judgement: the very absorb, fold and refresh of the workers, through the lockstep engine.

In: a log's events, made into the messages that a producer would send. Out: the lists that would be published. The wall clock
is event time. Also each channel alone: the same system with a blend that names nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log
from infra.settings import Settings
from models.popularity import WINDOWS
from streams.engine import Engine, LogRecord
from streams.events import EVENT_TYPES, Event
from streams.partitioner import partitions_of

CHANNELS = ("repeat", "covisitation", *WINDOWS)
LIST_SIZE = 200
#: Popularity is renewed when event time has moved by this, as a worker renews it by the second.
RENEW_MS = 1_000
#: Rows of users silent for longer than the retention are looked for whenever so many users have come.
FORGET_EVERY = 50_000


class Product:
    """The running system as a contender. `settings`: a whole, or overrides of the defaults; `channel`: that one alone."""

    def __init__(
        self,
        settings: Settings | Mapping[str, Any] | None = None,
        channel: str | None = None,
        *,
        name: str | None = None,
        renew_ms: int = RENEW_MS,
    ) -> None:
        whole = settings if isinstance(settings, Settings) else Settings(**(settings or {}))
        if channel is not None:
            whole = dataclasses.replace(whole, blend=f"{channel}=1")
        self.settings = dataclasses.replace(whole, list_size=max(whole.list_size, LIST_SIZE))
        self.name = name or channel or "product"
        self._renew_ms = renew_ms

    @property
    def about(self) -> dict[str, object]:
        """What it is made of: the settings that differ from the defaults."""
        shown = self.settings.public()
        return {f.name: shown[f.name] for f in dataclasses.fields(Settings) if shown[f.name] != f.default}

    def start(self, log: Log) -> None:
        """See `Contender`."""
        self._now_ms = 0
        self._engine = Engine(self.settings, clock_ms=lambda: self._now_ms)
        self._partition = partitions_of(log.user_ids, self.settings.partitions)
        self._offsets = [0] * self.settings.partitions
        self._numbers = {item: k for k, item in enumerate(log.item_ids)}
        self._to_log = np.full(1024, -1, np.int32)
        self._n_named = 0
        self._user_ids = log.user_ids
        self._encode = msgspec.json.Encoder().encode
        self._renewed_ms: int | None = None
        self._forget_at = FORGET_EVERY

    def learn(self, log: Log, first: int, last: int) -> None:
        """See `Contender`."""
        for partition, records in self._records(log, first, last):
            self._engine.absorb(partition, records)
        self._after(log, last)
        self._name_items()

    def observe(self, log: Log, first: int, last: int) -> None:
        """See `Observer`: users' rows change, what they say about items is dropped."""
        users = self._engine.state.users
        for partition, records in self._records(log, first, last):
            decoded = users.decode(partition, records)
            users.admit(partition, decoded, [None] * len(decoded.missing))
            users.absorb(partition, decoded, records[-1].offset + 1)
            users.take_records(partition)
        self._after(log, last)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        """See `Contender`. Users without a row get what readers find in their place: the popular list."""
        self._now_ms = max(self._now_ms, now_ms)
        state = self._engine.state
        if self._renewed_ms is None or self._now_ms - self._renewed_ms >= self._renew_ms:
            self._renewed_ms = self._now_ms
            state.catalogue.expire(self._now_ms)
            state.refresher.renew_popularity()
        table, ids, partition = state.users.table, self._user_ids, self._partition
        slots = np.array([table.slots[partition[u]].get(ids[u], -1) for u in users.tolist()])
        items, scores = np.full((len(users), n), -1, np.int32), np.zeros((len(users), n), np.float32)
        known = np.flatnonzero(slots >= 0)
        if len(known):
            ranked = state.refresher.rank(slots[known].tolist(), n)
            items[known], scores[known] = ranked.items, ranked.scores
        if len(known) < len(users):
            popular = state.refresher.rank_popular(n)
            width = popular.items.shape[1]
            items[slots < 0, :width], scores[slots < 0, :width] = popular.items, popular.scores
        return Ranking(np.where(items >= 0, self._to_log[items], -1).astype(np.int32), scores)

    def _records(self, log: Log, first: int, last: int) -> list[tuple[int, list[LogRecord]]]:
        """Messages of these events by partition, as they would lie in the `events` topic."""
        encode, user_ids, item_ids, offsets = self._encode, log.user_ids, log.item_ids, self._offsets
        partitions = self._partition[log.users[first:last]].tolist()
        users, items = log.users[first:last].tolist(), log.items[first:last].tolist()
        types, times = log.types[first:last].tolist(), log.times_ms[first:last].tolist()
        baskets = log.baskets[first:last].tolist()
        records: dict[int, list[LogRecord]] = {}
        for k, p in enumerate(partitions):
            event = Event(
                str(first + k), user_ids[users[k]], item_ids[items[k]], EVENT_TYPES[types[k]],
                times[k], None, str(baskets[k]),
            )
            records.setdefault(p, []).append(LogRecord(offsets[p], times[k], encode(event)))
            offsets[p] += 1
        return sorted(records.items())

    def _after(self, log: Log, last: int) -> None:
        """Time has moved on; nobody waits for a published list; who is silent for too long is forgotten."""
        self._now_ms = max(self._now_ms, int(log.times_ms[last - 1]))
        users = self._engine.state.users
        for partition, queue in enumerate(users.queues):
            if queue:
                users.published(users.take_waiting(partition, len(queue)))
        table = users.table
        if len(table) > self._forget_at:
            # their next event would start an empty row anyway; a worker evicts them
            silent = table.rows["clock_ms"] < self._now_ms - self.settings.retention_s * 1000
            table.release(np.flatnonzero(silent & (table.partition >= 0)).tolist())
            self._forget_at = len(table) + FORGET_EVERY

    def _name_items(self) -> None:
        """Numbers in the log of the items that have come since."""
        items = self._engine.state.items
        if len(self._to_log) < items.n_items:
            grown = np.full(2 * items.n_items, -1, np.int32)
            grown[: len(self._to_log)] = self._to_log
            self._to_log = grown
        for slot in range(self._n_named, items.n_items):
            self._to_log[slot] = self._numbers[items.ids[slot]]
        self._n_named = items.n_items
