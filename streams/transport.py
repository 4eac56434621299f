"""The Faust transport of events: one Faust message for each poll, read from where the rows stand.

In: a `PartitionHost`, which knows the checkpoints, and Kafka. Out: messages whose value is a list of `Batch`, one for
each partition that had data, for Faust's agent. Faust pays 75 to 300 us a message; a poll a message makes that
vanish under load and small at rest, while groups, agents and timers stay.
Other topics pass through as in Faust. What of Faust is overridden, and why, stands at each override.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from aiokafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.fetching import Batch, LogError
from streams.kafka_thread import BatchThread, KafkaUnreachable, faust_log
from streams.tasks import cancelled

__all__ = ["Batch", "BatchTransport", "KafkaUnreachable", "LogError", "PartitionHost", "PatientTableManager"]

log = logging.getLogger(__name__)


class PartitionHost(Protocol):
    """What the worker does with its events partitions; called in the main loop, never two of assign and revoke at once."""

    async def assign(self, partitions: set[int]) -> dict[int, int]:
        """All partitions that are now ours, also those that were before: fence them, read their checkpoints.

        Returns the offset to start from, for each. Waits while Redis is away and does not raise for that; is cancelled
        when the group moves on meanwhile, and `revoke` follows.
        """
        ...

    async def revoke(self, partitions: set[int]) -> None:
        """They go, or the worker stops: flush and drop. Also called for those whose `assign` did not end."""
        ...

    async def absorb(self, batch: Batch) -> None:
        """One fetch of one partition; offsets go on where the batch before, or the seek, ended."""
        ...

    def low_water(self, partition: int) -> int | None:
        """Offset to show to Kafka's lag tools (the checkpoint); None: none yet."""
        ...


