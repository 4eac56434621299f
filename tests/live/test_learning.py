"""What learns, on real servers: every worker learns the same, nothing twice, and a start goes on where the last one stood."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import redis

from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.keys import Keys
from tests.live.equality import check_equal
from tests.live.learned import delete_topic, kept, learned_from
from tests.live.load import Events, Load, send

USERS = 60


def test_killed_workers_learn_every_lesson_once(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace(session_timeout_ms=6_000)
    events = Events(settings, seed=21, users=USERS)
    send(settings, events, 2_000)
    workers = [start_worker(settings), start_worker(settings)]
    with Load(settings, events, rate=400) as load:
        for _ in range(3):
            before = load.sent
            wait_until(lambda: load.sent > before + 600, 60.0, "more events")
            workers.pop(0).kill()
            workers.append(start_worker(settings))
        load.stop()
        engine = check_equal(settings)

    def whole() -> bool:
        offset, _ = kept(settings)
        return offset >= 0 and offset == learned_from(settings).position

    wait_until(whole, 60.0, "all lessons are kept")
    learner = learned_from(settings)
    assert kept(settings)[1] == learner.dump(), "the workers that died and started on the way hold what one reader learns at once"
    # each event once: as many as the engine has, whose users stand in the same order
    assert learner.n_taught == engine.state.learner.n_taught

    # all are killed: the next one goes on from what was kept
    for worker in workers:
        worker.kill()
    heir = start_worker(settings)
    send(settings, events, 500)
    engine = check_equal(settings)
    wait_until(whole, 60.0, "the new lessons are kept too")
    assert kept(settings)[1] == learned_from(settings).dump()
    assert heir.alive

    # damaged or gone: said, and learned again from the log
    client, keys = redis.from_url(settings.redis_url), Keys(settings.prefix)
    heir.kill()
    name = json.loads(client.get(keys.learned_checkpoint))["name"]
    client.setrange(keys.learned(name, 0), 100, b"\xff\xff\xff\xff")
    again = start_worker(settings)
    wait_until(lambda: "damaged" in again.log, 60.0, "the damage is said")
    send(settings, events, 100)
    check_equal(settings)
    wait_until(whole, 60.0, "kept anew")
    assert kept(settings)[1] == learned_from(settings).dump()


def test_a_flushed_redis_is_learned_again(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events = Events(settings, seed=22, users=USERS)
    send(settings, events, 1_000)
    worker = start_worker(settings)
    wait_until(lambda: kept(settings)[0] > 0, 60.0, "something is kept")
    client = redis.from_url(settings.redis_url)
    worker.kill()
    for key in client.scan_iter(f"{settings.prefix}*", count=1_000):
        client.delete(key)
    start_worker(settings)
    engine = check_equal(settings)
    wait_until(lambda: kept(settings)[0] == learned_from(settings).position, 60.0, "kept again")
    learner = learned_from(settings)
    assert kept(settings)[1] == learner.dump()
    assert learner.n_taught == engine.state.learner.n_taught, "events absorbed again teach nothing again"


def test_a_log_made_anew_is_learned_anew(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events = Events(settings, seed=23, users=USERS)
    worker = start_worker(settings)
    send(settings, events, 100)
    check_equal(settings)
    with Load(settings, events, rate=300) as load:
        wait_until(lambda: load.sent > 1_500, 60.0, "a live stream: many small messages of lessons")
        load.stop()
    check_equal(settings)
    wait_until(lambda: kept(settings)[0] == learned_from(settings).position, 60.0, "all lessons are kept")
    assert kept(settings)[0] > 10
    worker.kill()

    delete_topic(settings, "lessons")
    again = start_worker(settings)
    wait_until(lambda: "Learning anew" in again.log, 60.0, "it is said")
    send(settings, events, 300)
    check_equal(settings)
    wait_until(lambda: kept(settings)[0] == learned_from(settings).position, 60.0, "the new lessons are kept, though fewer")
    assert kept(settings)[1] == learned_from(settings).dump()
