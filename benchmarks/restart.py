"""Claim `restart`: a cleanly stopped worker is ready again, 100,000 users and 20,000 items in Redis.

The clock runs from the start of the process until /health/ready says so *and* the list of an event that waited for it is in
Redis: a worker that calls itself ready but reads nothing yet is not. The median of several restarts. Beside it: both parts, and
what the interpreter alone takes to import the worker.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import redis

from benchmarks._claims import BenchmarkError, Claim, Figure, Options, main, median, say
from benchmarks._events import Draw, Population
from benchmarks._live import begin
from benchmarks._preload import preload
from benchmarks._wire import TAIL_BYTES, offset_in
from benchmarks._world import PARTITIONS, ROOT, START_DEADLINE_S, World, checkpoints, log_ends
from infra.settings import Settings
from streams.keys import Keys

CLAIMS = (Claim(name="restart", unit="s", at_most=4,
                what="a cleanly stopped worker is ready again, 100,000 users and 20,000 items in Redis"),)
LOOK_S = 0.01


def options(parser: Options) -> None:
    """Sizes and rounds."""
    parser.size("--users", 100_000, 5_000, "users, each with a row and a list")
    parser.size("--items", 20_000, 2_000, "items, each with a row")
    parser.size("--history", 300_000, 20_000, "events that made them")
    parser.size("--runs", 5, 1, "restarts, of which the median counts")


def measure(args: argparse.Namespace) -> list[Figure]:
    """The restarts."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    with World() as world:
        settings, worker = begin(world, population, args.history)
        if code := worker.stop():
            raise BenchmarkError(f"the worker ended with code {code}, expected a clean stop; its log ends: {worker.log[-800:]}")
        with world.client(settings) as client:
            counts = _counts(client, settings)
            rounds = [_restart(world, settings, client, population, run) for run in range(1, args.runs + 1)]
    return [Figure(CLAIMS[0], median([max(round_) for round_ in rounds]), {
        "runs": [max(round_) for round_ in rounds], "ready_s": median([ready for ready, _ in rounds]),
        "waiting_event_fresh_s": median([fresh for _, fresh in rounds]), "imports_alone_s": _imports_s(), **counts})]


def _restart(world: World, settings: Settings, client: redis.Redis, population: Population, run: int) -> tuple[float, float]:
    """(s to ready, s to the fresh list), both from the start of the process."""
    if checkpoints(client, settings) != log_ends(settings):
        raise BenchmarkError("something still waits in the log; expected all of it taken in before the restart")
    one = population.draw(1, run)
    preload(settings, population, one, days=0.0)
    home, key = int(population.home[one.users[0]]), settings.key("rec:" + _name(population, one))
    offset = log_ends(settings)[home] - 1
    began = time.perf_counter()
    worker = world.start_worker(settings, wait=False)
    ready_s = fresh_s = 0.0
    while not (ready_s and fresh_s):
        time.sleep(LOOK_S)
        now_s = time.perf_counter() - began
        ready_s = ready_s or (now_s if worker.ready() else 0.0)
        fresh_s = fresh_s or (now_s if offset_in(client.getrange(key, -TAIL_BYTES, -1)) >= offset else 0.0)
        if now_s > START_DEADLINE_S:
            raise BenchmarkError(f"the worker is not back after {START_DEADLINE_S:g} s; its log ends: {worker.log[-1500:]}")
    say(f"restart {run}: ready after {ready_s:.2f} s, the waiting event's list after {fresh_s:.2f} s")
    worker.stop()
    return ready_s, fresh_s


def _name(population: Population, draw: Draw) -> str:
    return bytes(population.users[draw.users[0]]).decode()


def _counts(client: redis.Redis, settings: Settings) -> dict[str, int]:
    keys = Keys(settings.prefix)
    items = sum(client.hlen(keys.items(p)) for p in range(settings.partitions))
    return {"item_rows_in_Redis": items, "keys_in_Redis": client.dbsize()}


def _imports_s() -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import streams.worker"], cwd=ROOT, check=True)
        times.append(time.perf_counter() - began)
    return median(times)


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
