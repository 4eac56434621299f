"""A log whose end no event can reach is no lag: a worker at rest must not take itself for stuck and end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.partitioner import partition_of
from tests.live.equality import Redis

WATCHDOG_S = 5
AT_REST_S = 9.0  # the watchdog's limit, and some of its looks
STEP_S = 60.0
N = 5


def event(user: str, number: int) -> bytes:
    return json.dumps({"event_id": f"{user}-{number}", "user_id": user, "item_id": f"i{number}", "event_type": "purchase",
                       "timestamp": int(time.time() * 1000)}).encode()


async def transact(settings: Settings, user: str) -> None:
    """Events of one transaction: behind them lies the marker of its commit, which no consumer is ever given."""
    producer = AIOKafkaProducer(**settings.kafka_client_args(), transactional_id=settings.prefix + "t")
    await producer.start()
    try:
        async with producer.transaction():
            for number in range(N):
                await producer.send(settings.topic("events"), event(user, number), partition=partition_of(user, settings.partitions))
    finally:
        await producer.stop()


async def send(settings: Settings, user: str, n: int, first: int = 0) -> None:
    producer = AIOKafkaProducer(**settings.kafka_client_args())
    await producer.start()
    try:
        for number in range(first, first + n):
            await producer.send_and_wait(settings.topic("events"), event(user, number), partition=partition_of(user, settings.partitions))
    finally:
        await producer.stop()


async def delete_all(settings: Settings, user: str) -> None:
    """As retention does: the user's partition is empty, and begins where it ends."""
    admin = AIOKafkaAdminClient(**settings.kafka_client_args())
    await admin.start()
    try:
        place = TopicPartition(settings.topic("events"), partition_of(user, settings.partitions))
        await admin.delete_records({place: RecordsToDelete(before_offset=N)})
    finally:
        await admin.close()


def test_a_worker_at_rest_stays(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                wait_until: Callable[..., Any]) -> None:
    settings = namespace(partitions=2, watchdog_s=WATCHDOG_S)
    users = [next(user for user in (f"u{k}" for k in range(100)) if partition_of(user, 2) == p) for p in range(2)]
    asyncio.run(transact(settings, users[0]))
    asyncio.run(send(settings, users[1], N))
    asyncio.run(delete_all(settings, users[1]))

    worker, state = start_worker(settings), Redis(settings)
    wait_until(lambda: state.checkpoints()[0] == N, STEP_S, "the transaction's events are absorbed")
    # what is reported is not needed for the watchdog to stay quiet, but says which of the two partitions is to blame
    wait_until(lambda: (worker.state() or {}).get("lag") == {"0": 0, "1": 0}, WATCHDOG_S - 1, "no lag is told")
    rest_until = time.monotonic() + AT_REST_S
    while time.monotonic() < rest_until:
        assert worker.alive, f"a worker at rest ended with {worker.exit_code}; its log ends: {worker.log[-2000:]}"
        time.sleep(0.1)
    for p, user in enumerate(users):  # it is the same worker, and it still reads both
        asyncio.run(send(settings, user, 1, first=N))
        wait_until(lambda user=user, p=p: state.lists().get(user, {}).get("as_of", {}).get("offset") == N + (p == 0), STEP_S, f"a list of {user}")
    assert worker.alive
