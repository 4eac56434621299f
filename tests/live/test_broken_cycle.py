"""Kafka refuses what a commit cycle says about items: the worker ends, and nothing in Redis holds what was not said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.settings import Settings
from infra.stack import WorkerProcess
from infra.topics import plan
from models.user_row import USER_ROW
from tests.live.equality import Redis, check_equal, ends_of
from tests.live.load import Events

FAST = {"commit_interval_ms": 50, "items_interval_ms": 500, "session_timeout_ms": 3_000}
STEP_S = 60.0
REFUSES = "100"  # bytes; the smallest interactions message takes 125


def limit(settings: Settings, **config: str) -> None:
    """Set the interactions topic's settings, these beside what it was made with."""
    async def run() -> None:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        try:
            [topic] = [topic for topic in plan(settings) if topic.name == settings.topic("interactions")]
            resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, topic.config | config)
            for response in await admin.alter_configs([resource]):
                assert all(code == 0 for code, *_ in response.resources), response
        finally:
            await admin.close()

    asyncio.run(run())


def send(settings: Settings, events: Events, n: int) -> None:
    """Drawn events, all of a type that says something about its item."""
    async def run() -> None:
        async with AIOKafkaProducer(**settings.kafka_client_args()) as producer:
            acks = []
            for _ in range(n):
                partition, key, value = events.draw(1_763_778_821_000)
                value = json.dumps(json.loads(value) | {"event_type": "purchase"}).encode()
                acks.append(await producer.send(settings.topic("events"), value, key=key, partition=partition))
            await asyncio.gather(*acks)

    asyncio.run(run())


def test_a_cycle_that_fails(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                            wait_until: Callable[..., Any]) -> None:
    settings = namespace(partitions=2, **FAST)
    state, events = Redis(settings), Events(settings, seed=8, users=40)
    send(settings, events, 200)
    worker = start_worker(settings)
    check_equal(settings)
    assert worker.stop() == 0
    checkpoints = {p: at or 0 for p, at in state.checkpoints().items()}
    assert checkpoints == asyncio.run(ends_of(settings, "events"))

    limit(settings, **{"max.message.bytes": REFUSES})
    send(settings, events, 300)
    ends = asyncio.run(ends_of(settings, "interactions"))
    worker = start_worker(settings)
    wait_until(lambda: not worker.alive, STEP_S, "the worker ends")
    assert worker.exit_code, "it tells that it failed"
    assert "SendFailed" in worker.log or "did not take" in worker.log, worker.log[-2000:]
    assert asyncio.run(ends_of(settings, "interactions")) == ends, "the topic has refused everything"
    assert state.checkpoints() == checkpoints, "the flush at its end must not move the checkpoint past what was lost"
    for p, checkpoint in checkpoints.items():
        for user, row in state.user_rows(p).items():
            as_of = int(np.frombuffer(row, USER_ROW)[0]["as_of"])
            assert as_of < checkpoint, f"the row of {user} holds event {p}/{as_of}, of which its items never heard"

    limit(settings)
    worker = start_worker(settings)
    check_equal(settings)
    assert worker.stop() == 0
