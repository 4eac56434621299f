"""A log read back as records: workers make the same rows of them, byte by byte, wherever files begin and end."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from consumers.event_log import LogError, LogWriter, by_offset
from consumers.event_log.by_offset import Choice, FiledRecords
from consumers.event_log.rows import ArrowMissing
from infra.settings import Settings
from streams.decode import APPENDED_HEADER, ORIGIN_HEADER
from streams.erasures import Erased
from streams.partitioner import partition_of
from streams.users import UserSide
from tests.consumers.event_log.records import DAY_MS, NOW_MS, N, Topic, drawn, event

Read = Callable[..., Iterator[Any]]


def written(folder: Path, topic: Topic, seed: int = 0, *, flush: int = 37) -> None:
    """The log of a topic, compacted now and then, with something left in `fresh`."""
    chance = random.Random(seed)
    with LogWriter(folder, topic="events", partitions=N) as log:
        while left := {p: part for p, some in topic.records.items() if (part := some[log.next.get(p, 0) :][:flush])}:
            for p, part in left.items():
                log.add(p, part)
            log.flush()
            if chance.random() < 0.6 and len(left) == N:
                log.compact()


def opened(folder: Path, **said: Any) -> FiledRecords:
    return FiledRecords(folder, **{"topic": "events", "partitions": N, **said})


def read(log: FiledRecords, partition: int, start: int = 0, end: int | None = None, *, most: int = 11) -> list[Any]:
    """All records, as a worker takes them."""
    found, end = [], log.range(partition)[1] if end is None else end
    while start < end:
        piece = log.read(partition, start, end)
        assert start < piece.next <= end
        for first in range(0, len(piece), most):
            found += piece.records(first, min(first + most, len(piece)))
        start = piece.next
    return found


def absorbed(topic: dict[int, list[Any]], erased: list[tuple[int, Erased]] = [], *, batch: int = 23) -> dict[str, bytes]:  # noqa: B006 - only read
    """Rows by user."""
    side = UserSide(Settings(partitions=N))
    for p, one in erased:
        side.erasures.add(p, one)
    for p, some in topic.items():
        for start in range(0, len(some), batch):
            part = some[start : start + batch]
            decoded = side.decode(p, part)
            side.admit(p, decoded, [None] * len(decoded.missing))
            side.erase(p, decoded.erased)
            side.absorb(p, decoded, part[-1].offset + 1)
    table = side.table
    return {user: table.rows[slot].tobytes() for users in table.slots for user, slot in users.items() if not table.blank([slot])[0]}


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_the_topic(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_offset, "STEP", 29)
    monkeypatch.setattr(by_offset, "FEW", 2)
    topic = drawn(seed, 200, days=4)
    written(tmp_path, topic, seed)
    log = opened(tmp_path)
    wanted = absorbed(topic.records)
    assert absorbed({p: read(log, p) for p in range(N)}) == wanted and len(wanted) > 15
    for cut in (60, 131):  # files up to somewhere, then Kafka
        assert absorbed({p: read(log, p, 0, cut) + [record for record in some if record.offset >= cut] for p, some in topic.records.items()}) == wanted
    offsets = [record.offset for record in read(log, 1, 40, 160)]
    assert offsets == sorted(set(offsets)) and 40 <= offsets[0] and offsets[-1] < 160


def test_an_event_keeps_all_that_rows_are_made_of(tmp_path: Path) -> None:
    user = 'Ærø "\\\u2028'
    home, topic = partition_of(user, N), Topic()
    topic.append(home, event(1, user, NOW_MS, value=4.25, properties={"a": 1}), [(ORIGIN_HEADER, b"%d/7" % ((home + 1) % N)), (APPENDED_HEADER, b"1763778820999")])
    topic.append(home, event(2, user, NOW_MS, timestamp="2025-11-22T02:33:41.123Z", event_type="rating", value=2))
    topic.append(home, event(3, user, NOW_MS))
    written(tmp_path, topic)
    one, two, three = read(opened(tmp_path), home)
    assert json.loads(one.value) == {"event_id": "e1", "user_id": user, "item_id": "i1", "event_type": "purchase", "timestamp": NOW_MS, "value": 4.25}
    assert list(one.headers) == [(ORIGIN_HEADER, b"%d/7" % ((home + 1) % N)), (APPENDED_HEADER, b"1763778820999")] and one.key == user.encode()
    assert json.loads(two.value)["timestamp"] == 1_763_778_821_123 and json.loads(two.value)["value"] == 2 and not two.headers
    assert "value" not in json.loads(three.value) and (three.offset, three.timestamp, three.timestamp_type) == (2, NOW_MS + 2, 1)
    assert read(opened(tmp_path, by_producer=True), home)[0].timestamp_type == 0


def test_an_event_moved_twice_counts_once(tmp_path: Path) -> None:
    """One copy lies in files, the other in Kafka, so far behind that the row has forgotten the event's id."""
    topic, home = Topic(), partition_of("u1", N)
    moved = event(1000, "u1", NOW_MS, event_type="rating", value=2.0), [(ORIGIN_HEADER, b"%d/0" % ((home + 1) % N))]
    topic.append(home, *moved)
    for n in range(80):
        topic.append(home, event(n, "u1", NOW_MS + n))
    second = topic.append(home, *moved)
    topic.append(home, event(99, "u1", NOW_MS + 99))
    written(tmp_path, Topic({p: some[:40] for p, some in topic.records.items()}))
    log = opened(tmp_path)
    found = absorbed({home: read(log, home) + topic.records[home][40:]})
    assert found == absorbed(topic.records)
    assert found != absorbed({home: read(log, home) + [record if record.offset != second else record.__class__(second, record.timestamp, record.value)
                                                       for record in topic.records[home][40:]]}), "or it would count twice"


