"""Bad, late, repeated and misplaced events, compressed or not: every good one counts once, every bad one is told of once."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiokafka.producer.message_accumulator
import aiokafka.producer.producer
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from infra.settings import Settings
from infra.stack import WorkerProcess
from models.hashing import stable_hash
from models.user_row import EPOCH_MS, USER_ROW
from streams.decode import ORIGIN_HEADER
from streams.foreign_headers import read_foreign_headers
from streams.outbox import MAX_PAYLOAD_BYTES
from streams.partitioner import partition_of
from tests.live.bad_events import bad_events
from tests.live.equality import Redis, check_equal
from tests.live.load import Events
from tests.live.pages import metric
from tests.live.reading import read_all

N_BAD, N_GOOD = 10_000, 10_000
COMPRESSIONS = (None, "gzip", "snappy", "lz4", "zstd")
STEP_S = 60.0

Place = tuple[int, int]  # partition, offset


def test_ten_thousand_bad_events(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                 wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    worker = start_worker(settings)
    topic, chance = settings.topic("events"), random.Random(6)
    events = Events(settings, seed=6, users=300)

    async def produce() -> dict[Place, tuple[str, bytes | None]]:
        """Good and bad ones side by side, from one producer of each compression; returns the places of the bad ones."""
        producers = [AIOKafkaProducer(**settings.kafka_client_args(), compression_type=compression, linger_ms=20,
                                      max_request_size=8 * 1024 * 1024) for compression in COMPRESSIONS]
        await asyncio.gather(*[producer.start() for producer in producers])
        sent: list[tuple[str, bytes | None, Any]] = []
        acks: list[Any] = []
        bad = bad_events(N_BAD, seed=6)
        for number in range(N_GOOD):
            partition, key, value = events.draw(time.time_ns() // 1_000_000)
            acks.append(await chance.choice(producers).send(topic, value, key=key, partition=partition))
            reason, bad_value = next(bad)
            # what names a user must lie in his partition, or it is moved there before it is found bad
            home = partition_of("bad-user", settings.partitions)
            headers = [(ORIGIN_HEADER, chance.choice([b"", b"x/y", b"9999/1", b"\xff\xfe"]))] if number % 50 == 0 else []
            sent.append((reason, bad_value, await chance.choice(producers).send(topic, bad_value, key=b"k", partition=home, headers=headers)))
        await asyncio.gather(*acks)
        places = {}
        for reason, bad_value, ack in sent:
            at = await ack
            places[at.partition, at.offset] = (reason, bad_value)
        await asyncio.gather(*[producer.stop() for producer in producers])
        return places

    wanted = asyncio.run(produce())
    assert len(wanted) == N_BAD
    engine = check_equal(settings)
    assert worker.alive, worker.log[-3000:]
    rows = [engine.state.users.table.rows[slot] for users in engine.state.users.table.slots for slot in users.values()]
    assert sum(int(row["counts"].sum()) for row in rows) == N_GOOD - sum(events.repeated.values())

    letters = Counter(record.key for record in asyncio.run(read_all(settings, "events.dlq")))
    assert letters == Counter(f"{topic}/{p}/{offset}".encode() for p, offset in wanted)
    for record in asyncio.run(read_all(settings, "events.dlq")):
        letter = json.loads(record.value)
        reason, value = wanted[letter["partition"], letter["offset"]]
        payload = letter["payload"].encode() if letter["encoding"] == "utf-8" else base64.b64decode(letter["payload"])
        assert letter["reason"] == reason, (letter["reason"], letter["detail"], (value or b"")[:300])
        assert payload == (value or b"")[:MAX_PAYLOAD_BYTES] and letter["payload_bytes"] == len(value or b"")
    assert metric(worker, "streamrec_events_rejected_total") == N_BAD


def test_events_of_other_partitioners_reach_their_user_once(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace(commit_interval_ms=20, session_timeout_ms=2_000)
    n, n_users, topic = 4_000, 60, settings.topic("events")
    chance, sent = random.Random(7), Counter()
    workers = [start_worker(settings), start_worker(settings)]

    async def produce(first: int, last: int) -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args(), linger_ms=5)
        await producer.start()
        acks = []
        for number in range(first, last):
            user = f"u{number % n_users}"
            event = {"event_id": f"e{number}", "user_id": user, "item_id": f"i{chance.randrange(20)}", "event_type": "view",
                     "timestamp": time.time_ns() // 1_000_000}
            key, partition = [
                (user.encode(), zlib.crc32(user.encode()) % settings.partitions),  # librdkafka's default
                (None, chance.randrange(settings.partitions)),
                (b"another", chance.randrange(settings.partitions)),
            ][number % 3]
            sent[user] += 1
            acks.append(await producer.send(topic, json.dumps(event).encode(), key=key, partition=partition))
        await asyncio.gather(*acks)
        await producer.stop()

    for k in range(5):
        asyncio.run(produce(k * n // 5, (k + 1) * n // 5))
        wait_until(lambda: any(Redis(settings).checkpoints().values()), STEP_S, "they have begun")
        workers.pop(0).kill()
        workers.append(start_worker(settings))
    check_equal(settings)
    state = Redis(settings)
    found = Counter()
    for p in range(settings.partitions):
        for user, row in state.user_rows(p).items():
            assert p == partition_of(user, settings.partitions)
            found[user] += int(np.frombuffer(row, USER_ROW)[0]["counts"].sum())
    assert found == sent


def test_late_and_repeated_events(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess]) -> None:
    settings = namespace()
    worker = start_worker(settings)
    chance, now_ms = random.Random(8), time.time_ns() // 1_000_000
    moments = {f"i{k}": now_ms - k * 3_600_000 for k in range(20)}  # i0 is the latest

    async def produce() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        for user in ("u1", "u2"):
            order = list(moments)
            chance.shuffle(order)
            for item in order:
                event = {"event_id": f"{user}-{item}", "user_id": user, "item_id": item, "event_type": "purchase", "timestamp": moments[item]}
                for _ in range(chance.randrange(1, 4)):  # an application that sends again what it sent
                    await producer.send_and_wait(settings.topic("events"), json.dumps(event).encode(), key=user.encode(),
                                                 partition=partition_of(user, settings.partitions))
        await producer.stop()

    asyncio.run(produce())
    check_equal(settings)
    for user in ("u1", "u2"):
        row = np.frombuffer(Redis(settings).user_rows(partition_of(user, settings.partitions))[user], USER_ROW)[0]
        n = int(row["n_items"])
        assert row["items"][:n].tolist() == [stable_hash(f"i{k}") for k in reversed(range(20))], "in event-time order"
        assert row["seconds"][:n].tolist() == [(ms - EPOCH_MS) // 1000 for ms in sorted(moments.values())]
        assert int(row["counts"].sum()) == 20, "the same event_id counts once"
    assert worker.alive


def test_headers_whose_names_are_no_text(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    settings = namespace()
    worker = start_worker(settings)
    events, chance = Events(settings, seed=13, users=20), random.Random(13)

    class Bytes(str):
        def encode(self, *_: str) -> bytes:
            return b"\xff\xfe"

    for module in (aiokafka.producer.producer, aiokafka.producer.message_accumulator):  # the one in C takes text only
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)

    async def produce(compression: str | None) -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args(), compression_type=compression, linger_ms=20)
        await producer.start()
        for _ in range(200):
            partition, key, value = events.draw(time.time_ns() // 1_000_000)
            headers = [(Bytes("x"), b"1")] if chance.random() < 0.1 else []
            await producer.send(settings.topic("events"), value, key=key, partition=partition, headers=headers)
        await producer.send(settings.topic("items"), b'{"hidden":true}', key=b"i1", headers=[(Bytes("x"), b"1")])
        await producer.stop()

    for compression in (None, "lz4"):
        asyncio.run(produce(compression))
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)  # so that what comes next is undone
    read_foreign_headers()
    check_equal(settings)
    assert worker.alive and json.loads(Redis(settings).client.get(Redis(settings).keys.hidden) or b"")["items"] == ["i1"]
