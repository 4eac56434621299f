"""Reading topics back in tests, with a plain consumer that knows nothing of streamrec."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.settings import Settings

READ_DEADLINE_S = 30


async def read_all(settings: Settings, name: str = "events") -> list[Any]:
    """Every record that lies in a topic now."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **settings.kafka_client_args())
    await consumer.start()
    try:
        topic = settings.topic(name)
        places = [TopicPartition(topic, p) for p in sorted(await wait_for_partitions(consumer, topic))]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        records: list[Any] = []
        async with asyncio.timeout(READ_DEADLINE_S):
            while any([await consumer.position(place) < ends[place] for place in places]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
        return records
    finally:
        await consumer.stop()


async def wait_for_partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    async with asyncio.timeout(READ_DEADLINE_S):
        while not (found := consumer.partitions_for_topic(topic)):
            await consumer._client.force_metadata_update()
            consumer._client.add_topic(topic)
    return found
