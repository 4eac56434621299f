"""A user is erased: looked for byte by byte, with workers killed at each step, among rebalances, and from the log read again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from consumers.producer import Producer
from infra.settings import Settings
from infra.stack import WorkerProcess
from models.user_row import USER_ROW
from streams.partitioner import partition_of
from tests.live.command import ROOT, streamrec
from tests.live.equality import Redis, _compare_users, lockstep, read_log, wait_drained
from tests.live.load import Events, Load, send
from tests.live.pages import metric
from tests.live.reading import read_all

DYING = Path(__file__).parent / "dying_erasing"
STEP_S = 60.0
HE = "käthe-7f3a91"
FAST = {"session_timeout_ms": 2_000, "commit_interval_ms": 20, "items_interval_ms": 300}


async def his(settings: Settings, n: int, first: int = 0) -> None:
    """Events of his: most are right, some bad, some in another partition, one with his name in other words."""
    producer = AIOKafkaProducer(**settings.kafka_client_args())
    await producer.start()
    topic, home = settings.topic("events"), partition_of(HE, settings.partitions)
    for k in range(first, first + n):
        event: dict[str, Any] = {"event_id": f"h{k}", "user_id": HE, "item_id": f"i{k % 20}", "event_type": "purchase", "timestamp": time.time_ns() // 1_000_000}
        if k % 5 == 3:
            event["event_type"] = "stare"
        value = json.dumps(event, ensure_ascii=k % 2 == 0).encode()
        await producer.send_and_wait(topic, value, key=HE.encode(), partition=(home + (k % 7 == 0)) % settings.partitions)
    await producer.send_and_wait(topic, b'{"user_id": "' + HE.encode() + b'", broken', key=HE.encode(), partition=home)
    await producer.stop()


async def ask(settings: Settings, *users: str) -> None:
    """Erase events, as an application sends them."""
    async with Producer(settings) as producer:
        for user in users:
            await producer.erase(user)


def in_redis(settings: Settings, *needles: str) -> list[bytes]:
    """Keys in whose name or value, of whatever kind, one of these bytes lies."""
    client, found = Redis(settings).client, []
    wanted = [form for needle in needles for form in (needle.encode(), json.dumps(needle)[1:-1].encode())]
    for name in client.scan_iter(match=f"{settings.prefix}*", count=1000):
        kind = client.type(name)
        value = b"".join(client.hgetall(name).values()) if kind == b"hash" else client.get(name) or b""  # type: ignore[union-attr, operator]
        if any(form in name + value for form in wanted):
            found.append(name)
    return found


def letters(settings: Settings) -> dict[bytes, bytes]:
    """Dead letters by key, as whoever reads the compacted topic has them."""
    return {key: value for key, value in {record.key: record.value for record in asyncio.run(read_all(settings, "events.dlq"))}.items() if value}


def counted(settings: Settings, user: str) -> int:
    row = Redis(settings).user_rows(partition_of(user, settings.partitions)).get(user)
    return 0 if row is None else int(np.frombuffer(row, USER_ROW)[0]["counts"].sum())


def assert_forgotten(settings: Settings) -> None:
    assert not in_redis(settings, HE)
    assert not [value for value in letters(settings).values() if HE.encode() in value or json.dumps(HE)[1:-1].encode() in value]
    for record in asyncio.run(read_all(settings, "erasures")):
        assert HE.encode() not in (record.key or b"") + (record.value or b"")


def others_are_right(settings: Settings) -> None:
    """Rows and lists of everybody are what the engine makes of the log; who was erased has none."""
    problems = _compare_users(settings, lockstep(settings, read_log(settings)))
    assert not problems, f"{len(problems)}, the first: " + "\n".join(problems[:8])


def test_he_is_gone_at_once_and_stays_away_when_the_log_is_read_again(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    settings = namespace(publish_embeddings="on", erasure_key="of the test", train_folder=str(tmp_path))
    worker = start_worker(settings)
    send(settings, Events(settings, seed=1, users=40), 400)
    asyncio.run(his(settings, 40))
    wait_drained(settings)
    assert len(in_redis(settings, HE)) == 2 and counted(settings, HE) == 32
    assert len([value for value in letters(settings).values() if b"7f3a91" in value]) == 9
    before = streamrec(settings, "erase", "--verify", HE)
    assert before.returncode == 1 and "was never erased" in before.stdout and "key " in before.stdout and "9 dead letters" in before.stdout

    done = streamrec(settings, "erase", HE, "--json")
    assert done.returncode == 0 and {**json.loads(done.stdout), "partition": 0, "offset": 0} == {"partition": 0, "offset": 0, "known": True, "n_letters": 9}, done.stdout + done.stderr
    assert_forgotten(settings)
    wait_drained(settings)
    assert_forgotten(settings)
    assert len(letters(settings)) == 0 and worker.alive
    others_are_right(settings)

    # he comes back, and is somebody new
    asyncio.run(his(settings, 2, first=100))
    wait_drained(settings)
    assert counted(settings, HE) == 2
    after = json.loads(Redis(settings).client.get(Redis(settings).keys.list_of(HE)) or b"{}")
    assert after["as_of"]["offset"] > json.loads(done.stdout)["offset"]
    again = streamrec(settings, "erase", HE)
    assert again.returncode == 0, again.stderr
    assert_forgotten(settings)
    others_are_right(settings)

    # from the beginning of the log, by workers who know from the topic
    worker.stop()
    client = Redis(settings).client
    client.delete(*client.scan_iter(match=f"{settings.prefix}g1:*"), *client.scan_iter(match=f"{settings.prefix}rec:*"))
    worker = start_worker(settings)
    wait_drained(settings)
    assert_forgotten(settings)
    others_are_right(settings)
    assert metric(worker, "streamrec_events_erased_total") > 40
    worker.stop()

    other_key = start_worker(settings.__class__(**{**settings.public(), "erasure_key": "another", "redis_url": settings.redis_url}))
    assert other_key._process.wait(STEP_S) == 1 and "under another key" in other_key.log


@pytest.mark.parametrize("step", ["met", "told", "row", "list", "done"])
def test_a_worker_killed_at_each_step(step: str, namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                      wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    first = start_worker(settings, env={"PYTHONPATH": os.pathsep.join([str(DYING), str(ROOT)]), "TEST_DIES": step})
    send(settings, Events(settings, seed=2, users=30), 200)
    asyncio.run(his(settings, 20))
    wait_drained(settings)
    assert counted(settings, HE) == 16
    asyncio.run(ask(settings, HE))
    wait_until(lambda: not first.alive, STEP_S, "it dies")
    assert first.exit_code == -9
    state = Redis(settings)
    keys = state.client.exists(state.keys.user(partition_of(HE, settings.partitions), HE)), state.client.exists(state.keys.list_of(HE))
    told = len(asyncio.run(read_all(settings, "erasures")))
    assert (*keys, told) == {"met": (1, 1, 0), "told": (1, 1, 1), "row": (0, 1, 1), "list": (1, 0, keys[0] and told), "done": (0, 0, 1)}[step]
    start_worker(settings)
    wait_drained(settings)
    assert not in_redis(settings, HE)
    assert {record.key for record in asyncio.run(read_all(settings, "erasures"))} and counted(settings, HE) == 0
    others_are_right(settings)
    done = streamrec(settings, "erase", HE)  # for the dead letters, which an event alone leaves
    assert done.returncode == 0, done.stderr
    assert_forgotten(settings)


def test_kills_and_rebalances_while_users_are_erased(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                                     wait_until: Callable[..., Any]) -> None:
    settings, seed = namespace(**FAST), int(os.environ.get("TEST_SEED", 0)) or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance, events = random.Random(seed), Events(settings, seed=seed, users=120, misplaced=0.05)
    workers = [start_worker(settings), start_worker(settings)]
    gone = [HE]
    asyncio.run(his(settings, 30))
    with Load(settings, events, 400) as load:
        wait_until(lambda: any(Redis(settings).checkpoints().values()), STEP_S, "they have begun")
        for _ in range(10):
            users = [*chance.sample(events.users, 4), HE]
            asyncio.run(ask(settings, *users))
            gone += users
            time.sleep(chance.random() * 0.3)  # so that kills meet different steps
            if chance.random() < 0.7:
                workers.pop(chance.randrange(len(workers))).kill()
                workers.append(start_worker(settings))
            else:
                workers.append(start_worker(settings))  # a rebalance in the middle of it
                workers.pop(0).stop()
            until = load.sent + 200
            wait_until(lambda until=until: load.sent >= until, STEP_S, "events go on")
        load.stop()
    asyncio.run(ask(settings, *set(gone)))
    wait_drained(settings)
    others_are_right(settings)
    assert not in_redis(settings, HE)
    rows = {user for p in range(settings.partitions) for user in Redis(settings).user_rows(p)}
    assert rows and not rows & set(gone) and rows <= set(events.users)
