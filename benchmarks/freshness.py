"""Claims `freshness` and `freshness p50`: from produce to the list readable in Redis, at a steady 2,000 events/s.

Open loop: events are sent on a fixed schedule and count from the moment they were due; of a sample of them the list is asked
for every half millisecond until its `as_of` has reached the event. Warm-up apart. Beside it: the same at 500 events/s, and
what the worker says of itself.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks._claims import Claim, Figure, Options, main
from benchmarks._events import Population
from benchmarks._live import begin, sizes, stream
from benchmarks._profile import profiled
from benchmarks._world import PARTITIONS, World

CLAIMS = (Claim(name="freshness", unit="ms", at_most=50, what="produce to list readable in Redis, steady 2,000 events/s: p99"),
          Claim(name="freshness p50", unit="ms", at_most=10, what="the same, p50"))


def options(parser: Options) -> None:
    """Sizes, rates and times."""
    sizes(parser)
    parser.size("--rate", 2_000.0, 1_000.0, "events/s")
    parser.size("--beside-rate", 500.0, 200.0, "events/s of the stream beside")
    parser.size("--seconds", 30.0, 5.0, "of each stream, after its warm-up")
    parser.size("--warm-up", 5.0, 1.0, "seconds of warm-up")


def measure(args: argparse.Namespace) -> list[Figure]:
    """Both streams, the slow one first."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    with World() as world:
        settings, worker = begin(world, population, args.history)
        times = {"seconds": args.seconds, "warm_s": args.warm_up}
        slow = stream(world, settings, worker, population, rate=args.beside_rate, run=1, **times)
        with profiled(args.profile, worker.pid, "freshness"):
            steady = stream(world, settings, worker, population, rate=args.rate, run=2, **times)
    beside = {**steady.beside(), f"at_{args.beside_rate:g}_events_per_s": slow.beside()}
    return [Figure(CLAIMS[0], steady.p99_ms, beside),
            Figure(CLAIMS[1], steady.p50_ms, {f"at_{args.beside_rate:g}_events_per_s": slow.p50_ms})]


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
