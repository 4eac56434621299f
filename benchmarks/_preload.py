"""Many events into Kafka, fast: batches are packed here, so that a million waiting events cost seconds, not minutes."""

from __future__ import annotations

import asyncio
import time

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from benchmarks._events import DAY_MS, Draw, Population
from infra.settings import Settings

BATCH_BYTES = 64 * 1024  # as the producer client packs them
IN_FLIGHT = 256  # batches that wait for Kafka: 16 MB


def preload(settings: Settings, population: Population, draw: Draw, *, days: float = 7.0) -> float:
    """Send them all, event times spread evenly over the last `days`, partitions level; returns the seconds it took."""
    started = time.perf_counter()
    now_ms = time.time_ns() // 1_000_000
    times_ms = np.linspace(now_ms - days * DAY_MS, now_ms, len(draw)).astype(np.int64)
    asyncio.run(_send(settings, population, draw, times_ms))
    return time.perf_counter() - started


async def _send(settings: Settings, population: Population, draw: Draw, times_ms: np.ndarray) -> None:
    topic = settings.topic("events")
    waiting: set[asyncio.Future[object]] = set()
    async with AIOKafkaProducer(**settings.kafka_client_args(), max_batch_size=BATCH_BYTES, acks="all", linger_ms=0) as producer:
        async def send(partition: int, batch: BatchBuilder) -> None:
            batch.close()
            waiting.add(await producer.send_batch(batch, topic, partition=partition))
            while len(waiting) >= IN_FLIGHT:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    waiting.remove(one)
                    one.result()

        batches = [producer.create_batch() for _ in range(settings.partitions)]
        write, users, times = population.writer(draw), population.users, times_ms.tolist()
        for k, (home, user) in enumerate(zip(population.home[draw.users].tolist(), draw.users.tolist(), strict=True)):
            value = write(k, times[k])
            if batches[home].append(timestamp=None, key=users[user], value=value) is None:
                await send(home, batches[home])
                batches[home] = producer.create_batch()
                batches[home].append(timestamp=None, key=users[user], value=value)
        for partition, batch in enumerate(batches):
            if batch.record_count():
                await send(partition, batch)
        await asyncio.gather(*waiting)
