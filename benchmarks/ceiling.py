"""Claim `ceiling`: the highest rate at which p99 from produce to list readable in Redis stays within 100 ms.

Rates double until one is too high, then the gap is halved a few times. A rate holds when the p99 of its stream does, and when
the generator itself kept to the schedule; where the generator is the one that cannot, the figure is said to be its own.
Between two rates the system comes to rest.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks._claims import Claim, Figure, Options, main
from benchmarks._events import Population
from benchmarks._live import Outcome, begin, sizes, stream
from benchmarks._profile import profiled
from benchmarks._world import PARTITIONS, World, wait_drained

CLAIMS = (Claim(name="ceiling", unit="events/s", at_least=5_000, what="the highest rate at which p99 <= 100 ms holds"),)
LIMIT_MS = 100.0
BUSY_GENERATOR = 0.8  # share of a core from which on the generator is what is measured


def options(parser: Options) -> None:
    """Sizes, the first rate, times."""
    sizes(parser)
    parser.size("--first", 2_500.0, 1_000.0, "events/s to begin with")
    parser.size("--most", 80_000.0, 2_000.0, "events/s beyond which nothing is tried")
    parser.size("--halvings", 3, 1, "how often the gap between the highest that held and the lowest that did not is halved")
    parser.size("--seconds", 10.0, 3.0, "of each stream, after its warm-up")


def measure(args: argparse.Namespace) -> list[Figure]:
    """The search."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    tried: list[Outcome] = []
    with World() as world:
        settings, worker = begin(world, population, args.history)
        with world.client(settings) as client, profiled(args.profile, worker.pid, "ceiling"):
            def holds(rate: float) -> bool:
                tried.append(stream(world, settings, worker, population, rate=rate, seconds=args.seconds, run=1 + len(tried)))
                wait_drained(client, settings, worker)
                return tried[-1].p99_ms <= LIMIT_MS

            low, high = 0.0, args.first
            while high <= args.most and holds(high):
                low, high = high, 2 * high
            for _ in range(args.halvings if high <= args.most else 0):
                middle = (low + high) / 2
                low, high = (middle, high) if holds(middle) else (low, middle)
    best = next((one for one in tried if one.rate == low), None)
    tried.sort(key=lambda one: one.rate)
    return [Figure(CLAIMS[0], low, {
        "rates": {f"{one.rate:,.0f}/s": {"p50_ms": one.p50_ms, "p99_ms": one.p99_ms} for one in tried},
        "cores_used_at_it": best.cores if best else {}, "generator_cores_at_it": best.generator_cores if best else 0.0,
        "bounded_by_the_generator": any(one.generator_cores > BUSY_GENERATOR for one in tried)})]


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
