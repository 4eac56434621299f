"""Our Kafka producer, started and stopped so that neither can hang: what the clients and the import have in common."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumers.deliveries import KafkaUnreachable
from infra.settings import Settings
from streams.partitioner import murmur2

START_TIMEOUT_S = 10.0


def java_partitioner(key: bytes, all_partitions: list[int], available: list[int]) -> int:
    """Partition of a key, for AIOKafkaProducer: what its own default gives, at a fifth of the price."""
    return (murmur2(key) & 0x7FFFFFFF) % len(all_partitions)


async def start_kafka(settings: Settings, *, topics: tuple[str, ...] = ("events", "items"), **options: Any) -> AIOKafkaProducer:
    """A started idempotent producer that has seen these topics; raises KafkaUnreachable."""
    kafka = AIOKafkaProducer(enable_idempotence=True, acks="all", partitioner=java_partitioner,
                             **settings.kafka_client_args(), **options)
    doing = f"Kafka at {settings.kafka_bootstrap} did not answer"
    do = "expected a running broker: see `streamrec status`, or set STREAMREC_KAFKA_BOOTSTRAP"
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await kafka.start()
            for name in topics:
                topic = settings.topic(name)
                doing = f"Kafka at {settings.kafka_bootstrap} has no topic {topic}"
                do = "`streamrec up` and the workers create it; is the prefix right?"
                await kafka.partitions_for(topic)
    except (TimeoutError, OSError, KafkaError) as error:
        await stop_kafka(kafka, 0.0)
        raise KafkaUnreachable(f"{doing} ({error if str(error) else type(error).__name__}); {do}") from error
    except BaseException:
        await stop_kafka(kafka, 0.0)
        raise
    return kafka


async def stop_kafka(kafka: AIOKafkaProducer, patience_s: float) -> None:
    """Disconnect; gives what is still in flight `patience_s`, then drops it."""
    try:
        async with asyncio.timeout(patience_s):
            await kafka.stop()
    except TimeoutError:
        # stop() flushes first, and an idempotent sender retries for ever; these are the two steps that follow
        await kafka._sender.close()
        await kafka.client.close()
