"""Killed at any step, and gone on with: the same rows as never killed, and at every moment a reader sees what was read so far."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.event_log import EventLog, LogBusy, LogWriter
from consumers.event_log.writing import NoRoom
from tests.consumers.event_log.records import DAY_MS, N, Topic, drawn, rows

#: What changes the disk; between any two of these a crash may come.
STEPS = ((os, "replace"), (os, "fsync"), (os, "unlink"), (os, "mkdir"), (os, "rmdir"), (pyarrow.parquet.ParquetWriter, "write_table"))


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """A process that is killed loses nothing that it has handed to the system: syncing only costs these tests minutes."""
    sync = os.fsync
    os.fsync = lambda _: None
    yield
    os.fsync = sync


def read_on(folder: Path, topic: Topic, chunk: int = 18) -> None:
    """What a trainer does: open, read on from where the log ends, flush, and compact from time to time."""
    with LogWriter(folder, topic="events", partitions=N) as log:
        for turn in range(10_000):
            left = {p: records[log.next.get(p, 0) :][:chunk] for p, records in topic.records.items()}
            if not any(left.values()):
                break
            for p, records in left.items():
                log.add(p, records)
            log.flush()
            if turn % 2:
                log.compact(retention_days=None)
        log.compact(whole=True)


def killed_at(step: int, action: Callable[[], None]) -> bool:
    """Run `action` in a process that kills itself (-9) before its `step`-th step; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        try:
            n = 0
            for owner, name in STEPS:
                def counted(*args: Any, __do: Any = getattr(owner, name), **options: Any) -> Any:
                    nonlocal n
                    n += 1
                    if n == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return __do(*args, **options)

                setattr(owner, name, counted)
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child of a test must not become a second test run
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the process failed; see what it said"
    return os.WIFSIGNALED(status)


def check(folder: Path, wanted: list[tuple[Any, ...]]) -> None:
    """What can be read is, for each partition, all rows up to some offset."""
    if (folder / "log.json").exists():
        with EventLog(folder).snapshot() as moment:
            ends = moment.ends
        assert rows(folder) == [row for row in wanted if row[1] < ends.get(row[0], 0)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Topic, list[tuple[Any, ...]]]:
    topic, folder = drawn(11, 24, days=2), tmp_path_factory.mktemp("log")
    read_on(folder, topic)
    return topic, rows(folder)


def test_killed_once_at_every_step(world: tuple[Topic, list[tuple[Any, ...]]], tmp_path: Path) -> None:
    topic, wanted = world
    step = 1
    while killed_at(step, lambda: read_on(tmp_path / str(step), topic)):
        check(tmp_path / str(step), wanted)
        read_on(tmp_path / str(step), topic)
        assert rows(tmp_path / str(step)) == wanted
        step += 1
    assert step > 40  # that many steps there are
    assert rows(tmp_path / str(step)) == wanted


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 60), max_size=6), chunk=st.integers(5, 40))
def test_any_sequence_of_kills_gives_the_rows_of_none(world: tuple[Topic, list[tuple[Any, ...]]],
                                                      tmp_path_factory: pytest.TempPathFactory, kills: list[int], chunk: int) -> None:
    topic, wanted = world
    folder = tmp_path_factory.mktemp("log")
    for step in kills:
        killed_at(step, lambda: read_on(folder, topic, chunk))
        check(folder, wanted)
    read_on(folder, topic, chunk)
    assert rows(folder) == wanted
    names = [path.name for path in folder.rglob("*")]
    assert not [name for name in names if name.endswith(".tmp")]
    assert sum(name.startswith("p") for name in names) == 2 * N + N  # a file for each day and partition, and the marks