def test_who_was_erased_stays_so(tmp_path: Path) -> None:
    """What lies before an erase event is no row, and a copy behind it of what came before neither."""
    topic, home = Topic(), partition_of("u1", N)
    away = (home + 1) % N
    for n in range(60):
        topic.append(home, event(n, "u1", NOW_MS + n))
    came = topic.append(away, event(98, "u1", NOW_MS + 98))
    at = topic.append(home, json.dumps({"event_id": "x", "event_type": "erase", "user_id": "u1", "timestamp": NOW_MS}).encode())
    topic.append(home, event(98, "u1", NOW_MS + 98), [(ORIGIN_HEADER, b"%d/%d" % (away, came)), (APPENDED_HEADER, b"%d" % (NOW_MS - 1))])
    topic.append(home, event(99, "u1", NOW_MS + 99))
    for p in range(N):
        written(tmp_path / str(p), topic, flush=25)
    known = [(home, Erased("u1", at, NOW_MS + at))]
    log = opened(tmp_path / "0")
    found = absorbed({p: read(log, p) for p in range(N)}, known)
    assert found == absorbed(topic.records, known) and list(found) == ["u1"]


def test_a_stretch_of_event_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_offset, "STEP", 29)
    monkeypatch.setattr(by_offset, "FEW", 2)
    topic = drawn(5, 200, days=5)
    written(tmp_path, topic)
    everything = {p: read(opened(tmp_path), p) for p in range(N)}
    first_ms, next_ms = NOW_MS - 3 * DAY_MS, NOW_MS - 2 * DAY_MS + 1
    log = opened(tmp_path, choice=Choice(first_ms, next_ms, [120] * N))
    for p, some in everything.items():
        wanted = [one for one in some if one.offset >= 120 or first_ms <= json.loads(one.value)["timestamp"] < next_ms]
        assert read(log, p) == wanted and 0 < sum(one.offset < 120 for one in wanted) < 120
    assert read(opened(tmp_path, choice=Choice(None, None, [10**9] * N)), 0) == everything[0]
    assert read(opened(tmp_path, choice=Choice(NOW_MS + 9 * DAY_MS, None, [10**9] * N)), 0) == []


