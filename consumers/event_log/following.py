"""From Kafka into the event log: reads all of `events`, outside any consumer group, from where the log ends.

In: settings and a `LogWriter`. `catch_up()` reads what there is now, `run()` goes on for ever. A disk that is full is said and waited
for, and so is a broker that is away; a topic that was made anew, or that has dropped events before they were read, is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from consumers.event_log.names import LogError
from consumers.event_log.writing import Anchor, LogWriter, NoRoom
from infra.settings import Settings
from infra.topics import partition_counts
from streams.foreign_headers import read_foreign_headers
from streams.shared_logs import at_end
from streams.topic_ids import topic_id

log = logging.getLogger(__name__)

POLL_MS = 200
POLL_RECORDS = 4_096  # the loop is held for about 20 ms
FETCH_BYTES = 4 * 1024 * 1024
#: What may wait in memory for a flush.
MOST_ROWS, MOST_BYTES = 500_000, 128 * 1024 * 1024
RETRY_S = 5.0
CHECK_S = 30.0


class Follower:
    """Keeps an event log up with its topic. flush_s: how long an event may wait before it is written."""

    def __init__(self, settings: Settings, writer: LogWriter, *, flush_s: float = 60.0, retry_s: float = RETRY_S) -> None:
        self.writer = writer
        self.n_read = 0
        self.no_room = False  # while the disk is full
        self.lag = 0  # records that are known to lie in Kafka beyond what was read
        self._topic = settings.topic("events")
        self._flush_s, self._retry_s = flush_s, retry_s
        self._tps = [TopicPartition(self._topic, p) for p in range(settings.partitions)]
        self._settings = settings
        self._consumer = AIOKafkaConsumer(
            **settings.kafka_client_args(), client_id="streamrec-log", enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed",  # as workers do: what was aborted is no event
            max_partition_fetch_bytes=FETCH_BYTES, request_timeout_ms=settings.request_timeout_ms)
        self._unchecked: dict[int, Anchor] = {}
        self._flushed_s = self._checked_s = time.monotonic()

    async def __aenter__(self) -> Follower:
        read_foreign_headers()  # one record with a foreign header would otherwise end the reading of all partitions
        await self._consumer.start()
        try:
            await self._begin()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def _begin(self) -> None:
        admin = AIOKafkaAdminClient(**self._settings.kafka_client_args())
        try:
            await admin.start()
            n = (await partition_counts(admin, [self._topic])).get(self._topic, 0)
        finally:
            await admin.close()
        if n != len(self._tps):
            raise LogError(f"topic {self._topic} has {n} partitions, the settings expect {len(self._tps)}; start a worker, which "
                           "creates what is missing, or set STREAMREC_PARTITIONS and STREAMREC_PREFIX to what is there")
        # not subscribed: a broker that is away for a moment would then cost the partitions, and where they were read
        self._consumer.assign(self._tps)
        await self._check_id()
        firsts, ends = await self._consumer.beginning_offsets(self._tps), await self._consumer.end_offsets(self._tps)
        for tp in self._tps:
            p, first, end = tp.partition, firsts[tp], ends[tp]
            at = self.writer.next.get(p, first)
            if at > end:
                raise self._made_anew(f"of partition {p} the log holds everything up to offset {at}, but the topic ends at {end}")
            anchor = self.writer.anchors.get(p)
            if at < first:
                self._gone(p, at, first)
            elif anchor is not None and anchor.offset >= first:
                self._unchecked[p], at = anchor, anchor.offset  # read once more, and compared
            self._consumer.seek(tp, max(at, first))

    async def catch_up(self, most: int | None = None) -> bool:
        """What lies in the topic now, into the log; waits for room where there is none. False: `most` rows came, and there is more."""
        ends, before = await self._consumer.end_offsets(self._tps), self.writer.n_added
        enough = False
        while not enough and not await at_end(self._consumer, ends):
            await self.step()
            enough = most is not None and self.writer.n_added - before >= most
        for p, anchor in self._unchecked.items() if not enough else ():
            raise self._made_anew(f"at offset {anchor.offset} of partition {p} lies no record")
        while not self._flush():
            await asyncio.sleep(self._retry_s)
        return not enough

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.step()

    async def step(self) -> None:
        """What one poll brings; a flush when it is time."""
        if self.no_room:
            await asyncio.sleep(self._retry_s)
            self._flush()
            return
        try:
            found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
            now_s = time.monotonic()
            if now_s - self._checked_s > CHECK_S:
                await self._check()
        except KafkaError as error:
            if not error.retriable:
                raise
            log.warning("Kafka does not answer (%r); the event log waits for it", error)
            await asyncio.sleep(1.0)
            return
        for tp, records in found.items():
            await self._take(tp, records)
        self.lag = sum(max(0, (self._consumer.highwater(tp) or 0) - self.writer.next.get(tp.partition, 0)) for tp in self._tps)
        full = self.writer.n_waiting >= MOST_ROWS or self.writer.bytes_waiting >= MOST_BYTES
        if full or now_s - self._flushed_s >= self._flush_s:
            self._flush()

    async def _take(self, tp: TopicPartition, records: list[Any]) -> None:
        p = tp.partition
        anchor = self._unchecked.pop(p, None)
        if anchor is not None:
            if Anchor.of(records[0]) != anchor:
                raise self._made_anew(f"at offset {anchor.offset} of partition {p} lies another record than the one that was read there")
            records = records[1:]
        if not records:
            return
        expected = self.writer.next.get(p)
        if expected is not None and records[0].offset != expected:
            if records[0].offset < expected:
                raise self._made_anew(f"partition {p} goes on at offset {records[0].offset}, but everything before {expected} was read")
            first = (await self._consumer.beginning_offsets([tp]))[tp]
            if first > expected:  # else there were markers of transactions, which are no events
                self._gone(p, expected, min(first, records[0].offset))
        self.writer.add(p, records)
        self.n_read += len(records)

    async def _check_id(self) -> None:
        found = await topic_id(self._consumer._client, self._topic)
        if found is None or not self.writer.is_of(found):
            raise self._made_anew(f"the brokers know it by the id {found}" if found else "there is none")

    async def _check(self) -> None:
        """Whether it is still the same topic; where brokers tell no ids, one that is shorter brings no records that would tell."""
        self._checked_s = time.monotonic()
        await self._check_id()
        for tp, end in (await self._consumer.end_offsets(self._tps)).items():
            p = tp.partition
            if end < (at := self.writer.next.get(p, 0)):
                raise self._made_anew(f"of partition {p} the log holds everything up to offset {at}, but the topic ends at {end}")

    def _flush(self) -> bool:
        """Whether all that was read is written."""
        try:
            self.writer.flush()
        except NoRoom as error:
            if not self.no_room:
                log.error("%s; trying again every %g s", error, self._retry_s)
            self.no_room = True
            return False
        if self.no_room:
            log.warning("there is room again: the event log goes on")
        self.no_room, self._flushed_s = False, time.monotonic()
        return True

    def _made_anew(self, found: str) -> LogError:
        return LogError(f"topic {self._topic} is not the one that {self.writer.folder} was read from: {found}. The topic was made anew or "
                        "lost its tail; move the folder away (it can be read as before), and a new log begins")

    def _gone(self, partition: int, first: int, end: int) -> None:
        log.warning("%s partition %d: offsets %d to %d were deleted (retention) before they were read; the event log goes on at %d",
                    self._topic, partition, first, end - 1, end)
        self.writer.lacks(partition, first, end)
