"""Intake: one fetch of one partition is decoded, its missing rows are loaded, and it is absorbed.

What is absorbed becomes durable by the next commit cycle and visible by the publisher; both are told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from streams.attempts import Attempts
from streams.commit import Committer
from streams.decode import ORIGIN_HEADER, Decoded, Record, origin_of
from streams.fetching import Batch
from streams.followers import ItemFollower
from streams.horizon import APPEND_TIME, Horizon
from streams.outbox import Message, dead_letter, moved
from streams.prequential import Prequential
from streams.publisher import Publisher
from streams.state import State, Tenure
from streams.store import Store
from streams.stretch import Stretch

log = logging.getLogger(__name__)

#: Records about items that may wait to be sent before intake pauses: Kafka or Redis is gone, memory must not fill.
MOST_PENDING = 400_000
#: The same of dead letters and moved events of a partition, each up to 90 kB.
MOST_OUTGOING = 5_000
PAUSE_S = 0.01
#: Of the loop's time: the fusion has few parameters, and a hundred baskets a second tell it all it can use.
JUDGE_SHARE = 0.03
#: More than this waits only on a backlog.
BEHIND_EVENTS = 5_000


class _Plain(NamedTuple):
    """A record without its headers."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    timestamp_type: int
    headers: Sequence[tuple[str, bytes]] = ()


class Intake:
    """Takes fetches in. `rows_turn` is held from decode to absorb: nobody else may evict rows meanwhile."""

    def __init__(
        self,
        state: State,
        store: Store,
        committer: Committer,
        publisher: Publisher,
        items: ItemFollower,
        attempts: Attempts,
        horizon: Horizon,
        stretch: Stretch,
    ) -> None:
        self.state, self.store, self._horizon, self.stretch = state, store, horizon, stretch
        self.committer, self.publisher, self.items, self.attempts = committer, publisher, items, attempts
        self.rows_turn = asyncio.Lock()
        self._prequential = Prequential(state.settings, state.users, state.refresher)
        self._judge_again_s = 0.0

    async def absorb(self, batch: Batch) -> None:
        """One fetch: decode, load the rows that are missing, apply, mark; durable by the next commit cycle."""
        state, p = self.state, batch.partition
        tenure = state.tenures.get(p)
        if tenure is None:
            return
        async for records, next_offset in self.stretch.parts(batch):
            while state.users.n_records > MOST_PENDING or len(tenure.outgoing) > MOST_OUTGOING:
                await asyncio.sleep(PAUSE_S)
            for part in self.attempts.split(tenure, records) if records else [records]:
                end_offset = part[-1].offset + 1 if part and part[-1] is not records[-1] else next_offset
                if part:
                    part = await self._with_true_origins(p, await self.attempts.before(tenure, part))
                async with self.rows_turn:
                    if not await self._absorb(tenure, part, end_offset):
                        return
            await self._absorbed(tenure)

    async def _absorbed(self, tenure: Tenure) -> None:
        """Tell who makes it durable and visible."""
        await self.attempts.after(tenure)
        self.committer.absorbed()
        self.publisher.wake()

    async def _with_true_origins(self, partition: int, records: list[Record]) -> list[Record]:
        """Takes away headers that name a place in `events` where nothing was: believed, they would hide every event that is
        moved here from there later."""
        n, place = self.state.settings.partitions, (self.state.settings.topic("events"), partition)
        origins = {k: origin for k, record in enumerate(records) if record.headers and (origin := origin_of(record, n))}
        last: dict[int, int] = {}
        for source, offset in origins.values():
            last[source] = max(offset, last.get(source, offset))
        if not origins:
            return records
        earliest = min((records[k] for k in origins), key=lambda record: record.timestamp)
        if await self._horizon.holds(place, earliest, last, wait=False):  # one question for all of them
            return records
        checked: list[Any] = list(records)
        n_false = 0
        for k, (source, offset) in origins.items():
            record = records[k]
            if not await self._horizon.holds(place, record, {source: offset}, wait=False):
                checked[k] = _Plain(record.offset, record.timestamp, record.key, record.value, getattr(record, "timestamp_type", APPEND_TIME))
                n_false += 1
        log.warning("%d events bear a header %s that cannot be true: taken as if they had none", n_false, ORIGIN_HEADER)
        return checked

    async def _absorb(self, tenure: Tenure, records: list[Record], end_offset: int) -> bool:
        state, metrics, p = self.state, self.state.metrics, tenure.partition
        if not state.current(tenure):  # it ended while we waited for our turn
            return False
        with metrics.stage.labels("decode").time():
            decoded = state.users.decode(p, records)
        if decoded.missing:
            with metrics.stage.labels("load").time():
                stored = await self.store.load_users(p, list(decoded.missing))
            if not state.current(tenure):
                return False
            metrics.rows_loaded.inc(sum(row is not None for row in stored))
            state.users.admit(p, decoded, stored)
        settings = state.settings
        state.users.erase(p, decoded.erased)
        for user, *_ in decoded.erased:
            if (told := state.users.erasures.to_tell(user)) is not None:
                tenure.outgoing.append(Message(settings.topic("erasures"), 0, *told))
        self._judge(p, decoded)
        for rejected in decoded.rejected:
            tenure.outgoing.append(
                dead_letter(
                    settings.topic("events.dlq"),
                    settings.topic("events"),
                    p,
                    rejected.record,
                    rejected.reason,
                    rejected.detail,
                )
            )
            metrics.events_rejected.labels(rejected.reason).inc()
        for record, home in decoded.misplaced:
            tenure.outgoing.append(moved(settings.topic("events"), p, record, home, record.key))
        with metrics.stage.labels("absorb").time():
            done = state.users.absorb(p, decoded, end_offset)
            self.items.meet(decoded.items)
        metrics.events_absorbed.inc(done.absorbed)
        metrics.events_duplicate.inc(done.duplicates + done.skipped)
        metrics.events_erased.inc(decoded.n_erased)
        metrics.events_rerouted.inc(len(decoded.misplaced))
        metrics.batch_size.labels("events").observe(len(records))
        return True

    def _judge(self, partition: int, decoded: Decoded) -> None:
        """Ask the fusion what it would have shown to those who come now: a sample, it costs as much as their lists."""
        started = time.monotonic()
        if started < self._judge_again_s:
            return
        with self.state.metrics.stage.labels("judge").time():
            self.state.users.judge(partition, decoded, self._prequential.lessons(partition, decoded, behind=self.state.lag() > BEHIND_EVENTS))
        self._judge_again_s = started + (time.monotonic() - started) / JUDGE_SHARE
