"""Looks whether anything is left of a user who was erased: Redis, dead letters, the event log, Kafka itself.

In: settings and a user id. Out: `Remains`. What came after the erasure is a new user's and counts as nothing. Kafka deletes no single
record; so for what lies in `events` it says when retention will have dropped it: the last record of his, and after it as long as the
topic keeps events, and as a segment may be filled before its age counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from consumers.dead_letters import Letter, all_letters, read_box
from consumers.erasing import is_since, keys_of, letter_speaks_of, read_erasures, speaks_of
from consumers.redis import connected
from infra.settings import Settings
from streams.decode import appended_of
from streams.erasures import Erasures
from streams.foreign_headers import read_foreign_headers
from streams.partitioner import partition_of
from streams.shared_logs import at_end

POLL_MS, FETCH_BYTES = 500, 8 * 1024 * 1024
#: How often brokers look for segments to delete, twice over.
CHECK_MS = 600_000
FOR_EVER_MS = 1 << 62
SHOWN = 5


@dataclass(frozen=True)
class Remain:
    """Something that is left. until_ms: when Kafka will have dropped it at the latest; None: not by a date."""

    where: str
    what: str
    until_ms: int | None = None


@dataclass
class Remains:
    """kafka: what goes by itself; other: what does not; notes: what was not looked at, and what else is to be known."""

    user: str
    erased_ms: int | None = None
    kafka: list[Remain] = field(default_factory=list)
    other: list[Remain] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def look(settings: Settings, user: str) -> Remains:
    """Looks everywhere. Raises KafkaError, redis' errors, ForeignErasures, LogError."""
    erasures, out = Erasures(settings.erasure_key), Remains(user)
    await read_erasures(settings, erasures)
    found = erasures.of(user)
    offset, erased_ms = (found.offset, found.appended_at) if found is not None else (1 << 62, 1 << 62)
    out.erased_ms = found.appended_at if found is not None else None
    await _redis(settings, user, offset, out)
    await _letters(settings, user, erased_ms, out)
    _event_log(settings, user, offset, out)
    await _events(settings, user, offset, erased_ms, out)
    return out


async def _redis(settings: Settings, user: str, offset: int, out: Remains) -> None:
    async with connected(settings) as client:
        for name in await keys_of(client, settings, user):
            if not await is_since(client, name, offset):
                out.other.append(Remain("Redis", f"key {name.decode()}"))


async def _letters(settings: Settings, user: str, erased_ms: int, out: Remains) -> None:
    speaks, topic = letter_speaks_of(user), settings.topic("events.dlq")

    def is_his(_: str, letter: Letter) -> bool:
        return letter.appended_at <= erased_ms and speaks(letter)

    box = await read_box(settings, Letter, is_his)
    if box.letters:
        out.other.append(Remain(topic, f"{len(box.letters):,} dead letters, such as {next(iter(box.letters))}"))
    behind = sum([1 async for key, letter in all_letters(settings) if key not in box.letters and is_his(key, letter)])
    if behind:
        out.kafka.append(Remain(topic, f"{behind:,} dead letters that are removed, but not yet cleaned out of its segments"))


def _event_log(settings: Settings, user: str, offset: int, out: Remains) -> None:
    folder = settings.trainer_folder() / "log"
    if not (folder / "log.json").exists():
        out.notes.append(f"no event log at {folder}: where a trainer runs elsewhere, look there")
        return
    from consumers.event_log.erasing import rows_of

    for name, n in rows_of(folder, user, offset).items():
        out.other.append(Remain(str(Path(folder) / name), f"{n:,} rows of the event log, until its next compaction"))


async def _events(settings: Settings, user: str, offset: int, erased_ms: int, out: Remains) -> None:
    """What lies in the topic itself, his erase event included."""
    read_foreign_headers()
    topic, speaks, home = settings.topic("events"), speaks_of(user), partition_of(user, settings.partitions)
    places = [TopicPartition(topic, p) for p in range(settings.partitions)]
    consumer = AIOKafkaConsumer(**settings.kafka_client_args(), client_id="streamrec-remains", enable_auto_commit=False,
                                max_partition_fetch_bytes=FETCH_BYTES)
    await consumer.start()
    n, last_ms, needle = 0, 0, user.encode()
    try:
        consumer.assign(places)
        starts, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, starts[place])
        while not await at_end(consumer, ends):
            for place, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                for record in records:
                    if record.key != needle and not speaks(record.value or b""):
                        continue
                    original_ms = appended_of(record)
                    came_before = (original_ms if original_ms is not None else record.timestamp) <= erased_ms
                    if record.offset <= offset if place.partition == home and original_ms is None else came_before:
                        n, last_ms = n + 1, max(last_ms, record.timestamp)
    finally:
        await consumer.stop()
    if not n:
        return
    configs = await topic_config(settings, topic)
    retention_ms = int(configs["retention.ms"])
    if "delete" not in configs["cleanup.policy"] or retention_ms < 0:
        out.other.append(Remain(topic, f"{n:,} messages, which Kafka keeps for ever: set the topic's retention.ms (and STREAMREC_EVENTS_RETENTION_S), then "
                                       "there will be a date"))
        return
    until_ms = last_ms + retention_ms + min(int(configs["segment.ms"]), FOR_EVER_MS) + CHECK_MS
    out.kafka.append(Remain(topic, f"{n:,} messages", until_ms))


async def topic_config(settings: Settings, topic: str) -> dict[str, Any]:
    """The topic's configuration as brokers have it."""
    admin = AIOKafkaAdminClient(**settings.kafka_client_args())
    try:
        await admin.start()
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}
    finally:
        await admin.close()
