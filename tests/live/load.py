"""A steady stream of events for tests: few items (no row is ever full), late times, repeated ids, wrong partitions.

`Load` produces from a thread of its own at a stated rate, and waits out a broker that is away. Everything it sends is drawn
from a seed, so that a failure can be played again.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from typing import Any

from aiokafka import AIOKafkaProducer

from infra.settings import Settings
from streams.partitioner import partition_of

N_ITEMS = 24  # fewer than the successors that a row holds: what an exact test compares
TYPES = ("view", "view", "click", "add_to_cart", "purchase", "purchase", "rating", "dislike", "impression", "remove", "like")
DAY_MS = 86_400_000
STEP_S = 0.05


class Events:
    """Draws events. misplaced: share produced to another partition than the user's; popular: 1 is all items alike, 2 some more."""

    def __init__(self, settings: Settings, seed: int, *, users: int = 200, items: int = N_ITEMS, misplaced: float = 0.0,
                 popular: float = 1.0) -> None:
        self.users = [f"u{n}" for n in range(users)]
        self._random = random.Random(seed)
        self._n_partitions = settings.partitions
        self.items = [f"i{n}" for n in range(items)]
        self._misplaced, self._popular = misplaced, popular
        self._n = 0
        self._last_ids: dict[str, str] = {}
        self.repeated: Counter[str] = Counter()  # by user
        self._seed = seed

    def draw(self, now_ms: int) -> tuple[int, bytes | None, bytes]:
        """(partition, key, value) of one event."""
        chance = self._random
        user = self.users[int(len(self.users) * chance.random() ** 2)]  # some users come far more often than others
        event_id = f"e{self._seed}-{self._n}"
        self._n += 1
        if chance.random() < 0.03 and user in self._last_ids:
            event_id = self._last_ids[user]  # sent twice by an application
            self.repeated[user] += 1
        self._last_ids[user] = event_id
        late_ms = 0 if chance.random() < 0.8 else int(chance.random() ** 3 * 20 * DAY_MS)
        event = {"event_id": event_id, "user_id": user, "item_id": self.items[int(len(self.items) * chance.random() ** self._popular)], "event_type": chance.choice(TYPES),
                 "timestamp": now_ms - late_ms - chance.randrange(1000)}
        if event["event_type"] == "rating" and chance.random() < 0.8:
            event["value"] = chance.choice([1, 2, 3, 3.5, 5])
        home = partition_of(user, self._n_partitions)
        key: bytes | None = user.encode()
        if chance.random() < self._misplaced:
            home = chance.randrange(self._n_partitions)
            key = chance.choice([None, b"wrong", key])
        return home, key, json.dumps(event).encode()


class Load:
    """Sends drawn events at `rate` a second until stopped; `sent` counts what Kafka has acknowledged."""

    def __init__(self, settings: Settings, events: Events, rate: int, *, compression: str | None = None) -> None:
        self.sent = 0
        self.events = events
        self._settings, self._rate, self._compression = settings, rate, compression
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop and wait for every acknowledgement; returns how many events lie in Kafka."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.sent

    def _run(self) -> None:
        try:
            asyncio.run(self._produce())
        except BaseException as error:  # noqa: BLE001 - told by stop(), in the test's thread
            self._failure = error

    async def _produce(self) -> None:
        args: dict[str, Any] = {"enable_idempotence": True, "request_timeout_ms": 120_000, "compression_type": self._compression}
        producer = AIOKafkaProducer(**self._settings.kafka_client_args(), **args)
        await producer.start()
        try:
            topic, started, n, acks = self._settings.topic("events"), time.monotonic(), 0, set()
            while not self._stop.is_set():
                for _ in range(int((time.monotonic() - started) * self._rate) - n):
                    partition, key, value = self.events.draw(time.time_ns() // 1_000_000)
                    n += 1
                    acks.add(await producer.send(topic, value, key=key, partition=partition))
                self.sent += sum(ack.done() for ack in acks)
                acks = {ack for ack in acks if not ack.done() or ack.result() is None}
                await asyncio.sleep(STEP_S)
            await producer.flush()
            self.sent += len(await asyncio.gather(*acks))
        finally:
            await producer.stop()


def send(settings: Settings, events: Events, n: int, *, compression: str | None = None) -> None:
    """Send `n` drawn events as fast as Kafka takes them."""
    async def run() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args(), compression_type=compression, linger_ms=5)
        await producer.start()
        try:
            acks = []
            for _ in range(n):
                partition, key, value = events.draw(time.time_ns() // 1_000_000)
                acks.append(await producer.send(settings.topic("events"), value, key=key, partition=partition))
            await asyncio.gather(*acks)
        finally:
            await producer.stop()

    asyncio.run(run())
