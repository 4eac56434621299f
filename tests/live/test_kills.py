"""Workers die, come, go and freeze while events stream in; what remains is what the engine makes of the same log.

The seed of each run is printed; TEST_SEED in the environment plays one again (moments still differ, the order of actions does not).
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from infra.settings import Settings
from infra.stack import WorkerProcess
from tests.live.equality import AsOfWatcher, Redis, check_equal
from tests.live.load import Events, Load

KILLS = 22
RATE = 700
SESSION_MS = 2_000  # a kill is noticed after this; shorter costs a busy machine its partitions
STEP_S = 60.0  # a worker starts, or a group settles, on two busy cores
FAST = {"session_timeout_ms": SESSION_MS, "commit_interval_ms": 20, "items_interval_ms": 300}


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("TEST_SEED", 0)) or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


class Workers:
    """Workers of one system; those that end without being told to fail the test."""

    def __init__(self, settings: Settings, start: Callable[[Settings], WorkerProcess]) -> None:
        self._settings, self._start = settings, start
        self.running: list[WorkerProcess] = []

    def add(self) -> WorkerProcess:
        self.running.append(self._start(self._settings))
        return self.running[-1]

    def kill(self, worker: WorkerProcess) -> None:
        self.check()
        self.running.remove(worker)
        worker.kill()

    def stop(self, worker: WorkerProcess) -> None:
        self.check()
        self.running.remove(worker)
        code = worker.stop()
        early = code == -signal.SIGTERM and not worker.log  # told before it could listen: it had not begun
        assert code == 0 or early, f"a worker that was told to stop ended with {code} and said: {worker.log[-3000:]}"

    def owners(self) -> list[WorkerProcess]:
        """Those that own partitions, by what they said last of it."""
        said = [(worker, [line for line in worker.log.splitlines() if "streams.ownership" in line][-1:]) for worker in self.running]
        return [worker for worker, last in said if last and "are ours, from" in last[0]]

    def check(self) -> None:
        """Nobody has ended that was not told to."""
        for worker in self.running:
            assert worker.alive, f"a worker ended with code {worker.exit_code}; its log ends: {worker.log[-4000:]}"


def test_random_kills_under_load(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                 wait_until: Callable[..., Any], chance: random.Random) -> None:
    settings = namespace(**FAST)
    events = Events(settings, seed=chance.randrange(10**6), users=150, misplaced=0.05)
    workers = Workers(settings, start_worker)
    workers.add()
    n_kills = n_owners = 0
    with Load(settings, events, RATE) as load, AsOfWatcher(settings, events.users) as watcher:
        workers.add()
        wait_until(lambda: watcher.n_read, STEP_S, "the first lists")
        while n_kills < KILLS:
            # most kills hit a worker in the middle of its work, some one that starts, joins or waits
            settled = chance.random() < 0.7
            wait_until(lambda: not settled or workers.owners(), STEP_S, "some worker owns partitions")
            until = load.sent + chance.randrange(RATE)
            wait_until(lambda: load.sent >= until, STEP_S, "events go on")
            owners, action = workers.owners(), chance.random()
            victims = owners or workers.running
            n_owners += bool(owners)
            if action < 0.8:
                workers.kill(chance.choice(victims))
                n_kills += 1
            elif action < 0.9:
                for worker in list(workers.running):
                    workers.kill(worker)
                    n_kills += 1
            else:
                workers.stop(chance.choice(victims))
            while len(workers.running) < chance.choice([2, 3]):
                workers.add()
        load.stop()
        check_equal(settings, alive=workers.check)
    print(f"{n_kills} kills, {n_owners} times of an owner, {load.sent} events, {watcher.n_read} lists read")


def test_a_worker_that_froze_writes_nothing(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                            wait_until: Callable[..., Any], chance: random.Random) -> None:
    settings = namespace(**FAST)
    events = Events(settings, seed=chance.randrange(10**6), users=150)
    state, workers = Redis(settings), Workers(settings, start_worker)
    with Load(settings, events, RATE) as load, AsOfWatcher(settings, events.users):
        frozen, other = workers.add(), workers.add()
        for worker in (frozen, other):
            worker.wait_ready(STEP_S)
        wait_until(lambda: (frozen.state() or {}).get("partitions") and (other.state() or {}).get("partitions"), STEP_S, "both have some")
        for _ in range(2):  # the second time the other one may be in the middle of anything
            mine = (frozen.state() or {})["partitions"]
            tokens = state.owners()
            frozen.pause()
            wait_until(lambda: all(state.owners()[p] != tokens[p] for p in mine), STEP_S, "its partitions have another owner")
            until = load.sent + RATE
            wait_until(lambda: load.sent > until, STEP_S, "the new owner goes on")
            with Monitor(settings, frozen.pid) as monitor:
                frozen.resume()
                wait_until(monitor.takes_again, STEP_S, "it takes part again")
            rows = monitor.rows_before_takeover()
            assert not rows, f"a worker that had lost its partitions wrote {len(rows)} rows: {rows[:3]}"
            wait_until(lambda: (frozen.state() or {}).get("partitions"), STEP_S, "it has partitions again")
        load.stop()
        assert "lost their fence (another worker has them)" in frozen.log
        check_equal(settings, alive=workers.check)


class Monitor:
    """What Redis executes of one process, by MONITOR: queued commands show when their transaction is executed."""

    ROW = re.compile(r"(SET|HSET|DEL) \S*(g1:\{\d+\}:(u:|items|checkpoint|shown)|rec:|similar:)")
    TAKES = re.compile(r"SET \S*owner [0-9a-f]{32}:0$")

    def __init__(self, settings: Settings, pid: int) -> None:
        self._client = Redis(settings).client
        self._process = psutil.Process(pid)
        self._ports: set[int] = set()
        self._commands: list[tuple[int, str]] = []
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Monitor:
        self._note_ports()
        self._thread.start()
        assert self._ready.wait(STEP_S)
        return self

    def __exit__(self, *failure: object) -> None:
        self._note_ports()
        self._stop.set()
        self._client.ping()  # so that the thread sees a command and ends
        self._thread.join()

    def _note_ports(self) -> None:
        self._ports |= {c.laddr.port for c in self._process.net_connections("tcp")}

    def _read(self) -> None:
        with self._client.monitor() as monitor:
            self._ready.set()
            while not self._stop.is_set():
                found = monitor.next_command()
                self._commands.append((int(found["client_port"] or 0), found["command"]))

    def _ours(self) -> list[str]:
        return [command for port, command in self._commands if port in self._ports]

    def takes_again(self) -> bool:
        """Whether the process has become an owner."""
        self._note_ports()
        return any(self.TAKES.search(command) for command in self._ours())

    def rows_before_takeover(self) -> list[str]:
        """Commands that write rows, checkpoints or lists before that."""
        ours = self._ours()
        first = next(i for i, command in enumerate(ours) if self.TAKES.search(command))
        return [command[:200] for command in ours[:first] if self.ROW.match(command)]
