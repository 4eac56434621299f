"""The clients against real servers: lists written as the contract says, events read back by a plain consumer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from consumers.producer import DeliveryError, KafkaUnreachable, Producer, SyncProducer
from consumers.reader import AsyncReader, Reader, RedisUnreachable
from infra.settings import Settings
from streams.events import check, decode_event
from streams.partitioner import partition_of
from tests.live.reading import read_all

def put(client: Any, settings: Settings, key: str, items: list[str], **more: Any) -> None:
    client.set(settings.key(key), json.dumps({"v": 1, "items": items, **more}))


def test_readers_read_what_the_contract_says(namespace: Callable[..., Settings], redis_client: Callable[[Settings], Any]) -> None:
    settings = namespace()
    client = redis_client(settings)
    put(client, settings, "rec:u1", ["a", "b"], user="u1", scores=[2, 1], channels=["repeat"], why=[0, 0], generated_at=1)
    put(client, settings, "rec:ü 2", ["b"])
    put(client, settings, "popular:all", ["p", "b"])
    put(client, settings, "similar:a", ["b", "c"])
    put(client, settings, "hidden:all", ["b"])
    put(client, settings, "workers:w1", [], lag={"0": 3}, ready=True, oldest_dirty_ms=5)

    def sync() -> list[Any]:
        with Reader(settings) as reader:
            return [reader.get("u1"), reader.get("nobody"), reader.get_many(["ü 2", "nobody", "u1"]), reader.similar("a"), reader.staleness()]

    async def asynchronous() -> list[Any]:
        async with AsyncReader(settings, connections=2) as reader:
            many = await asyncio.gather(*[reader.get("u1") for _ in range(20)])
            assert all(lst == many[0] for lst in many)
            return [many[0], await reader.get("nobody"), await reader.get_many(["ü 2", "nobody", "u1"]),
                    await reader.similar("a"), await reader.staleness()]

    one, nobody, many, similar, staleness = sync()
    assert (list(one), one.scores, one.reason(0), one.fallback) == (["a"], (2,), "repeat", False)
    assert (list(nobody), nobody.fallback) == (["p"], True)
    assert {user: list(lst) for user, lst in many.items()} == {"ü 2": [], "nobody": ["p"], "u1": ["a"]}
    assert (list(similar), staleness.workers, staleness.lag) == (["c"], 1, 3)
    assert asyncio.run(asynchronous()) == [one, nobody, many, similar, staleness]


def test_a_reader_outlives_a_restart_of_redis(own_redis: Callable[[], Any]) -> None:
    server = own_redis()
    settings = Settings.load(env={"STREAMREC_HOME": "/nonexistent"}, redis_url=server.url)

    async def run() -> None:
        with Reader(settings) as reader:
            async with AsyncReader(settings) as async_reader:
                assert list(reader.get("u1")) == list(await async_reader.get("u1")) == []
                server.stop()
                with pytest.raises(RedisUnreachable):
                    reader.get("u1")
                with pytest.raises(RedisUnreachable):
                    await async_reader.get("u1")
                server.start()
                assert list(reader.get("u1")) == list(await async_reader.get("u1")) == []

    asyncio.run(run())


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_events_arrive_once_in_their_users_partition(namespace: Callable[..., Settings], compression: str | None) -> None:
    settings = namespace(partitions=5)

    async def run() -> None:
        async with Producer(settings, compression=compression) as producer:
            deliveries = [await producer.send(user_id=f"u{i % 50}", item_id=f"i{i}", event_type="click", event_id=f"e{i}")
                          for i in range(1000)]
            await producer.flush()
            receipts = [delivery.result() for delivery in deliveries]
        records = await read_all(settings)
        assert sorted((r.partition, r.offset) for r in records) == sorted((r.partition, r.offset) for r in receipts)
        for record in records:
            event = decode_event(record.value)
            check(event, record.timestamp)
            assert record.key == event.user_id.encode() and record.partition == partition_of(event.user_id, 5)
        for user in range(50):  # a user's events stay in their order
            mine = [decode_event(r.value).event_id for r in sorted(records, key=lambda r: r.offset) if r.key == b"u%d" % user]
            assert mine == [f"e{i}" for i in range(user, 1000, 50)]

    asyncio.run(run())


def test_threads_and_items(namespace: Callable[..., Settings]) -> None:
    settings = namespace()
    with SyncProducer(settings) as producer:
        receipt = producer.send(user_id="u1", item_id="i1", event_type="view").result(timeout=30)
        producer.send_item("i1", title="Tea", hidden=True)
        producer.delete_item("i2")
    assert receipt.partition == partition_of("u1", settings.partitions)
    items = asyncio.run(read_all(settings, "items"))
    assert [(r.key, r.value) for r in items] == [(b"i1", b'{"item_id":"i1","title":"Tea","hidden":true}'), (b"i2", None)]


def test_a_missing_topic_is_named(stack: Any) -> None:
    settings = stack.settings(prefix="nobody-made-this.")

    async def run() -> None:
        with pytest.raises(KafkaUnreachable, match="no topic nobody-made-this.events"):
            await Producer(settings).start()

    asyncio.run(run())


def test_a_broker_that_goes_is_told_and_one_that_comes_back_gets_everything(
        own_stack: Callable[[], Any], namespace: Callable[..., Settings]) -> None:
    servers = own_stack()
    settings = namespace(servers)

    async def run() -> None:
        async with Producer(settings, delivery_timeout_s=60) as patient:
            hasty = await Producer(settings, delivery_timeout_s=1).start()
            await (await hasty.send(user_id="u1", item_id="i", event_type="view"))
            await (await patient.send(user_id="u1", item_id="i", event_type="view"))
            servers.kafka.stop()
            with pytest.raises(DeliveryError):
                await (await hasty.send(user_id="u1", item_id="i", event_type="view", event_id="given up"))
            with pytest.raises(DeliveryError):
                await hasty.close()
            deliveries = [await patient.send(user_id=f"u{i}", item_id="i", event_type="view", event_id=f"late{i}") for i in range(100)]
            await asyncio.to_thread(servers.kafka.start)
            await patient.flush()
            assert len({(d.result().partition, d.result().offset) for d in deliveries}) == 100
        ids = [decode_event(r.value).event_id for r in await read_all(settings)]
        assert sorted(e for e in ids if e.startswith("late")) == sorted(f"late{i}" for i in range(100))

    asyncio.run(run())
