"""Claim `lists`: fresh top-100 lists a second when every user is dirty.

A live worker, its real Redis and fence: it is paused (SIGSTOP, shorter than its session) while one event of every user is
put into Kafka, and let go. Counted is the slope of the worker's own counter of published lists, from the moment at which it
has absorbed all events to the last look before the last list; the row writes of those events go on at the same time, as
they do in life. The checkpoints prove at the end that every user's list is there. The median of several rounds.
"""

from __future__ import annotations

import argparse
import sys
import time

import redis

from benchmarks._claims import BenchmarkError, Claim, Figure, Options, main, median, say
from benchmarks._events import Population
from benchmarks._live import begin, sizes
from benchmarks._preload import preload
from benchmarks._profile import profiled
from benchmarks._world import PARTITIONS, Worker, World, metrics, wait_drained
from infra.settings import Settings

CLAIMS = (Claim(name="lists", unit="lists/s", at_least=4_500, what="fresh top-100 lists/s when every user is dirty, all channels and the learned fusion on"),)
LOOK_S = 0.2
LISTS, EVENTS = "streamrec_lists_published_total", "streamrec_events_absorbed_total"
STAGE = 'streamrec_stage_seconds_sum{stage="%s"}'
DEADLINE_S = 120.0


def options(parser: Options) -> None:
    """Sizes and rounds."""
    sizes(parser)
    parser.size("--runs", 5, 1, "rounds, of which the median counts")


def measure(args: argparse.Namespace) -> list[Figure]:
    """The rounds."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    with World() as world:
        settings, worker = begin(world, population, args.history)
        with world.client(settings) as client, profiled(args.profile, worker.pid, "lists"):
            rounds = [_round(settings, worker, population, run, client) for run in range(1, args.runs + 1)]
        with world.client(settings) as client:
            longest = client.strlen(settings.key("rec:" + population.users[0].decode()))
    return [Figure(CLAIMS[0], median([rate for rate, _, _ in rounds]), {
        "rounds": [rate for rate, _, _ in rounds], "lists_counted_a_round": [n for _, n, _ in rounds],
        "computing_alone_lists_per_s": median([alone for _, _, alone in rounds]), "bytes_of_a_list": longest})]


def _round(settings: Settings, worker: Worker, population: Population, run: int, client: redis.Redis) -> tuple[float, int, float]:
    """(lists/s, lists counted, lists/s of the refresh stage alone)."""
    draw = population.each_user_once(run)
    before = metrics(worker)
    worker.pause()
    try:
        preload(settings, population, draw, days=0.0)
    finally:
        worker.resume()
    looks: list[tuple[float, float, float]] = []
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found, now_s = metrics(worker), time.perf_counter()
        worker.must_live()
        done = found.get(LISTS, 0.0) - before[LISTS]
        if found.get(EVENTS, 0.0) - before[EVENTS] >= len(draw):
            looks.append((now_s, done, found[STAGE % "refresh"]))
        if done >= len(draw):
            break
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{done:,.0f} of {len(draw):,} lists are published after {DEADLINE_S:g} s")
        time.sleep(LOOK_S)
    wait_drained(client, settings, worker)
    if len(looks) < 2:
        raise BenchmarkError("all lists came between two looks; give it more users")
    inner = looks[:-1] if len(looks) > 2 else looks  # the last look is later than the last list
    (from_s, first, began), (to_s, last, ended) = inner[0], inner[-1]
    say(f"round {run}: {(last - first) / (to_s - from_s):,.0f} lists/s over {last - first:,.0f} lists")
    return (last - first) / (to_s - from_s), int(last - first), (last - first) / max(ended - began, 1e-9)


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
