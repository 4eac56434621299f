"""What `--from` and `--to` say."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from consumers.replay import places
from consumers.replay.places import NothingBetween, Place, PlaceError, parse_place, stretch_of
from infra.settings import Settings
from streams.earlier import HoleError


@pytest.mark.parametrize(("text", "place"), [
    ("earliest", Place(earliest=True)),
    ("latest", Place()),
    ("ts=2026-11-15T00:00:00Z", Place(appended_ms=1_794_700_800_000)),
    ("ts=2026-11-15T01:00:00+01:00", Place(appended_ms=1_794_700_800_000)),
    ("ts=2026-11-15", Place(appended_ms=1_794_700_800_000)),  # no zone means UTC
    ("ts=1794700800", Place(appended_ms=1_794_700_800_000)),
    ("ts=1794700800123", Place(appended_ms=1_794_700_800_123)),
    ("offset=0:5,3:17", Place(offsets={0: 5, 3: 17})),
])
def test_places(text: str, place: Place) -> None:
    assert parse_place("--from", text) == place


@pytest.mark.parametrize(("text", "ms"), [("last=7d", 7 * 86_400_000), ("last=1.5h", 5_400_000), ("last=30s", 30_000), ("last=2w", 14 * 86_400_000)])
def test_spans_end_now(text: str, ms: int) -> None:
    found = parse_place("--from", text).appended_ms
    assert found is not None and abs(time.time_ns() // 1_000_000 - ms - found) < 5_000


@pytest.mark.parametrize("text", ["", "yesterday", "last=7", "last=d", "last=.d", "ts=", "ts=soon", "offset=", "offset=1", "offset=1:x", "earliest=1"])
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(PlaceError, match="expected earliest, latest"):
        parse_place("--from", text)


def test_files_end_where_kafka_has_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Behind them may have been the marker of a transaction, which retention took with the events: no event is ever there to be waited for."""
    ends = {0: 6, 1: 3}
    filed: Any = SimpleNamespace(folder=Path("/log"), begins=[0, 0], ends=[5, 2])

    class Kafka:
        def __init__(self, **said: Any) -> None:
            assert said["isolation_level"] == "read_committed", "as workers read it"

        async def start(self) -> None: ...

        stop = start

        def assign(self, tps: list[TopicPartition]) -> None: ...

        async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
            return {tp: (6, 3)[tp.partition] for tp in tps}

        async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
            return {tp: ends[tp.partition] for tp in tps}

    def stretch(begin: Place, end: Place = Place()) -> tuple[list[int], list[int]]:  # noqa: B008 - a tuple
        return asyncio.run(stretch_of(Settings(partitions=2), begin, end, filed))

    monkeypatch.setattr(places, "AIOKafkaConsumer", Kafka)
    assert stretch(Place(earliest=True)) == ([0, 0], [5, 2])
    assert "partition 0: the event log in /log ends at offset 5, Kafka's partition begins at 6 and is empty" in caplog.text
    assert stretch(Place(offsets={0: 5, 1: 1})) == ([5, 1], [5, 2])
    assert stretch(Place(earliest=True), Place(offsets={0: 4})) == ([0, 0], [4, 2])
    with pytest.raises(NothingBetween):
        stretch(Place(offsets={0: 5, 1: 2}))
    ends[0] = 7
    with pytest.raises(HoleError, match="ends at offset 5, Kafka begins at 6"):
        stretch(Place(earliest=True))
