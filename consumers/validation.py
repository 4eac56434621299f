"""What would be rejected of a file or of a topic, and why; nothing is sent, absorbed or written.

In: a file as `streamrec import` takes it, a file of messages, or a topic. Out: `Findings`. No rule lives here: rows go through the
import's own preparation (consumers/row_messages.py), messages through the workers' own decoder (streams/decode.py, streams/catalogue.py).
What only time can tell is not foreseen: `crash`, and whether Kafka is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from consumers.importer import open_source
from consumers.tables import CHUNK_ROWS, TableError
from infra.settings import TOPICS, Settings, StreamrecError
from infra.topics import partition_counts
from streams.catalogue import decode_item, expiry_ms
from streams.decode import Decoder
from streams.events import InvalidEvent, rating_scale
from streams.foreign_headers import read_foreign_headers
from streams.shared_logs import at_end

EXAMPLES = 3
EXAMPLE_CHARS = 200
KINDS = ("events", "items")
POLL_MS, POLL_RECORDS = 500, 4_096
FETCH_BYTES = 4 * 1024 * 1024

Advance = Callable[[int, float], None]


class ValidationError(StreamrecError):
    """There is no such file or topic, or it holds no events or items."""


@dataclass
class Findings:
    """What became of each row or message. moved: events in another partition than their user's, which a worker would move; copies: of
    these the copies that count no second time; examples: the first few by reason, each with its place."""

    source: str
    kind: str
    checked: int = 0
    accepted: int = 0
    moved: int = 0
    copies: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def n_rejected(self) -> int:
        """Of all reasons."""
        return sum(self.rejected.values())

    def reject(self, reason: str, n: int, examples: Iterable[str]) -> None:
        """Count, and keep the first examples."""
        self.rejected[reason] = self.rejected.get(reason, 0) + n
        shown = self.examples.setdefault(reason, [])
        for example in examples:
            if len(shown) == EXAMPLES:
                return
            shown.append(example)


@dataclass(slots=True)
class _Line:
    """A line of a file as a record that arrives now."""

    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class _Nowhere:
    """Takes the messages that an import would send."""

    def append(self, **_: Any) -> object:
        """There is always room."""
        return self


def validate_file(settings: Settings, path: str | Path, *, columns: Mapping[str, str | None] | None = None, kind: str = "events",
                  format: str | None = None, event_type_default: str = "purchase", limit: int | None = None,
                  advance: Advance | None = None) -> Findings:
    """What an import of this file would leave out; arguments and errors as of `consumers.importer.run_import`."""
    source = open_source(settings, path, columns=columns, kind=kind, format=format, event_type_default=event_type_default)
    out = Findings(str(path), kind)
    for chunk in source.table.read(list(source.columns.values())):
        rows = chunk if limit is None else chunk[: limit - out.checked]
        prepared = source.rows.prepare(rows, out.checked, set(), settings.partitions, _Nowhere)
        out.checked += len(rows)
        out.accepted += prepared.accepted
        for reason, examples in prepared.rejected.items():
            out.reject(reason, len(examples), examples)
        if advance is not None:
            advance(out.checked, source.table.fraction())
        if limit is not None and out.checked >= limit:
            break
    return out


def validate_messages(settings: Settings, path: str | Path, *, limit: int | None = None, advance: Advance | None = None) -> Findings:
    """What workers would reject if each line of this file were the value of a message to `events`, keyed by its user."""
    path = Path(path)
    if not path.is_file():
        raise TableError(f"{path} is not a file that can be read; give one with a message in each line")
    out, size = Findings(str(path), "events"), max(1, path.stat().st_size)
    check = _Events(settings, 1, out)  # whoever keys by user meets the right partition
    with path.open("rb") as file:
        for lines in _some(file, limit):
            now_ms = time.time_ns() // 1_000_000
            records = [_Line(out.checked + k, now_ms, line.rstrip(b"\r\n")) for k, line in enumerate(lines, 1)]
            check.take(0, [record for record in records if record.value], "line {}".format)
            out.checked += len(records)
            if advance is not None:
                advance(out.checked, file.tell() / size)
    return out


def _some(file: Iterable[bytes], limit: int | None) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    for number, line in enumerate(file):
        if number == limit:
            break
        lines.append(line)
        if len(lines) == CHUNK_ROWS:
            yield lines
            lines = []
    if lines:
        yield lines


def validate_topic(settings: Settings, name: str, *, kind: str | None = None, limit: int | None = None,
                   advance: Advance | None = None) -> Findings:
    """What workers would reject of all that lies in a topic now. name: `events` or `items` of this system, or any topic's full name;
    kind: events or items, where the name does not tell. Raises ValidationError and aiokafka's KafkaError."""
    if name in TOPICS and name not in KINDS:
        raise ValidationError(f"{name} holds neither events nor items; workers read these from {' and '.join(KINDS)}")
    kind = kind or (name if name in KINDS else "events")
    return asyncio.run(_validate_topic(settings, settings.topic(name) if name in TOPICS else name, kind, limit, advance))


