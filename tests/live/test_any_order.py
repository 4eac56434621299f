"""Any order of steps of several workers, with deaths between and within steps and a Redis that forgets: equal in the end.

Where `test_kills` shows that processes survive, this goes through far more accidents: the parts are driven by hand
(`tests.live.parts`) by a random walk, whose seed is printed. TEST_SEED in the environment plays one again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from infra.settings import Settings
from infra.stack import RedisServer
from streams.outbox import SendFailed
from tests.live.equality import Redis, compare, lockstep
from tests.live.load import Events
from tests.live.parts import Parts, world

WALKS = 2
STEPS = 40
WORKERS = 3  # awake at most; the oldest dies for a new one
NOW_MS = 1_763_778_821_000  # the walk, not the clock, decides


class Killed(Exception):
    """Where a worker dies."""


class Mortal:
    """A worker that dies at a chosen one of its writes to Redis or Kafka: before it, or when it is done but not known of."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.left: int | None = None
        self.after = False
        fence, producer = parts.worker.store.fence, parts.worker.outbox._producer
        assert producer is not None
        fence._execute = self._guard(fence._execute)  # type: ignore[method-assign]
        producer.send = self._guard(producer.send)

    def _guard(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*args: Any, **named: Any) -> Any:
            if self.left == 0 and not self.after:
                raise Killed
            result = await operation(*args, **named)
            if self.left == 0:
                raise Killed
            if self.left is not None:
                self.left -= 1
            return result

        return run


class Walk:
    """One random walk over one system."""

    def __init__(self, settings: Settings, w: SimpleNamespace, seed: int) -> None:
        self.settings, self.world, self.chance = settings, w, random.Random(seed)
        self.state = Redis(settings)
        self.events = Events(settings, seed, misplaced=0.05)
        self.producer = AIOKafkaProducer(**settings.kafka_client_args())
        self.workers: list[Mortal] = []
        self.snapshots: list[dict[bytes, Any]] = []
        self.seen: dict[str, int] = {}
        self.done: list[str] = []
        self.flushed = False

    async def run(self) -> dict[int, list[Any]]:
        """Walk, then let one last worker drain; returns the log."""
        await self.producer.start()
        try:
            actions = [self.produce] * 6 + [self.work] * 16 + [self.arrive] * 4 + [self.flush, self.remember, self.remember, self.go_back]
            for step in range(STEPS):
                # a few users at a time, who fall silent later: what goes wrong with them is not healed by their next events
                self.events.users = [f"u{step // 12}-{k}" for k in range(3)]
                action = self.chance.choice(actions)
                self.done.append(action.__name__)
                await action()
                self.look()
            self.seen = {} if self.flushed else self.seen
            await (await self.world.parts()).drain()
            self.look()
            return dict(await self.world.log())
        finally:
            await self.producer.stop()

    async def produce(self) -> None:
        """Some events, a few of them in a wrong partition or sent twice."""
        acks = []
        for _ in range(self.chance.randrange(5, 200)):
            partition, key, value = self.events.draw(NOW_MS)
            acks.append(await self.producer.send(self.settings.topic("events"), value, key=key, partition=partition))
        await asyncio.gather(*acks)

    async def arrive(self) -> None:
        """A new worker takes some partitions over; those who had them do not know yet."""
        n = self.settings.partitions
        partitions = self.chance.sample(range(n), self.chance.randrange(1, n + 1))
        if self.flushed:  # what readers have seen only the owners of before know
            self.seen.clear()
        self.workers.append(Mortal(await self.world.parts(partitions)))
        if len(self.workers) > WORKERS:
            await self.workers.pop(0).parts.die()

    async def work(self) -> None:
        """One worker, most often the newest, takes some steps, and may die of one; one that has lost everything begins again."""
        if not self.workers:
            await self.arrive()
        mortal = self.chance.choice([self.workers[-1], self.workers[-1], *self.workers])
        parts = mortal.parts
        mortal.left = self.chance.randrange(8) if self.chance.random() < 0.3 else None
        mortal.after = self.chance.random() < 0.5
        names = self.chance.choices(["absorb", "absorb", "publish", "commit", "fold", "save_items"], k=self.chance.randrange(1, 6))
        self.done[-1] += f"({self.workers.index(mortal)}, {mortal.left}): {' '.join(names)}"
        try:
            if not parts.state.tenures:
                await parts.assign(range(self.settings.partitions))
            for name in names:
                if name == "absorb":
                    await parts.absorb(self.chance.choice([1, 20, None, None]), batch=self.chance.choice([1, 10, 50, 500]))
                else:
                    await getattr(parts, name)()
        except (Killed, SendFailed):
            self.done[-1] += ": dies"
            self.workers.remove(mortal)
            await parts.die()
        mortal.left = None

    async def flush(self) -> None:
        """Redis forgets everything."""
        self.flushed = True
        self.state.client.flushall()
        self.snapshots.clear()

    async def remember(self) -> None:
        """What a restart of Redis without its tail will come back to."""
        self.snapshots.append({name: self.state.client.dump(name) for name in self.state.client.keys("*")})  # type: ignore[union-attr]

    async def go_back(self) -> None:
        """Redis is back as it was some time ago."""
        if self.snapshots:
            snapshot = self.chance.choice(self.snapshots)
            self.state.client.flushall()
            for name, value in snapshot.items():
                self.state.client.restore(name, 0, value)
            self.seen.clear()

    def look(self) -> None:
        """No list may be older than when it was seen last."""
        for user, entry in self.state.lists().items():
            offset = entry["as_of"]["offset"]
            assert offset >= self.seen.get(user, -1), f"the list of {user} went back from {self.seen[user]} to {offset} at {self.done}"
            self.seen[user] = offset


@pytest.mark.parametrize("number", range(WALKS))
def test_a_random_walk(number: int, own_redis: Callable[[], RedisServer], namespace: Callable[..., Settings]) -> None:
    seed = int(os.environ.get("TEST_SEED", 0)) or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    settings = namespace(redis_url=own_redis().url, partitions=3)

    async def run() -> dict[int, list[Any]]:
        async with world(settings) as w:
            walk = Walk(settings, w, seed)
            try:
                return await walk.run()
            finally:
                print(json.dumps(walk.done))

    compare(settings, lockstep(settings, asyncio.run(run())))
