"""Kafka has dropped the beginning: replays, and a system that is built anew, read it from the event log and end the same, byte by byte."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from consumers.event_log import LogError
from consumers.event_log.by_offset import open_files
from consumers.replay.places import NothingBetween, parse_place
from consumers.replay.source import chosen_by
from infra.cli import replay
from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.generations import Filed, read_meta
from streams.partitioner import partition_of
from tests.live.equality import ends_of, lockstep, user_rows, wait_drained
from tests.live.generations import Generation, command, start
from tests.live.load import DAY_MS, Events, send

FAST = {"commit_interval_ms": 50, "items_interval_ms": 500, "session_timeout_ms": 3_000}
ERASED = "u3"


def drop(settings: Settings, before: Mapping[int, int]) -> None:
    """What retention does."""
    async def run() -> None:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(settings.topic("events"), p): RecordsToDelete(offset) for p, offset in before.items()})
        finally:
            await admin.close()

    asyncio.run(run())


def erase(settings: Settings, user: str) -> int:
    """His erase event; the offset."""
    async def run() -> int:
        value = json.dumps({"event_id": "erase", "event_type": "erase", "user_id": user, "timestamp": time.time_ns() // 1_000_000}).encode()
        async with AIOKafkaProducer(**settings.kafka_client_args()) as producer:
            place = partition_of(user, settings.partitions)
            return int((await producer.send_and_wait(settings.topic("events"), value, key=user.encode(), partition=place)).offset)

    return asyncio.run(run())


def filed(settings: Settings, folder: Path) -> dict[int, list[Any]]:
    """All that lies in files."""
    log = open_files(str(folder), settings)
    found: dict[int, list[Any]] = {}
    for p in range(settings.partitions):
        (at, end), found[p] = log.range(p), []
        while at < end:
            piece = log.read(p, at, end)
            found[p] += piece.records(0, len(piece))
            at = piece.next
    return found


def test_what_kafka_has_dropped_comes_from_files(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], tmp_path: Path,
                                                 wait_until: Callable[..., Any]) -> None:
    settings = namespace(partitions=3, **FAST)
    events, folder = Events(settings, seed=71, users=120, misplaced=0.1), tmp_path / "events"
    worker = start_worker(settings)
    send(settings, events, 2_500)
    wait_drained(settings)
    erased_at = erase(settings, ERASED)
    send(settings, events, 2_500)
    wait_drained(settings)
    exported = {int(p): end for p, end in json.loads(command(settings, tmp_path, "export", str(folder), "--json"))["ends"].items()}
    send(settings, events, 600)
    wait_drained(settings)
    live = Generation(settings, "1", is_live=True)
    command(settings, tmp_path, "replay", "--shadow", "kafka")
    # of items it counts nothing of whom it knows to be erased, which live did before
    wanted, items = Generation(settings, "kafka").all_user_rows(), Generation(settings, "kafka").all_item_rows()
    assert wanted == live.all_user_rows() and len(wanted) > 100

    drop(settings, {0: exported[0], 1: exported[1] // 2, 2: exported[2] - 3})  # partition 1 lies in both for a while

    # a shadow by two workers, which are killed on their way and started again
    files = Generation(settings, "files")
    replayed = start(settings, tmp_path, "replay", "--shadow", "files", "--source", str(folder), "--workers", "2")
    wait_until(lambda: replayed.poll() is not None or any(files.checkpoints().values()), 60.0, "it is on its way")
    killed = psutil.Process(replayed.pid).children() if replayed.poll() is None else []
    for process in killed:
        process.kill()
    said, told = replayed.communicate(timeout=120)
    assert replayed.returncode == 0 and "files is whole: " in said and len(killed) == 2, said + told
    assert files.all_user_rows() == wanted and files.all_item_rows() == items
    assert files.checkpoints() == live.checkpoints() == asyncio.run(ends_of(settings, "events"))

    # places in what is gone
    records = filed(settings, folder)
    at_ms = max(some[len(some) // 3].timestamp for some in records.values())
    begin, until, said_of, _ = plan(settings, folder, f"ts={at_ms}", "offset=" + ",".join(f"{p}:{end - 5}" for p, end in exported.items()))
    assert begin == [min(record.offset for record in some if record.timestamp >= at_ms) for some in records.values()]
    assert until == [end - 5 for end in exported.values()] and said_of is not None and said_of.ends == list(exported.values())

    # a stretch of event time: some are late
    first_ms, next_ms = times_ms(records)[len(times_ms(records)) // 20], time.time_ns() // 1_000_000 - DAY_MS
    said = command(settings, tmp_path, "replay", "--shadow", "late", "--source", str(folder), "--time", "event", "--from", f"ts={first_ms}",
                   "--to", f"ts={next_ms}", "--json")
    chosen = {p: [record for record in some if first_ms <= time_ms(record) < next_ms] for p, some in records.items()}
    assert json.loads(said)["events"] == sum(map(len, chosen.values())) > 200
    engine = lockstep(settings, {p: [record for record in some if not is_erased(settings, record, p, erased_at)] for p, some in chosen.items()})
    assert Generation(settings, "late").all_user_rows() == {user: row for rows in user_rows(engine) for user, row in rows.items()}
    meta = read_meta(files.client.get(Generation(settings, "late").keys.meta) or b"", "late")
    again = asyncio.run(chosen_by(settings, meta.filed, [0] * 3))
    assert again is not None and again.n == list(map(len, chosen.values())), "one that goes on tells its progress by the same events"
    assert asyncio.run(chosen_by(settings, meta.filed, list(exported.values()))) is None
    assert "all that has come since (--to latest)" in command(settings, tmp_path, "replay", "--shadow", "late", "--to", "ts=2026-01-01", code=1)

    # into use, and on in Kafka
    command(settings, tmp_path, "promote", "files")
    send(settings, events, 200)
    files = Generation(settings, "files", is_live=True)
    wait_until(lambda: files.checkpoints() == asyncio.run(ends_of(settings, "events")), 60.0, "the new one takes what comes")
    assert json.loads(files.client.get(files.keys.meta) or b"")["v"] == 1, "it needs no files any more"
    worker.stop()

    # the system is built anew
    wanted = files.all_user_rows()
    files.client.unlink(*files.traces())
    anew = start_worker(replace(settings, event_log_folder=str(folder)))
    wait_until(lambda: files.checkpoints() == asyncio.run(ends_of(settings, "events")), 60.0, "all of it is read again")
    assert files.all_user_rows() == wanted, anew.log

    anew.stop()
    refused_before_anything_is_made(settings, tmp_path, folder, exported)

    # and so is a worker that would have to go over a hole
    files.client.unlink(*files.traces())
    over = start_worker(replace(settings, event_log_folder=str(folder)))
    wait_until(lambda: not over.alive, 60.0, "it ends")
    assert over.exit_code == 1 and f"Kafka begins at {exported[0] + 4}" in over.log and not any(files.checkpoints().values()), over.log


def refused_before_anything_is_made(settings: Settings, home: Path, folder: Path, exported: Mapping[int, int]) -> None:
    with pytest.raises(NothingBetween, match="no event in"):
        plan(settings, folder, "earliest", "ts=1999-01-01", by_time=True)
    with pytest.raises(LogError, match="holds no event log"):
        plan(settings, home / "none", "earliest", "latest")
    foreign = home / "foreign"
    shutil.copytree(folder, foreign)
    about = json.loads((foreign / "log.json").read_bytes())
    (foreign / "log.json").write_text(json.dumps(about | {"topic_id": "ab" * 16}))
    with pytest.raises(LogError, match="is the log of another topic"):
        plan(settings, foreign, "earliest", "latest")
    (foreign / "log.json").write_text(json.dumps(about))
    damaged = next(foreign.rglob("p0000-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(LogError, match="it is damaged"):
        plan(settings, foreign, "earliest", "latest")
    drop(settings, {0: exported[0] + 4})
    assert plan(settings, folder, f"offset=0:{exported[0] + 4}", "latest")[0][0] == exported[0] + 4
    said = command(settings, home, "replay", "--shadow", "none", "--source", str(folder), code=1)
    assert f"ends at offset {exported[0]}, Kafka begins at {exported[0] + 4}" in said
    assert not Generation(settings, "none").traces()


def plan(settings: Settings, source: Path, begin: str, end: str, *, by_time: bool = False) -> tuple[list[int], list[int], Filed | None, Any]:
    """What a replay would read."""
    return asyncio.run(replay._planned(settings, str(source), by_time, parse_place("--from", begin), parse_place("--to", end)))


def time_ms(record: Any) -> int:
    return int(json.loads(record.value)["timestamp"])


def times_ms(records: Mapping[int, list[Any]]) -> list[int]:
    return sorted(time_ms(record) for some in records.values() for record in some)


def is_erased(settings: Settings, record: Any, partition: int, erased_at: int) -> bool:
    return bool(json.loads(record.value)["user_id"] == ERASED and partition == partition_of(ERASED, settings.partitions) and record.offset < erased_at)
