"""The Faust app: settings and a host go in, a process that consumes `events` and ends cleanly comes out.

`build_app(settings, host)` makes it, `run_app(app)` runs it until SIGTERM (0) or until something fails (1). The app holds
each partition's epoch: it rises at every seek, and the agent drops batches of an older one before the host sees them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

import faust
from aiokafka.errors import IllegalStateError
from faust.app.base import BootStrategy
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from infra.settings import Settings, StreamrecError
from streams.earlier import Earlier
from streams.kafka_thread import AIOKAFKA_LOGS, BatchThread, Seldom, faust_log
from streams.tasks import cancelled
from streams.transport import Batch, BatchConsumer, BatchTransport, PartitionHost, PatientTableManager

log = logging.getLogger(__name__)

STOP_S = 4.5  # from SIGTERM to the end, the flush included; orchestrators and `streamrec down` wait 5 s or more
REVOKE_S = 3.0  # what the host may take to flush: other workers wait for it, and what is not flushed is read again
ABSORB_S = 1.0  # how long a revocation waits for the batch that is being absorbed (it may hang on Redis)
SWITCH_INTERVAL_S = 0.001  # the fetch thread gets the interpreter from a long absorb after this, not after 5 ms
YIELD_RECORDS = 128  # a smaller batch holds the loop for less than the turn that yielding costs


class BatchOrderError(StreamrecError):
    """Batches did not follow each other: a defect, stopped before it can skip an event."""


class _Boot(BootStrategy):
    enable_web = False
    enable_kafka_producer = False  # Faust's is not idempotent; what we send goes through our own


class StreamApp(faust.App):
    """Faust's app over the batch transport."""

    logger = faust_log
    BootStrategy = _Boot

    def __init__(self, settings: Settings, host: PartitionHost) -> None:
        self.settings = settings
        self.host = host
        self.events_topic = settings.topic("events")
        self.failed = asyncio.Event()
        self._epochs: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._owned: set[int] = set()
        self._absorbing = asyncio.Lock()
        self.earlier: Earlier | None = None  # to be set before the start: what of the log lies in files
        super().__init__(
            settings.group_id, broker=f"kafka://{settings.kafka_bootstrap.split(',')[0]}", autodiscover=False, value_serializer="raw",
            key_serializer="raw", web_enabled=False, topic_allow_declare=False, topic_disable_leader=True, table_standby_replicas=0,
            stream_buffer_maxsize=4, stream_wait_empty=False, stream_recovery_delay=0.0, broker_commit_interval=2.0,
            TableManager=PatientTableManager)

    def epoch(self, partition: int) -> int:
        """Rises at every seek and revocation; a batch with another epoch is stale."""
        return self._epochs.get(partition, 0)

    def owns(self, partition: int) -> bool:
        """Whether the group has given us this partition."""
        return partition in self._owned

    def log_end(self, partition: int) -> int | None:
        """End of the partition's log as the last fetch told (for lag); None: not known."""
        return self._kafka().log_end(TP(self.events_topic, partition))

    async def seek_events(self, offsets: Mapping[int, int]) -> None:
        """Go on at these offsets. From the call on, before any await, every batch fetched earlier is stale."""
        self._owned |= offsets.keys()
        self.make_stale(offsets)
        self._next.update(offsets)
        seeks = {TP(self.events_topic, p): (offset, self._epochs[p]) for p, offset in offsets.items()}
        try:
            await self._kafka().seek_events(seeks)
        except IllegalStateError:  # the group has moved on: what is ours now comes with its own seek
            self._owned -= offsets.keys()
            raise

    def make_stale(self, partitions: Iterable[int]) -> None:
        """What was fetched of them so far is not delivered any more."""
        for partition in partitions:
            self._epochs[partition] = self.epoch(partition) + 1

    async def deliver(self, batch: Batch) -> None:
        """The agent's body: the host sees current batches only, each going on where the one before ended."""
        async with self._absorbing:
            if batch.epoch != self.epoch(batch.partition):
                return
            if batch.start != self._next[batch.partition]:
                raise BatchOrderError(f"{self.events_topic} partition {batch.partition}: a batch starts at {batch.start}, expected "
                                      f"{self._next[batch.partition]}; this is a defect, the worker starts again from its checkpoint")
            self._next[batch.partition] = batch.next
            await self.host.absorb(batch)

    async def revoke(self, partitions: Iterable[int]) -> None:
        """Nothing of them is delivered any more; the host flushes and drops."""
        leaving = set(partitions)
        self.make_stale(leaving)
        self._owned -= leaving
        if not leaving:
            return
        held = False
        try:
            async with asyncio.timeout(ABSORB_S):
                held = await self._absorbing.acquire()
        except TimeoutError:
            log.warning("a batch is still being absorbed after %.0f s; flushing without it", ABSORB_S)
        try:
            async with asyncio.timeout(REVOKE_S):
                await self.host.revoke(leaving)
        except TimeoutError:
            log.error("the flush of partitions %s did not end in %.0f s; what it left is read again", sorted(leaving), REVOKE_S)
        except Exception as error:  # noqa: BLE001 - it ends the process, but the group must hear of our leaving first
            self.fail(error)
        finally:
            if held:
                self._absorbing.release()

    def _kafka(self) -> BatchThread:
        consumer = self.consumer
        assert isinstance(consumer, BatchConsumer)
        return consumer._thread

    def fail(self, reason: BaseException) -> None:
        """End the process with a non-zero code (watchdog, failed send)."""
        self._crash(reason)

    # Faust's hooks

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """None: Faust would leave an empty folder named after the group wherever a worker is started."""

    def _crash(self, reason: BaseException) -> None:
        super()._crash(reason)
        self.failed.set()

    async def _stop_consumer(self) -> None:
        await super()._stop_consumer()  # stops the flow and the fetcher; nothing is in the queues after it
        await self.revoke(set(self._owned))


