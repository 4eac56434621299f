"""The small world of a benchmark: a Kafka and a Redis of its own, topics, workers. Everything ends with it, however it ends.

In: nothing (free loopback ports, a temporary folder). Out: settings, workers, and what one may ask cheaply while it is
measured: fixed-length pieces of a few keys, never a scan.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
import redis
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks._claims import BenchmarkError, say
from infra.settings import Settings, stack_home
from infra.stack import LocalStack, WorkerProcess, free_port
from infra.topics import ensure_topics, partition_counts
from models.user_row import USER_ROW
from streams.keys import Keys

ROOT = Path(__file__).parent.parent
AS_OF: int = USER_ROW.fields["as_of"][1]  # type: ignore[index]  # where in a row's bytes the offset of its last event lies
STAGE = re.compile(r'streamrec_stage_seconds_sum\{stage="(\w+)"\}')  # on the worker's metrics page
START_DEADLINE_S, DRAIN_DEADLINE_S = 90.0, 300.0
PARTITIONS = 8  # the product's default


class World:
    """Kafka, Redis and a folder; a context manager. `workers` counts those started, for their logs' names."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="streamrec-bench-")
        self.folder = Path(self._folder.name)
        self.stack = LocalStack(self.folder / "stack", jars_home=stack_home(), die_with_parent=True)
        self._numbers = itertools.count(1)
        self._workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        try:
            say("Kafka and Redis start")
            # what set-up does: kernels are compiled, so that no figure holds a compiler
            subprocess.run([sys.executable, "-m", "streams.warm"], cwd=ROOT, check=True)
            self.stack.start()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        for worker in self._workers:
            if worker.alive:
                worker.kill()
        with contextlib.suppress(Exception):  # the folder must go, whatever a server meets while it ends
            self.stack.stop()
        self._folder.cleanup()

    def settings(self, **overrides: Any) -> Settings:
        """Settings of a fresh system in this world, its topics created; the product's defaults but for the names."""
        settings = self.stack.settings(**{"prefix": f"b{next(self._numbers)}.", "partitions": PARTITIONS, **overrides})
        asyncio.run(ensure_topics(settings))
        return settings

    def client(self, settings: Settings) -> redis.Redis:
        """A blocking client of the Redis at hand."""
        client: redis.Redis = redis.from_url(settings.redis_url, **settings.redis_client_args())
        return client

    def start_worker(self, settings: Settings, *, wait: bool = True) -> Worker:
        """A worker; `wait`: until it is ready and all partitions are assigned."""
        worker = Worker(settings, self.folder / f"worker{next(self._numbers)}.log")
        self._workers.append(worker)
        if wait:
            worker.wait_ready()
        return worker

    def forget(self, settings: Settings) -> None:
        """Back to a system that has its events and nothing else: Redis is emptied, `interactions` made anew."""
        with self.client(settings) as client:
            client.flushall()
        asyncio.run(_recreate(settings, settings.topic("interactions")))

    def cpu(self, worker: WorkerProcess | None = None) -> Callable[[], dict[str, float]]:
        """Call it now and what it returns later: share of a core that each process took in between."""
        pids = {"Kafka": self.stack.kafka.pid, "Redis": self.stack.redis.pid, "worker": worker.pid if worker else None}
        processes = {name: psutil.Process(pid) for name, pid in pids.items() if pid}
        before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
        started = time.perf_counter()

        def shares() -> dict[str, float]:
            seconds = time.perf_counter() - started
            return {name: (sum(process.cpu_times()[:2]) - before[name]) / seconds for name, process in processes.items()}

        return shares


