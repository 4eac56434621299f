"""How events leave Kafka: whole batches, partitions level with each other, requests paced by the load.

In: an `AIOKafkaConsumer` and the thread it lives in. Out: one `Batch` for each partition with data, each stamped with
the epoch of the seek that it was read after. Everything here runs in the consumer's thread, except `Batch`, which travels.
It leans on a few names inside aiokafka's fetcher; tests/streams/test_transport.py fails when one of them changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import ConsumerStoppedError

from infra.settings import StreamrecError
from streams.earlier import Earlier
from streams.file_fetching import FileFetcher
from streams.foreign_headers import read_foreign_headers

log = logging.getLogger(__name__)

IDLE_WAIT_MS = 250  # a fetch of >= 1 byte is answered at once, so this only sets how often an idle worker asks again
BUSY_ARRIVALS = 4  # so many answers with data within the window below, and requests wait to fill up instead
ANSWER_MS = 6  # what an answer takes besides the wait; with 4 ms of wait the threshold is 100 answers a second
POLL_RECORDS = 8_192  # records of one poll, shared by the partitions that have data ...
MAX_BATCH = 2_048  # ... and at most this many of one: the loop is held while a batch is absorbed (~10 ms at 5 us each)
MIN_BATCH = 64  # with hundreds of partitions, batches do not get so small that the cost of a message comes back


class LogError(StreamrecError):
    """The log of a partition does not hold what the checkpoint says: cut short, or made anew."""


@dataclass(slots=True)
class Batch:
    """What one fetch brought for one partition; without records only where an event log holds none up to `next`.

    `records` have offset, timestamp, timestamp_type, key, value, headers (aiokafka's raw records, without topic and
    partition). `start` is where the batch before ended, or where the seek went; `next` is the first offset not in it.
    Offsets between `start` and the first record hold no event (transaction markers, or deleted by retention).
    """

    partition: int
    records: list[Any]
    epoch: int
    start: int
    next: int

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return int(self.records[0].offset)

    @property
    def last(self) -> int:
        """Offset of the last record."""
        return int(self.records[-1].offset)

    def __len__(self) -> int:
        return len(self.records)


class Pace:
    """Decides how long the broker may hold the next fetch, and for how many bytes.

    At rest: any byte ends the wait, so a lone event comes at once and waiting costs nothing. Under load every such
    fetch would bring a single event; then a few milliseconds of gathering cost less than they save.
    """

    def __init__(self, wait_ms: int, min_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._busy = (min_bytes, wait_ms)
        self._window_s = BUSY_ARRIVALS * (wait_ms + ANSWER_MS) / 1000
        self._arrivals: deque[float] = deque(maxlen=BUSY_ARRIVALS)
        self._clock = clock

    def arrived(self) -> None:
        """A poll brought data."""
        self._arrivals.append(self._clock())

    def next(self, *, partial: bool) -> tuple[int, int]:
        """(least bytes, longest wait in ms) of the next request; `partial`: it leaves out a partition with data in hand."""
        if len(self._arrivals) == BUSY_ARRIVALS and self._clock() - self._arrivals[0] < self._window_s:
            return self._busy
        # a partition that is left out cannot be asked for before this request is answered: do not let it wait
        return (1, self._busy[1]) if partial else (1, IDLE_WAIT_MS)


@dataclass(slots=True)
class _Place:
    """Where a partition is read: which seek it follows, and what comes next."""

    epoch: int
    next: int
    assignment: Any
    start: int  # the seek's offset
    lost: bool = False  # aiokafka found our offset outside the log and has gone elsewhere


class EventFetcher:
    """Takes batches of one topic from aiokafka's buffers, and from files; records of other topics pass as they are."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, pace: Pace, earlier: Earlier | None = None) -> None:
        self._consumer = consumer
        self._files = FileFetcher(consumer, earlier)
        self._fetcher = consumer._fetcher
        self._topic = topic
        self._pace = pace
        self._places: dict[TopicPartition, _Place] = {}
        self._plan = self._fetcher._get_actions_per_node
        self._fetcher._get_actions_per_node = self._paced_plan

    def seek(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        """Go on at `offset`; everything taken from now on bears `epoch`. Raises IllegalStateError if `tp` is not ours."""
        tp = TopicPartition(*tp)  # Faust's own type is equal to it, but aiokafka checks
        if tp in self._places and self._places[tp].epoch > epoch:
            return  # overtaken by a later seek on the way here
        self._consumer.seek(tp, offset)  # also drops what is buffered of it
        assignment = self._consumer._subscription.subscription.assignment
        self._places[tp] = _Place(epoch, offset, assignment, offset)
        self._files.seek(tp, offset)

    def log_end(self, tp: TopicPartition) -> int | None:
        """Where the events of a partition end as far as is known; None: not known, or there is none to be read.

        The log's own end may lie beyond: behind the last event there can be transaction markers, which are never taken.
        """
        place = self._places.get(tp)
        assignment: Any = self._consumer._subscription.subscription.assignment
        if place is None or place.assignment is not assignment:
            return None
        if tp in self._files:
            return None if (known := self._files.log_end(tp)) is None else max(known, place.next)
        state = assignment.state_value(tp)
        if state is None or state.highwater is None or not state.has_valid_position:
            return None
        end = min(state.highwater, state.highwater if state.lso is None else state.lso)
        if state.position >= end and tp not in self._fetcher._records:
            return None if place.next == place.start else place.next
        return int(end)

    async def take(self, partitions: Collection[TopicPartition], timeout: float,
                   closed: Callable[[], bool]) -> dict[TopicPartition, list[Any]]:
        """What is buffered of `partitions`, or what comes within `timeout` seconds; nothing while `closed()`.

        An events partition has one element, its `Batch`. Taking from the buffer and stamping is one step without an
        await between, so a batch bears the epoch of the seek it was read after, whatever happens elsewhere.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self._consumer._closed or self._fetcher._closed:
                raise ConsumerStoppedError()
            if closed():
                return {}
            taken = await self._drain(partitions)
            left = deadline - time.monotonic()
            if taken or left <= 0:
                return taken
            waiter = self._fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter, *self._files.tasks()], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if waiter in done:
                waiter.result()  # raises what the group's coordinator found fatal, such as a missing permission
            else:
                waiter.cancel()

    async def _drain(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, list[Any]]:
        """Equal shares of every partition that has data: aiokafka alone would empty one before it looks at the next."""
        buffers = self._fetcher._records
        ready = [tp for tp in buffers if tp in partitions]
        filed = self._files.ready(self._current(), partitions) if self._files else []
        if not (ready or filed) or self._fetcher._subscriptions.reassignment_in_progress:
            return {}
        share = min(MAX_BATCH, max(MIN_BATCH, POLL_RECORDS // (len(ready) + len(filed))))
        taken: dict[TopicPartition, list[Any]] = {}
        for tp in filed:
            place = self._places[tp]
            if (found := self._files.take(tp, share, place.next)) is not None:
                start, (records, place.next) = place.next, found
                taken[tp] = [Batch(tp.partition, records, place.epoch, start, place.next)]
        for tp in ready:
            buffered = buffers.get(tp)
            if tp.topic == self._topic and isinstance(buffered, FetchResult) and buffered.has_more():
                # aiokafka wraps every record in a dataclass of 11 fields, 0.75 of the 2.0 us that a record costs it
                buffered._partition_records._consumer_record = _unwrapped
            try:
                records = (await self._fetcher.fetched_records([tp], 0, share)).get(tp)  # never waits when timeout is 0
            except UnicodeDecodeError:
                read_foreign_headers()
                self._consumer.seek(tp, self._places[tp].next if tp in self._places else await self._consumer.position(tp))
                continue  # fetched once more, from where the batch before ended
            if records:
                taken[tp] = [self._batch(tp, records)] if tp.topic == self._topic else records
        if taken:
            self._pace.arrived()
        return taken

    def _current(self) -> list[TopicPartition]:
        """Partitions that were sought since they were assigned."""
        subscription = self._consumer._subscription.subscription
        return [tp for tp, place in self._places.items() if subscription is not None and place.assignment is subscription.assignment]

    def _batch(self, tp: TopicPartition, records: list[Any]) -> Batch:
        place = self._places[tp]
        first, start = records[0].offset, place.next
        if first < start:
            raise LogError(f"{tp.topic} partition {tp.partition} goes on at offset {first}, but everything before {start} was "
                           "read: the log was cut short or the topic made anew; rebuild from the log that is there")
        if place.lost:
            place.lost = False
            log.warning("%s partition %d: offsets %d to %d were deleted (retention) before they were read; going on at %d",
                        tp.topic, tp.partition, start, first - 1, first)
        place.next = records[-1].offset + 1
        return Batch(tp.partition, records, place.epoch, start, place.next)

    def _paced_plan(self, assignment: Any) -> Any:
        """Stands before aiokafka's own planning of requests."""
        for tp in assignment.tps:
            if tp.topic != self._topic:
                continue
            state = assignment.state_value(tp)
            place = self._places.get(tp)
            if place is None or place.assignment is not assignment:
                state.pause()  # until our seek: what Kafka holds as committed is not where the rows stand
            elif not state.has_valid_position and tp not in self._files:
                place.lost = True
        self._fetcher._fetch_min_bytes, self._fetcher._fetch_max_wait_ms = self._pace.next(partial=bool(self._fetcher._records))
        return self._plan(assignment)


def _unwrapped(_tp: TopicPartition, record: Any) -> Any:
    return record
