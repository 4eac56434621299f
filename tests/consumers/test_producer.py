"""The producer's own promises, with a Kafka that answers when the test says so: bounds, deadlines, told failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaError, RequestTimedOutError
from aiokafka.partitioner import DefaultPartitioner

import consumers.producer
from consumers.deliveries import Deliveries
from consumers.kafka import java_partitioner
from consumers.producer import DeliveryError, InvalidEvent, KafkaUnreachable, Producer, SyncProducer
from infra.settings import Settings

SETTINGS = Settings.load(env={"STREAMREC_HOME": "/nonexistent"}, prefix="shop.", kafka_bootstrap="127.0.0.1:1")
VIEW = {"user_id": "u42", "item_id": "i7", "event_type": "view"}


class Record:
    partition, offset = 3, 17


class FakeKafka:
    """Takes messages, and acknowledges them when told (or at once)."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes]] = []
        self.waiting: list[asyncio.Future[Any]] = []
        self.at_once = True
        self.refuse: KafkaError | None = None

    async def send(self, topic: str, value: bytes | None, key: bytes) -> asyncio.Future[Any]:
        if self.refuse:
            raise self.refuse
        self.sent.append((topic, value, key))
        answer = asyncio.get_running_loop().create_future()
        if self.at_once:
            answer.set_result(Record)
        else:
            self.waiting.append(answer)
        return answer

    async def stop(self) -> None:
        pass


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()

    async def start(*_: Any, **__: Any) -> FakeKafka:
        return fake

    monkeypatch.setattr(consumers.producer, "start_kafka", start)
    return fake


def test_a_receipt_says_where_it_lies(kafka: FakeKafka) -> None:
    async def run() -> None:
        async with Producer(SETTINGS) as producer:
            assert await (await producer.send(**VIEW, event_id="e1")) == ("e1", 3, 17)
            await producer.send_item("i7", title="Coffee")
            await producer.delete_item("i7")

    asyncio.run(run())
    assert [(topic, key) for topic, _, key in kafka.sent] == [("shop.events", b"u42"), ("shop.items", b"i7"), ("shop.items", b"i7")]
    assert kafka.sent[2][1] is None


def test_nothing_invalid_goes_out(kafka: FakeKafka) -> None:
    async def run() -> None:
        async with Producer(SETTINGS) as producer:
            with pytest.raises(InvalidEvent, match="event_type"):
                await producer.send(**{**VIEW, "event_type": "stare"})

    asyncio.run(run())
    with SyncProducer(SETTINGS) as producer, pytest.raises(InvalidEvent):
        producer.send(**{**VIEW, "event_type": "stare"})
    assert not kafka.sent


def test_no_more_in_flight_than_allowed(kafka: FakeKafka) -> None:
    async def run() -> None:
        kafka.at_once = False
        async with Producer(SETTINGS, max_pending=3) as producer:
            sending = [asyncio.create_task(producer.send(**VIEW)) for _ in range(5)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(kafka.sent) == 3
            kafka.waiting[0].set_result(Record)
            while len(kafka.sent) < 4:
                await asyncio.sleep(0)
            for answer in kafka.waiting[1:]:
                answer.set_result(Record)
            kafka.at_once = True
            await asyncio.gather(*sending)
            assert len(kafka.sent) == 5

    asyncio.run(run())


def test_a_failure_is_told_by_the_delivery_and_by_the_next_flush(kafka: FakeKafka) -> None:
    async def run() -> None:
        kafka.at_once = False
        async with Producer(SETTINGS) as producer:
            delivery, other = await producer.send(**VIEW, event_id="e1"), await producer.send(**VIEW)
            kafka.waiting[0].set_exception(RequestTimedOutError())
            kafka.waiting[1].set_result(Record)
            with pytest.raises(DeliveryError, match="did not take 'e1'"):
                await delivery
            with pytest.raises(DeliveryError, match="1 messages were not delivered; the first: .*'e1'"):
                await producer.flush()
            await producer.flush()  # told once
            assert other.result().offset == 17

    asyncio.run(run())


def test_nobody_waits_for_ever(kafka: FakeKafka) -> None:
    async def run() -> None:
        kafka.at_once = False
        producer = await Producer(SETTINGS, max_pending=1, delivery_timeout_s=0.05).start()
        delivery = await producer.send(**VIEW)
        await producer.send(**VIEW)  # got its room when the first was given up
        with pytest.raises(DeliveryError, match="within 0.05 s; it may still arrive"):
            await delivery
        with pytest.raises(DeliveryError, match="2 messages"):
            await producer.close()
        kafka.waiting[0].set_result(Record)  # a late answer is no accident
        with pytest.raises(DeliveryError, match="closed"):
            await producer.send(**VIEW)

    asyncio.run(run())


def test_threads_share_one_producer_and_all_arrives(kafka: FakeKafka) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with SyncProducer(SETTINGS, max_pending=50) as producer, ThreadPoolExecutor(4) as threads:
        futures = list(threads.map(lambda i: producer.send(**VIEW, event_id=f"e{i}"), range(400)))
        producer.flush()
        assert [future.result(timeout=0).id for future in futures] == [f"e{i}" for i in range(400)]
    assert len(kafka.sent) == 400


def test_the_threads_producer_tells_failures_too(kafka: FakeKafka) -> None:
    producer = SyncProducer(SETTINGS)
    kafka.refuse = RequestTimedOutError()
    future = producer.send(**VIEW)
    with pytest.raises(DeliveryError):
        future.result(timeout=5)
    with pytest.raises(DeliveryError, match="1 messages were not delivered"):
        producer.close()
    with pytest.raises(DeliveryError, match="closed"):
        producer.send(**VIEW)
    producer.close()  # twice is once


def test_no_broker_is_one_clear_sentence() -> None:
    async def run() -> None:
        with pytest.raises(KafkaUnreachable, match="127.0.0.1:1 did not answer .*STREAMREC_KAFKA_BOOTSTRAP"):
            await Producer(SETTINGS).start()

    asyncio.run(run())
    with pytest.raises(KafkaUnreachable):
        SyncProducer(SETTINGS)


def test_the_partitioner_is_the_usual_one() -> None:
    everyone = list(range(7))
    for i in range(200):
        key = f"user-{i}".encode()
        assert java_partitioner(key, everyone, everyone) == DefaultPartitioner()(key, everyone, everyone)


def test_an_empty_flush_returns_at_once() -> None:
    async def run() -> None:
        await asyncio.wait_for(Deliveries("nowhere", 1, 1.0).drained(), 1)

    asyncio.run(run())
