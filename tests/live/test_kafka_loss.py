"""The broker restarts, and both servers are gone for 20 s; workers say so, go on by themselves, and nothing differs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from infra.settings import Settings
from infra.stack import LocalStack, WorkerProcess
from tests.live.equality import AsOfWatcher, check_equal
from tests.live.load import Events, Load
from tests.live.pages import health, says_it_waits

RATE = 400
STEP_S = 90.0  # a broker starts in 5 s, clients find it again after some more
GONE_S = 20.0  # what the issue asks for
FAST = {"commit_interval_ms": 50, "items_interval_ms": 500, "session_timeout_ms": 3_000}


def test_broker_restarted_then_both_servers_gone(own_stack: Callable[[], LocalStack], namespace: Callable[..., Settings],
                                                 start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    stack = own_stack()
    settings = namespace(stack, **FAST)
    events = Events(settings, seed=5, users=150, misplaced=0.05)
    workers = [start_worker(settings), start_worker(settings)]

    def alive() -> None:
        for worker in workers:
            assert worker.alive, f"a worker ended with code {worker.exit_code}; its log ends: {worker.log[-4000:]}"

    def gone(server: str, since: float) -> None:
        """Until the server has been gone for long enough, every worker says so and stays."""
        wait_until(lambda: all(says_it_waits(worker, server) for worker in workers), STEP_S, f"workers say that they wait for {server}")
        wait_until(lambda: time.monotonic() - since > GONE_S, STEP_S, "20 s")
        alive()
        assert all(says_it_waits(worker, server) for worker in workers), "they still say so"

    with AsOfWatcher(settings, events.users) as watcher, Load(settings, events, RATE) as load:

        def more() -> None:
            """Events are accepted and lists change."""
            until, changed = load.sent + RATE // 2, watcher.n_changed
            wait_until(lambda: load.sent > until and watcher.n_changed > changed + 50, STEP_S, "events and lists go on")
            alive()

        more()
        stack.kafka.stop()
        stack.kafka.start()
        more()
        redis_gone = time.monotonic()
        stack.redis.stop()
        wait_until(lambda: time.monotonic() - redis_gone > GONE_S / 2, STEP_S, "Redis is gone for 10 s")
        kafka_gone = time.monotonic()
        stack.kafka.kill()
        gone("redis", redis_gone)
        stack.redis.start()
        gone("kafka", kafka_gone)
        assert not any("redis" in health(worker)["waiting_for"] for worker in workers), "Redis is back"
        stack.kafka.start()
        more()
        wait_until(lambda: not any(health(worker)["waiting_for"] for worker in workers), STEP_S, "nobody waits any more")
        load.stop()
        check_equal(settings, alive=alive)
