"""Partitions that are read from files for a while, beside those that are fetched from Kafka (`streams.fetching`).

In: the seeks of `EventFetcher`. Out: records and the offset that follows them. Such a partition is paused in Kafka, and its way is read
ahead in a thread; where it ends Kafka is asked where it begins, and the partition goes over. Everything here runs in the consumer's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError

from streams.earlier import Earlier, Way

log = logging.getLogger(__name__)

#: How old the log's end may be that is told: without fetches nobody tells it by the way.
LOOK_S = 1.0
AGAIN_S = 0.5


@dataclass(slots=True)
class _Filed:
    """A partition, and what it is doing."""

    way: Way
    goes_over: asyncio.Task[None] | None = None


class FileFetcher:
    """Takes what lies in files; without `earlier` nothing does."""

    def __init__(self, consumer: AIOKafkaConsumer, earlier: Earlier | None) -> None:
        self._consumer, self._earlier = consumer, earlier
        self._filed: dict[TopicPartition, _Filed] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._looked_s = 0.0
        self._look: asyncio.Task[None] | None = None

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """The partition goes on at `offset`, in files or in Kafka; its position there is set already."""
        self._filed.pop(tp, None)
        way = None if self._earlier is None else self._earlier.way(tp.partition, offset)
        if way is None:
            self._consumer.resume(tp)
        else:
            self._consumer.pause(tp)
            self._filed[tp] = _Filed(way)

    def __len__(self) -> int:
        return len(self._filed)

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._filed

    def ready(self, assigned: Collection[TopicPartition], partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        """Which of `partitions` are read from files; those that are not assigned any more are forgotten."""
        for tp in [tp for tp in self._filed if tp not in assigned]:
            del self._filed[tp]
        if self._filed and time.monotonic() - self._looked_s > LOOK_S and (self._look is None or self._look.done()):
            self._looked_s, self._look = time.monotonic(), asyncio.ensure_future(self._look_at_ends(list(self._filed)))
        return [tp for tp in self._filed if tp in partitions]

    def take(self, tp: TopicPartition, most: int, position: int) -> tuple[list[Any], int] | None:
        """So many records at most, perhaps none, and the offset that follows; None: nothing yet. Raises HoleError, and what reading raises."""
        assert self._earlier is not None
        filed = self._filed[tp]
        if filed.goes_over is not None and filed.goes_over.done():
            task, filed.goes_over = filed.goes_over, None
            task.result()
        elif filed.way.ended and filed.goes_over is None and not self._earlier.is_done(tp.partition, position):
            filed.goes_over = asyncio.ensure_future(self._go_over(tp, filed, position))
        return filed.way.take(most)

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What there will be something to take after."""
        return [task for filed in self._filed.values() for task in (filed.way.reading, filed.goes_over) if task is not None and not task.done()]

    def log_end(self, tp: TopicPartition) -> int | None:
        """Where Kafka's log ends, as far as is known."""
        return self._ends.get(tp)

    async def _go_over(self, tp: TopicPartition, filed: _Filed, position: int) -> None:
        """On in Kafka, or in files that have grown while Kafka dropped more."""
        assert self._earlier is not None
        try:
            first, end = (await self._consumer.beginning_offsets([tp]))[tp], (await self._consumer.end_offsets([tp]))[tp]
            await asyncio.to_thread(self._earlier.begin, tp.partition, position, first, end)
            if self._filed.get(tp) is not filed:
                return
            if not self._earlier.holds(tp.partition, position):
                log.info("%s partition %d: on in Kafka from offset %d", tp.topic, tp.partition, position)
                self._consumer.seek(tp, position)
            self.seek(tp, position)
        except IllegalStateError:  # the group has moved on
            pass
        except KafkaError as error:
            if not error.retriable and not isinstance(error, KafkaTimeoutError):  # Kafka is away: it has tried for as long as it may
                raise
            await asyncio.sleep(AGAIN_S)  # then it is asked again

    async def _look_at_ends(self, tps: list[TopicPartition]) -> None:
        try:
            self._ends.update(await self._consumer.end_offsets(tps))
        except KafkaError as error:
            log.debug("where the log ends is not known: %r", error)
