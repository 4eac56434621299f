"""Which release is served: the newest value of the key `current` in the compacted topic `models`.

Promoting a release, and rolling back to an older one, is the same: it is announced. No value, or null, means that none is served.
"""

from __future__ import annotations

import time
from contextlib import aclosing

import msgspec

from infra.settings import Settings
from models.release import BadRelease, location
from streams.shared_logs import compacted

KEY = b"current"
FORMAT = 1
MESSAGES = 1_000


class Announcement(msgspec.Struct, frozen=True):
    """One value of the key: serve this version from this store."""

    version: str
    store: str
    announced_ms: int = 0
    format: int = FORMAT


_decode = msgspec.json.Decoder(Announcement | None).decode


def decode(value: bytes | None) -> Announcement | None:
    """What is announced; raises BadRelease for bytes that announce nothing this version understands."""
    if not value:
        return None
    try:
        said: Announcement | None = _decode(value)
    except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError is one too
        raise BadRelease(f"the announcement {value[:80]!r} cannot be read: {error}") from None
    if said is not None and said.format != FORMAT:
        raise BadRelease(f"the announcement has format {said.format}, this version of streamrec knows {FORMAT}: upgrade it")
    return said


async def announce(settings: Settings, store: str, version: str | None) -> None:
    """Have all workers serve this release, which whoever calls has verified; None: serve none. Raises aiokafka's KafkaError."""
    from aiokafka import AIOKafkaProducer

    value = b"null"
    if version is not None:
        value = msgspec.json.encode(Announcement(version, location(store), time.time_ns() // 1_000_000))
    producer = AIOKafkaProducer(**settings.kafka_client_args(), acks="all", enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(settings.topic("models"), value, key=KEY, partition=0)
    finally:
        await producer.stop()


async def announced(settings: Settings) -> Announcement | None:
    """What is announced now. Raises BadRelease, aiokafka's KafkaError, and LogMissing where there is no such topic yet."""
    value: bytes | None = None
    async with aclosing(compacted(settings, settings.topic("models"), MESSAGES)) as reading:
        async for records, whole in reading:
            value = next((record.value for record in reversed(records) if record.key == KEY), value)
            if whole:
                break
    return decode(value)
