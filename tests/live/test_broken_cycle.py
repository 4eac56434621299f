"""Kafka refuses what a commit cycle says about items: the worker ends, and nothing in Redis holds what was not said."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.settings import Settings
from infra.stack import WorkerProcess
from infra.topics import plan
from models.user_row import USER_ROW
from streams.outbox import SendFailed
from tests.live.equality import Redis, check_equal, compare, ends_of, lockstep
from tests.live.load import Events
from tests.live.parts import Parts, world

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
    ends = asyncio.run(ends_of(settings, "interactions"))
    # cycles are far apart, so that lists are out, and nothing else holds the checkpoint back, when one fails
    worker = start_worker(dataclasses.replace(settings, commit_interval_ms=5_000))
    wait_until(lambda: (worker.state() or {}).get("partitions") == [0, 1], STEP_S, "the worker has its partitions")
    send(settings, events, 300)
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


async def _send_fails(parts: Parts) -> None:
    with pytest.raises(SendFailed):
        await parts.commit()


async def _send_ahead_fails(parts: Parts) -> None:
    with pytest.raises(SendFailed):
        await parts.worker.committer._send_ahead()


async def _cancelled(parts: Parts, place: Any, name: str) -> None:
    """Cancel a cycle that has come to this call."""
    there, original = asyncio.Event(), getattr(place, name)

    async def hang(*_: Any, **__: Any) -> None:
        there.set()
        await asyncio.Event().wait()

    setattr(place, name, hang)
    cycle = asyncio.ensure_future(parts.commit())
    await there.wait()
    cycle.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cycle
    setattr(place, name, original)


async def _send_cancelled(parts: Parts) -> None:
    await _cancelled(parts, parts.worker.outbox, "send")


async def _write_cancelled(parts: Parts) -> None:
    await _cancelled(parts, parts.worker.store.fence, "write")


@pytest.mark.parametrize("accident", [_send_fails, _send_ahead_fails, _send_cancelled, _write_cancelled])
def test_after_a_cycle_that_did_not_end(accident: Callable[[Parts], Awaitable[None]], namespace: Callable[..., Settings]) -> None:
    """Neither another cycle nor the flush of a revocation goes past what was lost; the next owner absorbs it again."""
    settings = namespace(partitions=2)
    state, events = Redis(settings), Events(settings, seed=9, users=20)
    refused = accident in (_send_fails, _send_ahead_fails)
    send(settings, events, 50)

    async def run() -> dict[int, list[Any]]:
        async with world(settings) as w:
            parts = await w.parts()
            await parts.drain()
            checkpoints = state.checkpoints()
            await asyncio.to_thread(send, settings, events, 100)
            await parts.absorb()
            await parts.publish()
            if refused:
                await asyncio.to_thread(limit, settings, **{"max.message.bytes": REFUSES})
            await accident(parts)
            if refused:
                await asyncio.to_thread(limit, settings)
            await parts.commit()
            assert state.checkpoints() == checkpoints
            await parts.worker.revoke({0, 1})
            assert state.checkpoints() == checkpoints
            await (await w.parts()).drain()
            return dict(await w.log())

    compare(settings, lockstep(settings, asyncio.run(run())))
