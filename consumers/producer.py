"""Send events and item attributes from an application: `Producer` (asyncio) and `SyncProducer` (threads).

In: an `Event` or its fields. Out: one Kafka message, keyed by user, in the partition where Java's Kafka puts that key,
checked by the workers' own code before it is sent (`InvalidEvent` at once, nothing goes out). Idempotent, `acks=all`.

    async with Producer(Settings.load()) as producer:
        delivery = await producer.send(user_id="u42", item_id="i7", event_type="view")  # in the buffer
        receipt = await delivery                                                        # in Kafka

A `DeliveryError` (consumers.deliveries draws the tree) comes out of the delivery and also out of the next `flush()` or
`close()`, so that nobody loses events by not looking. After one the message may or may not be in Kafka: send the same
event again, with the same `event_id`, and it counts once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future as ThreadFuture
from functools import partial
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumers.deliveries import SWEEP_S, Deliveries, Delivery, DeliveryError, KafkaUnreachable, Receipt
from consumers.kafka import start_kafka, stop_kafka
from consumers.messages import Item, Message, erase_message, event_message, item_message, item_removal
from infra.settings import Settings
from streams.events import Event, InvalidEvent, rating_scale

__all__ = ["Delivery", "DeliveryError", "Event", "InvalidEvent", "Item", "KafkaUnreachable", "Producer", "Receipt",
           "SyncProducer"]

LINGER_MS = 5  # what a batch waits for company: no more than the workers' own fetch does (4 ms)
MAX_BATCH_BYTES = 64 * 1024
MAX_PENDING = 10_000  # about 3 MB of events; send() waits beyond
DELIVERY_TIMEOUT_S = 30.0


class Producer:
    """Asyncio client; one per event loop, any number of tasks. Call `start` or use it as a context manager.

    At most `max_pending` messages wait for Kafka's acknowledgement; `send` waits for room beyond that, and a message
    that is not acknowledged within `delivery_timeout_s` fails. `compression`: None, gzip, snappy, lz4 or zstd.
    """

    def __init__(self, settings: Settings | None = None, *, linger_ms: int = LINGER_MS, max_pending: int = MAX_PENDING,
                 delivery_timeout_s: float = DELIVERY_TIMEOUT_S, compression: str | None = None) -> None:
        self._settings = settings or Settings.load()
        self._scale = rating_scale(self._settings)
        self._options: dict[str, Any] = {"linger_ms": linger_ms, "compression_type": compression,
                         "request_timeout_ms": int(delivery_timeout_s * 1000)}
        self._timeout_s = delivery_timeout_s
        self._deliveries = Deliveries(self._settings.kafka_bootstrap, max_pending, delivery_timeout_s)
        self._kafka: AIOKafkaProducer | None = None

    async def start(self) -> Self:
        """Connect, and see that the topics are there; raises KafkaUnreachable."""
        if self._kafka is None:
            self._kafka = await start_kafka(self._settings, max_batch_size=MAX_BATCH_BYTES, **self._options)
        return self

    async def send(self, event: Event | None = None, /, **fields: Any) -> Delivery:
        """Check one event and put it into the buffer; returns a future of its `Receipt`.

        Give an `Event` or its fields (user_id, item_id, event_type and, as you like, value, timestamp, session_id,
        request_id, properties, event_id). Without an `event_id` one is drawn; without a `timestamp` it happens now.
        Raises InvalidEvent, and DeliveryError when Kafka took nothing for `delivery_timeout_s`.
        """
        return await self.put("events", event_message(event, scale=self._scale, **fields))

    async def send_item(self, item_id: str, **attributes: Any) -> Delivery:
        """Say what is known of an item: title, category, hidden, expires_at, properties (consumers.messages.Item).

        It replaces what was said of the item before. A hidden item is in no list published from a second later.
        """
        return await self.put("items", item_message(item_id=item_id, **attributes))

    async def delete_item(self, item_id: str) -> Delivery:
        """Delete an item, which is like hiding it."""
        return await self.put("items", item_removal(item_id))

    async def erase(self, user_id: str) -> Delivery:
        """Have a user forgotten: what was sent of him before is erased (docs/erasure.md), what is sent later is a new user's."""
        return await self.put("events", erase_message(user_id))

    async def put(self, topic: str, message: Message) -> Delivery:
        """Put a message that is checked already (consumers.messages) into the buffer of `events` or `items`."""
        if self._kafka is None:
            raise DeliveryError("the producer is not started, or closed; use `async with Producer(...)`")
        await self._deliveries.room()
        try:
            sent = await self._kafka.send(self._settings.topic(topic), message.value, message.key)
        except KafkaError as error:
            raise self._deliveries.refused(message.id, error) from error
        return self._deliveries.watch(message.id, sent)

    def note(self, error: DeliveryError) -> None:
        """Let the next flush tell of a message that `put` refused, where its caller cannot."""
        self._deliveries.note(error)

    async def flush(self) -> None:
        """Wait until Kafka has everything; raises DeliveryError if since the last flush something was not delivered."""
        await self._deliveries.drained()

    async def close(self) -> None:
        """Flush and disconnect; raises as flush does, but is closed all the same."""
        kafka, self._kafka = self._kafka, None
        if kafka is None:
            return
        patience_s = SWEEP_S  # where something is stuck, it was reported, and waiting longer helps nobody
        try:
            await self.flush()
            patience_s = self._timeout_s
        finally:
            self._deliveries.stop()
            await stop_kafka(kafka, patience_s)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class SyncProducer:
    """The same for threads: an event loop in a thread of its own does the sending. Share one among all threads.

    `send` checks in the caller's thread, so InvalidEvent comes at once; it returns a `concurrent.futures.Future` of the
    `Receipt`, and blocks only while `max_pending` messages are in flight.
    """

    def __init__(self, settings: Settings | None = None, *, max_pending: int = MAX_PENDING,
                 delivery_timeout_s: float = DELIVERY_TIMEOUT_S, **options: Any) -> None:
        self._settings = settings or Settings.load()
        self._scale = rating_scale(self._settings)
        self._timeout_s = delivery_timeout_s
        self._options = {"max_pending": max_pending, "delivery_timeout_s": delivery_timeout_s, **options}
        self._waiting: deque[tuple[str, Message, ThreadFuture[Receipt]]] = deque()
        self._room = threading.BoundedSemaphore(max_pending)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streamrec-producer", daemon=True)
        self._thread.start()
        self._sending = False
        self._closed = False
        try:
            self._producer: Producer = self._run(self._start())
        except BaseException:
            self._end_thread()
            raise

    def send(self, event: Event | None = None, /, **fields: Any) -> ThreadFuture[Receipt]:
        """Check one event and hand it over; see `Producer.send`."""
        return self._put("events", event_message(event, scale=self._scale, **fields))

    def send_item(self, item_id: str, **attributes: Any) -> ThreadFuture[Receipt]:
        """Say what is known of an item; see `Producer.send_item`."""
        return self._put("items", item_message(item_id=item_id, **attributes))

    def delete_item(self, item_id: str) -> ThreadFuture[Receipt]:
        """Delete an item, which is like hiding it."""
        return self._put("items", item_removal(item_id))

    def erase(self, user_id: str) -> ThreadFuture[Receipt]:
        """Have a user forgotten; see `Producer.erase`."""
        return self._put("events", erase_message(user_id))

    def flush(self) -> None:
        """Wait until Kafka has everything; raises DeliveryError if since the last flush something was not delivered."""
        if not self._closed:
            self._run(self._flush())

    def close(self) -> None:
        """Flush, disconnect and end the thread; raises as flush does, but is closed all the same."""
        if self._closed:
            return
        self._closed = True
        try:
            self._run(self._close())
        finally:
            self._end_thread()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, topic: str, message: Message) -> ThreadFuture[Receipt]:
        if self._closed:
            raise DeliveryError("the producer is closed; make a new one")
        if not self._room.acquire(timeout=self._timeout_s + 2 * SWEEP_S):
            raise DeliveryError(f"Kafka at {self._settings.kafka_bootstrap} took nothing for {self._timeout_s:g} s")
        answer: ThreadFuture[Receipt] = ThreadFuture()
        answer.set_running_or_notify_cancel()  # it is on its way: too late to cancel
        answer.add_done_callback(lambda _: self._room.release())
        self._waiting.append((topic, message, answer))
        if not self._sending:  # a racing thread may wake the loop twice, which is harmless; never not at all
            self._loop.call_soon_threadsafe(self._wake)
        return answer

    def _wake(self) -> None:
        if not self._sending:
            self._sending = True
            self._task = self._loop.create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        while True:
            while self._waiting:
                topic, message, answer = self._waiting.popleft()
                try:
                    delivery = await self._producer.put(topic, message)
                except DeliveryError as error:
                    self._producer.note(error)
                    answer.set_exception(error)
                else:
                    delivery.add_done_callback(partial(_hand_over, answer))
            self._sending = False
            if not self._waiting:  # looked at again: a thread may have appended between the two lines
                return
            self._sending = True

    async def _start(self) -> Producer:
        return await Producer(self._settings, **self._options).start()

    async def _flush(self) -> None:
        while self._waiting or self._sending:
            await asyncio.sleep(0.001)
        await self._producer.flush()

    async def _close(self) -> None:
        try:
            await self._flush()
        finally:
            await self._producer.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _hand_over(answer: ThreadFuture[Receipt], done: Delivery) -> None:
    error = done.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
