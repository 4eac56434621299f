"""What learns, for tests: the log of lessons learned at one go, what lies in Redis, and topics that are deleted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection
from typing import Any

import redis
from aiokafka.admin import AIOKafkaAdminClient

from infra.settings import Settings
from infra.topics import ensure_topics
from streams.keys import Keys
from streams.lessons import Learner
from streams.state import State
from tests.live.parts import LogReader

DELETED_S = 30.0


def learned_from(settings: Settings, *, without: Collection[int] = ()) -> Learner:
    """The log of lessons, learned at one go by one reader; messages at the offsets `without` are passed over."""

    async def read() -> list[Any]:
        reader = LogReader(settings, "lessons")
        await reader.start()
        try:
            await reader.refresh()
            return reader.records[0]
        finally:
            await reader.stop()

    learner = State(settings).learner
    for record in asyncio.run(read()):
        if record.offset in without:
            learner.pass_over(record.offset, "the test says so")
        else:
            learner.learn(learner.take(record.offset, record.value))
    return learner


def kept(settings: Settings) -> tuple[int, bytes]:
    """What lies in Redis: offset and state."""
    client, keys = redis.from_url(settings.redis_url, **settings.redis_client_args()), Keys(settings.prefix)
    found = client.get(keys.learned_checkpoint)
    if found is None:
        return -1, b""
    checkpoint = json.loads(found)
    return checkpoint["offset"], b"".join(client.get(keys.learned(checkpoint["name"], k)) or b"" for k in range(checkpoint["pieces"]))


def delete_topic(settings: Settings, name: str, *, anew: bool = False) -> None:
    """Delete one of the topics and wait until it is gone; `anew`: make it again."""
    topic = settings.topic(name)

    async def run() -> None:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        try:
            await admin.delete_topics([topic])
            deadline = time.monotonic() + DELETED_S
            while topic in await admin.list_topics():
                assert time.monotonic() < deadline, f"{topic} is still there"
                await asyncio.sleep(0.05)
        finally:
            await admin.close()
        if anew:
            await ensure_topics(settings)

    asyncio.run(run())
