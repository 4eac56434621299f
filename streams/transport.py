"""The Faust transport of events: one Faust message for each poll, read from where the rows stand.

In: a `PartitionHost`, which knows the checkpoints, and Kafka. Out: messages whose value is a list of `Batch`, one for
each partition that had data, for Faust's agent. Faust pays 75 to 300 us a message; a poll a message makes that
vanish under load and small at rest, while groups, agents and timers stay.
Other topics pass through as in Faust. What of Faust is overridden, and why, stands at each override.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.threads import WorkerThread

from infra.settings import Settings, StreamrecError
from streams.fetching import Batch, EventFetcher, LogError, Pace

__all__ = ["Batch", "BatchTransport", "KafkaUnreachable", "LogError", "PartitionHost", "PatientTableManager"]

log = logging.getLogger(__name__)
faust_log = logging.getLogger("faust.batches")  # Faust's services tell every step to the logger of their class

START_WAIT_S = 60.0  # a worker that starts together with its Kafka should wait for it, one with a wrong address should say so
HEARTBEAT_MS = 500  # a member learns of a rebalance by its next heartbeat: this, not the session, is how long a handover takes
REBALANCE_TIMEOUT_MS = 20_000  # how long the group waits for a member that flushes; flushing is bounded well below
MAX_POLL_INTERVAL_MS = 2_000_000_000  # off: waiting for Redis must not cost the partitions, and a hang is the watchdog's
COMMIT_TIMEOUT_S = 2.0  # Kafka's committed offset is a mirror for lag tools: never worth waiting for


class KafkaUnreachable(StreamrecError):
    """No broker answered for as long as a starting worker waits."""


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


class _Daemon(WorkerThread):
    """A consumer thread that never keeps a process alive which has been told to go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True

    def stop(self) -> None:
        self.join(0.5)  # Faust's own waits without a limit, and holds the loop meanwhile


class BatchThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread in which aiokafka lives."""

    logger = faust_log
    Worker = _Daemon
    events: EventFetcher

    async def on_start(self) -> None:
        settings: Settings = self.app.settings
        deadline = time.monotonic() + START_WAIT_S
        while True:
            consumer = self._consumer = self._create_consumer(loop=self.thread_loop)
            try:
                await consumer.start()
                break
            except KafkaConnectionError as error:
                await consumer.stop()
                if time.monotonic() > deadline or self.should_stop:
                    raise KafkaUnreachable(f"no Kafka at {settings.kafka_bootstrap} after {START_WAIT_S:.0f} s ({error}); check "
                                           "kafka_bootstrap and the login, or start Kafka (`streamrec up`)") from error
                await asyncio.sleep(1.0)
        self.time_started = time.monotonic()
        self.events = EventFetcher(consumer, self.app.events_topic, Pace(settings.fetch_wait_ms, settings.fetch_min_bytes))

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        # Faust hard-codes 1 byte and 1,500 ms of fetching; everything else is settled here too, so that one place says it
        settings: Settings = self.app.settings
        return AIOKafkaConsumer(
            **settings.kafka_client_args(), client_id="streamrec-worker", group_id=settings.group_id,
            partition_assignment_strategy=[RoundRobinPartitionAssignor], enable_auto_commit=False,
            auto_offset_reset="earliest", fetch_min_bytes=1, fetch_max_wait_ms=settings.fetch_wait_ms,
            session_timeout_ms=settings.session_timeout_ms, heartbeat_interval_ms=min(HEARTBEAT_MS, settings.session_timeout_ms // 3),
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS, max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            request_timeout_ms=settings.request_timeout_ms, metadata_max_age_ms=30_000)

    async def getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:
        # straight into the thread: Faust's queue of calls costs three tasks a call, and this is the call that is made often
        coroutine = self._fetch_records(self._ensure_consumer(), active_partitions or set(), timeout)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop))

    async def _fetch_records(self, consumer: AIOKafkaConsumer, active_partitions: set[TP], timeout: float | None = None,
                             max_records: int | None = None) -> Mapping[TP, list[Any]]:
        with consumer._subscription.fetch_context():
            return await self.events.take(active_partitions, timeout or 0.0, lambda: not self.consumer.flow_active)

    async def seek_events(self, seeks: Mapping[TP, tuple[int, int]]) -> None:
        """Seek each partition to (offset, epoch), in one step as seen by fetches."""
        async def seek() -> None:
            for tp, (offset, epoch) in seeks.items():
                self.events.seek(tp, offset, epoch)
        await self.call_thread(seek)

    async def seek_others(self, tps: set[TP]) -> Mapping[TP, int]:
        """Faust's way, for topics that are not events."""
        return dict(await self.call_thread(self._ensure_consumer().seek_to_committed, *tps))

    async def log_ranges(self, tps: set[TP]) -> dict[TP, tuple[int, int]]:
        """(first offset, end) of each partition's log."""
        async def ranges() -> dict[TP, tuple[int, int]]:
            consumer = self._ensure_consumer()
            first, end = await consumer.beginning_offsets(list(tps)), await consumer.end_offsets(list(tps))
            return {tp: (first[tp], end[tp]) for tp in tps}
        return dict(await self.call_thread(ranges))

    def log_end(self, tp: TP) -> int | None:
        """End of the log as the last fetch told; None: not ours, or not fetched yet."""
        assignment = getattr(self._ensure_consumer()._subscription.subscription, "assignment", None)
        state = assignment.state_value(tp) if assignment else None
        return None if state is None else state.highwater

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Faust ends the process when a commit fails; ours is a mirror, and Kafka may be away for a while
        ours = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in self.assignment()}
        try:
            if ours:
                await asyncio.wait_for(self._ensure_consumer().commit(ours), COMMIT_TIMEOUT_S)
        except (KafkaError, TimeoutError) as error:
            log.info("offsets are not mirrored to Kafka this time: %r", error)
            return False
        return True

    def close(self) -> None:
        """Nothing: Faust's would close the client from the wrong loop when a rebalance meets a shutdown."""


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


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, with batches for messages and checkpoints for committed offsets."""

    logger = faust_log

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
        if records and not self.flow_active:
            # Faust throws these away and seeks. Held, they cannot be lost: those from before the seek to come bear an
            # older epoch, those that were read between the seek and the resumption are current
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
        newest = batch.records[-1]
        return ConsumerMessage(tp.topic, tp.partition, newest.offset, newest.timestamp / 1000.0, newest.timestamp_type, [], None,
                               record, None, 0, 0, tp, generation_id=self.app.consumer_generation_id)

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
            return super()._new_offset(tp)  # type: ignore[no-any-return]
        self._acked[tp].clear()  # nothing else trims these
        self._acked_index[tp].clear()
        return self.app.host.low_water(tp.partition)  # type: ignore[no-any-return]

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
        topic, partitions = self.app.events_topic, {tp.partition for tp in tps}
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
        starts: dict[TP, int] = {}
        for tp, (first, end) in (await self._log_ranges(tps)).items():
            start = checkpoints[tp.partition]
            if start > end:
                raise LogError(f"the checkpoint of {topic} partition {tp.partition} is {start}, but its log ends at {end}: the topic "
                               "was made anew or lost its tail; rebuild the state, or give this system another prefix")
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
                if isinstance(error, IllegalStateError) or not error.retriable:
                    raise
                log.warning("the ends of the log are not known yet (%r); asking again", error)
                await asyncio.sleep(0.5)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """The host hears of it after Faust has stopped the flow (see the app); a pending `assign` must end before that."""
        task = self._assigning
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await super().on_partitions_revoked(revoked)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: the worker's own watchdog looks at lag and progress."""


class _PatientRecovery(Recovery):  # type: ignore[misc]
    logger = faust_log

    async def _wait(self, coro: Any, timeout: Any = None) -> None:
        # Faust's timeout ends this service for good, as if the worker were stopping: a Redis away for longer would leave a
        # worker that holds its partitions and reads nothing
        await super()._wait(coro)


class PatientTableManager(TableManager):  # type: ignore[misc]
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


class BatchTransport(driver.Transport):  # type: ignore[misc]
    """Faust's Kafka transport with our consumer; its producer is never started."""

    Consumer = BatchConsumer
