"""A replay into a shadow equals the live system, leaves it alone, survives kills, and can be dropped without a trace."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from consumers.replay.diff import _judged
from infra.settings import Settings
from infra.stack import WorkerProcess
from infra.topics import ensure_topics
from models.fusion import Lesson
from models.user_row import USER_ROW
from streams.generations import Generation as Meta
from streams.lessons import Noted, no_lessons, pack
from tests.live.equality import Redis, wait_drained
from tests.live.generations import Generation, command, start
from tests.live.load import Events, send

FAST = {"commit_interval_ms": 50, "items_interval_ms": 500, "session_timeout_ms": 3_000}
Start = Callable[..., WorkerProcess]


def kafka(settings: Settings) -> tuple[set[str], set[str]]:
    """Topics and groups under the prefix."""

    async def ask() -> tuple[set[str], set[str]]:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        try:
            topics, groups = await admin.list_topics(), await admin.list_consumer_groups()
        finally:
            await admin.close()
        return {name for name in topics if name.startswith(settings.prefix)}, {name for name, *_ in groups if name.startswith(settings.prefix)}

    return asyncio.run(ask())


def all_keys(settings: Settings) -> set[bytes]:
    return {key for key in Redis(settings).client.scan_iter(match=settings.prefix + "*", count=1000) if b"workers:" not in key and b"learned" not in key}


def overlap(one: dict[str, Any], other: dict[str, Any], n: int = 10) -> float:
    """Mean share of the first ten that two sets of lists have in common."""
    shares = [len(set(one[user]["items"][:n]) & set(other[user]["items"][:n])) / n for user in one]
    return float(np.mean(shares))


def test_the_whole_log_again_is_equal_by_two_workers_and_can_be_dropped(namespace: Callable[..., Settings], start_worker: Start, tmp_path: Path) -> None:
    settings = namespace(**FAST)
    events = Events(settings, seed=31, users=150, misplaced=0.1)
    send(settings, events, 4_000)
    worker = start_worker(settings)
    wait_drained(settings)
    before, topics_before = all_keys(settings), kafka(settings)
    values = {key: Redis(settings).client.get(key) for key in before if b":items" not in key and b"owner" not in key}

    said = json.loads(command(settings, tmp_path, "replay", "--shadow", "again", "--workers", "2", "--json"))
    assert said["shadow"] == "again" and said["events"] >= 4_000

    live, shadow = Generation(settings, "1", is_live=True), Generation(settings, "again")
    assert shadow.all_user_rows() == live.all_user_rows() and len(live.all_user_rows()) == 150
    assert shadow.all_item_rows() == live.all_item_rows()
    ours, theirs = live.lists(), shadow.lists()
    assert theirs.keys() == ours.keys()
    assert {user: body["as_of"] for user, body in theirs.items()} == {user: body["as_of"] for user, body in ours.items()}
    found = overlap(ours, theirs)
    print(f"overlap of the first ten, lists made at other moments by what was learned in another order: {found:.3f}")
    assert found > 0.7  # .42 by chance

    compared = json.loads(command(settings, tmp_path, "diff", "live", "again", "--json"))
    assert compared["compared"] == 150 and compared["newer"] == 0 and compared["overlap"] == pytest.approx(found, abs=0.02)
    assert compared["one"]["items"] == compared["other"]["items"] == 24 and compared["one"]["position"] == compared["other"]["position"]
    assert compared["correlation"] > 0.5 and len(compared["users"]) == 10 and compared["users"][0]["change"] <= compared["users"][-1]["change"]
    said_too = command(settings, tmp_path, "diff", "again", "live")
    assert "150 users have both" in said_too and "no generation none" in command(settings, tmp_path, "diff", "live", "none", code=1)

    # nothing of the live system has changed
    assert worker.alive
    changed = [key for key, value in values.items() if Redis(settings).client.get(key) != value]
    assert not [key for key in changed if b"rec:" in key or b"g1:" in key], changed[:5]
    assert all_keys(settings) - before == {key for key in all_keys(settings) if b"gagain:" in key}
    topics, groups = kafka(settings)
    assert topics - topics_before[0] == {settings.prefix + "gagain.interactions", settings.prefix + "gagain.lessons"}
    assert settings.prefix + "streamrec.gagain" in groups

    listed = json.loads(command(settings, tmp_path, "shadows", "list", "--json"))["generations"]
    assert [(one["name"], one["state"]) for one in listed] == [("1", "live"), ("again", "whole")]
    assert "is live" in command(settings, tmp_path, "shadows", "drop", "1", code=1)
    command(settings, tmp_path, "shadows", "drop", "again")
    assert not shadow.traces() and kafka(settings) == topics_before
    assert "no generation again" in command(settings, tmp_path, "shadows", "drop", "again", code=1)


def test_the_judge_compares_what_both_have_read(namespace: Callable[..., Settings]) -> None:
    """Verdicts on events before the later start and behind the earlier end, and such as came twice, do not count."""
    settings = namespace(partitions=2)
    trial = settings.with_own("trial", {})

    def judged(partition: int, *said: tuple[int, int, int]) -> bytes:
        (value,) = pack([Noted(partition, 0, no_lessons(), [(source, Lesson(np.zeros(3, np.float32), n, n, n, hits, 0.5)) for source, n, hits in said])])
        return value

    live = [judged(0, (5, 4, 1), (20, 4, 2), (30, 4, 4)), judged(1, (9, 4, 0)), judged(0, (30, 4, 4), (90, 4, 4))]
    shadow = [judged(0, (12, 4, 3), (40, 4, 1)), judged(1, (3, 4, 4), (50, 4, 4))]

    async def run() -> list[tuple[int, int]]:
        await ensure_topics(settings)
        await ensure_topics(trial)
        async with AIOKafkaProducer(**settings.kafka_client_args()) as producer:
            for of, values in ((settings, live), (trial, shadow)):
                for value in values:
                    await producer.send_and_wait(of.topic("lessons"), value, partition=0)
        return await _judged(settings, ["1", "trial"], [Meta(), Meta(start=[10, 0])])

    assert asyncio.run(run()) == [(4 + 4 + 4, 2 + 4 + 0), (4 + 4 + 4, 3 + 1 + 4)]


def test_killed_again_and_again_it_ends_the_same(namespace: Callable[..., Settings], start_worker: Start, tmp_path: Path,
                                                 wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    send(settings, Events(settings, seed=32, users=150, misplaced=0.1), 6_000)
    start_worker(settings)
    wait_drained(settings)
    shadow = Generation(settings, "killed")
    positions = []
    for k in range(4):  # at its beginning, and further on each time
        replay = start(settings, tmp_path, "replay", "--shadow", "killed", "--speed", "max", "--set", "max_users=64")
        before = sum(at or 0 for at in shadow.checkpoints().values())
        deadline = time.monotonic() + 60
        while replay.poll() is None and time.monotonic() < deadline:
            at = sum(at or 0 for at in shadow.checkpoints().values())
            if (k == 0 and shadow.client.exists(shadow.keys.meta)) or at > before:
                break
            time.sleep(0.005)
        if replay.poll() is not None:
            break
        replay.kill()
        replay.wait()
        positions.append(before)
    assert positions, "it was never killed on its way"
    command(settings, tmp_path, "replay", "--shadow", "killed")
    live = Generation(settings, "1", is_live=True)
    assert shadow.all_user_rows() == live.all_user_rows()
    assert shadow.all_item_rows() == live.all_item_rows()


def test_a_stretch_with_settings_of_its_own(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    """From and to offsets: rows hold what lies between them and nothing else; weights are the shadow's."""
    settings = namespace(partitions=2, **FAST)
    send(settings, Events(settings, seed=33, users=40), 2_000)
    own = tmp_path / "own.toml"
    own.write_text('weights = "view=7"\nlist_size = 5\n')
    command(settings, tmp_path, "replay", "--shadow", "part", "--from", "offset=0:100,1:50", "--to", "offset=0:300,1:260", "--settings", str(own))
    shadow = Generation(settings, "part")
    for p, (first, last) in enumerate(((100, 300), (50, 260))):
        rows = np.frombuffer(b"".join(shadow.user_rows(p).values()), USER_ROW)
        assert rows["as_of"].min() >= first and rows["as_of"].max() == last - 1
    assert shadow.checkpoints() == {0: 300, 1: 260}
    assert all(len(body["items"]) == 5 for body in shadow.lists().values())
    assert "keeps what it was begun with" in command(settings, tmp_path, "replay", "--shadow", "part", "--from", "earliest", code=1)
    assert "has of its own" in command(settings, tmp_path, "replay", "--shadow", "other", "--settings", _toml(tmp_path, "partitions = 3"), code=1)
    assert "names no place" in command(settings, tmp_path, "replay", "--shadow", "other", "--from", "yesterday", code=1)
    assert "no event between" in command(settings, tmp_path, "replay", "--shadow", "other", "--from", "latest", code=1)
    command(settings, tmp_path, "replay", "--shadow", "part", "--to", "latest")  # further on
    assert sum(at or 0 for at in shadow.checkpoints().values()) == 2_000
    assert not Generation(settings, "other").traces(), "what was refused has left nothing"


