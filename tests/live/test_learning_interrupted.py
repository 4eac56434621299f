"""What learns, cut off between two steps (kill -9), switched off and on, or kept by another version: nothing twice, nothing half."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import xxhash

from infra.settings import Settings
from infra.stack import WorkerProcess
from models.fusion import fresh
from streams.keys import Keys
from streams.lessons import unpack
from streams.state import State
from tests.live.equality import check_equal, read_log, wait_drained
from tests.live.learned import kept, learned_from
from tests.live.load import Events, Load, send
from tests.live.pages import metric

ROOT = Path(__file__).resolve().parents[2]
STEP_S = 60.0
FAST = {"session_timeout_ms": 3_000, "commit_interval_ms": 50}


def dying(step: str) -> dict[str, str]:
    """Variables of a worker that kills itself at this step, see `dying/sitecustomize.py`; "": at none."""
    return {"TEST_DIES": step, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "live" / "dying"), str(ROOT)])}


def all_kept(settings: Settings) -> bool:
    return kept(settings)[0] == learned_from(settings).position


def checkpoint_of(settings: Settings) -> dict[str, Any]:
    client, keys = redis.from_url(settings.redis_url), Keys(settings.prefix)
    return dict(json.loads(client.get(keys.learned_checkpoint) or b"{}"))


def test_a_snapshot_cut_off_is_none(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    events = Events(settings, seed=51, users=60)
    client, keys = redis.from_url(settings.redis_url), Keys(settings.prefix)
    send(settings, events, 500)
    first = start_worker(settings, env=dying(""))
    check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "a first snapshot is whole")
    first.kill()
    whole = checkpoint_of(settings)
    assert whole["pieces"] > 10
    for step in ("piece:7", "checkpoint", "piece:0"):
        worker = start_worker(settings, env=dying(step))
        send(settings, events, 300)
        wait_until(lambda worker=worker: not worker.alive, STEP_S, f"it dies at {step}")
        assert worker.exit_code == -9, worker.log[-2000:]
        assert "damaged" not in worker.log and "cannot be read" not in worker.log
        assert checkpoint_of(settings) == whole, "what is named is what was whole"
        assert xxhash.xxh3_64_intdigest(kept(settings)[1]) == whole["checksum"], "and it still is"
        other = "b" if whole["name"] == "a" else "a"
        assert client.exists(keys.learned(other, 0)), "the test: something was written beside it"
    last = start_worker(settings, env=dying(""))
    engine = check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "a worker that lives keeps all")
    learner = learned_from(settings)
    assert kept(settings)[1] == learner.dump()
    assert learner.n_taught == engine.state.learner.n_taught
    assert "damaged" not in last.log
    named = checkpoint_of(settings)
    lie = {key.decode() for key in client.scan_iter(f"{settings.prefix}*learned*")}
    assert lie == {keys.learned_checkpoint, *(keys.learned(named["name"], k) for k in range(named["pieces"]))}, "nothing is left over"


def test_what_was_sent_before_its_rows_counts_once(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    events = Events(settings, seed=52, users=60)
    send(settings, events, 300)
    for step in ("rows:1", "rows:4", "rows:2", "rows:3"):
        worker = start_worker(settings, env=dying(step))
        with Load(settings, events, rate=200) as load:
            wait_until(lambda worker=worker: not worker.alive, STEP_S, f"it dies at {step}")
            load.stop()
        assert worker.exit_code == -9, worker.log[-2000:]
    start_worker(settings)
    engine = check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "all lessons are kept")
    learner = learned_from(settings)
    assert kept(settings)[1] == learner.dump()
    assert learner.n_taught == engine.state.learner.n_taught
    said = read_lessons(settings)
    assert len(said) > len(set(said)), "the test: some were sent twice"


def read_lessons(settings: Settings) -> list[tuple[int, int]]:
    """(events partition, offset) of every lesson of the factors, as they lie in the log."""
    found = []
    for record in read_log(settings, "lessons")[0]:
        for part in unpack(record.value, settings.partitions):
            heads = part.lessons.heads
            found += [(part.partition, part.base + int(source)) for source in heads["source"]]
    return found


def test_learning_switched_off_and_on_goes_on_where_it_stood(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    off = dataclasses.replace(settings, learn="off")
    events = Events(settings, seed=53, users=60)
    worker = start_worker(settings)
    send(settings, events, 400)
    wait_drained(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "kept")
    before = kept(settings)
    assert before[0] > 0 and learned_from(settings).n_taught > 100
    worker.kill()

    worker = start_worker(off)
    send(settings, events, 400)
    check_equal(settings)
    assert worker.alive and "Traceback" not in worker.log
    assert "learning is off" in worker.log
    assert kept(settings) == before, "as it was kept last"
    assert metric(worker, "streamrec_lessons_learned_total") == 0

    # one that still learns beside one that does not: what it teaches, the other follows
    with_it = start_worker(settings)
    wait_until(lambda: len((with_it.state() or {}).get("partitions", ())) == 2, STEP_S, "both have partitions")
    send(settings, events, 400)
    check_equal(settings)
    end = learned_from(settings)
    assert end.position > before[0]
    wait_until(lambda: all_kept(settings), STEP_S, "whoever has partition 0 keeps it")
    assert kept(settings)[1] == end.dump()
    worker.kill()
    with_it.kill()

    worker = start_worker(settings)
    send(settings, events, 400)
    check_equal(settings)
    wait_until(lambda: all_kept(settings) and learned_from(settings).n_taught > end.n_taught, STEP_S, "and on again")
    assert kept(settings)[1] == learned_from(settings).dump()
    assert "learning is off" not in worker.log


@pytest.mark.parametrize("change", ["fewer features", "more hidden units", "another version", "other factors", "not its size"])
def test_what_another_version_kept_is_learned_again(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                                    wait_until: Callable[..., Any], change: str) -> None:
    settings = namespace(**FAST)
    events = Events(settings, seed=54, users=60)
    worker = start_worker(settings)
    send(settings, events, 400)
    check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "kept")
    worker.kill()

    state = State(settings)
    n = state.learner.fusion.nbytes
    _, data = kept(settings)
    fusion = np.frombuffer(data[:n], state.learner.fusion.dtype)[0].copy()
    if change == "fewer features":
        other = fresh(int(fusion["n_features"]) - 3).tobytes() + data[n:]
    elif change == "more hidden units":
        fusion["n_hidden"] *= 2
        other = fusion.tobytes() + bytes(10_000) + data[n:]
    elif change == "another version":
        fusion["version"] += 1
        other = fusion.tobytes() + data[n:]
    elif change == "other factors":
        other = data + bytes(512)
    else:
        other = data[: n // 2]
    client, keys = redis.from_url(settings.redis_url), Keys(settings.prefix)
    found = checkpoint_of(settings)
    client.set(keys.learned(found["name"], 0), other)
    client.set(keys.learned_checkpoint, json.dumps(found | {"checksum": xxhash.xxh3_64_intdigest(other), "pieces": 1}))

    again = start_worker(settings)
    wait_until(lambda: "cannot be read" in again.log, STEP_S, "it is said")
    assert "learning again from the beginning of the lessons" in again.log
    wait_until(lambda: all_kept(settings) and kept(settings)[1] == learned_from(settings).dump(), STEP_S,
               "learned again and kept, without a new event")
    send(settings, events, 200)
    check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "and on")
    assert kept(settings)[1] == learned_from(settings).dump()
    assert again.alive and "Traceback" not in again.log
