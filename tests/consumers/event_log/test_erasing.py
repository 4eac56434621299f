"""Rows of users who were erased go at the next compaction, those of others stay, and a kill at any step leaves nothing half done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.event_log import EventLog, LogWriter
from consumers.event_log.erasing import rows_of
from consumers.event_log.names import listing
from streams.erasures import Erased, Erasures
from streams.partitioner import partition_of
from tests.consumers.event_log.records import N, NOW_MS, Topic, drawn, event, rows
from tests.consumers.event_log.test_crashes import killed_at, read_on

HE, SHE = "Ærøskøbing", "u3"


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    sync = os.fsync
    os.fsync = lambda _: None
    yield
    os.fsync = sync


def erasures(topic: Topic, **users: int) -> Erasures:
    """HE is erased behind all of his events, SHE in the middle of hers."""
    known = Erasures()
    for user, offset in {HE: len(topic.records[partition_of(HE, N)]), SHE: len(topic.records[partition_of(SHE, N)]) // 2, **users}.items():
        known.add(partition_of(user, N), Erased(user, offset, NOW_MS + offset))
    return known


def compacted(folder: Path, known: Erasures, **options: bool) -> int:
    with LogWriter(folder, topic="events", partitions=N, erasures=known) as log:
        return log.compact(**options).forgotten


def without(all_rows: list[tuple[object, ...]], known: Erasures) -> list[tuple[object, ...]]:
    """Rows (partition, offset, appended_ms, time_ms, user, ...) of those who were not erased."""
    return [row for row in all_rows if not known.skips(str(row[4]), int(str(row[1])), int(str(row[2])))]


def test_their_rows_go_and_all_others_stay(tmp_path: Path) -> None:
    topic = drawn(4, 200)
    read_on(tmp_path, topic)
    known, before = erasures(topic), rows(tmp_path, unique=False)
    wanted = without(before, known)
    assert len(wanted) < len(before) - 20 and {row[4] for row in wanted} == {row[4] for row in before} - {HE}
    assert sum(rows_of(tmp_path, HE, 1 << 62).values()) > 10
    assert compacted(tmp_path, known) > 3
    assert rows(tmp_path, unique=False) == wanted
    assert not rows_of(tmp_path, HE, 1 << 62) and rows_of(tmp_path, SHE, 1 << 62) and not rows_of(tmp_path, SHE, known.of(SHE).offset)  # type: ignore[union-attr]
    assert not [path for path in tmp_path.rglob("*.parquet") if HE.encode() in path.read_bytes()], "not in statistics either"
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert compacted(tmp_path, known) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet") if path in times} == times, "nothing is written twice"


def test_rows_that_wait_or_are_fresh_go_too(tmp_path: Path) -> None:
    topic = drawn(5, 60)
    known = erasures(topic)
    with LogWriter(tmp_path, topic="events", partitions=N, erasures=Erasures()) as log:
        for p, records in topic.records.items():
            log.add(p, records)
        log.flush()
        for name, one in known.users.items():
            log.erasures.users[name] = one
        log.compact()
    assert rows(tmp_path, unique=False) == without(rows_of_all(topic, tmp_path / "other"), known)


def rows_of_all(topic: Topic, folder: Path) -> list[tuple[object, ...]]:
    read_on(folder, topic)
    return rows(folder, unique=False)


def test_a_day_of_nobody_else_is_no_day(tmp_path: Path) -> None:
    topic = Topic()
    p = partition_of(HE, N)
    for k in range(4):
        topic.append(p, event(k, HE if k < 2 else "u1" if partition_of("u1", N) == p else HE, NOW_MS - (k < 2) * 5 * 86_400_000))
    topic.append(partition_of(SHE, N), event(9, SHE, NOW_MS))
    read_on(tmp_path, topic)
    known = Erasures()
    known.add(p, Erased(HE, 100, NOW_MS + 100))
    with EventLog(tmp_path).snapshot() as moment:
        assert len(moment.days()) == 2
    compacted(tmp_path, known)
    with EventLog(tmp_path).snapshot() as moment:
        assert len(moment.days()) == 1
    assert {row[4] for row in rows(tmp_path)} == {SHE} | ({"u1"} if partition_of("u1", N) == p else set())


def test_who_reads_meanwhile_keeps_what_he_has_and_the_next_compaction_removes_it(tmp_path: Path) -> None:
    topic = drawn(6, 60)
    with LogWriter(tmp_path, topic="events", partitions=N, erasures=erasures(topic)) as log:
        for name in (known := log.erasures.users).copy():
            known.pop(name)
        for p, records in topic.records.items():
            log.add(p, records)
        log.flush()
        known |= erasures(topic).users
        with EventLog(tmp_path).snapshot():
            assert log.compact().waiting
            assert rows_of(tmp_path, HE, 1 << 62), "what a reader may still open is there"
        log.compact()
        assert not rows_of(tmp_path, HE, 1 << 62)


def test_the_log_itself_tells_who_was_erased_and_read_anew_it_never_takes_them(tmp_path: Path) -> None:
    topic = drawn(7, 60)
    p = partition_of(HE, N)
    offset = topic.append(p, json.dumps({"event_type": "erase", "user_id": HE}).encode())
    topic.append(p, event(5_000, HE, NOW_MS, item_id="new"))
    read_on(tmp_path / "a", topic)
    his = [row for row in rows(tmp_path / "a", unique=False) if row[4] == HE]
    assert [row[1] for row in his] == [offset + 1], "he has come back"
    known = Erasures()
    known.add(p, Erased(HE, offset, NOW_MS + offset))
    with LogWriter(tmp_path / "b", topic="events", partitions=N, erasures=known) as log:
        for partition, records in topic.records.items():
            log.add(partition, records)
        log.flush()
    assert not rows_of(tmp_path / "b", HE, offset) and rows(tmp_path / "b", unique=False) == rows(tmp_path / "a", unique=False)


def test_killed_at_any_step_of_it(tmp_path: Path) -> None:
    topic = drawn(8, 40, days=2)
    read_on(tmp_path / "start", topic)
    known = erasures(topic)
    wanted = without(rows(tmp_path / "start", unique=False), known)
    for step in range(1, 200):
        folder = tmp_path / f"s{step}"
        shutil.copytree(tmp_path / "start", folder)
        died = killed_at(step, lambda folder=folder: compacted(folder, known))  # type: ignore[misc]
        assert {row for row in rows(folder, unique=False)} >= set(wanted), "whoever is killed takes nothing else with him"
        compacted(folder, known)
        assert rows(folder, unique=False) == wanted and not rows_of(folder, HE, 1 << 62)
        assert not list(folder.rglob("*.tmp")) and all(piece.day is not None or piece.first == piece.next for piece in listing(folder))
        shutil.rmtree(folder)
        if not died:
            assert step > 10  # that many steps there are
            return
    pytest.fail("it never came to an end")