def test_a_long_step_into_many_events_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few chosen events make steps longer, but not so long that a dense region comes in one piece."""
    assert by_offset.LONGEST_STEP <= 1 << 20, "a million events are some hundred MB"
    written(tmp_path, drawn(9, 200, days=1))
    for name, value in (("STEP", 4), ("FEW", 2), ("LONGEST_STEP", 16)):
        monkeypatch.setattr(by_offset, name, value)
    log, start, sizes = opened(tmp_path, choice=Choice(NOW_MS + 1, None, [120] * N)), 0, []
    while start < 150:
        piece = log.read(0, start, 150)
        sizes.append((len(piece), piece.next - start))
        start = piece.next
    assert (0, 16) in sizes and max(step for _, step in sizes) == 16 and max(n for n, _ in sizes[-4:]) > 2


def test_beside_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are joined into others between two pieces, and removed."""
    topic = drawn(6, 150)
    written(tmp_path, Topic({p: some[:80] for p, some in topic.records.items()}))
    wanted = read(opened(tmp_path), 0)
    monkeypatch.setattr(by_offset, "STEP", 13)
    monkeypatch.setattr(by_offset, "FEW", 0)
    log, found, start = opened(tmp_path), [], 0
    while start < 80:
        piece = log.read(0, start, 80)
        found += piece.records(0, len(piece))
        start = piece.next
        with LogWriter(tmp_path, topic="events", partitions=N) as writer:
            for p, some in topic.records.items():
                writer.add(p, some[writer.next[p] :][:3])
            writer.flush()
            writer.compact(whole=True)
    assert found == wanted and log.range(0) == (0, 80 + 3 * 7)


def test_a_log_of_format_1(tmp_path: Path) -> None:
    """Its rows do not say where moved events came from, and the next writer goes on with it."""
    topic = drawn(7, 100)
    written(tmp_path, Topic({p: some[:60] for p, some in topic.records.items()}))
    for path in tmp_path.rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.drop_columns(["origin", "origin_ms"]), path)
    (tmp_path / "log.json").write_text(json.dumps({"topic": "events", "partitions": N, "format": 1}))
    before = read(opened(tmp_path), 0)
    assert before and not any(record.headers for record in before)
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for p, some in topic.records.items():
            log.add(p, some[60:])
        log.flush()
        log.compact(whole=True)
    assert json.loads((tmp_path / "log.json").read_bytes())["format"] == 2
    after = read(opened(tmp_path), 0)
    assert after[: len(before)] == before and len(after) > len(before)
    assert any(record.headers for p in range(N) for record in read(opened(tmp_path), p, 60))


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, drawn(8, 60))
    with pytest.raises(LogError, match="no event log"):
        opened(tmp_path / "none")
    with pytest.raises(LogError, match="of topic events with 3 partitions, the settings say other.events with 3"):
        opened(tmp_path, topic="other.events")
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        log.is_of("aa")
    with pytest.raises(LogError, match="id aa, the brokers know it by bb"):
        opened(tmp_path, topic_id="bb")
    log_ = opened(tmp_path, topic_id="aa")
    with pytest.raises(LogError, match="ends at offset"):
        log_.read(0, 10_000, 20_000)
    with monkeypatch.context() as patch, pytest.raises(ArrowMissing, match="needs pyarrow: pip install"):
        patch.setitem(sys.modules, "pyarrow", None)
        opened(tmp_path)
    for path in tmp_path.rglob("p0001-*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LogError, match="it is damaged"):
        log_.groups(1)
    assert log_.groups(0) and np.diff(log_.columns(log_.groups(0)[0], ["offset"])[0]).min() > 0
