"""What Kafka knows: the topics, where the log of events begins and ends, and the newest dead letters by reason."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from typing import Any

from infra.settings import Settings
from infra.topics import partition_counts, plan

REQUEST_MS = 10_000
#: What lies under such keys are notes of what was sent again (consumers/dead_letters.py).
NOTE = b"redriven/"
#: So many of the newest dead letters are looked at: a flood of them is one reason, not a number to wait for.
MOST_LETTERS = 1_000
READ_BUDGET_S = 1.0
POLL_MS = 200


class KafkaSide:
    """Two clients, kept between looks; dead letters are read on from where the last look ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: Any = None
        self._consumer: Any = None
        self._letters: deque[tuple[str, int]] = deque(maxlen=MOST_LETTERS)  # reason, when it was written

    async def look(self) -> tuple[dict[str, Any], dict[int, int], dict[int, int]]:
        """(part of the report, end and beginning of the log of events by partition)."""
        from aiokafka import TopicPartition

        settings = self._settings
        await self._open()
        wanted = [topic.name for topic in plan(settings)]
        present = await partition_counts(self._admin, wanted)
        part: dict[str, Any] = {"topics": {name: present[name] for name in wanted if name in present}}
        if (dlq := settings.topic("events.dlq")) in present:
            part["dead_letters"] = await self._dead_letters(TopicPartition(dlq, 0))
        events = settings.topic("events")
        if events not in present:
            return part, {}, {}
        partitions = [TopicPartition(events, p) for p in range(present[events])]
        ends, starts = await self._consumer.end_offsets(partitions), await self._consumer.beginning_offsets(partitions)
        return part, {tp.partition: end for tp, end in ends.items()}, {tp.partition: start for tp, start in starts.items()}

    async def _open(self) -> None:
        from aiokafka import AIOKafkaConsumer
        from aiokafka.admin import AIOKafkaAdminClient

        if self._consumer is None:
            args = {"request_timeout_ms": REQUEST_MS, **self._settings.kafka_client_args()}
            self._admin, self._consumer = AIOKafkaAdminClient(**args), AIOKafkaConsumer(**args)
            await self._admin.start()
            await self._consumer.start()

    async def _dead_letters(self, place: Any) -> dict[str, Any]:
        """`n`: all of them where the topic is short; else what its offsets say, notes and what compaction has replaced included."""
        consumer = self._consumer
        end, start = (await consumer.end_offsets([place]))[place], (await consumer.beginning_offsets([place]))[place]
        if place not in consumer.assignment():
            consumer.assign([place])
            consumer.seek(place, max(start, end - MOST_LETTERS))
            self._letters.clear()
        deadline = time.monotonic() + READ_BUDGET_S
        while await consumer.position(place) < end and time.monotonic() < deadline:
            for records in (await consumer.getmany(place, timeout_ms=POLL_MS)).values():
                self._letters += [(_reason(record.value), record.timestamp) for record in records if record.value and not (record.key or b"").startswith(NOTE)]
        n = len(self._letters) if end - start <= MOST_LETTERS else end - start
        return {"n": n, "looked_at": len(self._letters), "reasons": dict(Counter(reason for reason, _ in self._letters).most_common()),
                "newest_ms": max((at for _, at in self._letters), default=None)}

    async def close(self) -> None:
        """Close both; the next look opens others."""
        clients, self._admin, self._consumer = (self._admin, self._consumer), None, None
        for client, stop in zip(clients, ("close", "stop"), strict=True):
            if client is not None:
                await getattr(client, stop)()


def _reason(value: bytes) -> str:
    try:
        return str(json.loads(value)["reason"])
    except (ValueError, KeyError, TypeError):
        return "?"
