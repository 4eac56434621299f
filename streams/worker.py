"""One worker: the parts put together, and what happens when partitions come, go, or are lost.

The Faust app (`streams.app`) calls `assign`, `revoke` and `absorb`; beside it run the committer, the publisher, the
followers, the keeper, the sweeper and the web pages. All of them share one event loop and one `State`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time

import numpy as np

from infra.settings import Settings
from streams.app import StreamApp, build_app, reseek, run_app
from streams.attempts import Attempts
from streams.commit import Committer
from streams.decode import Record
from streams.fence import FenceLost
from streams.fetching import Batch
from streams.followers import CatalogueFollower, ItemFollower
from streams.health import Health
from streams.keeper import Keeper
from streams.outbox import Outbox, dead_letter, moved
from streams.publisher import Publisher
from streams.state import State, Tenure
from streams.store import Store
from streams.sweep import Sweeper
from streams.warm import warm

log = logging.getLogger(__name__)

#: Records about items that may wait to be sent before absorb pauses: Kafka or Redis is gone, memory must not fill.
MOST_PENDING = 400_000
#: Records and events are young garbage without cycles: Python's default of 700 looks through them again and again.
GC_ALLOCATIONS = 50_000
PAUSE_S = 0.01


class Worker:
    """A worker's life; implements `streams.transport.PartitionHost`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State(settings)
        self.state.lag = self.lag
        self.store = Store(settings, lambda: self.state.waiting("redis"))
        self.outbox = Outbox(settings, self.state.waiting)
        self.committer = Committer(self.state, self.store, self.outbox, self.lost)
        self.publisher = Publisher(self.state, self.store, self.lost)
        self.items = ItemFollower(self.state, self.store)
        self.catalogue = CatalogueFollower(self.state)
        self.keeper = Keeper(self.state, self.store, self.lost, self.publisher.refill)
        self.attempts = Attempts(self.state, self.store)
        self._rows_turn = asyncio.Lock()  # nobody evicts rows between decode and absorb
        self.sweeper = Sweeper(self.state, self.store, self.publisher, self._rows_turn, self.lost)
        self.health = Health(self.state, self.store, self)
        self.app: StreamApp = build_app(settings, self)
        self.ready = False
        self._recoveries: set[asyncio.Task[None]] = set()

    # life

    async def open(self) -> None:
        """Everything that must be there before the first event: state checked, item rows and attributes loaded."""
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        await self.health.start()
        warm()
        await self.store.open()
        await self.outbox.start()
        await self.items.load()
        follow = asyncio.ensure_future(self.catalogue.run())
        loaded = asyncio.ensure_future(self.catalogue.loaded.wait())
        await asyncio.wait([follow, loaded], return_when=asyncio.FIRST_COMPLETED)
        if follow.done():
            follow.result()
        self._catalogue_task = follow
        self.state.refresher.renew_popularity()
        gc.collect()
        gc.freeze()
        self.ready = True
        self.state.metrics.ready.set(1)

    async def run_beside(self) -> None:
        """All that runs beside the app; ends with the first part that fails."""
        tasks = [
            self._catalogue_task,
            *(
                asyncio.ensure_future(part.run())
                for part in (self.items, self.committer, self.publisher, self.keeper, self.sweeper, self.health)
            ),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in [*tasks, *self._recoveries]:
                task.cancel()
            await asyncio.gather(*tasks, *self._recoveries, return_exceptions=True)

    async def close(self) -> None:
        """Leave nothing open."""
        await self.health.stop()
        for part in (self.outbox.stop, self.store.close):
            try:
                await asyncio.wait_for(part(), 1.0)
            except Exception as error:  # noqa: BLE001 - the process ends, whatever is in the way
                log.warning("closing: %r", error)

    # partitions

    async def assign(self, partitions: set[int]) -> dict[int, int]:
        """Take these partitions over: fence, checkpoint, empty rows. Returns where absorb goes on."""
        for p in partitions:
            self.state.end(p)
        checkpoints = await self.store.takeover(partitions)
        starts, taken_again = {}, None
        for p, found in checkpoints.items():
            offset = found.offset or 0
            n = self.settings.partitions
            origins = np.full(n, -1, np.int64) if found.origins is None else np.array(found.origins, np.int64)
            tenure = Tenure(p, found.shown, offset, origins)
            self.keeper.begin(tenure, await self.store.items_checkpoint(p))
            try:
                await self.attempts.begin(tenure)
            except FenceLost as lost:  # the group has moved on, or Redis was flushed just now
                taken_again = lost
            self.state.begin(tenure, offset)
            starts[p] = offset
        if taken_again is not None:
            self.lost(taken_again)
        if 0 in partitions:
            self.keeper.begin_again()
        self.state.catalogue.to_sweep |= set(self.state.catalogue.hidden_since)
        self.state.metrics.partitions_owned.set(len(self.state.tenures))
        log.info("partitions %s are ours, from offsets %s", sorted(starts), [starts[p] for p in sorted(starts)])
        return starts

    async def revoke(self, partitions: set[int]) -> None:
        """Flush what is possible and forget them."""
        ours = {p for p in partitions if p in self.state.tenures}
        try:
            if ours and not self.state.waits_for:
                await self._flush(ours)
        finally:
            for p in partitions:
                self.state.end(p)
            self.store.fence.release(partitions)
            self.state.metrics.partitions_owned.set(len(self.state.tenures))
            log.info("partitions %s are not ours any more", sorted(partitions))

    async def _flush(self, partitions: set[int]) -> None:
        """Lists first, so that the checkpoint can stand at the end; then rows and items."""
        deadline = time.monotonic() + 1.0
        self.publisher.wake()
        while time.monotonic() < deadline and any(
            self.state.users.queues[p] for p in partitions if p in self.state.tenures
        ):
            await asyncio.sleep(0.005)
        await self.committer.commit(partitions)
        await self.keeper.save(partitions)
        await self.attempts.end(partitions)

    def lost(self, lost: FenceLost) -> None:
        """The fence of these partitions is gone: drop their state; start again unless another worker has them."""
        ours = {p for p in lost.partitions if p in self.state.tenures}
        for p in ours:
            self.state.end(p)
        self.store.fence.release(lost.partitions)
        self.state.metrics.fence_losses.inc(len(ours))
        if ours:
            log.warning(
                "partitions %s lost their fence (%s)",
                sorted(ours),
                "another worker has them" if ours & lost.foreign else "Redis lost data",
            )
            # a foreign owner that is none, because it had stopped for long, gives up within a session
            pause_s = self.settings.session_timeout_ms / 1000 + 2 if ours & lost.foreign else 0.0
            epochs = {p: self.app.epoch(p) for p in ours}
            task = asyncio.ensure_future(self._recover(epochs, pause_s))
            self._recoveries.add(task)
            task.add_done_callback(self._recovered)

    async def _recover(self, epochs: dict[int, int], pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        await self.store.open()
        still = {p for p, epoch in epochs.items() if self.app.epoch(p) == epoch and self.app.owns(p)}
        if still:
            log.warning("partitions %s start again from Redis", sorted(still))
            self.keeper.begin_again()
            await reseek(self.app, await self.assign(still))

    def _recovered(self, task: asyncio.Task[None]) -> None:
        self._recoveries.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.fail(error)

    # events

    async def absorb(self, batch: Batch) -> None:
        """One fetch: decode, load the rows that are missing, apply, mark; durable by the next commit cycle."""
        state, p = self.state, batch.partition
        tenure = state.tenures.get(p)
        if tenure is None:
            return
        while state.users.n_records() > MOST_PENDING:
            await asyncio.sleep(PAUSE_S)
        for part in self.attempts.split(tenure, batch.records):
            end_offset = batch.next if part[-1] is batch.records[-1] else part[-1].offset + 1
            part = await self.attempts.before(tenure, part)
            async with self._rows_turn:
                if not await self._absorb(tenure, part, end_offset):
                    return
        self.committer.absorbed()
        self.publisher.wake()

    async def _absorb(self, tenure: Tenure, records: list[Record], end_offset: int) -> bool:
        state, metrics, p = self.state, self.state.metrics, tenure.partition
        with metrics.stage.labels("decode").time():
            decoded = state.users.decode(p, records)
        if decoded.missing:
            with metrics.stage.labels("load").time():
                stored = await self.store.load_users(p, list(decoded.missing))
            if not state.current(tenure):
                return False
            metrics.rows_loaded.inc(sum(row is not None for row in stored))
            state.users.admit(p, decoded, stored)
        settings = self.settings
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

    def low_water(self, partition: int) -> int | None:
        """What Kafka's lag tools are shown."""
        tenure = self.state.tenures.get(partition)
        return None if tenure is None else tenure.checkpoint

    def lag(self) -> int:
        """Events in our partitions that are not absorbed yet."""
        return sum(self.lag_by_partition().values())

    def lag_by_partition(self) -> dict[int, int]:
        """The same for each partition; one whose log's end is not known yet counts 0."""
        ends = {p: self.app.log_end(p) for p in self.state.tenures}
        position = self.state.users.position
        return {p: max(0, end - int(position[p])) if end is not None else 0 for p, end in ends.items()}


def run(settings: Settings) -> int:
    """Run a worker in the foreground until SIGTERM; returns the exit code."""
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)
    worker = Worker(settings)

    async def beside() -> None:
        try:
            await worker.run_beside()
        finally:
            await worker.close()

    return run_app(worker.app, before=worker.open, beside=[beside])
