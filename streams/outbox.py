"""What this worker sends to Kafka: interactions, events for another partition, dead letters. In order, acknowledged.

One round at a time: the next is sent only after all of the last is acknowledged. So a failed send cannot leave a gap
behind which later sources were written, which the source guard of the fold would turn into a loss.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from infra.settings import Settings, StreamrecError
from streams.decode import APPENDED_HEADER, ORIGIN_HEADER, Record
from streams.interactions import Section, pack

log = logging.getLogger(__name__)

#: Dead letters carry at most this much of the message.
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_REQUEST_BYTES = 8 * 1024 * 1024
#: A round that takes longer than this means that Kafka does not take part.
SLOW_S = 2.0


class SendFailed(StreamrecError):
    """Kafka did not take a message in time; the worker stops and starts again from its checkpoint."""


class Message(NamedTuple):
    """One message to send."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


def interactions_messages(topic: str, said: Iterable[Section], names: dict[int, bytes], n: int) -> list[Message]:
    """Messages for the partitions of the records' items (hash mod n): one each, unless there is much to say."""
    by_target: list[list[Section]] = [[] for _ in range(n)]
    for partition, base, records in said:
        target = (records["item"] % np.uint64(n)).astype(np.int32)
        order = np.argsort(target, kind="stable")  # sources stay in order
        records = records[order]
        ends = np.searchsorted(target[order], np.arange(n + 1))
        for p in range(n):
            if ends[p] < ends[p + 1]:
                by_target[p].append(Section(partition, base, records[ends[p] : ends[p + 1]]))
    return [Message(topic, p, None, value) for p in range(n) for value in pack(by_target[p], names)]


def dead_letter(topic: str, source: str, partition: int, record: Record, reason: str, detail: str) -> Message:
    """The dead letter of a record of `source`; its key names the record, so that a second one replaces it."""
    value = record.value or b""
    payload = value[:MAX_PAYLOAD_BYTES]
    try:
        shown = {"payload": payload.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        shown = {"payload": base64.b64encode(payload).decode(), "encoding": "base64"}
    body = {
        "v": 1,
        "reason": reason,
        "detail": detail[:1000],
        "topic": source,
        "partition": partition,
        "offset": record.offset,
        "appended_at": record.timestamp,
        "payload_bytes": len(value),
        **shown,
    }
    return Message(topic, None, f"{source}/{partition}/{record.offset}".encode(), msgspec.json.encode(body))


def moved(topic: str, partition: int, record: Record, home: int, user_key: bytes | None) -> Message:
    """An event on its way from `partition`, where it was produced, to the partition of its user."""
    origin = (ORIGIN_HEADER, f"{partition}/{record.offset}".encode())
    return Message(topic, home, user_key, record.value or b"", (origin, (APPENDED_HEADER, b"%d" % record.timestamp)))


class Outbox:
    """Sends rounds of messages."""

    def __init__(self, settings: Settings, waiting: Callable[[str], AbstractContextManager[Any]]) -> None:
        self._settings, self._waiting = settings, waiting
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect; needs the running loop."""
        settings = self._settings
        self._producer = AIOKafkaProducer(
            **settings.kafka_client_args(),
            client_id="streamrec-outbox",
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=settings.request_timeout_ms,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=256 * 1024,
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def send(self, messages: Sequence[Message]) -> None:
        """Send a round and wait until all of it is acknowledged; raises `SendFailed`."""
        if not messages:
            return
        started = time.monotonic()
        round_ = asyncio.ensure_future(self._send(messages))
        try:
            done, _ = await asyncio.wait([round_], timeout=SLOW_S)
            if not done:
                log.warning("Kafka has not acknowledged %d messages for %.0f s: waiting", len(messages), SLOW_S)
                with self._waiting("kafka"):
                    await asyncio.wait([round_])
                log.warning("Kafka acknowledged after %.1f s", time.monotonic() - started)
            await round_
        except asyncio.CancelledError:
            round_.cancel()
            raise
        except Exception as error:
            raise SendFailed(
                f"Kafka did not take {len(messages)} messages ({error!r}) within request_timeout_ms; the worker stops,"
                " and goes on from its checkpoint when it is started again"
            ) from error

    async def _send(self, messages: Sequence[Message]) -> None:
        assert self._producer is not None, "start() comes first"
        send = self._producer.send
        acks = [
            await send(m.topic, m.value, key=m.key, partition=m.partition, headers=list(m.headers)) for m in messages
        ]
        await asyncio.gather(*acks)
