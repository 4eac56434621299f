"""The event log from a real Kafka: killed with -9 again and again, a topic made anew, events that retention took, a disk that is full."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from consumers.event_log import EventLog, Follower, LogError, LogWriter
from consumers.event_log.names import read_gaps
from consumers.replay.places import Place, stretch_of
from consumers.replay.source import source_of
from infra.settings import Settings
from infra.topics import ensure_topics
from tests.live.load import Events, Load, send
from tests.live.reading import read_all

KILLS = 8
RATE = 600
STEP_S = 60.0

#: A trainer's part that keeps the log: small flushes, and compaction all the time beside them.
SCRIPT = """
import asyncio, sys
from consumers.event_log import Follower, LogWriter
from infra.settings import Settings
settings = Settings.load()
async def main():
    with LogWriter(sys.argv[1], topic=settings.topic("events"), partitions=settings.partitions) as writer:
        async with Follower(settings, writer, flush_s=0.05) as follower:
            async def compact():
                while True:
                    await asyncio.to_thread(writer.compact)
                    await asyncio.sleep(0.1)
            async def show():
                while True:
                    print(follower.n_read, flush=True)
                    await asyncio.sleep(0.05)
            await asyncio.gather(follower.run(), compact(), show())
asyncio.run(main())
"""

#: The same on a disk of 4 MB that is full from the start: needs no privilege, the system gives it a mount of its own.
FULL_DISK = """
import asyncio, logging, os, subprocess, sys
from pathlib import Path
from consumers.event_log import EventLog, Follower, LogWriter
from infra.settings import Settings
logging.basicConfig(level="WARNING")
settings, folder = Settings.load(), Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
async def main():
    with LogWriter(folder / "log", topic=settings.topic("events"), partitions=settings.partitions) as writer:
        with (folder / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(os.urandom(4096))
            except OSError:
                pass
        async with Follower(settings, writer, retry_s=0.1) as follower:
            reading = asyncio.ensure_future(follower.catch_up())
            while not follower.no_room:
                await asyncio.sleep(0.02)
            with EventLog(folder / "log").snapshot() as moment:
                print("while full", moment.n_rows(), flush=True)
            (folder / "filler").unlink()
            await reading
    print("then", len(EventLog(folder / "log").read(["offset"], unique=False)), flush=True)
asyncio.run(main())
"""


def environment(settings: Settings) -> dict[str, str]:
    return {**settings.environment(), "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def rows(folder: Path) -> list[tuple[Any, ...]]:
    with EventLog(folder).snapshot() as moment:
        return sorted((part.partition, *row.values()) for part in moment.parts(unique=False, columns=("offset", "event_id", "user_id", "item_id", "time_ms"))
                      for row in part.table.to_pylist())


async def keep(settings: Settings, folder: Path) -> int:
    """Bring the log up to date; how many records that took."""
    with LogWriter(folder, topic=settings.topic("events"), partitions=settings.partitions) as writer:
        async with Follower(settings, writer) as follower:
            await follower.catch_up()
            return follower.n_read


def test_a_long_way_is_gone_in_pieces(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = namespace()
    send(settings, Events(settings, seed=6), 9_000)

    async def run() -> list[int]:
        ends = []
        with LogWriter(tmp_path, topic=settings.topic("events"), partitions=settings.partitions) as writer:
            async with Follower(settings, writer) as follower:
                while not await follower.catch_up(1_000):
                    ends.append(sum(writer.ends.values()))
                    writer.compact()
        return ends

    ends = asyncio.run(run())
    assert ends == sorted(set(ends)) and len(ends) >= 2 and len(rows(tmp_path)) == 9_000


async def tells_none(*_: object) -> str:
    return ""


async def make_anew(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(**settings.kafka_client_args())
    await admin.start()
    await admin.delete_topics([settings.topic("events")])
    await admin.close()
    async with asyncio.timeout(STEP_S):
        while settings.topic("events") not in await ensure_topics(settings):
            await asyncio.sleep(0.1)


async def take(settings: Settings, offset: int) -> None:
    """As retention does."""
    admin = AIOKafkaAdminClient(**settings.kafka_client_args())
    await admin.start()
    await admin.delete_records({TopicPartition(settings.topic("events"), 0): RecordsToDelete(before_offset=offset)})
    await admin.close()


def test_killed_again_and_again_it_has_the_rows_of_one_that_was_not(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    settings, chance = namespace(), random.Random(5)
    with Load(settings, Events(settings, seed=5, users=60, misplaced=0.05), RATE) as load:
        for kill in range(KILLS):
            process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "log")], env=environment(settings), stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) > chance.randrange(50, 1_000):
                    break
            time.sleep(chance.random() * 0.2)
            assert process.poll() is None, "the process ended by itself"
            process.kill()
            process.wait(STEP_S)
            process.stdout.close()
            rows(tmp_path / "log")  # can be read at any time
        n = load.stop()
    asyncio.run(keep(settings, tmp_path / "log"))
    asyncio.run(keep(settings, tmp_path / "at once"))
    found = rows(tmp_path / "log")
    assert found == rows(tmp_path / "at once")
    assert 0.9 * n < len(found) < n == len(asyncio.run(read_all(settings)))  # some lie in a wrong partition, and no worker moves them
    assert asyncio.run(keep(settings, tmp_path / "log")) == 0


@pytest.mark.parametrize("ids", [True, False])
def test_a_topic_made_anew_is_noticed(namespace: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: bool) -> None:
    if not ids:  # as of an older broker
        monkeypatch.setattr("consumers.event_log.following.topic_id", tells_none)
    settings = namespace()
    send(settings, Events(settings, seed=1), 400)
    asyncio.run(keep(settings, tmp_path))
    before = rows(tmp_path)
    asyncio.run(make_anew(settings))
    with pytest.raises(LogError, match="the brokers know it by the id" if ids else r"but the topic ends at 0\. The topic was made anew"):
        asyncio.run(keep(settings, tmp_path))
    send(settings, Events(settings, seed=2), 1_200)  # longer than it was: only the record at the end of the log tells
    with pytest.raises(LogError, match="the brokers know it by the id" if ids else "lies another record than the one that was read there"):
        asyncio.run(keep(settings, tmp_path))
    assert rows(tmp_path) == before


def test_a_topic_made_anew_while_it_is_read_is_noticed(namespace: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.event_log.following.CHECK_S", 0.5)
    settings = namespace()
    send(settings, Events(settings, seed=1), 400)

    async def run() -> None:
        with LogWriter(tmp_path, topic=settings.topic("events"), partitions=settings.partitions) as writer:
            async with Follower(settings, writer) as follower:
                await follower.catch_up()
                await make_anew(settings)
                async with asyncio.timeout(STEP_S):
                    await follower.run()

    with pytest.raises(LogError, match="made anew"):
        asyncio.run(run())


def test_a_broker_that_goes_and_comes_back_costs_time_only(own_stack: Callable[[], Any], namespace: Callable[..., Settings], tmp_path: Path) -> None:
    servers = own_stack()
    settings = namespace(servers)
    events = Events(settings, seed=4)
    send(settings, events, 300)

    async def run() -> None:
        with LogWriter(tmp_path, topic=settings.topic("events"), partitions=settings.partitions) as writer:
            async with Follower(settings, writer) as follower:
                following = asyncio.ensure_future(follower.run())
                async with asyncio.timeout(STEP_S):
                    while follower.n_read < 300:
                        await asyncio.sleep(0.05)
                    servers.kafka.stop()
                    await asyncio.sleep(2.0)  # long enough to be missed
                    servers.kafka.start()
                    await asyncio.to_thread(send, settings, events, 300)
                    while follower.n_read < 600 and not following.done():
                        await asyncio.sleep(0.05)
                following.cancel()
                writer.flush()

    asyncio.run(run())
    assert len(rows(tmp_path)) == 600


def test_what_retention_took_is_said(namespace: Callable[..., Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = namespace(partitions=1)
    events = Events(settings, seed=1)
    send(settings, events, 100)
    asyncio.run(keep(settings, tmp_path))
    send(settings, events, 100)
    asyncio.run(take(settings, 150))
    assert asyncio.run(keep(settings, tmp_path)) == 50
    assert "offsets 100 to 149 were deleted (retention) before they were read; the event log goes on at 150" in caplog.text
    assert read_gaps(tmp_path) == [(0, 100, 150)], "who reads the log can tell"
    assert [row[1] for row in rows(tmp_path)] == [*range(100), *range(150, 200)]
    send(settings, events, 10)
    caplog.clear()
    assert asyncio.run(keep(settings, tmp_path)) == 10 and not caplog.text


def test_what_was_aborted_is_no_event(namespace: Callable[..., Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As for workers. A log that ends with it, or with the marker of a transaction, is read to its end, and replayed up to its last event."""
    settings = namespace(partitions=1)
    events = Events(settings, seed=8)
    send(settings, events, 20)

    async def transact(*, commit: bool) -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args(), transactional_id=settings.prefix + "t")
        await producer.start()
        await producer.begin_transaction()
        for _ in range(5):
            await producer.send_and_wait(settings.topic("events"), events.draw(time.time_ns() // 1_000_000)[2], partition=0)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
        await producer.stop()

    async def until(*, files: bool) -> int:
        source = await source_of(settings, tmp_path) if files else None
        return (await stretch_of(settings, Place(earliest=True), Place(), source))[1][0]

    asyncio.run(transact(commit=False))
    assert asyncio.run(keep(settings, tmp_path)) == 20 and [row[1] for row in rows(tmp_path)] == [*range(20)]
    assert asyncio.run(until(files=False)) == asyncio.run(until(files=True)) == 20
    asyncio.run(transact(commit=True))
    assert asyncio.run(keep(settings, tmp_path)) == 5 and [row[1] for row in rows(tmp_path)] == [*range(20), *range(26, 31)]
    assert asyncio.run(until(files=False)) == 31 and not any(word in caplog.text for word in ("deleted (retention)", "are gone"))
    asyncio.run(take(settings, 32))
    assert asyncio.run(until(files=True)) == 31 and "begins at 32 and is empty, so 1 offsets between the two are gone" in caplog.text


def test_a_full_disk_is_waited_for(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("this system gives no mounts of one's own; tests/consumers/event_log has the same with /dev/full")
    settings = namespace()
    send(settings, Events(settings, seed=3, users=50), 3_000)
    done = subprocess.run(["unshare", "-rm", sys.executable, "-c", FULL_DISK, str(tmp_path)], env=environment(settings), capture_output=True,
                          text=True, timeout=STEP_S * 2)
    assert done.stdout.split() == ["while", "full", "0", "then", "3000"], done.stdout + done.stderr
    assert done.stderr.count("there is no room for the event log") == 1 and done.stderr.count("there is room again") == 1
