"""A log whose beginning lies in files: what comes from where, over aiokafka's real fetcher, and what is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from infra.settings import Settings
from streams import earlier, file_fetching
from streams.earlier import Earlier, HoleError, earlier_of
from streams.fetching import Batch
from streams.generations import Filed, Generation, read_meta
from streams.stretch import Stretch
from tests.fetched import FetchedRecord
from tests.streams.test_transport import TOPIC, Rig


class Some:
    """Every other offset has an event."""

    def __init__(self, start: int, end: int) -> None:
        self.next, self._offsets = end, [offset for offset in range(start, end) if offset % 2 == 0]

    def __len__(self) -> int:
        return len(self._offsets)

    def records(self, first: int, end: int) -> list[Any]:
        return [FetchedRecord(offset, 1, b"file %d" % offset) for offset in self._offsets[first:end]]


class Log:
    """Files that hold a stretch of each partition."""

    def __init__(self, *ranges: tuple[int, int]) -> None:
        self.ranges = list(ranges)
        self.reads: list[tuple[int, int, int]] = []

    def range(self, partition: int) -> tuple[int, int]:
        return self.ranges[partition]

    def read(self, partition: int, start: int, end: int) -> Some:
        self.reads.append((partition, start, end))
        return Some(start, min(end, start + 70))


def with_rig(body: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await body

    asyncio.run(run())


async def rig_of(sizes: list[int], made: Earlier) -> Rig:
    rig = Rig(sizes, earlier=made)

    async def offsets(which: int, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: rig.broker.logs[tp.partition][which] for tp in tps}

    rig.consumer.beginning_offsets, rig.consumer.end_offsets = partial(offsets, 0), partial(offsets, 1)
    return rig


async def taken(rig: Rig, until: int) -> list[Batch]:
    """Batches of partition 0 up to an offset; each goes on where the one before ended."""
    found: list[Batch] = []
    while not found or found[-1].next < until:
        for batch in await rig.take():
            assert not found or batch.start == found[-1].next
            found.append(batch)
    return found


def test_files_first_and_then_kafka() -> None:
    async def body() -> None:
        log = Log((0, 500), (0, 0))
        rig = await rig_of([1_000, 100], made := Earlier(lambda: log, "folder", [0, 0], None))
        rig.broker.logs[0] = (300, 1_000)
        try:
            assert made.begin(0, 10, 300) == 10 and made.begin(1, 0, 0) == 0
            rig.events.seek(TopicPartition(TOPIC, 0), 10, epoch=4)
            found = await taken(rig, 1_000)
            values = [bytes(record.value) for batch in found for record in batch.records]
            assert values == [b"file %d" % k for k in range(10, 300, 2)] + [b"%d" % k for k in range(300, 1_000)]
            assert {batch.epoch for batch in found} == {4} and found[0].start == 10
            assert log.reads[0] == (0, 10, 300) and len(log.reads) == 5, "each piece is read once, and none beyond"
            # back again, as after a Redis that lost its tail
            rig.events.seek(TopicPartition(TOPIC, 0), 280, epoch=5)
            again = await taken(rig, 400)
            assert again[0].start == 280 and again[0].records[0].value == b"file 280" and again[-1].records[-1].offset == again[-1].next - 1
            assert rig.events.log_end(TopicPartition(TOPIC, 0)) == 1_000
        finally:
            await rig.close()

    with_rig(body())


def test_a_shadow_reads_files_as_far_as_it_was_told_and_no_further_than_its_end() -> None:
    async def body() -> None:
        log = Log((0, 500), (0, 500))
        rig = await rig_of([1_000, 1_000], made := Earlier(lambda: log, "folder", [400, 400], [1_000, 200]))
        try:
            for p in range(2):  # Kafka holds all of it too
                assert made.begin(p, 0, 0) == 0
                rig.events.seek(TopicPartition(TOPIC, p), 0, epoch=1)
            ends: dict[int, list[Batch]] = {0: [], 1: []}
            while not ends[0] or ends[0][-1].next < 1_000:
                for batch in await rig.take():
                    ends[batch.partition].append(batch)
            assert [batch.next for batch in ends[0] if batch.records[0].value.startswith(b"file")][-1] == 400
            assert ends[1][-1].next == 200 and all(batch.records[0].value.startswith(b"file") for batch in ends[1])
            assert await rig.take(0.3) == [] and not [part for fetch in rig.broker.fetches for _, parts in fetch.topics for part in parts if part[0] == 1]
        finally:
            await rig.close()

    with_rig(body())


def test_kafka_drops_more_meanwhile() -> None:
    """Then files are looked at again: they may have grown, or there is a hole."""
    async def body() -> None:
        log = Log((0, 300))
        rig = await rig_of([1_000], made := Earlier(lambda: log, "folder", [0], None))
        rig.broker.logs[0] = (600, 1_000)
        try:
            made.begin(0, 0, 300)
            rig.events.seek(TopicPartition(TOPIC, 0), 0, epoch=1)
            with pytest.raises(HoleError, match="ends at offset 300, Kafka begins at 600"):
                await taken(rig, 400)
            log.ranges[0] = (0, 650)
            rig.events.seek(TopicPartition(TOPIC, 0), 250, epoch=2)
            found = await taken(rig, 1_000)
            assert [record.offset for batch in found for record in batch.records] == [*range(250, 600, 2), *range(600, 1_000)]
        finally:
            await rig.close()

    with_rig(body())


def test_behind_the_files_is_nothing_but_a_marker_that_is_gone_too() -> None:
    async def body() -> None:
        rig = await rig_of([0], made := Earlier(lambda: Log((0, 300)), "folder", [0], None))
        rig.broker.logs[0] = (301, 301)
        try:
            made.begin(0, 250, 301, 301)
            rig.events.seek(TopicPartition(TOPIC, 0), 250, epoch=1)
            found = await taken(rig, 300)
            assert await rig.take(0.3) == []
            rig.broker.logs[0] = (301, 320)
            found += await taken(rig, 320)
            assert [record.offset for batch in found for record in batch.records] == [*range(250, 300, 2), *range(301, 320)]
            assert all(one.next == other.start for one, other in pairwise(found))
        finally:
            await rig.close()

    with_rig(body())


def test_kafka_is_away_when_the_files_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka gives up after a while, and does not call that retriable; the partition goes over when Kafka is there again."""
    monkeypatch.setattr(file_fetching, "AGAIN_S", 0.01)

    async def body() -> None:
        rig = await rig_of([400], made := Earlier(lambda: Log((0, 300)), "folder", [300], None))
        asked, answers = [], rig.consumer.beginning_offsets

        async def away(tps: list[TopicPartition]) -> Any:
            asked.append(tps)
            if len(asked) < 3:
                raise KafkaTimeoutError
            return await answers(tps)

        rig.consumer.beginning_offsets = away
        try:
            made.begin(0, 250, 0, 400)
            rig.events.seek(TopicPartition(TOPIC, 0), 250, epoch=1)
            assert [record.offset for batch in await taken(rig, 400) for record in batch.records] == [*range(250, 300, 2), *range(300, 400)]
            assert len(asked) == 3
        finally:
            await rig.close()

    with_rig(body())


