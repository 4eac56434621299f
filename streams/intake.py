"""Intake: one fetch of one partition is decoded, its missing rows are loaded, and it is absorbed.

What is absorbed becomes durable by the next commit cycle and visible by the publisher; both are told.
"""

from __future__ import annotations

import asyncio
import time

from streams.attempts import Attempts
from streams.commit import Committer
from streams.decode import Decoded, Record
from streams.fetching import Batch
from streams.followers import ItemFollower
from streams.outbox import dead_letter, moved
from streams.prequential import Prequential
from streams.publisher import Publisher
from streams.state import State, Tenure
from streams.store import Store

#: Records about items that may wait to be sent before intake pauses: Kafka or Redis is gone, memory must not fill.
MOST_PENDING = 400_000
#: The same of dead letters and moved events of a partition, each up to 90 kB.
MOST_OUTGOING = 5_000
PAUSE_S = 0.01
#: Of the loop's time: the fusion has few parameters, and a hundred baskets a second tell it all it can use.
JUDGE_SHARE = 0.03


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
    ) -> None:
        self.state, self.store = state, store
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
        while state.users.n_records > MOST_PENDING or len(tenure.outgoing) > MOST_OUTGOING:
            await asyncio.sleep(PAUSE_S)
        for part in self.attempts.split(tenure, batch.records):
            end_offset = batch.next if part[-1] is batch.records[-1] else part[-1].offset + 1
            part = await self.attempts.before(tenure, part)
            async with self.rows_turn:
                if not await self._absorb(tenure, part, end_offset):
                    return
        await self.attempts.after(tenure)
        self.committer.absorbed()
        self.publisher.wake()

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
        self._judge(p, decoded)
        settings = state.settings
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
        metrics.events_rerouted.inc(len(decoded.misplaced))
        metrics.batch_size.labels("events").observe(len(records))
        return True

    def _judge(self, partition: int, decoded: Decoded) -> None:
        """Ask the fusion what it would have shown to those who come now: a sample, it costs as much as their lists."""
        started = time.monotonic()
        if started < self._judge_again_s:
            return
        with self.state.metrics.stage.labels("judge").time():
            self.state.users.judge(partition, decoded, self._prequential.lessons(partition, decoded))
        self._judge_again_s = started + (time.monotonic() - started) / JUDGE_SHARE
