"""The run behind `backlog` and `drain`: a worker meets waiting events; when is the last one's row in Redis, when is all done?

Watched from outside by 25 small reads in one round trip, ten times a second: of each partition the `as_of` of the user who
comes last in its log (8 bytes of his row), the checkpoint, and the item rows' checkpoint. That costs the servers less
than a thousandth of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from dataclasses import dataclass

import redis

from benchmarks._claims import BenchmarkError, Options, say
from benchmarks._events import Draw, Population
from benchmarks._preload import preload
from benchmarks._profile import profiled
from benchmarks._world import AS_OF, DRAIN_DEADLINE_S, STAGE, Worker, World, ends_of, log_ends, metrics
from infra.settings import Settings
from streams.keys import Keys

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from the moment at which the worker has its first partition."""

    started_s: float  # how long the process took to get there
    rows_s: float  # the last event of every partition is in its user's row in Redis
    items_s: float  # the item rows in Redis hold all of interactions
    drained_s: float  # every list is published, the checkpoint stands at the log's end
    cpu: dict[str, float]
    stages_s: dict[str, float]  # what the worker says of its stages, at the end; they overlap where they wait
    fsync_delays: int  # how often Redis held its writes back because the disk had not finished: the disk's figure, not ours


def options(parser: Options) -> None:
    """Sizes of the run."""
    parser.size("--events", 1_000_000, 40_000, "waiting events")
    parser.size("--users", 50_000, 5_000, "users")
    parser.size("--items", 20_000, 2_000, "items")
    parser.size("--runs", 3, 1, "runs, of which the median counts")


def prepare(world: World, args: argparse.Namespace) -> tuple[Settings, dict[int, str]]:
    """The waiting events; returns the settings and the user who comes last in each partition."""
    settings = world.settings()
    population = Population(args.seed, settings.partitions, users=args.users, items=args.items)
    draw = population.draw(args.events, run=0, all_once=True)
    seconds = preload(settings, population, draw)
    say(f"{args.events:,} events wait in Kafka ({args.events / seconds:,.0f}/s)")
    return settings, _last_users(population, draw)


def measure_runs(world: World, settings: Settings, last_users: dict[int, str], args: argparse.Namespace) -> list[Run]:
    """As many runs as asked for, each over the same log with an empty Redis."""
    ends = log_ends(settings)
    runs = []
    for number in range(args.runs):
        if number:
            world.forget(settings)
        worker = world.start_worker(settings, wait=False)
        with profiled(args.profile, worker.pid, f"backlog-{number}"):
            runs.append(asyncio.run(_watch(world, settings, worker, ends, last_users)))
        worker.stop()
        run = runs[-1]
        say(f"run {number + 1}: rows {run.rows_s:.2f} s, items {run.items_s:.2f} s, all {run.drained_s:.2f} s; cores {run.cpu}")
    return runs


def _last_users(population: Population, draw: Draw) -> dict[int, str]:
    homes = population.home[draw.users][::-1]
    found = {}
    for p in range(population.n_partitions):
        positions = (homes == p).nonzero()[0]
        if len(positions):
            found[p] = population.users[draw.users[len(draw) - 1 - positions[0]]].decode()
    return found


async def _watch(world: World, settings: Settings, worker: Worker, ends: list[int], last_users: dict[int, str]) -> Run:
    keys, launched = Keys(settings.prefix), time.perf_counter()
    rows_s = items_s = drained_s = 0.0
    async with ends_of(settings, "interactions") as interactions_ends:
        client = redis.asyncio.from_url(settings.redis_url, protocol=2)
        async with contextlib.aclosing(client):
            owners = [keys.owner(p) for p in range(settings.partitions)]
            while not await client.exists(*owners):
                _check(worker, launched)
                await asyncio.sleep(0.02)
            began = time.perf_counter()
            shares = world.cpu(worker)
            cpu: dict[str, float] = {}
            said: list[int] = []
            while not (items_s and drained_s):
                await asyncio.sleep(POLL_S)
                _check(worker, launched)
                pipeline = client.pipeline(transaction=False)
                for p, user in last_users.items():
                    pipeline.getrange(keys.user(p, user), AS_OF, AS_OF + 7)
                pipeline.mget([keys.checkpoint(p) for p in last_users])
                pipeline.mget([keys.items_checkpoint(p) for p in range(settings.partitions)])
                *as_ofs, marks, item_marks = await pipeline.execute()
                now_s = time.perf_counter() - began
                if not rows_s and all(int.from_bytes(found, "little", signed=True) >= ends[p] - 1 and found
                                      for p, found in zip(last_users, as_ofs, strict=True)):
                    rows_s = now_s
                    cpu = shares()
                    said = await interactions_ends()  # complete: a row is written after its interactions are acknowledged
                if rows_s and not items_s and all(_offset(mark) >= end for mark, end in zip(item_marks, said, strict=True) if end):
                    items_s = now_s
                if not drained_s and all(_offset(mark) >= ends[p] for p, mark in zip(last_users, marks, strict=True)):
                    drained_s = now_s
            delays = (await client.info("persistence")).get("aof_delayed_fsync", 0)
    said_now = await asyncio.to_thread(metrics, worker)
    stages_s = {match[1]: value for name, value in said_now.items() if (match := STAGE.fullmatch(name))}
    return Run(began - launched, rows_s, items_s, drained_s, cpu, stages_s, delays)


def _offset(mark: bytes | None) -> int:
    return json.loads(mark)["offset"] if mark else -1


def _check(worker: Worker, launched: float) -> None:
    worker.must_live()
    if time.perf_counter() - launched > DRAIN_DEADLINE_S:
        raise BenchmarkError(f"the log is not drained after {DRAIN_DEADLINE_S:g} s; the worker's log ends: {worker.log[-1500:]}")