async def _validate_topic(settings: Settings, topic: str, kind: str, limit: int | None, advance: Advance | None) -> Findings:
    read_foreign_headers()
    n_partitions = await _partitions(settings, topic)
    consumer = AIOKafkaConsumer(**settings.kafka_client_args(), client_id="streamrec-validate", enable_auto_commit=False,
                                max_partition_fetch_bytes=FETCH_BYTES)
    await consumer.start()
    try:
        places = [TopicPartition(topic, p) for p in range(n_partitions)]
        consumer.assign(places)
        starts, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, starts[place])
        out, total = Findings(topic, kind), max(1, sum(ends[place] - starts[place] for place in places))
        check = _Events(settings, len(places), out) if kind == "events" else _Items(out)
        while not await at_end(consumer, ends) and (limit is None or out.checked < limit):
            for place, found in (await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)).items():
                records = [record for record in found if record.offset < ends[place]]
                records = records if limit is None else records[: limit - out.checked]
                check.take(place.partition, records, partial("partition {} offset {}".format, place.partition))
                out.checked += len(records)
                await asyncio.sleep(0)
            if advance is not None:
                advance(out.checked, min(1.0, out.checked / total))
        return out
    finally:
        await consumer.stop()


async def _partitions(settings: Settings, topic: str) -> int:
    admin = AIOKafkaAdminClient(**settings.kafka_client_args())
    try:
        await admin.start()
        found = await partition_counts(admin, [topic])
    finally:
        await admin.close()
    if topic not in found:
        raise ValidationError(f"{topic} is neither a file nor a topic of Kafka at {settings.kafka_bootstrap}")
    return found[topic]


class _Events:
    """Records through the workers' decoder."""

    def __init__(self, settings: Settings, n_partitions: int, out: Findings) -> None:
        self._decoder = Decoder(n_partitions, rating_scale(settings))
        self._origins = np.full((n_partitions, n_partitions), -1, np.int64)
        self._out = out

    def take(self, partition: int, records: list[Any], place: Callable[[int], str]) -> None:
        """Check records of one partition, in order."""
        found = self._decoder.decode(partition, records, {}, self._origins[partition])
        out = self._out
        accepted = len(found.slots) + len(found.erased) + found.n_erased  # what an erasure leaves out was no mistake
        out.accepted += accepted
        out.moved += len(found.misplaced)
        out.copies += len(records) - accepted - len(found.misplaced) - len(found.rejected)
        for record, reason, detail in ((one.record, one.reason, one.detail) for one in found.rejected):
            out.reject(reason, 1, [f"{place(record.offset)}: {detail[:EXAMPLE_CHARS]}"])


class _Items:
    """Records as the catalogue's follower takes them."""

    def __init__(self, out: Findings) -> None:
        self._out = out

    def take(self, partition: int, records: list[Any], place: Callable[[int], str]) -> None:
        """Check records of one partition."""
        del partition
        for record in records:
            try:
                expiry_ms(decode_item(record.key, record.value)[1])
            except InvalidEvent as error:
                self._out.reject(error.reason, 1, [f"{place(record.offset)}: {error.detail[:EXAMPLE_CHARS]}"])
            else:
                self._out.accepted += 1