def test_a_drop_that_is_killed_is_gone_on_with(namespace: Callable[..., Settings], tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    send(settings, Events(settings, seed=36, users=400), 2_000)
    topics_before = kafka(settings)
    command(settings, tmp_path, "replay", "--shadow", "gone")
    shadow = Generation(settings, "gone")
    n_keys = len(shadow.traces())
    drop = start(settings, tmp_path, "shadows", "drop", "gone")
    wait_until(lambda: drop.poll() is not None or len(shadow.traces()) < n_keys, 60.0, "it has begun to remove")
    drop.kill()
    drop.wait()
    if shadow.client.exists(shadow.keys.meta):  # else it was faster than we are
        assert "is being removed" in command(settings, tmp_path, "replay", "--shadow", "gone", code=1)
        assert "is being removed" in command(settings, tmp_path, "promote", "gone", code=1) or "no generation gone" in command(settings, tmp_path, "promote", "gone", code=1)
        command(settings, tmp_path, "shadows", "drop", "gone")
    assert not shadow.traces() and kafka(settings) == topics_before


def test_one_at_a_time_and_stopped_in_order(namespace: Callable[..., Settings], tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    send(settings, Events(settings, seed=34, users=40), 1_500)
    time.sleep(1.0)
    send(settings, Events(settings, seed=35, users=40), 1_500)
    shadow = Generation(settings, "slow")
    slow = start(settings, tmp_path, "replay", "--shadow", "slow", "--speed", "0.02")
    wait_until(lambda: any(shadow.checkpoints().values()), 60.0, "it has begun")
    assert "another command is at work" in command(settings, tmp_path, "replay", "--shadow", "slow", code=1)
    slow.send_signal(signal.SIGINT)
    _, said = slow.communicate(timeout=30)
    assert slow.returncode == 130 and "goes on" in said, said
    assert sum(at or 0 for at in shadow.checkpoints().values()) < 3_000
    command(settings, tmp_path, "replay", "--shadow", "slow", "--speed", "max")
    assert sum(at or 0 for at in shadow.checkpoints().values()) == 3_000


def _toml(folder: Path, text: str) -> str:
    path = folder / "wrong.toml"
    path.write_text(text)
    return str(path)
