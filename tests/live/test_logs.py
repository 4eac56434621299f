"""What workers log through good and bad times: one line an event of note, JSON where it is asked for, and never who a user is."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from infra.settings import Settings
from infra.stack import LocalStack, WorkerProcess
from streams.partitioner import partition_of
from tests.live.pages import metric

STEP_S = 90.0  # a machine that has other things to do
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: .+")


async def _send(settings: Settings, users: list[str]) -> None:
    producer = AIOKafkaProducer(**settings.kafka_client_args())
    await producer.start()

    async def send(user: str, value: bytes, topic: str = "events", partition: int | None = None, **more: Any) -> None:
        place = partition_of(user, settings.partitions) if partition is None else partition
        await producer.send_and_wait(settings.topic(topic), value, key=user.encode(), partition=place, **more)

    def event(user: str, **changes: Any) -> bytes:
        return json.dumps({"event_id": uuid.uuid4().hex, "user_id": user, "item_id": f"i{len(user) % 3}", "event_type": "purchase",
                           "timestamp": time.time_ns() // 1_000_000} | changes).encode()

    try:
        for user in users:
            await send(user, event(user))
            await send(user, event(user, event_type="stare"))
            await send(user, event(user, user_id=user + "\n"))
            await send(user, event(user, timestamp="tomorrow"))
            await send(user, event(user)[:-3])
            await send(user, event(user), partition=(partition_of(user, settings.partitions) + 1) % settings.partitions)
            await send(user, event(user), headers=[("streamrec-origin", b"0/999999")])
            await send(user, user.encode(), topic="interactions", partition=0)
            await send(user, user.encode(), topic="lessons", partition=0)
            await send(user, user.encode(), topic="items", partition=0)
            await send(user, json.dumps(user).encode(), topic="models", partition=0)
    finally:
        await producer.stop()


def test_no_line_names_a_user(own_stack: Callable[[], LocalStack], namespace: Callable[..., Settings],
                              start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    stack = own_stack()
    settings = namespace(stack, log_format="json")
    users = [f"patient{k}-{uuid.uuid4().hex}" for k in range(6)]
    workers = [start_worker(settings), start_worker(dataclasses.replace(settings, log_format="text"))]
    for worker in workers:
        worker.wait_ready()

    def absorbed(n: int) -> bool:
        return sum(metric(worker, "streamrec_events_absorbed_total") for worker in workers) >= n

    asyncio.run(_send(settings, users))
    wait_until(lambda: absorbed(3 * len(users)), STEP_S, "all good events are absorbed, moved ones among them")
    stack.redis.kill()
    wait_until(lambda: all("Redis does not take part" in worker.log for worker in workers) or None, STEP_S, "both say that Redis is gone")
    stack.redis.start()
    stack.kafka.kill()
    asyncio.run(asyncio.sleep(2.0))
    stack.kafka.start()
    asyncio.run(_send(settings, users))
    wait_until(lambda: absorbed(6 * len(users)), STEP_S, "they go on")
    for worker in workers:
        assert worker.stop() == 0
    told = [json.loads(line) for line in workers[0].log.splitlines()]
    kinds = {line["event"] for line in told}
    assert {"metrics and health on http://%s:%d", "partitions %s are ours, from offsets %s", "Redis is back"} <= kinds
    assert {line["level"] for line in told} >= {"INFO", "WARNING"} and all(line["process"] == workers[0].pid for line in told)
    assert any("is passed over" in line["message"] for line in told)
    for line in workers[1].log.splitlines():
        assert TEXT_LINE.fullmatch(line) or line.startswith("  "), line
    for worker in workers:
        log = worker.log
        for user in users:
            secret = user.partition("-")[2]
            for form in (secret, secret[:12], secret.encode().hex()[:24], base64.b64encode(user.encode()).decode()[4:24]):
                assert form not in log, [line for line in log.splitlines() if form in line][:3]
