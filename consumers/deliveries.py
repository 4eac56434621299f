"""What is on its way to Kafka: how much there may be, how long it may take, and what became of it.

    StreamrecError
    ├── InvalidEvent      (streams.events) nothing was sent
    ├── DeliveryError     Kafka did not confirm a message
    └── KafkaUnreachable  no broker answered, or the topics are not there
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from infra.settings import StreamrecError

SWEEP_S = 0.5  # how often overdue messages are looked for


class DeliveryError(StreamrecError):
    """Kafka did not confirm a message in time, or refused it."""


class KafkaUnreachable(StreamrecError):
    """No broker answered, or the topics are not there."""


class Receipt(NamedTuple):
    """Where a message lies: the `event_id` (or `item_id`), partition and offset."""

    id: str
    partition: int
    offset: int


Delivery = asyncio.Future[Receipt]


class Deliveries:
    """Bounds and watches messages in flight; belongs to one event loop.

    aiokafka's idempotent producer never gives a message up, so whoever waits for it needs this clock beside it.
    """

    def __init__(self, address: str, limit: int, timeout_s: float) -> None:
        self._address = address
        self._limit = limit
        self._timeout_s = timeout_s
        self._deadlines: dict[Delivery, float] = {}  # in order of sending, so the oldest is first
        self._first_failure: DeliveryError | None = None
        self._n_failed = 0
        self._settled = asyncio.Event()
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._deadlines)

    async def room(self) -> None:
        """Wait until one more may be sent; ends, since what is overdue fails."""
        while len(self._deadlines) >= self._limit:
            await self._next()

    async def drained(self) -> None:
        """Wait until nothing is in flight; raises DeliveryError if something failed since the last call."""
        while self._deadlines:
            await self._next()
        first, n, self._first_failure, self._n_failed = self._first_failure, self._n_failed, None, 0
        if first is not None:
            raise DeliveryError(f"{n} messages were not delivered; the first: {first}") from first

    def watch(self, message_id: str, sent: asyncio.Future[Any]) -> Delivery:
        """A future of the receipt for a message that aiokafka has taken into its buffer."""
        loop = asyncio.get_running_loop()
        delivery: Delivery = loop.create_future()
        self._deadlines[delivery] = loop.time() + self._timeout_s
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP_S, self._fail_overdue)
        sent.add_done_callback(lambda done: self._settle(delivery, message_id, done))
        return delivery

    def refused(self, message_id: str, error: BaseException | str) -> DeliveryError:
        """The error for a message that Kafka did not take."""
        said = error if str(error) else type(error).__name__
        return DeliveryError(f"Kafka at {self._address} did not take {message_id!r} ({said}); "
                             "send it again with the same id, it counts once")

    def note(self, error: DeliveryError) -> None:
        """Count a failure, for the next `drained` to tell."""
        self._n_failed += 1
        self._first_failure = self._first_failure or error

    def stop(self) -> None:
        """Stop watching."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def _next(self) -> None:
        self._settled.clear()
        await self._settled.wait()

    def _settle(self, delivery: Delivery, message_id: str, done: asyncio.Future[Any]) -> None:
        error = "the producer was closed" if done.cancelled() else done.exception()
        if delivery not in self._deadlines:
            return  # it was overdue, and has been told so
        if error is not None:
            self._fail(delivery, self.refused(message_id, error))
            return
        record = done.result()
        self._forget(delivery)
        if not delivery.done():  # the caller may have cancelled it
            delivery.set_result(Receipt(message_id, record.partition, record.offset))

    def _fail_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._deadlines and next(iter(self._deadlines.values())) <= now:
            self._fail(next(iter(self._deadlines)), DeliveryError(
                f"Kafka at {self._address} did not confirm a message within {self._timeout_s:g} s; it may still arrive: "
                "send it again with the same event_id, it counts once"))
        self._sweep = loop.call_later(SWEEP_S, self._fail_overdue) if self._deadlines else None

    def _fail(self, delivery: Delivery, error: DeliveryError) -> None:
        self._forget(delivery)
        self.note(error)
        if not delivery.done():
            delivery.set_exception(error)
            delivery.exception()  # flush tells of it: no warning at garbage collection for those who only flush

    def _forget(self, delivery: Delivery) -> None:
        del self._deadlines[delivery]
        self._settled.set()