class _ReadOffsets(dict[TP, Any]):
    """Faust's notes of what was read, without events: a note written after a seek back would silently drop what follows."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self._topic = topic

    def __missing__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: Any) -> None:
        if tp.topic != self._topic:
            super().__setitem__(tp, offset)

    def update(self, offsets: Any = (), /, **_: Any) -> None:
        for tp, offset in dict(offsets).items():
            self[tp] = offset


class BatchConsumer(driver.Consumer):
    """Faust's consumer, with batches for messages and checkpoints for committed offsets."""

    logger = faust_log
    app: Any  # streams.app.StreamApp, which imports us
    _thread: BatchThread
    can_resume_flow: Any  # Faust waits for asyncio's events where its annotations want its own

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _ReadOffsets(self.app.events_topic)
        self._assigning: asyncio.Task[dict[int, int]] | None = None

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    def _is_events(self, tp: TP) -> bool:
        return bool(tp.topic == self.app.events_topic)

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = self._get_active_partitions()
        if not active:
            await self.sleep(0.05)  # Faust sleeps a second, also when partitions come in the middle of it
            return None, active
        records = self._as_one(await self._getmany(active_partitions=active, timeout=timeout))
        if not self.flow_active:
            # Faust throws the records away and seeks, whatever partitions the group takes from us meanwhile: it would take
            # over what another worker has. Held, they cannot be lost: those from before the seek to come bear an older
            # epoch, those that were read between the seek and the resumption are current
            await self.wait(self.can_resume_flow)
        return records, active

    def _as_one(self, records: Mapping[TP, list[Any]]) -> dict[TP, list[Any]]:
        """All events batches of a poll as one record of the first partition among them; their order does not matter."""
        others = {tp: found for tp, found in records.items() if not self._is_events(tp)}
        batches = [batch for tp, found in records.items() if self._is_events(tp) for batch in found]
        return others | {TP(self.app.events_topic, batches[0].partition): [batches]} if batches else others

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not self._is_events(tp):
            return super()._to_message(tp, record)
        batch: Batch = record[0]
        newest = batch.records[-1] if batch.records else None
        at_s, kind = (newest.timestamp / 1000.0, newest.timestamp_type) if newest else (0.0, 1)
        return ConsumerMessage(tp.topic, tp.partition, batch.next - 1, at_s, kind, [], None, record, None, 0, 0, tp, generation_id=self.app.consumer_generation_id)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from (tp for tp in super()._filter_tps_with_pending_acks(topics) if not self._is_events(tp))
        yield from (tp for tp in self.assignment() if self._is_events(tp))  # acknowledgements say nothing here, low_water does

    def on_buffer_full(self, tp: TP) -> None:
        # The queue to the agent is bounded and a full one holds the fetch loop: that is pressure enough. Faust also takes
        # the partition out of the next polls, and when all are out it sleeps for a second
        if not self._is_events(tp):
            super().on_buffer_full(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # the upkeep of Faust's interval trees took p50 from 4 to 20 ms at 2,000 events/s
        if not self._is_events(tp):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self._is_events(tp):
            return super()._new_offset(tp)
        self._acked[tp].clear()  # nothing else trims these
        self._acked_index[tp].clear()
        mark: int | None = self.app.host.low_water(tp.partition)
        return mark

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Called once after every assignment: events go to the host's checkpoints, other topics where Faust would go."""
        assigned = self.assignment()
        events = {tp for tp in assigned if self._is_events(tp)}
        offsets = dict(await self._thread.seek_others(assigned - events)) if assigned - events else {}
        if events:
            starts = await self._checkpoints(events)
            await self.app.seek_events({tp.partition: start for tp, start in starts.items()})
            offsets |= starts
        return offsets

    async def _checkpoints(self, tps: set[TP]) -> dict[TP, int]:
        partitions = {tp.partition for tp in tps}
        task = self._assigning = asyncio.ensure_future(self.app.host.assign(partitions))
        try:
            checkpoints = await task
        except asyncio.CancelledError:
            if task.cancelled() and not self.should_stop:
                raise IllegalStateError("the group moved on while checkpoints were read") from None  # Faust: once more
            raise
        finally:
            task.cancel()
            self._assigning = None
        return await self.starts({tp: checkpoints[tp.partition] for tp in tps})

    async def starts(self, checkpoints: Mapping[TP, int]) -> dict[TP, int]:
        """Where reading begins: at the checkpoints, unless what follows is gone. Raises LogError, and HoleError of `streams.earlier`."""
        topic, starts = self.app.events_topic, {}
        for tp, (first, end) in (await self._log_ranges(set(checkpoints))).items():
            start = checkpoints[tp]
            if start > end:
                raise LogError(f"the checkpoint of {topic} partition {tp.partition} is {start}, but its log ends at {end}: the topic "
                               "was made anew or lost its tail; rebuild the state, or give this system another prefix")
            if (earlier := self.app.earlier) is not None:
                start = starts[tp] = await asyncio.to_thread(earlier.begin, tp.partition, start, first, end)
                if earlier.holds(tp.partition, start):
                    continue
            if start < first:
                log.warning("%s partition %d: the log begins at offset %d, so the events from %d on are gone", topic, tp.partition,
                            first, start)
            starts[tp] = max(start, first)
        return starts

    async def _log_ranges(self, tps: set[TP]) -> dict[TP, tuple[int, int]]:
        while True:
            try:
                return await self._thread.log_ranges(tps)
            except KafkaError as error:
                # a timeout is not retriable by aiokafka's word: it has tried for as long as it may, and may again
                if isinstance(error, IllegalStateError) or not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                log.warning("the ends of the log are not known yet (%r); asking again", error)
                await asyncio.sleep(0.5)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """The host hears of it after Faust has stopped the flow (see the app); a pending `assign` must end before that."""
        task = self._assigning
        if task is not None:
            await cancelled(task)
        await super().on_partitions_revoked(revoked)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: the worker's own watchdog looks at lag and progress."""


class _PatientRecovery(Recovery):
    logger = faust_log

    async def _wait(self, coro: Any, timeout: Any = None) -> None:
        # Faust's timeout ends this service for good, as if the worker were stopping: a Redis away for longer would leave a
        # worker that holds its partitions and reads nothing
        await super()._wait(coro)


class PatientTableManager(TableManager):
    """No tables here, but Faust resumes the flow after a rebalance in this service."""

    logger = faust_log

    async def on_start(self) -> None:
        # without Faust's second of sleep, in which tables might still be declared
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = _PatientRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class BatchTransport(driver.Transport):
    """Faust's Kafka transport with our consumer; its producer is never started."""

    Consumer = BatchConsumer
