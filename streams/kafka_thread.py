"""The thread in which aiokafka lives, for Faust: connecting, seeking, fetching, leaving.

In: calls from the main loop. Out: what `EventFetcher` takes. A broker that is away is waited for: at the start for a
minute, later for as long as it takes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from mode.threads import WorkerThread

from infra.settings import Settings, StreamrecError
from streams.fetching import EventFetcher, Pace

log = logging.getLogger(__name__)
faust_log = logging.getLogger("faust.batches")  # Faust's services tell every step to the logger of their class
faust_log.addFilter(lambda record: not str(record.msg).startswith("Crashed reason"))  # said once, by the app
AIOKAFKA_LOGS = ("aiokafka", "aiokafka.conn", "aiokafka.cluster", "aiokafka.consumer.fetcher", "aiokafka.consumer.group_coordinator")

START_WAIT_S = 60.0  # a worker that starts together with its Kafka should wait for it, one with a wrong address should say so
FETCH_BYTES = 4 * 1024 * 1024
HEARTBEAT_MS = 500  # a member learns of a rebalance by its next heartbeat: this, not the session, is how long a handover takes
REBALANCE_TIMEOUT_MS = 20_000  # how long the group waits for a member that flushes; flushing is bounded well below
MAX_POLL_INTERVAL_MS = 2_000_000_000  # off: waiting for Redis must not cost the partitions, and a hang is the watchdog's
LEAVE_S = 1.0  # to say goodbye to a broker that may not be there
COMMIT_TIMEOUT_S = 1.0  # Kafka's committed offset is a mirror for lag tools: never worth waiting for
SELDOM_S = 10.0


class KafkaUnreachable(StreamrecError):
    """No broker answered for as long as a starting worker waits."""


class Seldom(logging.Filter):
    """Lets a message pass once in 10 s: without it a broker that is away is told of 70 times a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """By the text before its values are filled in."""
        now, text = self._clock(), str(record.msg)
        passes = now >= self._next.get(text, 0.0)
        if passes:
            self._next[text] = now + SELDOM_S
        return passes


class _Daemon(WorkerThread):
    """A consumer thread that never keeps a process alive which has been told to go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True

    def run(self) -> None:
        try:
            super().run()
        except Exception:  # noqa: BLE001 - the app ends for the same reason, and says it once
            log.debug("the consumer thread ended", exc_info=True)

    def stop(self) -> None:
        self.join(0.5)  # Faust's own waits without a limit, and holds the loop meanwhile


class BatchThread(AIOKafkaConsumerThread):
    """aiokafka's thread, with our consumer in it."""

    logger = faust_log
    Worker = _Daemon
    app: Any  # streams.app.StreamApp
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
                if self.should_stop:
                    return
                if time.monotonic() > deadline:
                    raise KafkaUnreachable(f"no Kafka at {settings.kafka_bootstrap} after {START_WAIT_S:.0f} s ({error}); check "
                                           "kafka_bootstrap and the login, or start Kafka (`streamrec up`)") from error
                await self.sleep(1.0)
        self.time_started = time.monotonic()
        self.events = EventFetcher(consumer, self.app.events_topic, Pace(settings.fetch_wait_ms, settings.fetch_min_bytes), self.app.earlier)

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        # Faust hard-codes 1 byte and 1,500 ms of fetching; everything else is settled here too, so that one place says it
        settings: Settings = self.app.settings
        return AIOKafkaConsumer(
            **settings.kafka_client_args(), client_id="streamrec-worker", group_id=settings.group_id,
            partition_assignment_strategy=[RoundRobinPartitionAssignor], enable_auto_commit=False,
            auto_offset_reset="earliest", isolation_level="read_committed", fetch_min_bytes=1, fetch_max_wait_ms=settings.fetch_wait_ms,
            # level partitions run dry together: the fewer times in a backlog, the less the loop waits for the next fetch
            max_partition_fetch_bytes=FETCH_BYTES,
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
        """Where the partition's events end, as the last fetch told; None: not known."""
        return self.events.log_end(TopicPartition(*tp))

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Faust ends the process when a commit fails; ours is a mirror, and Kafka may be away for a while
        ours = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in self.assignment()}
        try:
            if ours:
                async with asyncio.timeout(COMMIT_TIMEOUT_S):
                    await self._ensure_consumer().commit(ours)
        except (KafkaError, TimeoutError) as error:
            log.info("offsets are not mirrored to Kafka this time: %r", error)
            return False
        return True

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Nothing: Faust would print a traceback here, and log it twice more."""

    async def on_thread_stop(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await super().on_thread_stop()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - aiokafka's own tasks come to light here
            log.info("the group was not left in order: %r; it will notice after the session timeout", error)

    def close(self) -> None:
        """Nothing: Faust's would close the client from the wrong loop when a rebalance meets a shutdown."""
