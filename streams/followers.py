"""What every worker reads whole, outside the consumer group: `interactions` (item rows) and `items` (attributes)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from infra.settings import Settings, StreamrecError
from streams.catalogue import decode_item
from streams.events import InvalidEvent
from streams.foreign_headers import read_foreign_headers
from streams.horizon import Horizon, claims
from streams.interactions import HEADER, SECTION
from streams.outbox import dead_letter
from streams.state import State
from streams.store import Store

log = logging.getLogger(__name__)

#: Messages folded before other tasks get their turn: about 5 ms at full messages.
FOLD_MESSAGES = 4
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


async def follow(settings: Settings, topic: str, offsets: Mapping[int, int] | None) -> AIOKafkaConsumer:
    """A started consumer of a whole topic, from these offsets (None: from the beginning)."""
    consumer = AIOKafkaConsumer(
        topic,  # without a group this assigns all of its partitions
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
        partitions = sorted(consumer.assignment())
        numbers = {tp.partition for tp in partitions}
        if not numbers or (offsets is not None and len(numbers) != len(offsets)):
            raise LogMissing(
                f"topic {topic} has {len(numbers)} partitions, expected {len(offsets) if offsets else 'at least 1'};"
                " a worker that is started creates what is missing"
            )
        ends = await consumer.end_offsets(partitions)
        for tp in partitions:
            offset = 0 if offsets is None else offsets[tp.partition]
            if offset > ends[tp]:
                raise MadeAnew(
                    f"the state in Redis holds {topic} partition {tp.partition} up to offset {offset}, but the log ends"
                    f" at {ends[tp]}: the topic was made anew"
                )
            if offset:
                consumer.seek(tp, offset)
            else:
                await consumer.seek_to_beginning(tp)
    except BaseException:
        await consumer.stop()
        raise
    return consumer


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


class ItemFollower:
    """Folds all of `interactions` into the item rows."""

    def __init__(self, state: State, store: Store, horizon: Horizon) -> None:
        self._state, self._store, self._horizon = state, store, horizon
        self._built_from: set[str] = set()
        self.lag = 0
        self._met: set[int] = set()
        self.folds = 0  # messages folded, for the watchdog

    async def load(self) -> None:
        """Rows and checkpoints of all partitions, as their keepers wrote them."""
        items = self._state.items
        for p in range(self._state.settings.partitions):
            checkpoint, rows = await self._store.load_items(p)
            if checkpoint is not None:
                items.load(p, rows, checkpoint.offset, checkpoint.highest, checkpoint.clock_ms)
                self._built_from.add(checkpoint.topic)

    async def run(self) -> None:
        """Follow for ever from where the loaded rows stand."""
        try:
            await self._run()
        except MadeAnew as error:
            self._state.metrics.logs_anew.labels("interactions").inc()
            raise LogMissing(f"{error}. Build new state from the log that is there (docs/operations.md, Rebuild)") from error

    async def _run(self) -> None:
        state, items = self._state, self._state.items
        topic = state.settings.topic("interactions")
        same = SameTopic(self._horizon, topic, self._built_from)
        await same.look()
        consumer = await follow(state.settings, topic, dict(enumerate(items.position.tolist())))
        try:
            while True:
                records = await poll(consumer, state.waiting("kafka"), FOLD_MESSAGES)
                await same.look()
                items.topic_id = same.id
                held = [
                    await self._horizon.holds((topic, r.partition), r, claims(r.value, HEADER, SECTION, items.n_partitions))
                    for r in records
                ]
                with state.metrics.stage.labels("fold").time():
                    for record, true in zip(records, held, strict=True):
                        self._fold(record, true)
                if records:
                    self.lag = sum(
                        max(0, (consumer.highwater(tp) or 0) - int(items.position[tp.partition]))
                        for tp in consumer.assignment()
                    )
                    await asyncio.sleep(0)
        finally:
            await consumer.stop()

    def meet(self, hashes: list[int]) -> None:
        """Items that our users have met: known by name at once, not only when their interactions come back."""
        items, names = self._state.items, self._state.users.decoder.names
        for item in set(hashes) - self._met:
            self._met.add(item)
            items.add(names[item].decode())

    def _fold(self, record: Any, true: bool = True) -> None:
        state, items = self._state, self._state.items
        p, skipped = record.partition, state.metrics.messages_skipped
        if record.offset > items.position[p]:
            log.warning(
                "interactions partition %d: offsets %d to %d are gone (retention): what they said of items is lost",
                p,
                items.position[p],
                record.offset - 1,
            )
            skipped.labels("interactions", "gone").inc(record.offset - items.position[p])
        folded, foreign = items.n_folded, items.n_foreign
        if true:
            items.fold(p, record.offset, record.value)
        else:
            items.pass_over(p, record.offset, NOT_THERE)
        self.folds += 1
        state.metrics.items_folded.inc(items.n_folded - folded)
        skipped.labels("interactions", "foreign").inc(items.n_foreign - foreign)


class CatalogueFollower:
    """Reads the compacted `items` topic whole, then follows it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.loaded = asyncio.Event()

    async def run(self) -> None:
        """Load, set `loaded`, follow for ever."""
        state = self._state
        topic = state.settings.topic("items")
        consumer = await follow(state.settings, topic, None)
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            while True:
                if not self.loaded.is_set():
                    places = [await consumer.position(tp) >= end for tp, end in ends.items()]
                    if all(places):
                        self.loaded.set()
                for record in await poll(consumer, state.waiting("kafka"), 2_000):
                    self._apply(topic, record)
                await asyncio.sleep(0)
        finally:
            await consumer.stop()

    def _apply(self, topic: str, record: Any) -> None:
        state = self._state
        try:
            item_id, attributes = decode_item(record.key, record.value)
            state.catalogue.apply(item_id, attributes, record.timestamp, state.clock_ms())
        except InvalidEvent as error:
            tenure = state.tenures.get(0)  # all workers read this topic, one tells
            if tenure is not None:
                letter = dead_letter(
                    state.settings.topic("events.dlq"), topic, record.partition, record, error.reason, error.detail
                )
                tenure.outgoing.append(letter)
                state.metrics.events_rejected.labels(error.reason).inc()