def test_where_reading_begins(caplog: pytest.LogCaptureFixture) -> None:
    def begins(at: int, first: int, files: tuple[int, int], *, least: int = 0, until: int | None = None, end: int | None = None) -> tuple[int, bool]:
        made = Earlier(lambda: Log(files), "folder", [least], None if until is None else [until])
        start = made.begin(0, at, first, end)
        return start, made.holds(0, start)

    assert begins(10, 5, (0, 100)) == (10, False)  # Kafka has it
    assert begins(10, 20, (0, 100)) == (10, True)
    assert begins(10, 20, (0, 20)) == (10, True)
    assert begins(10, 5, (0, 100), least=50) == (10, True)
    assert begins(10, 5, (30, 100), least=50) == (10, False)
    assert begins(10, 40, (30, 100)) == (30, True) and "begins at offset 30, so the events from 10 on are gone" in caplog.text
    with pytest.raises(HoleError, match="partition 0: the event log in folder ends at offset 15, Kafka begins at 20"):
        begins(10, 20, (0, 15))
    with pytest.raises(HoleError, match="ends at offset 0"):
        begins(10, 20, (0, 0))
    assert begins(10, 20, (0, 15), until=15) == (10, True)  # which is all that it shall read
    assert begins(15, 20, (0, 15), until=15) == (15, True)  # nothing is left, and Kafka is not asked for it
    # nothing is left in Kafka: what is missing may have been the marker of a transaction
    assert begins(10, 16, (0, 15), end=16) == (10, True) and begins(15, 16, (0, 15), end=16) == (15, False) and begins(16, 16, (0, 15), end=16) == (16, False)
    assert "ends at offset 15, Kafka's partition begins at 16 and is empty, so 1 offsets between the two are gone" in caplog.text
    with pytest.raises(HoleError, match="partition 0: the event log in folder ends at offset 15, Kafka begins at 16"):
        begins(10, 16, (0, 15), end=17)
    made = Earlier(lambda: Log((0, 100)), "folder", [0], None)
    assert made.begin(0, 10, 20) == 10 and made.begin(0, 20, 20) == 20 and not made.holds(0, 20)
    assert made.holds(0, 19), "a worker that goes back finds what it has read there"


def test_which_workers_read_files(tmp_path: Any) -> None:
    made: list[str] = []

    def open_files(folder: str, settings: Settings, filed: Any, **_: Any) -> Any:
        made.append(folder)
        return Log((0, 50))

    def folder(generation: Generation, *, live: bool, setting: str = "") -> str:
        found = earlier_of(Settings(partitions=1, event_log_folder=setting), generation, live, open_files, "", False)
        if found is not None:
            assert found.files is found.files
        return made.pop() if found is not None else ""

    here, shadow = str(tmp_path), Generation(filed=Filed(str(tmp_path), [40]), until=[90])
    assert folder(shadow, live=False) == folder(shadow, live=False, setting="elsewhere") == here
    assert folder(Generation(filed=Filed("/nowhere", [40])), live=False, setting=here) == here
    assert folder(Generation(), live=True) == "" and folder(Generation(), live=True, setting=here) == here
    # an older worker would begin behind the files
    assert read_meta(shadow.bytes(), "x").filed == shadow.filed and b'"v":2' in shadow.bytes() and b'"v":1' in Generation().bytes()


def test_an_offset_without_events_is_passed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, earlier.__name__)
    one = Stretch(lambda _: 90, 1)
    one.begin(Generation(until=[60]), False)

    async def run() -> list[tuple[list[Any], int]]:
        return [part for batch in (Batch(0, [], 0, 0, 40), Batch(0, [], 0, 40, 80)) async for part in one.parts(batch)]

    assert asyncio.run(run()) == [([], 40), ([], 60)]
