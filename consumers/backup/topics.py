"""Kafka's side of a backup: which topics there are and how far they reach, and compacted ones read whole and put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import aclosing

from aiokafka import AIOKafkaConsumer, TopicPartition

from consumers.backup.manifest import Topic
from consumers.kafka import start_kafka, stop_kafka
from infra.settings import Settings
from streams.shared_logs import compacted
from streams.topic_ids import topic_id

MESSAGES = 2_000
#: Logs of many partitions; the compacted topics have one each.
LOGS = ("events", "interactions")


async def look(settings: Settings, names: Iterable[str]) -> dict[str, Topic | None]:
    """These topics as they are now; None for one that is not there."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **settings.kafka_client_args())
    await consumer.start()
    try:
        found: dict[str, Topic | None] = {}
        for name in names:
            there = await topic_id(consumer._client, settings.topic(name))
            found[name] = None
            if there is not None:
                places = [TopicPartition(settings.topic(name), p) for p in range(settings.partitions if name in LOGS else 1)]
                begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
                found[name] = Topic(there, [begins[place] for place in places], [ends[place] for place in places])
        return found
    finally:
        await consumer.stop()


async def read_whole(settings: Settings, name: str) -> dict[bytes, bytes | None]:
    """What a compacted topic says now: the last value of each key, None where that took back what was said before."""
    said: dict[bytes, bytes | None] = {}
    async with aclosing(compacted(settings, settings.topic(name), MESSAGES)) as hearing:
        async for records, whole in hearing:
            said |= {record.key: record.value for record in records if record.key is not None}
            if whole:
                break
    return said


async def put_back(settings: Settings, name: str, messages: Mapping[bytes, bytes | None]) -> int:
    """Say again in a compacted topic what it does not know; returns how many messages that were."""
    there = await read_whole(settings, name)
    missing = {key: value for key, value in messages.items() if key not in there}
    if not missing:
        return 0
    kafka = await start_kafka(settings, topics=(name,), request_timeout_ms=settings.request_timeout_ms)
    try:
        for sent in [await kafka.send(settings.topic(name), value, key=key, partition=0) for key, value in missing.items()]:
            await sent
    finally:
        await stop_kafka(kafka, 0.5)
    return len(missing)
