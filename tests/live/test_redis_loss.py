"""Redis restarts, loses its last second or everything, is full or gone; workers go on by themselves and nothing differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


from infra.settings import Settings
from infra.stack import RedisServer, WorkerProcess
from tests.live.equality import AsOfWatcher, Redis, check_equal
from tests.live.load import Events, Load
from tests.live.pages import metric, says_it_waits

RATE = 700
STEP_S = 60.0
FAST = {"commit_interval_ms": 50, "items_interval_ms": 500, "session_timeout_ms": 3_000}

Start = Callable[[Settings], WorkerProcess]


def all_alive(*workers: WorkerProcess) -> Callable[[], None]:
    def check() -> None:
        for worker in workers:
            assert worker.alive, f"a worker ended with code {worker.exit_code}; its log ends: {worker.log[-4000:]}"

    return check


def test_flushed_under_load_and_at_rest(own_redis: Callable[[], RedisServer], namespace: Callable[..., Settings], start_worker: Start,
                                        wait_until: Callable[..., Any]) -> None:
    settings = namespace(redis_url=own_redis().url, **FAST)
    events = Events(settings, seed=2, users=150, misplaced=0.05)
    workers = [start_worker(settings), start_worker(settings)]
    state, alive = Redis(settings), all_alive(*workers)
    with AsOfWatcher(settings, events.users) as watcher:
        watcher.gaps = True
        with Load(settings, events, RATE) as load:
            for _ in range(4):
                until = load.sent + RATE
                wait_until(lambda: load.sent > until and len(state.all_under(state.keys.list_of(""))) > 100, STEP_S, "lists")
                state.client.flushall()
        check_equal(settings, alive=alive)
        state.client.flushall()  # nobody writes: they have to notice by themselves
        check_equal(settings, alive=alive)
    assert any(metric(worker, "streamrec_fence_losses_total") for worker in workers)


def test_restarted_whole_and_without_its_last_second(own_redis: Callable[[], RedisServer], namespace: Callable[..., Settings],
                                                     start_worker: Start, wait_until: Callable[..., Any]) -> None:
    server = own_redis()
    settings = namespace(redis_url=server.url, **FAST)
    events = Events(settings, seed=3, users=150, misplaced=0.05)
    workers = [start_worker(settings), start_worker(settings)]
    alive = all_alive(*workers)
    with AsOfWatcher(settings, events.users) as watcher, Load(settings, events, RATE) as load:

        def more(n: int) -> None:
            until, changed = load.sent + n, watcher.n_changed
            wait_until(lambda: load.sent > until and watcher.n_changed > changed + 50, STEP_S, "events and lists go on")

        more(RATE)
        server.stop()
        server.start()
        more(RATE)
        for seconds in (1.0, 3.0):
            kept = server.append_only_file.stat().st_size
            until = load.sent + int(seconds * RATE)
            wait_until(lambda: load.sent > until, STEP_S, "some seconds that will be lost")
            server.kill()
            assert server.append_only_file.stat().st_size > kept + 10_000, "there is something to lose"
            with server.append_only_file.open("r+b") as file:
                file.truncate(kept)
            watcher.forget()  # Redis itself shows older lists until the workers have caught up
            server.start()
            more(RATE)
        load.stop()
        check_equal(settings, alive=alive)


def test_full_and_then_larger(own_redis: Callable[[], RedisServer], namespace: Callable[..., Settings], start_worker: Start,
                              wait_until: Callable[..., Any]) -> None:
    settings = namespace(redis_url=own_redis().url, **FAST)
    events = Events(settings, seed=4, users=400)
    worker = start_worker(settings)
    state = Redis(settings)
    with AsOfWatcher(settings, events.users) as watcher, Load(settings, events, RATE) as load:
        wait_until(lambda: watcher.n_read > 500, STEP_S, "lists")
        state.client.config_set("maxmemory", "1mb")
        wait_until(lambda: says_it_waits(worker, "redis"), STEP_S, "it says that it waits for Redis")
        late = start_worker(settings)  # one that finds Redis full
        wait_until(lambda: "waiting for it" in late.log, STEP_S, "the second one says so too")
        until = load.sent + 2 * RATE
        wait_until(lambda: load.sent > until, STEP_S, "events wait")
        all_alive(worker, late)()
        state.client.config_set("maxmemory", "0")
        late.wait_ready(STEP_S)
        wait_until(lambda: not says_it_waits(worker, "redis"), STEP_S, "it goes on")
        load.stop()
        check_equal(settings, alive=all_alive(worker, late))


def test_a_redis_that_evicts_or_wants_another_password_is_refused(
        own_redis: Callable[[], RedisServer], namespace: Callable[..., Settings], start_worker: Start,
        wait_until: Callable[..., Any]) -> None:
    settings = namespace(redis_url=own_redis().url)
    evicting = namespace(redis_url=own_redis().url)
    Redis(evicting).client.config_set("maxmemory-policy", "allkeys-lru")
    Redis(settings).client.config_set("requirepass", "another")
    refused = {"maxmemory-policy allkeys-lru": start_worker(evicting),
               "Redis refused user or password": start_worker(dataclasses.replace(settings, redis_password="wrong"))}
    for said, worker in refused.items():
        wait_until(lambda worker=worker: not worker.alive, STEP_S, "it ends")
        assert worker.exit_code == 1 and said in worker.log and "Traceback" not in worker.log, worker.log
