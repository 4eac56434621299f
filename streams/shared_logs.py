"""Logs that every worker reads whole, outside the consumer group: one reader for `interactions`, `lessons`, `items` and `models`.

A `SharedLog` is one from which all workers build the same state, message by message: whether a message can be true is decided for
each, a gap is said, and a topic that was made anew is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from infra.settings import Settings, StreamrecError
from streams.foreign_headers import read_foreign_headers
from streams.horizon import Horizon, claims

if TYPE_CHECKING:  # commands that read a topic need no kernels, and these take two seconds to import
    from streams.state import State

log = logging.getLogger(__name__)

POLL_MS = 200
#: How often a followed topic is looked at, and how often in a row it must be missing.
LOOK_S = 2.0
LOOKS = 3
NOT_THERE = "it speaks of events that were not there when it was written"
#: aiokafka's, which has no types
Consumer = Any


class LogMissing(StreamrecError):
    """A topic holds less than the state in Redis was built from."""


class MadeAnew(LogMissing):
    """A topic is not the one that the state in Redis was built from, or has lost its tail."""


class SameTopic:
    """Looks from time to time whether a topic is still the one that state was built from.

    `built_from`: its ids, as checkpoints hold them; `id` is what it was when it was last looked at, "" for not known.
    """

    def __init__(self, horizon: Horizon, topic: str, built_from: Iterable[str]) -> None:
        self.id = ""
        self._horizon, self._topic = horizon, topic
        self._ids = set(built_from) - {""}
        self._n_missing = 0
        self._again_s = 0.0

    async def look(self) -> None:
        """Raises `MadeAnew`, or `LogMissing` where it is gone for good."""
        if time.monotonic() < self._again_s:
            return
        found = await self._horizon.topic_id(self._topic)
        self._again_s = time.monotonic() + LOOK_S
        self._n_missing = self._n_missing + 1 if found is None else 0
        if self._n_missing == LOOKS:
            raise LogMissing(f"topic {self._topic} was deleted; a worker that is started creates what is missing")
        if found:
            self.id = found
            if self._ids and found not in self._ids:
                raise MadeAnew(f"topic {self._topic} was deleted and made anew: its id was {min(self._ids)}, now it is {found}")
            self._ids = {found}


async def follow(settings: Settings, topic: str, offsets: Mapping[int, int] | None) -> tuple[Consumer, dict[TopicPartition, int]]:
    """A started consumer of a whole topic, from these offsets (None: from the beginning), and where the topic ends now.

    Everything is asked before the first fetch: behind one that waits for records, an answer comes half a second late.
    """
    consumer = AIOKafkaConsumer(
        **settings.kafka_client_args(),
        client_id="streamrec-follower",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
        fetch_max_wait_ms=500,
        request_timeout_ms=settings.request_timeout_ms,
    )
    await consumer.start()
    try:
        # all topics, not this one by name: that would make it where it is missing and brokers make topics
        there = (await consumer._client.fetch_all_metadata()).partitions_for_topic(topic) or ()
        if not there or (offsets is not None and len(there) != len(offsets)):
            raise LogMissing(
                f"topic {topic} has {len(there)} partitions, expected {len(offsets) if offsets else 'at least 1'};"
                " a worker that is started creates what is missing"
            )
        partitions = [TopicPartition(topic, p) for p in sorted(there)]
        ends = await consumer.end_offsets(partitions)
        starts = {tp: offsets[tp.partition] for tp in partitions} if offsets is not None else await consumer.beginning_offsets(partitions)
        for tp, start in starts.items():
            if start > ends[tp]:
                raise MadeAnew(
                    f"the state in Redis holds {topic} partition {tp.partition} up to offset {start}, but the log ends"
                    f" at {ends[tp]}: the topic was made anew"
                )
        consumer.assign(partitions)
        for tp, start in starts.items():
            consumer.seek(tp, start)
    except BaseException:
        await consumer.stop()
        raise
    return consumer, ends


async def compacted(
    settings: Settings, topic: str, n: int, waiting: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> AsyncGenerator[tuple[list[Any], bool], None]:
    """Records of a small topic, at most n at a time: what lies in it, then what comes, for ever.

    With them, whether all that lay in it at the start has been given. `waiting()` is entered while Kafka is gone. To be closed by whoever leaves it
    (`contextlib.aclosing`). Raises LogMissing where there is no such topic, and aiokafka's KafkaError where no broker answers at the start.
    """
    consumer, ends = await follow(settings, topic, None)
    try:
        records: list[Any] = []
        whole = False
        while True:
            whole = whole or await at_end(consumer, ends)
            yield records, whole
            records = await poll(consumer, waiting(), n)
            await asyncio.sleep(0)
    finally:
        await consumer.stop()


async def at_end(consumer: Consumer, ends: Mapping[Any, int]) -> bool:
    """Whether everything below these ends (offsets by partition) has been read."""
    return all([await consumer.position(tp) >= end for tp, end in ends.items()])


async def poll(consumer: AIOKafkaConsumer, waiting: AbstractContextManager[Any], n: int) -> list[Any]:
    """The next records of all partitions; waits while Kafka is gone."""
    try:
        found = await consumer.getmany(timeout_ms=POLL_MS, max_records=n)
    except UnicodeDecodeError:
        (tp,) = consumer.assignment()  # one partition, so nothing of others is lost with this poll; ours write no headers
        read_foreign_headers()
        consumer.seek(tp, await consumer.position(tp))
        return []
    except KafkaError as error:
        if not error.retriable:
            raise
        with waiting:
            await asyncio.sleep(1.0)
        return []
    return [record for records in found.values() for record in records]


class Message(NamedTuple):
    """One message of a shared log; `true`: what it claims of `events` can be true, else all workers pass it over."""

    partition: int
    offset: int
    value: bytes | None
    true: bool = True


class SharedLog:
    """Reads `name`, whose messages claim sources as `header` and `section` lay out; `lost`: what a gap in it costs."""

    def __init__(self, state: State, horizon: Horizon, name: str, header: struct.Struct, section: struct.Struct, lost: str) -> None:
        self.topic_id = ""  # of what is read
        self._state, self._horizon = state, horizon
        self._name, self._layout, self._lost = name, (header, section), lost
        self._consumer: Consumer = None
        self._next: dict[int, int] = {}

    async def messages(self, n: int, start: Mapping[int, int], built_from: Iterable[str]) -> AsyncGenerator[list[Message], None]:
        """What comes from offset start[p] of partition p on, at most n at a time, none when nothing has come for a while; for ever.

        built_from: ids of the topic that the state so far was built from. Raises `MadeAnew` where that is another, `LogMissing`
        where it is gone. To be closed by whoever leaves it (`contextlib.aclosing`).
        """
        state, topic = self._state, self._state.settings.topic(self._name)
        same = SameTopic(self._horizon, topic, built_from)
        await same.look()
        self._next = dict(start)
        self._consumer, _ = await follow(state.settings, topic, start)
        try:
            while True:
                records = await poll(self._consumer, state.waiting("kafka"), n)
                await same.look()
                self.topic_id = same.id
                yield [await self._message(topic, record) for record in records]
        finally:
            await self._consumer.stop()

    def behind(self) -> int:
        """Messages that are known to lie behind those that were given out."""
        return sum(max(0, (self._consumer.highwater(tp) or 0) - self._next[tp.partition]) for tp in self._consumer.assignment())

    async def _message(self, topic: str, record: Any) -> Message:
        p = record.partition
        if record.offset > self._next[p]:
            log.warning("%s partition %d: offsets %d to %d are gone (retention): %s", self._name, p, self._next[p], record.offset - 1,
                        self._lost)
            self._state.metrics.messages_skipped.labels(self._name, "gone").inc(record.offset - self._next[p])
        self._next[p] = record.offset + 1
        claimed = claims(record.value, *self._layout, self._state.settings.partitions)
        return Message(p, record.offset, record.value, await self._horizon.holds((topic, p), record, claimed))
