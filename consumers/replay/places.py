"""Places in the log of events: what `--from` and `--to` say, and the offsets that they stand for.

In: `earliest`, `latest`, `ts=<ISO or epoch>`, `last=<7d>`, `offset=<p:o,...>`; times are those at which Kafka took events. Out: an
offset for each partition, with that of `--to` right behind an event, so that a worker that has read up to it is there. The log may begin
in files (`Filed`): before what Kafka holds still.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.settings import Settings, StreamrecError
from streams.earlier import hole, warn_of_hole

SPAN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
#: Epochs above this are milliseconds: as seconds they would lie in the year 5138.
MOST_SECONDS = 1e11
FETCH_MS = 500


class PlaceError(StreamrecError):
    """There is no such place in the log."""


class NothingBetween(PlaceError):
    """No event lies between two places."""


class Place(NamedTuple):
    """A place, in every partition. Exactly one of the three says which; none: where the log ends."""

    earliest: bool = False
    appended_ms: int | None = None  # the first event that came then or later
    offsets: Mapping[int, int] | None = None  # partitions not named: the log's beginning (--from) or end (--to)


def parse_place(option: str, text: str) -> Place:
    """What an option says; raises `PlaceError`."""
    kind, _, value = text.partition("=")
    try:
        if text in ("earliest", "latest"):
            return Place(earliest=text == "earliest")
        if kind == "ts":
            return Place(appended_ms=_epoch_ms(value))
        if kind == "last":
            found = re.fullmatch(r"([0-9.]+)([smhdw])", value)
            if found:
                return Place(appended_ms=time.time_ns() // 1_000_000 - int(float(found[1]) * SPAN_MS[found[2]]))
        if kind == "offset":
            pairs = [part.split(":") for part in value.split(",")]
            return Place(offsets={int(p): int(offset) for p, offset in pairs})
    except ValueError:
        pass
    raise PlaceError(f"{option} {text!r} names no place in the log; expected earliest, latest, ts=2026-11-15T00:00:00Z (or an epoch in "
                     "seconds or milliseconds), last=7d (s, m, h, d or w) or offset=0:1200,1:1310")


def _epoch_ms(text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    return int(number if number > MOST_SECONDS else number * 1000)


class Filed(Protocol):
    """Events in files: where each partition begins and ends there, and the first event that Kafka took at some time or later."""

    folder: Path
    begins: list[int]
    ends: list[int]

    def appended(self, partition: int, at_ms: int) -> int | None: ...


async def stretch_of(settings: Settings, begin: Place, end: Place, filed: Filed | None = None) -> tuple[list[int], list[int]]:
    """First offset, and the one behind the last event, by partition; raises `NothingBetween`, `PlaceError`, and `HoleError` where files end
    before Kafka begins; an empty partition is only warned of."""
    # as workers read: an end behind what was aborted, or is not committed yet, is one that they would never reach
    consumer = AIOKafkaConsumer(enable_auto_commit=False, fetch_max_wait_ms=FETCH_MS, isolation_level="read_committed", **settings.kafka_client_args())
    await consumer.start()
    try:
        topic = settings.topic("events")
        tps = [TopicPartition(topic, p) for p in range(settings.partitions)]
        consumer.assign(tps)
        in_kafka, last = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        first = dict(in_kafka) if filed is None else {tp: _first(filed, tp.partition, at) for tp, at in in_kafka.items()}
        starts = await _offsets(consumer, begin, first, last, first, in_kafka, filed)
        ends = await _offsets(consumer, end, first, last, last, in_kafka, filed)
        for tp in tps:
            p, begins = tp.partition, in_kafka[tp]
            if filed is not None and starts[tp] < begins and filed.ends[p] < min(begins, ends[tp]):
                if begins < last[tp]:
                    raise hole(p, filed.ends[p], begins, str(filed.folder))
                warn_of_hole(p, filed.ends[p], begins, str(filed.folder))
                ends[tp] = filed.ends[p]  # nothing comes behind it
            if ends[tp] > begins:  # else it lies in files, where there is a way to any offset
                ends[tp] = await _behind_last_event(consumer, tp, max(starts[tp], begins), ends[tp])
            ends[tp] = max(starts[tp], ends[tp])
    finally:
        await consumer.stop()
    start, until = [starts[tp] for tp in tps], [ends[tp] for tp in tps]
    if start == until:
        raise NothingBetween(f"there is no event between the two places: {topic} holds offsets {_said(first)} to {_said(last)} of its partitions")
    return start, until


def _first(filed: Filed, partition: int, in_kafka: int) -> int:
    """Where a partition begins, in files or in Kafka."""
    return min(filed.begins[partition], in_kafka) if filed.begins[partition] < filed.ends[partition] else in_kafka


async def _offsets(consumer: AIOKafkaConsumer, place: Place, first: dict[Any, int], last: dict[Any, int], unnamed: dict[Any, int],
                   in_kafka: dict[Any, int], filed: Filed | None) -> dict[Any, int]:
    if place.offsets is not None:
        if unknown := set(place.offsets) - {tp.partition for tp in first}:
            raise PlaceError(f"there is no partition {min(unknown)} of events; there are 0 to {len(first) - 1}")
        found = {tp: place.offsets.get(tp.partition, unnamed[tp]) for tp in first}
    elif place.appended_ms is not None:
        later = await consumer.offsets_for_times(dict.fromkeys(first, max(0, place.appended_ms)))
        found = {tp: last[tp] if later.get(tp) is None else later[tp].offset for tp in first}
        for tp, at in found.items():
            # nothing in Kafka is earlier than the time: then something in files may be later
            if filed is not None and at <= in_kafka[tp]:
                in_files = await asyncio.to_thread(filed.appended, tp.partition, place.appended_ms)
                found[tp] = at if in_files is None else min(at, in_files)
    else:
        found = first if place.earliest else last
    return {tp: min(max(offset, first[tp]), last[tp]) for tp, offset in found.items()}


async def _behind_last_event(consumer: AIOKafkaConsumer, tp: TopicPartition, first: int, end: int) -> int:
    """The offset behind the last event before `end`: between the two can lie markers of transactions, which nobody reads."""
    step = 1
    while end > first:
        consumer.seek(tp, max(first, end - step))
        consumer.pause(*(other for other in consumer.assignment() if other != tp))
        consumer.resume(tp)
        seen = -1
        while await consumer.position(tp) < end:
            found = (await consumer.getmany(tp, timeout_ms=FETCH_MS)).get(tp, [])
            seen = max([seen, *(record.offset for record in found if record.offset < end)])
            if found and found[-1].offset >= end:
                break
        if seen >= 0:
            return seen + 1
        if end - step <= first:
            break
        step *= 8
    return first


def _said(offsets: Mapping[Any, int]) -> str:
    return ",".join(f"{tp.partition}:{offset}" for tp, offset in sorted(offsets.items()))
