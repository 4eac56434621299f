"""The event log as the source of a replay: what it holds of each partition, and which places in it are meant.

In: its folder, which must be of the topic that Kafka holds now. Out: where it begins and ends, offsets for times at which Kafka took events,
and the events of a stretch of event time. What it needs for that are columns of few files: footers say which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumers.event_log import LogError
from consumers.event_log.names import read_gaps, reading
from consumers.event_log.by_offset import Choice, FiledRecords, Group
from consumers.replay.places import NothingBetween, Place, PlaceError
from infra.settings import Settings
from streams.generations import Filed
from streams.topic_ids import topic_id

#: Of the chosen events' offsets one in so many is kept, to tell progress by.
MARK = 256


@dataclass
class Chosen:
    """Events of a stretch of event time, by partition: offset of the first, of the last, how many, and every MARK-th of their offsets."""

    firsts: list[int]
    lasts: list[int]
    n: list[int]
    marks: list[np.ndarray]

    def below(self, at: Sequence[int]) -> int:
        """How many lie below these offsets, to the nearest MARK."""
        parts = zip(at, self.lasts, self.n, self.marks, strict=True)
        return sum(n if reached > last else min(n, MARK * max(0, int(np.searchsorted(marks, reached)) - 1)) for reached, last, n, marks in parts)


class Source:
    """An event log. `begins`, `ends`: first offset and end of each partition, both 0 where it holds nothing of one. Calls block.

    A trainer may write it: files that a question is about stay until it is answered, and each question looks anew which there are.
    """

    def __init__(self, folder: str | Path, settings: Settings, topic: str) -> None:
        self.folder = Path(folder).absolute()
        self._files = FiledRecords(self.folder, topic=settings.topic("events"), partitions=settings.partitions, topic_id=topic)
        partitions = range(settings.partitions)
        for p in partitions:
            self._groups(p)  # reads every footer: what is damaged is told now
        ranges = [self._files.range(p) for p in partitions]
        self.begins, self.ends = [begin for begin, _ in ranges], [end for _, end in ranges]

    def lacks(self, start: Sequence[int], until: Sequence[int]) -> list[str]:
        """Of a stretch, what Kafka had dropped before the log was written: in words."""
        return [f"the event log in {self.folder} lacks offsets {gap.first} to {gap.next - 1} of partition {gap.partition}: Kafka had dropped them before "
                "they were read" for gap in read_gaps(self.folder)
                if gap.partition < len(start) and gap.next > start[gap.partition] and gap.first < until[gap.partition]]

    def _groups(self, partition: int) -> list[Group]:
        return sorted(self._files.groups(partition), key=lambda group: group.first)

    def appended(self, partition: int, at_ms: int) -> int | None:
        """Offset of the first event that Kafka took then or later."""
        with reading(self.folder):
            return self._appended(self._groups(partition), at_ms)

    def _appended(self, groups: Iterable[Group], at_ms: int) -> int | None:
        found: int | None = None
        for group in groups:
            if group.last_appended_ms < at_ms or (found is not None and group.first >= found):
                continue
            first = group.first
            if group.first_appended_ms < at_ms:
                offsets, appended_ms = self._files.columns(group, ["offset", "appended_ms"])
                first = int(offsets[appended_ms >= at_ms].min())
            found = first if found is None else min(found, first)
        return found

    def chosen(self, first_ms: int | None, next_ms: int | None, below: Sequence[int] | None = None) -> Chosen:
        """Events with an event time in [first_ms, next_ms) below these offsets (all of them)."""
        out = Chosen([], [], [], [])
        for p, log_end in enumerate(self.ends):
            end = log_end if below is None else below[p]
            with reading(self.folder):
                found = list(self._offsets(self._groups(p), Choice(first_ms, next_ms, self.ends)))
            offsets = np.sort(np.concatenate([np.empty(0, np.int64), *found]))
            offsets = offsets[offsets < end]
            out.firsts.append(int(offsets[0]) if len(offsets) else end)
            out.lasts.append(int(offsets[-1]) if len(offsets) else -1)
            out.n.append(len(offsets))
            out.marks.append(offsets[::MARK].copy())
        return out

    def _offsets(self, groups: Iterable[Group], choice: Choice) -> Iterable[np.ndarray]:
        first_ms, next_ms = choice.bounds
        for group in groups:
            if first_ms <= group.first_ms and group.last_ms < next_ms:
                yield self._files.columns(group, ["offset"])[0]
            elif choice.meets(group):
                offsets, times_ms = self._files.columns(group, ["offset", "time_ms"])
                yield offsets[(times_ms >= first_ms) & (times_ms < next_ms)]


async def source_of(settings: Settings, folder: str | Path) -> Source:
    """Open an event log, as that of the topic which Kafka holds; raises LogError, ArrowMissing, PlaceError."""
    topic = settings.topic("events")
    tps = [TopicPartition(topic, p) for p in range(settings.partitions)]
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **settings.kafka_client_args())
    await consumer.start()
    try:
        known_as = await topic_id(consumer._client, topic)
        if known_as is None:
            raise PlaceError(f"there is no topic {topic}, so there is nothing that the log in {folder} could be of; a worker makes it")
        found = await asyncio.to_thread(Source, folder, settings, known_as)
        ends = await consumer.end_offsets(tps)
    finally:
        await consumer.stop()
    for tp, end in ends.items():
        if found.ends[tp.partition] > end:
            raise LogError(f"{folder} holds partition {tp.partition} up to offset {found.ends[tp.partition]}, but {topic} ends at {end}: it is the log of "
                           "another topic, or this one was made anew or has lost its tail")
    return found


async def still_needed(settings: Settings, filed: Filed | None, at: Sequence[int]) -> Source | None:
    """The log of a replay that has come so far; None where the rest lies in Kafka."""
    if filed is None or all(reached >= end for reached, end in zip(at, filed.ends, strict=True)):
        return None
    return await source_of(settings, filed.folder if Path(filed.folder).is_dir() else settings.event_log_folder or filed.folder)


async def chosen_by(settings: Settings, filed: Filed | None, at: Sequence[int]) -> Chosen | None:
    """The events of a replay that has come so far, where it was begun with a stretch of event time and is not through with it."""
    if filed is None or not filed.by_time or (source := await still_needed(settings, filed, at)) is None:
        return None
    return await asyncio.to_thread(source.chosen, filed.first_ms, filed.next_ms, filed.ends)


def event_times(begin: Place, end: Place) -> tuple[int | None, int | None]:
    """Event times that two places mean, [first, next) in epoch ms, None for no bound; raises PlaceError."""
    if begin.offsets is not None or end.offsets is not None:
        raise PlaceError("an offset is no event time; with --time event --from and --to take earliest, latest, ts= or last=")
    first_ms, next_ms = begin.appended_ms, end.appended_ms
    if begin == Place() or end.earliest or (first_ms is not None and next_ms is not None and first_ms >= next_ms):
        raise NothingBetween("there is no event time between the two places")
    return first_ms, next_ms


async def stretch_by_time(source: Source, begin: Place, end: Place) -> tuple[Chosen, Filed]:
    """The events of a stretch of event time, and what a generation has to know of it; raises NothingBetween, PlaceError."""
    first_ms, next_ms = event_times(begin, end)
    chosen = await asyncio.to_thread(source.chosen, first_ms, next_ms)
    if not any(chosen.n):
        raise NothingBetween(f"no event in {source.folder} has an event time between the two places")
    return chosen, Filed(str(source.folder), source.ends, True, first_ms, next_ms)


def stretch_in_files(source: Source, start: Sequence[int]) -> Filed | None:
    """What a replay that begins at these offsets reads from the log; None: nothing, all of it lies in Kafka alone."""
    ends = [end if begin <= at < end else 0 for at, begin, end in zip(start, source.begins, source.ends, strict=True)]
    return Filed(str(source.folder), ends) if any(ends) else None
