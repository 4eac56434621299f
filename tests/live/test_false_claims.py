"""Messages of `lessons` and `interactions` that claim events which are not there: passed over by all alike, and nothing is silenced."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis
from aiokafka import AIOKafkaProducer

from infra.settings import Settings
from infra.stack import WorkerProcess
from models.hashing import stable_hash
from models.history import RECORD
from models.lessons import LESSON, Lessons
from models.user_row import USER_ROW
from streams import interactions, lessons
from streams.decode import ORIGIN_HEADER
from streams.horizon import Horizon, claims
from streams.interactions import Section
from streams.lessons import Noted
from streams.partitioner import partition_of
from streams.state import State
from tests.live.equality import Redis, check_equal, wait_drained
from tests.live.learned import kept, learned_from
from tests.live.load import Events, send
from tests.live.pages import metric
from tests.live.parts import LogReader

FAR = [2**62, 2**63 - 1, 10**12]
SLACK_MS = 1_500


def lesson_of(partition: int, source: int) -> bytes:
    heads = np.zeros(1, LESSON)
    heads["item"], heads["weight"], heads["n_context"], heads["n_before"] = stable_hash("i1"), 1, 1, 1
    (value,) = lessons.pack([Noted(partition, source, Lessons(heads, np.array([stable_hash("i2")], np.uint64), np.array([255], np.uint8)))])
    return value


def touch_by(partition: int, source: int, n_partitions: int) -> tuple[int, bytes]:
    """A touch of an item, and the partition that it goes to."""
    records = np.zeros(1, RECORD)
    item = stable_hash("i1")
    records["item"], records["time_ms"], records["weight"] = item, 1_763_778_821_000, 64
    (value,) = interactions.pack([Section(partition, source, records)], {item: b"i1"})
    return item % n_partitions, value


async def produce(settings: Settings, messages: list[tuple[str, int, bytes]]) -> list[int]:
    """Send (topic, partition, value) as any program may; returns their offsets."""
    producer = AIOKafkaProducer(**settings.kafka_client_args())
    await producer.start()
    try:
        return [(await producer.send_and_wait(settings.topic(name), value, partition=p)).offset for name, p, value in messages]
    finally:
        await producer.stop()


def test_what_comes_after_a_false_claim_still_counts(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events = Events(settings, seed=31, users=60)
    workers = [start_worker(settings), start_worker(settings)]
    send(settings, events, 800)
    check_equal(settings)
    false = [("lessons", 0, lesson_of(p, far)) for p in range(settings.partitions) for far in FAR]
    false += [("interactions", *touch_by(p, far, settings.partitions)) for p in range(settings.partitions) for far in FAR]
    offsets = asyncio.run(produce(settings, false))
    without = offsets[: len(false) // 2]
    send(settings, events, 800)

    def equal() -> None:
        """All that is kept is what one reader makes of the true messages."""
        engine = check_equal(settings)
        wait_until(lambda: kept(settings)[0] == learned_from(settings, without=without).position, 60.0, "all lessons are kept")
        learner = learned_from(settings, without=without)
        assert kept(settings)[1] == learner.dump()
        assert learner.n_taught == engine.state.learner.n_taught, "and each event has taught once"

    equal()
    for worker in workers:
        wait_until(lambda worker=worker: metric(worker, "streamrec_messages_skipped_total", reason="foreign") == len(false),
                   30.0, "every worker passes all of them over")
        assert "were not there when it was written" in worker.log

    # a worker that reads all of it again, long after, decides as those did that saw it come
    for worker in workers:
        worker.kill()
    client = redis.from_url(settings.redis_url)
    for key in client.scan_iter(f"{settings.prefix}*", count=1_000):
        client.delete(key)
    again = start_worker(settings)
    equal()
    assert metric(again, "streamrec_messages_skipped_total", reason="foreign") == len(false)


@pytest.mark.parametrize("name", ["interactions", "lessons"])
def test_all_decide_alike_about_events_that_come_later(namespace: Callable[..., Settings], name: str) -> None:
    """A claim beyond the end becomes an offset that exists; it must not become true by that."""
    settings = namespace()
    events = Events(settings, seed=32, users=20)
    home = 0

    async def at(offset: int) -> tuple[tuple[str, int], Any, dict[int, int]]:
        """A message that claims this offset of the partition, as it is read back."""
        partition, value = (0, lesson_of(home, offset)) if name == "lessons" else touch_by(home, offset, settings.partitions)
        (place,) = await produce(settings, [(name, partition, value)])
        reader = LogReader(settings, name)
        await reader.start()
        await reader.refresh()
        await reader.stop()
        module = lessons if name == "lessons" else interactions
        record = reader.records[partition][place]
        return (name, partition), record, claims(record.value, module.HEADER, module.SECTION, settings.partitions)

    async def more(n: int) -> None:
        """So many more events in that partition."""
        drawn = 0
        messages = []
        while drawn < n:
            partition, _, value = events.draw(1_763_778_821_000)
            if partition == home:
                drawn += 1
                messages.append(("events", home, value))
        await produce(settings, messages)

    async def horizon() -> Horizon:
        state = State(settings)
        made = Horizon(settings, lambda: state.users.position, state.waiting, SLACK_MS)
        await made.start()
        return made

    async def run() -> None:
        first = await horizon()
        await more(10)
        true, early, false = await at(9), await at(10), await at(500)
        assert true[-1] == {home: 9}
        assert await first.holds(*true)
        waits = asyncio.ensure_future(first.holds(*early))
        await asyncio.sleep(0.1)
        assert not waits.done(), "what is not there yet may come at any moment: clocks of brokers differ"
        await more(1)
        assert await waits
        assert not await first.holds(*false), "it waits, and then it is false"
        await more(600)
        assert await first.holds(*await at(500)), "now it is there"
        later = await horizon()
        for one in (first, later):
            assert [await one.holds(*claim) for claim in (true, early, false)] == [True, True, False]
        backwards = await horizon()
        assert [await backwards.holds(*claim) for claim in (false, early, true)] == [False, True, True]
        for one in (first, later, backwards):
            await one.stop()

    asyncio.run(run())


def test_a_forged_origin_hides_nothing(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess]) -> None:
    """Whoever may write events may bear the header of those that workers move; what it names must have been there."""
    settings = namespace(commit_interval_ms=20)
    topic, n = settings.topic("events"), settings.partitions
    worker, other = start_worker(settings), start_worker(settings)
    sent: Counter[str] = Counter()

    async def produce_all(first: int, headers: Callable[[int, int], list[tuple[str, bytes]]]) -> None:
        """Two hundred events, every second one in a partition that is not its user's."""
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        for number in range(first, first + 200):
            user = f"u{number % 40}"
            home = partition_of(user, n)
            event = {"event_id": f"e{number}", "user_id": user, "item_id": f"i{number % 20}", "event_type": "view",
                     "timestamp": 1_763_778_821_000 + number}
            partition, says = ((home + 1 + number % (n - 1)) % n, []) if number % 2 else (home, headers(home, number))
            await producer.send_and_wait(topic, json.dumps(event).encode(), key=user.encode(), partition=partition, headers=says)
            sent[user] += 1
        await producer.stop()

    far = ["999999999999999999", "4611686018427387904", "1000000"]
    asyncio.run(produce_all(0, lambda home, number: [(ORIGIN_HEADER, f"{(home + 1 + number // 2 % (n - 1)) % n}/{far[number % 3]}".encode())]))
    wait_drained(settings)
    asyncio.run(produce_all(200, lambda home, number: []))
    wait_drained(settings)
    found: Counter[str] = Counter()
    for p in range(n):
        for user, row in Redis(settings).user_rows(p).items():
            found[user] += int(np.frombuffer(row, USER_ROW)[0]["counts"].sum())
    assert found == sent
    assert "cannot be true" in worker.log + other.log and worker.alive and other.alive


