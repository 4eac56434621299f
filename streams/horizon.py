"""The horizon: what a message of `interactions` or `lessons` can speak of, namely events that were there when it was written.

The source guards take the last offset that a message claims for known ever after. One that claims more than there is would
silence its events partition. So it is held against Kafka itself: a message that was appended at time T may claim offsets
that lie before the first event appended later than T and a minute. Both times are the brokers', both logs are the same for
all, so all workers decide alike, whenever they read; and what a true message claims was always there before it.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, KafkaTimeoutError

from infra.settings import Settings
from streams.topic_ids import topic_id

log = logging.getLogger(__name__)

#: Clocks of brokers may differ by this. Also how long an answer serves: messages appended up to then need no question.
SLACK_MS = 60_000
#: No partition takes so many events a second: a claim beyond that need not be waited for.
MOST_A_S = 10_000_000
AGAIN_S = 0.5
APPEND_TIME = 1
NEVER_MS = 1 << 62


def claims(value: bytes | None, header: struct.Struct, section: struct.Struct, n_partitions: int) -> dict[int, int]:
    """The last source that a message claims of each events partition; of bytes that are no message, anything or nothing."""
    said: dict[int, int] = {}
    try:
        n_sections = header.unpack_from(value or b"")[1]
        for k in range(n_sections):
            partition, *_, last = section.unpack_from(value or b"", header.size + k * section.size)
            if partition < n_partitions:
                said[partition] = max(last, said.get(partition, last))
    except struct.error:  # whoever unpacks it says so
        pass
    return said


class Horizon:
    """Asks Kafka, through a connection of its own: behind a fetch that waits, an answer would come half a second late.

    `positions()`: up to where this worker has read each events partition; events that it has read need no question.
    """

    def __init__(
        self, settings: Settings, positions: Callable[[], np.ndarray], waiting: Callable[[str], Any], slack_ms: int = SLACK_MS
    ) -> None:
        self._settings, self._positions, self._waiting, self._slack_ms = settings, positions, waiting, slack_ms
        self._consumer: AIOKafkaConsumer | None = None
        self._by_time = False  # events bear the broker's time
        #: by log, by events partition: a moment, and where the partition ended then
        self._known: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}

    async def start(self) -> None:
        """Connect."""
        args = self._settings.kafka_client_args()
        self._consumer = AIOKafkaConsumer(**args, client_id="streamrec-horizon", enable_auto_commit=False)
        await self._consumer.start()
        self._by_time = await self._append_time()

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

    @property
    def by_time(self) -> bool:
        """Whether events bear the broker's time."""
        return self._by_time

    async def topic_id(self, name: str) -> str | None:
        """See `streams.topic_ids`; "" while Kafka does not answer."""
        assert self._consumer is not None, "start() comes first"
        try:
            return await topic_id(self._consumer._client, name)
        except KafkaError:
            return ""

    async def holds(self, place: tuple[str, int], record: Any, claimed: Mapping[int, int], *, wait: bool = True) -> bool:
        """Whether all that a message claims can be true. `place`: topic and partition in which it lies; `record`: as aiokafka gives
        it. Waits while that is not decided, unless it is told not to: then what is not there yet is false."""
        until_ms = NEVER_MS
        if self._by_time and record.timestamp_type == APPEND_TIME:
            until_ms = record.timestamp + self._slack_ms
        known = self._known.setdefault(place, {})
        # what we have read is there now, and so before the moment that counts, if that is still to come
        read = self._positions() if until_ms >= time.time_ns() // 1_000_000 else None
        deadline: float | None = None
        while True:
            open_ = {
                p: last
                for p, last in claimed.items()
                if (read is None or last >= read[p]) and not (p in known and known[p][0] <= until_ms and last < known[p][1])
            }
            if not open_:
                return True
            final = await self._ask(known, open_, until_ms)
            beyond = [last - known[p][1] for p, last in open_.items() if last >= known[p][1]]
            if not beyond:
                continue
            deadline = deadline or time.monotonic() + self._slack_ms / 1000
            if final or not wait or time.monotonic() > deadline or max(beyond) > MOST_A_S * self._slack_ms // 1000:
                return False
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, known: dict[int, tuple[int, int]], partitions: Mapping[int, int], until_ms: int) -> bool:
        """Where these partitions of events ended at `until_ms`, or end now; whether that will stay the answer."""
        assert self._consumer is not None, "start() comes first"
        tps = [TopicPartition(self._settings.topic("events"), p) for p in partitions]
        while True:
            now_ms = time.time_ns() // 1_000_000
            found: dict[TopicPartition, Any] = {}
            try:
                if until_ms < now_ms:
                    found = await self._consumer.offsets_for_times(dict.fromkeys(tps, until_ms))
                missing = [tp for tp in tps if found.get(tp) is None]
                ends = await self._consumer.end_offsets(missing) if missing else {}
                break
            except KafkaError as error:
                if not error.retriable and not isinstance(error, KafkaTimeoutError):  # it has tried for as long as it may: again
                    raise
            with self._waiting("kafka"):
                await asyncio.sleep(AGAIN_S)
        for tp in tps:
            after = found.get(tp)
            known[tp.partition] = (min(until_ms, now_ms), ends[tp]) if after is None else (until_ms, after.offset)
        return not missing

    async def _append_time(self) -> bool:
        """Whether events bear the broker's time; else only the end of their log is held against a message."""
        topic = self._settings.topic("events")
        admin = AIOKafkaAdminClient(**self._settings.kafka_client_args())
        try:
            await admin.start()
            answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            entries = [entry for answer in answers for resource in answer.resources for entry in resource[4]]
        except KafkaError as error:
            log.warning("the settings of topic %s: %r", topic, error)
            entries = []
        finally:
            await admin.close()
        by_time = any(entry[0] == "message.timestamp.type" and entry[1] == "LogAppendTime" for entry in entries)
        if not by_time:
            log.warning(
                "topic %s does not say that it bears the broker's time (message.timestamp.type=LogAppendTime): what messages claim"
                " of its events is held against its end only",
                topic,
            )
        return by_time
