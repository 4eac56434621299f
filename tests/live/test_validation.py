"""`streamrec validate events` foresees exactly the dead letters that a worker then writes, and changes nothing itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.partitioner import partition_of
from tests.live.bad_events import bad_events
from tests.live.command import streamrec
from tests.live.equality import Redis, wait_drained
from tests.live.load import Events
from tests.live.reading import read_all

N_GOOD, N_BAD = 800, 500


def test_what_is_foreseen_is_what_is_rejected(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                              tmp_path: Path) -> None:
    settings = namespace()
    events = Events(settings, seed=16, users=50, misplaced=0.1)

    async def produce() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args(), max_request_size=8 * 1024 * 1024)
        await producer.start()
        for _ in range(N_GOOD):
            partition, key, value = events.draw(time.time_ns() // 1_000_000)
            await producer.send(settings.topic("events"), value, key=key, partition=partition)
        for _, bad in bad_events(N_BAD, seed=16):
            await producer.send(settings.topic("events"), bad, key=b"k", partition=partition_of("bad-user", settings.partitions))
        for key, value in ((b"i1", b'{"title":"x"}'), (b"i2", b'{"title":7}'), (b"i3", b'{"expires_at":"soon"}'), (b"i4", b"")):
            await producer.send(settings.topic("items"), value, key=key)
        await producer.stop()

    asyncio.run(produce())
    done = streamrec(settings, "validate", "events", "--json")
    assert done.returncode == 1, done.stderr
    foreseen = json.loads(done.stdout)
    assert foreseen["checked"] == N_GOOD + N_BAD and foreseen["n_rejected"] == N_BAD
    assert foreseen["accepted"] + foreseen["moved"] == N_GOOD and foreseen["moved"]
    items = json.loads(streamrec(settings, "validate", "items", "--json").stdout)
    assert (items["accepted"], items["rejected"]) == (2, {"schema": 1, "timestamp": 1})
    assert not asyncio.run(read_all(settings, "events.dlq")) and not Redis(settings).all_under(settings.prefix), "nothing was written"

    start_worker(settings)
    wait_drained(settings)
    written: list[dict[str, Any]] = [json.loads(record.value) for record in asyncio.run(read_all(settings, "events.dlq"))]
    assert Counter(letter["reason"] for letter in written) == foreseen["rejected"]
    places = {(f"partition {letter['partition']} offset {letter['offset']}", letter["reason"]) for letter in written}
    for reason, examples in foreseen["examples"].items():
        assert 0 < len(examples) <= 3 and all((example.partition(":")[0], reason) in places for example in examples)

    good = tmp_path / "good.csv"
    good.write_text("user,item,time\nu1,i1,2024-01-01\n")
    done = streamrec(settings, "validate", str(good))
    assert done.returncode == 0 and "1 events would be accepted, 0 rejected" in done.stdout
    absent = streamrec(settings, "validate", "no-such-topic")
    assert absent.returncode == 1 and "neither a file nor a topic" in absent.stderr
