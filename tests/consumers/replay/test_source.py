"""An event log as the source of a replay: which offsets places stand for, and which events lie in a stretch of event time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumers.event_log import LogWriter
from consumers.event_log.names import Gap, write_gap
from consumers.replay import source
from consumers.replay.places import NothingBetween, Place, PlaceError
from consumers.replay.source import Source, event_times, stretch_in_files
from tests.consumers.event_log.records import DAY_MS, NOW_MS, N, Topic, drawn
from tests.consumers.event_log.test_as_records import opened, read, written


def source_in(folder: Path, topic: Topic) -> Source:
    written(folder, topic)
    settings: Any = SimpleNamespace(topic=lambda name: name, partitions=N)
    return Source(folder, settings, "")


def test_the_first_event_that_came_then_or_later(tmp_path: Path) -> None:
    topic = drawn(12, 150, days=4)
    one = source_in(tmp_path, topic)
    assert (one.begins, one.ends) == ([0] * N, [len(topic.records[p]) for p in range(N)])
    for p in range(N):
        there = read(opened(tmp_path), p)
        for at_ms in (0, NOW_MS + 1, NOW_MS + 47, NOW_MS + 111, there[-1].timestamp, there[-1].timestamp + 1):
            assert one.appended(p, at_ms) == min((record.offset for record in there if record.timestamp >= at_ms), default=None)


def test_events_of_a_stretch_of_event_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MARK", 4)
    topic = drawn(13, 150, days=4)
    one = source_in(tmp_path, topic)
    day = (NOW_MS - 2 * DAY_MS) // DAY_MS * DAY_MS
    for first_ms, next_ms in ((day, day + DAY_MS), (None, day + 1), (NOW_MS - 2 * DAY_MS, None), (None, None)):
        found = one.chosen(first_ms, next_ms)
        wanted = [[record.offset for record in read(opened(tmp_path), p) if (first_ms or 0) <= _time_ms(record) < (next_ms or 1 << 60)] for p in range(N)]
        assert found.n == list(map(len, wanted)) and found.firsts == [some[0] for some in wanted] and found.lasts == [some[-1] for some in wanted]
        for at in ([0] * N, found.firsts, found.lasts, one.ends, [60] * N):
            below = sum(offset < end for some, end in zip(wanted, at, strict=True) for offset in some)
            assert below - 2 * N * source.MARK <= found.below(at) <= below
        assert found.below(one.ends) == sum(found.n) and found.below([0] * N) == 0, "a bar begins at 0 and ends at 100%"
    assert sum(one.chosen(None, None, [50] * N).n) == sum(record.offset < 50 for p in range(N) for record in read(opened(tmp_path), p))
    assert one.chosen(NOW_MS + 9 * DAY_MS, None).n == [0] * N


def test_beside_a_trainer_that_compacts(tmp_path: Path) -> None:
    """What was there when the log was opened has been joined into other files, and is gone."""
    topic = drawn(16, 90, days=3)
    one = source_in(tmp_path, Topic({p: some[:60] for p, some in topic.records.items()}))
    before = one.chosen(NOW_MS - DAY_MS, None), [one.appended(p, NOW_MS + 20) for p in range(N)]
    for upto in (80, None):
        with LogWriter(tmp_path, topic="events", partitions=N) as log:
            for p, some in topic.records.items():
                log.add(p, some[log.next[p] : upto])
            log.flush()
            assert log.compact(whole=True).removed
        chosen, appended = one.chosen(NOW_MS - DAY_MS, None), [one.appended(p, NOW_MS + 20) for p in range(N)]
        assert (chosen.firsts, chosen.lasts, chosen.n, appended) == (before[0].firsts, before[0].lasts, before[0].n, before[1])


def _time_ms(record: Any) -> int:
    return int(json.loads(record.value)["timestamp"])


def test_what_event_times_two_places_mean() -> None:
    assert event_times(Place(earliest=True), Place()) == (None, None)
    assert event_times(Place(appended_ms=3), Place(appended_ms=9)) == (3, 9)
    for begin, end in ((Place(), Place()), (Place(earliest=True), Place(earliest=True)), (Place(appended_ms=9), Place(appended_ms=9))):
        with pytest.raises(NothingBetween):
            event_times(begin, end)
    with pytest.raises(PlaceError, match="an offset is no event time"):
        event_times(Place(offsets={0: 3}), Place())


def test_what_is_read_from_files_and_what_they_lack(tmp_path: Path) -> None:
    one = source_in(tmp_path, drawn(14, 60))
    filed = stretch_in_files(one, [0, one.ends[1], 5])
    assert filed is not None and filed.ends == [one.ends[0], 0, one.ends[2]] and filed.folder == str(tmp_path)
    assert stretch_in_files(one, one.ends) is None
    for gap in (Gap(2, 10, 20), Gap(0, 5, 8), Gap(2, 10, 22)):
        write_gap(tmp_path, gap)
    assert [said.split("lacks ")[1].split(":")[0] for said in one.lacks([0] * N, one.ends)] == ["offsets 5 to 7 of partition 0", "offsets 10 to 21 of partition 2"]
    assert one.lacks([8] * N, [10] * N) == []