def build_app(settings: Settings, host: PartitionHost) -> StreamApp:
    """The app with its one agent; starts nothing."""
    app = StreamApp(settings, host)
    topic = app.topic(app.events_topic, value_serializer="raw", key_serializer="raw")

    @app.agent(topic, name="events", supervisor_strategy=CrashingSupervisor)
    async def absorb_events(stream: Any) -> None:
        async for batches in stream:
            for batch in batches:
                await app.deliver(batch)
                if len(batch) >= YIELD_RECORDS:
                    await asyncio.sleep(0)  # an absorb that finds its rows in memory never waits; others need the loop too

    async def leave(_app: Any, revoked: set[TP], **_: Any) -> None:
        await app.revoke(tp.partition for tp in revoked if tp.topic == app.events_topic)

    app.on_partitions_revoked.connect(cast(Any, leave))

    return app


async def reseek(app: StreamApp, offsets: Mapping[int, int]) -> None:
    """Read these partitions again from these offsets, in the middle of running (Redis lost its tail).

    Those that were revoked are left alone. Raises aiokafka's IllegalStateError when the group is moving on just now: all
    partitions are assigned anew then, and nothing is left to do here.
    """
    ours = {TP(app.events_topic, partition): offset for partition, offset in offsets.items() if app.owns(partition)}
    consumer = app.consumer
    if app.earlier is not None and isinstance(consumer, BatchConsumer):  # before what Kafka holds there may be more
        ours = await consumer.starts(ours)
    await app.seek_events({tp.partition: offset for tp, offset in ours.items()})


def app_epoch(app: StreamApp, partition: int) -> int:
    """The epoch that a batch of this partition must bear to count."""
    return app.epoch(partition)


def run_app(
    app: StreamApp,
    beside: Iterable[Callable[[], Awaitable[None]]] = (),
    *,
    before: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Run until SIGTERM or SIGINT (returns 0) or a failure (returns 1, reason logged). Call it from the main thread.

    `before` ends before the app joins the group: loading, which a rebalance must not wait for. `beside` are coroutines
    that run as long as the app, started before it joins and cancelled after it left: one that raises, or returns, ends
    the process.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if app.settings.log_level != "DEBUG":
        for name in ("faust", "mode", "aiokafka"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they tell every step at INFO
        for name in AIOKAFKA_LOGS:
            logging.getLogger(name).addFilter(Seldom())
    loop = app.loop
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(_serve(app, beside, before))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _serve(
    app: StreamApp, beside: Iterable[Callable[[], Awaitable[None]]], before: Callable[[], Awaitable[None]] | None
) -> int:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if before is not None and not await _opened(before, told):
        return 0 if told.is_set() else 1
    others = [asyncio.ensure_future(run()) for run in beside]
    start = asyncio.ensure_future(app.start())  # ends when the first assignment reads; that may wait for Kafka and Redis
    ends = [asyncio.ensure_future(event.wait()) for event in (told, app.failed)]
    try:
        await asyncio.wait([start, *ends, *others], return_when=asyncio.FIRST_COMPLETED)
        if start.done() and not start.exception():
            await asyncio.wait([*ends, *others], return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in [start, *others] if task.done() and not task.cancelled()]
        reason = app.crash_reason or next((error for task in ended if (error := task.exception()) is not None), None)
        if reason is None and not told.is_set():
            reason = StreamrecError("a task beside the app ended, which it must not before the app")
        try:
            async with asyncio.timeout(STOP_S):
                await app.stop()
        except Exception as error:  # noqa: BLE001 - whatever Faust meets while stopping, the process must end
            reason = reason or error
        reason = reason or app.crash_reason
        if reason is not None:
            log.error("stopped because of %r", reason, exc_info=None if isinstance(reason, StreamrecError) else reason)
        return 0 if reason is None else 1
    finally:
        await cancelled(start, *ends, *others)


async def _opened(before: Callable[[], Awaitable[None]], told: asyncio.Event) -> bool:
    """Whether `before` has ended well; False when the process is told to go, or it failed (logged)."""
    opening, end = asyncio.ensure_future(before()), asyncio.ensure_future(told.wait())
    await asyncio.wait([opening, end], return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    if not opening.done():
        await cancelled(opening)
        return False
    if (error := opening.exception()) is not None:
        log.error("not started: %s", error, exc_info=None if isinstance(error, StreamrecError) else error)
        return False
    return True
