"""Places in the log of events: what `--from` and `--to` say, and the offsets that they stand for.

In: `earliest`, `latest`, `ts=<ISO or epoch>`, `last=<7d>`, `offset=<p:o,...>`; times are those at which Kafka took events. Out: an
offset for each partition, with that of `--to` right behind an event, so that a worker that has read up to it is there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.settings import Settings, StreamrecError

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


async def stretch_of(settings: Settings, begin: Place, end: Place) -> tuple[list[int], list[int]]:
    """First offset, and the one behind the last event, by partition; raises `NothingBetween`, `PlaceError`."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, fetch_max_wait_ms=FETCH_MS, **settings.kafka_client_args())
    await consumer.start()
    try:
        topic = settings.topic("events")
        tps = [TopicPartition(topic, p) for p in range(settings.partitions)]
        consumer.assign(tps)
        first, last = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        starts = await _offsets(consumer, begin, first, last, first)
        ends = await _offsets(consumer, end, first, last, last)
        for tp in tps:
            ends[tp] = max(starts[tp], await _behind_last_event(consumer, tp, starts[tp], ends[tp]))
    finally:
        await consumer.stop()
    start, until = [starts[tp] for tp in tps], [ends[tp] for tp in tps]
    if start == until:
        raise NothingBetween(f"there is no event between the two places: {topic} holds offsets {_said(first)} to {_said(last)} of its partitions")
    return start, until


async def _offsets(consumer: AIOKafkaConsumer, place: Place, first: dict[Any, int], last: dict[Any, int], unnamed: dict[Any, int]) -> dict[Any, int]:
    if place.offsets is not None:
        if unknown := set(place.offsets) - {tp.partition for tp in first}:
            raise PlaceError(f"there is no partition {min(unknown)} of events; there are 0 to {len(first) - 1}")
        found = {tp: place.offsets.get(tp.partition, unnamed[tp]) for tp in first}
    elif place.appended_ms is not None:
        later = await consumer.offsets_for_times(dict.fromkeys(first, max(0, place.appended_ms)))
        found = {tp: last[tp] if later.get(tp) is None else later[tp].offset for tp in first}
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
