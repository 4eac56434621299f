"""What becomes a row: the events that workers absorb, with all their texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from consumers.event_log import EventLog, LogError, LogWriter
from consumers.event_log.rows import Rows
from streams.decode import Decoder
from streams.events import EVENT_TYPES
from streams.partitioner import partition_of
from tests.consumers.event_log.records import DAY_MS, NOW_MS, FetchedRecord, N, Topic, drawn, event, rows


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_what_workers_absorb(seed: int) -> None:
    topic, made, decoder, origins = drawn(seed, 150), Rows(N), Decoder(N), np.full((N, N), -1, np.int64)
    for p, records in topic.records.items():
        for start in range(0, len(records), 40):
            part = records[start : start + 40]
            wanted, found = decoder.decode(p, part, {}, origins[p]), made.table(p, part)
            assert found.column("offset").to_pylist() == wanted.offsets
            assert found.column("time_ms").to_pylist() == wanted.times_ms
            assert found.column("appended_ms").to_pylist() == wanted.appended_ms
            assert [EVENT_TYPES.index(kind) for kind in found.column("event_type").to_pylist()] == wanted.types
            for row in found.to_pylist():
                sent = json.loads(records[row["offset"]].value or b"")
                assert [row[name] for name in ("event_id", "user_id", "item_id", "value", "session_id", "request_id")] == [
                    sent.get(name) for name in ("event_id", "user_id", "item_id", "value", "session_id", "request_id")]
                assert (row["properties"] and json.loads(row["properties"])) == sent.get("properties")
    assert (made.origins == origins).all() and sum(made.rejected.values()) > 10 and made.n_misplaced > 10


def test_a_moved_event_is_one_row_after_a_restart_too(tmp_path: Path) -> None:
    value, home = event(1, "u1", NOW_MS), partition_of("u1", N)
    origin = [("streamrec-origin", b"%d/0" % ((home + 1) % N))]
    for offset in range(3):  # the same copy three times, each read by another writer
        with LogWriter(tmp_path, topic="events", partitions=N) as log:
            log.add(home, [FetchedRecord(offset, NOW_MS, value, origin)])
            log.flush()
            log.compact()
    assert [row[:2] for row in rows(tmp_path)] == [(home, 0)]


def test_an_event_sent_twice_is_read_once(tmp_path: Path) -> None:
    topic, home = Topic(), partition_of("u1", N)
    for n in (1, 2, 1, 3, 2):
        topic.append(home, event(n, "u1", NOW_MS))
    topic.append(home, event(1, "u1", NOW_MS - DAY_MS))  # on another day it is another event
    topic.append(partition_of("u2", N), event(1, "u2", NOW_MS))  # and so it is of another user
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for p, records in topic.records.items():
            log.add(p, records)
        log.flush()
    table = EventLog(tmp_path).read(["user_id", "event_id", "time_ms"])
    assert sorted(map(tuple, (row.values() for row in table.to_pylist()))) == [
        ("u1", "e1", NOW_MS - DAY_MS), ("u1", "e1", NOW_MS), ("u1", "e2", NOW_MS), ("u1", "e3", NOW_MS), ("u2", "e1", NOW_MS)]
    assert len(EventLog(tmp_path).read(["user_id"], unique=False)) == 7
    assert EventLog(tmp_path).read(["event_id"], offsets={home: (2, 5)}).column(0).to_pylist() == ["e1", "e3", "e2"]


def test_ranges_and_columns(tmp_path: Path) -> None:
    topic = drawn(3, 80, days=5)
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for p, records in topic.records.items():
            log.add(p, records[:50])
        log.flush()
        log.compact()
        for p, records in topic.records.items():
            log.add(p, records[50:])
        log.flush()
    everything = rows(tmp_path)
    log_ = EventLog(tmp_path)
    with log_.snapshot() as moment:
        days = moment.days()
        assert len(days) == 5 and moment.n_rows() == len(everything)
        assert moment.ends == {p: len(records) for p, records in topic.records.items()}
        for first in range(5):
            for last in range(first, 5):
                part = rows(tmp_path, days=(days[first], days[last]))
                assert moment.n_rows((days[first], days[last])) == len(part)
                assert part == [row for row in everything if days[first] <= _day(row[3]) <= days[last]]
    assert rows(tmp_path, offsets={1: (20, 60), 2: (0, 10)}) == [
        row for row in everything if (row[0] == 1 and 20 <= row[1] < 60) or (row[0] == 2 and row[1] < 10)]
    table = log_.read(["item_id", "time_ms"])
    assert table.column_names == ["item_id", "time_ms"] and "dictionary" in str(table.schema.field("item_id").type)
    with pytest.raises(LogError, match="price is no column"):
        log_.read(["price"])


def _day(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms").astype("datetime64[D]"))


def test_what_is_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="holds no event log"):
        EventLog(tmp_path)
    LogWriter(tmp_path, topic="events", partitions=N).__exit__()
    with pytest.raises(LogError, match="of topic events with 3 partitions, the settings say events with 4"):
        LogWriter(tmp_path, topic="events", partitions=4)
    (tmp_path / "log.json").write_text('{"topic": "events", "partitions": 3, "format": 3}')
    with pytest.raises(LogError, match="format 3"):
        EventLog(tmp_path)
    assert EventLog.__doc__