class Worker(WorkerProcess):
    """A worker whose pages are at a known port, so that asking it costs no scan."""

    def __init__(self, settings: Settings, log_file: Path) -> None:
        self.port = free_port()
        super().__init__(Settings.load({}, **_values(settings) | {"web_port": self.port, "log_level": "INFO"}), log_file=log_file)

    def page(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages; 0 while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5.0)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def ready(self) -> bool:
        """What a load balancer would hear."""
        self.must_live()
        return self.page("/health/ready")[0] == 200

    def partitions(self) -> list[int]:
        """Partitions of events that are its own."""
        status, body = self.page("/health/ready")
        return list(json.loads(body)["partitions"]) if status else []

    def must_live(self) -> None:
        """Raises, with the end of its log, where it has ended."""
        if not self.alive:
            raise BenchmarkError(f"the worker ended with code {self.exit_code}; its log ends: {self.log[-1500:]}")

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> dict[str, Any]:
        """Until it is ready and every partition has an owner."""
        wait_until(self.ready, deadline_s, "the worker is ready")
        wait_until(lambda: len(self.partitions()) == self.settings.partitions, deadline_s, "the worker has all partitions")
        return {}


def wait_until(condition: Callable[[], Any], deadline_s: float, what: str, pause_s: float = 0.05) -> Any:
    """The first truthy value of condition(); BenchmarkError, saying what, at the deadline."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what}: not within {deadline_s:g} s")
        time.sleep(pause_s)
    return value


def log_ends(settings: Settings, topic: str = "events") -> list[int]:
    """End of each partition's log."""
    async def ask() -> list[int]:
        async with ends_of(settings, topic) as ends:
            return list(await ends())

    return asyncio.run(ask())


@contextlib.asynccontextmanager
async def ends_of(settings: Settings, topic: str) -> Any:
    """A coroutine function that asks for the ends of a topic's partitions; connects once."""
    consumer = AIOKafkaConsumer(**settings.kafka_client_args(), enable_auto_commit=False)
    await consumer.start()
    tps = [TopicPartition(settings.topic(topic), p) for p in range(settings.partitions)]

    async def ends() -> list[int]:
        found = await consumer.end_offsets(tps)
        return [found[tp] for tp in tps]

    try:
        yield ends
    finally:
        await consumer.stop()


def checkpoints(client: redis.Redis, settings: Settings, *, items: bool = False) -> list[int]:
    """The low-water mark of each partition of events, or how far item rows hold `interactions`; -1 where there is none."""
    keys = Keys(settings.prefix)
    names = [keys.items_checkpoint(p) if items else keys.checkpoint(p) for p in range(settings.partitions)]
    return [json.loads(value)["offset"] if value else -1 for value in client.mget(names)]


def wait_drained(client: redis.Redis, settings: Settings, worker: Worker, deadline_s: float = DRAIN_DEADLINE_S) -> None:
    """Until every list is published and the checkpoints, those of the items too, stand at the logs' ends."""
    def drained() -> bool:
        worker.must_live()
        if checkpoints(client, settings) != log_ends(settings):
            return False
        found, ends = checkpoints(client, settings, items=True), log_ends(settings, "interactions")
        return all(max(0, offset) == end for offset, end in zip(found, ends, strict=True))

    wait_until(drained, deadline_s, "the log is drained", pause_s=0.25)


def metrics(worker: Worker) -> dict[str, float]:
    """Samples of its metrics page by name and labels, as Prometheus reads them."""
    lines = worker.page("/metrics")[1].splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line and line[0] != "#")}


def _values(settings: Settings) -> dict[str, Any]:
    return {name.removeprefix("STREAMREC_").lower(): value for name, value in settings.environment().items()}


async def _recreate(settings: Settings, topic: str) -> None:
    admin = AIOKafkaAdminClient(**settings.kafka_client_args())
    await admin.start()
    try:
        await admin.delete_topics([topic])
        while await partition_counts(admin, [topic]):
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
    await ensure_topics(settings)


def run_and_read(module: str, *args: str, deadline_s: float = DRAIN_DEADLINE_S) -> dict[str, Any]:
    """Run a module of this folder in a process of its own and read the JSON object that it prints last."""
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *args], cwd=ROOT, capture_output=True, text=True,
                          timeout=deadline_s)
    if done.returncode:
        raise BenchmarkError(f"benchmarks.{module} ended with code {done.returncode}: {done.stderr.strip()[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