def test_readers_beside_a_writer_see_each_row_once(world: tuple[Topic, list[tuple[Any, ...]]], tmp_path: Path) -> None:
    topic, wanted = world
    LogWriter(tmp_path, topic="events", partitions=N).__exit__()
    pid = os.fork()
    if pid == 0:
        try:
            read_on(tmp_path, topic, 2)
        finally:
            os._exit(0)
    seen: list[int] = []
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        with EventLog(tmp_path).snapshot() as moment:
            found = sorted((part.partition, *row.values()) for part in moment.parts(["offset"], unique=False) for row in part.table.to_pylist())
            assert found == [row[:2] for row in wanted if row[1] < moment.ends.get(row[0], 0)]
        seen.append(len(found))
    assert len(set(seen)) > 3 and seen == sorted(seen)
    assert rows(tmp_path) == wanted


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("at", range(1, 5))
def test_a_compaction_between_two_looks_hides_nothing(turned: bool, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing looks at one folder after another, which the system names in any order; a day is there already, others come."""
    topic, looks = drawn(15, 30, days=6), 0
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for part in (slice(0, 1), slice(1, None)):
            for p, records in topic.records.items():
                log.add(p, records[part])
            log.flush()
            if part.start == 0:
                log.compact()
        wanted, days = rows(tmp_path), len(list(tmp_path.glob("day=*")))

        def looked(do: Callable[..., Any], *args: Any) -> Any:
            nonlocal looks
            looks += 1
            if looks == at:
                log.compact()
            return do(*args)

        def scandir(folder: Any, do: Callable[..., Any] = os.scandir) -> Any:
            with do(folder) as entries:
                return nullcontext(sorted(entries, key=lambda entry: str(entry.name), reverse=turned))

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", partial(looked, scandir))
            patch.setattr(os, "listdir", partial(looked, os.listdir))
            assert rows(tmp_path) == wanted
        assert looks > at and 0 < days < len(list(tmp_path.glob("day=*"))) == 6


def test_nothing_is_removed_while_somebody_reads(world: tuple[Topic, list[tuple[Any, ...]]], tmp_path: Path) -> None:
    topic, wanted = world
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for part in (slice(0, 20), slice(20, 24)):
            for p, records in topic.records.items():
                log.add(p, records[part])
            log.flush()
        with EventLog(tmp_path).snapshot() as moment:
            before = {path for path in tmp_path.rglob("*.parquet")}
            done = log.compact(whole=True)
            assert done.waiting == 2 * N and not done.removed
            assert before <= set(tmp_path.rglob("*.parquet"))
            seen = sum(len(part.table) for part in moment.parts(unique=False))
        assert rows(tmp_path) == [row for row in wanted if row[1] < 24] and seen == len(rows(tmp_path))
        assert log.compact().removed == 2 * N


def test_two_writers(tmp_path: Path) -> None:
    with LogWriter(tmp_path, topic="events", partitions=N), pytest.raises(LogBusy, match=f"written by process {os.getpid()} on"):
        LogWriter(tmp_path, topic="events", partitions=N)
    LogWriter(tmp_path, topic="events", partitions=N).__exit__()


def test_retention_counts_from_the_newest_day(tmp_path: Path) -> None:
    topic = drawn(5, 60, days=10)
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for p, records in topic.records.items():
            log.add(p, records)
        log.flush()
        log.compact()
        everything = rows(tmp_path)
        newest = max(row[3] for row in everything) // DAY_MS
        assert log.compact(retention_days=4).removed
        assert rows(tmp_path) == [row for row in everything if row[3] // DAY_MS > newest - 4]
        with EventLog(tmp_path).snapshot() as moment:
            assert len(moment.days()) == 4 and moment.ends == {p: len(records) for p, records in topic.records.items()}


def test_rows_can_be_taken_out(tmp_path: Path) -> None:
    topic = drawn(6, 40)
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for part in (slice(0, 25), slice(25, None)):
            for p, records in topic.records.items():
                log.add(p, records[part])
            log.flush()
            log.compact()
        everything = rows(tmp_path)
        log.compact(whole=True, keep=lambda table: np.array([user != "u3" for user in table.column("user_id").to_pylist()]))
    assert rows(tmp_path) == [row for row in everything if row[4] != "u3"] != everything


def test_a_full_disk_loses_nothing(world: tuple[Topic, list[tuple[Any, ...]]], tmp_path: Path) -> None:
    topic, wanted = world
    with LogWriter(tmp_path, topic="events", partitions=N) as log:
        for p, records in topic.records.items():
            log.add(p, records[:20])
        log.flush()
        for p, records in topic.records.items():
            log.add(p, records[20:])
        target = tmp_path / "fresh" / f"p0001-{20:012d}-{len(topic.records[1]):012d}.parquet.tmp"
        target.symlink_to("/dev/full")
        with pytest.raises(NoRoom, match="No space left on device"):
            log.flush()
        check(tmp_path, wanted)
        assert log.n_waiting
        log.flush()  # the link is gone: there is room again
        assert rows(tmp_path) == wanted and not log.n_waiting
        day = np.datetime64(wanted[0][3], "ms").astype("datetime64[D]")
        (tmp_path / f"day={day}").mkdir()
        for p, records in topic.records.items():
            (tmp_path / f"day={day}" / f"p{p:04d}-{0:012d}-{len(records):012d}.parquet.tmp").symlink_to("/dev/full")
        with pytest.raises(NoRoom):
            log.compact()
        assert rows(tmp_path) == wanted
        for left in tmp_path.rglob("*.tmp"):
            left.unlink()
        log.compact()
        assert rows(tmp_path) == wanted
