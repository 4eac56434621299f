"""What is left of somebody who was erased, and until when: the event log, releases, Kafka; and the command killed at each step."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from consumers.erasing import read_erasures
from consumers.event_log import EventLog, Follower, LogWriter
from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.erasures import Erasures
from tests.live.command import ROOT, environment, streamrec
from tests.live.equality import wait_drained
from tests.live.load import Events, send
from tests.live.test_erasing import HE, STEP_S, assert_forgotten, his, in_redis, letters

DAY_MS = 86_400_000
#: The command, but it kills itself before a step.
DYING = """
import asyncio, os, signal, sys
from consumers import erasing
from infra.settings import Settings
async def dying(*args):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(erasing, sys.argv[1], dying)
asyncio.run(erasing.erase(Settings.load(), sys.argv[2]))
"""


async def keep(settings: Settings, *, compact: bool) -> None:
    """What a trainer does of the event log."""
    erasures = Erasures(settings.erasure_key)
    with LogWriter(settings.trainer_folder() / "log", topic=settings.topic("events"), partitions=settings.partitions, erasures=erasures) as writer:
        await read_erasures(settings, erasures)
        async with Follower(settings, writer) as follower:
            await follower.catch_up()
        if compact:
            writer.compact()


def test_until_when_something_is_left(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    settings = namespace(events_retention_s=3_600, train_folder=str(tmp_path), erasure_key="k")
    start_worker(settings)
    send(settings, Events(settings, seed=3, users=20), 150)
    asyncio.run(his(settings, 12))
    wait_drained(settings)
    asyncio.run(keep(settings, compact=True))
    assert streamrec(settings, "erase", HE).returncode == 0
    left = streamrec(settings, "erase", "--verify", HE, "--json")
    found = json.loads(left.stdout)
    assert left.returncode == 1 and {Path(one["where"]).suffix for one in found["other"]} == {".parquet"}, left.stdout
    asyncio.run(keep(settings, compact=True))
    left = streamrec(settings, "erase", "--verify", HE, "--json")
    found, now_ms = json.loads(left.stdout), time.time_ns() // 1_000_000
    assert left.returncode == 3 and not found["other"], left.stdout
    events, dlq = sorted(found["kafka"], key=lambda one: one["where"].endswith("dlq"))
    assert now_ms + 3_000_000 < events["until_ms"] < now_ms + 3_600_000 + 8 * DAY_MS and dlq["until_ms"] is None
    assert "gone by 20" in streamrec(settings, "erase", "--verify", HE).stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and HE.encode() in path.read_bytes()], "byte by byte"
    names = set(EventLog(tmp_path / "log").read(["user_id"], unique=False).column("user_id").to_pylist())
    assert names and HE not in names

    async def drop() -> None:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        await admin.delete_records({TopicPartition(settings.topic("events"), p): RecordsToDelete(before_offset=-1) for p in range(settings.partitions)})
        await admin.close()

    asyncio.run(drop())  # as retention does
    left = json.loads(streamrec(settings, "erase", "--verify", HE, "--json").stdout)
    assert [one["where"] for one in left["kafka"]] == [settings.topic("events.dlq")] and left["exit_code"] == 3
    # of somebody who had no dead letters nothing is left at all
    nobody = streamrec(settings, "erase", "--verify", "nobody")
    assert nobody.returncode == 0 and "was never erased" in nobody.stdout and "nothing is left" in nobody.stdout


def test_where_kafka_keeps_for_ever_there_is_no_date(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                                     wait_until: Callable[..., Any]) -> None:
    """And the command killed at each step, then called again."""
    settings = namespace()
    worker = start_worker(settings)
    asyncio.run(his(settings, 12))
    wait_drained(settings)
    for step in ("_in_topic", "_known_to_workers", "forget_letters", "_gone"):
        died = subprocess.run([sys.executable, "-c", DYING, step, HE], cwd=ROOT, timeout=STEP_S, capture_output=True, text=True,
                              env=environment(settings))
        assert died.returncode == -9, died.stderr
        wait_until(lambda: not in_redis(settings, HE), STEP_S, "workers do their part")
        left = bool([value for value in letters(settings).values() if b"7f3a91" in value])
        assert left is (step != "_gone")
        if step == "forget_letters":
            found = streamrec(settings, "erase", "--verify", HE)
            assert found.returncode == 1 and "dead letters" in found.stdout and "for ever" in found.stdout
    assert streamrec(settings, "erase", HE).returncode == 0
    assert_forgotten(settings)
    wait_drained(settings)
    assert worker.stop() == 0
    asyncio.run(his(settings, 3, first=50))
    late = streamrec(settings, "erase", HE, "--wait", "2")
    assert late.returncode == 1 and "no worker has dealt with it" in late.stderr
    start_worker(settings)
    wait_drained(settings)
    assert not in_redis(settings, HE)


def test_in_all_generations(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess]) -> None:
    """A shadow that nobody runs loses him too."""
    settings = namespace()
    start_worker(settings)
    send(settings, Events(settings, seed=5, users=20), 150)
    asyncio.run(his(settings, 12))
    wait_drained(settings)
    done = streamrec(settings, "replay", "--from", "earliest", "--shadow", "trial")
    assert done.returncode == 0, done.stdout + done.stderr
    before = in_redis(settings, HE)
    assert len([name for name in before if b"gtrial:" in name]) == 2 and len(before) == 4, before
    assert streamrec(settings, "erase", HE).returncode == 0
    assert_forgotten(settings)
    left = streamrec(settings, "erase", "--verify", HE, "--json")
    assert not [one for one in json.loads(left.stdout)["other"] if one["where"] == "Redis"]