def test_the_time_of_a_producer_is_not_relied_upon(namespace: Callable[..., Settings], own_topic: Callable[..., None],
                                                   caplog: pytest.LogCaptureFixture) -> None:
    """Events that bear the producer's time say nothing of when they came: then the end of their log is all that counts."""
    settings = namespace()
    own_topic(settings, "events", {"message.timestamp.type": "CreateTime"})

    async def run() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        for ahead_ms in (86_400_000, 0, 0):
            await producer.send_and_wait(settings.topic("events"), b"{}", partition=0, timestamp_ms=1_763_778_821_000 + ahead_ms)
        await producer.stop()
        (place,) = await produce(settings, [("lessons", 0, lesson_of(0, 2))])
        reader = LogReader(settings, "lessons")
        await reader.start()
        await reader.refresh()
        await reader.stop()
        state = State(settings)
        horizon = Horizon(settings, lambda: state.users.position, state.waiting, SLACK_MS)
        await horizon.start()
        assert "held against its end only" in caplog.text
        record = reader.records[0][place]
        await asyncio.sleep(2 * SLACK_MS / 1000)
        assert await horizon.holds(("lessons", 0), record, {0: 2})
        assert not await horizon.holds(("lessons", 0), record, {0: 3})
        await horizon.stop()

    asyncio.run(run())


@pytest.fixture
def own_topic() -> Callable[..., None]:
    """own_topic(settings, name, configs): set what a topic that is there bears."""

    def change(settings: Settings, name: str, configs: dict[str, str]) -> None:
        from aiokafka.admin import AIOKafkaAdminClient
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        async def run() -> None:
            admin = AIOKafkaAdminClient(**settings.kafka_client_args())
            await admin.start()
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic(name), configs)])
            await admin.close()

        asyncio.run(run())

    return change
