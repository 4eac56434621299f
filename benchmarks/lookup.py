"""Claim `lookup`: lists read over 8 closed-loop connections by a native load generator while 2,000 events/s stream in: p99.

The generator is `redis-benchmark` (apt install redis-tools), which reads random users' lists as fast as it gets them. Beside it:
the same on an idle system, and how fresh lists stay while so much is read. Medians of several rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks._claims import Claim, Figure, Options, main, median, say
from benchmarks._events import Population
from benchmarks._live import Streaming, begin, sizes
from benchmarks._lookups import DIGITS, Lookups, generator
from benchmarks._profile import profiled
from benchmarks._world import PARTITIONS, World

CLAIMS = (Claim(name="lookup", unit="ms", at_most=5,
                what="lists read over 8 closed-loop connections by a native load generator while 2,000 events/s stream in: p99"),)
LONGEST_S = 300.0  # the stream is ended with the last round


def options(parser: Options) -> None:
    """Sizes, rate, rounds."""
    sizes(parser)
    parser.size("--rate", 2_000.0, 1_000.0, "events/s that stream in")
    parser.size("--calls", 300_000, 20_000, "lists read a round")
    parser.size("--runs", 3, 1, "rounds, of which the median counts")
    parser.size("--warm-up", 5.0, 1.0, "seconds of streaming before the first round")


def measure(args: argparse.Namespace) -> list[Figure]:
    """Rounds at rest, then rounds under the stream."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items, digits=DIGITS)
    name, read = generator()
    with World() as world:
        settings, worker = begin(world, population, args.history)
        idle = [read(settings, args.users, args.calls) for _ in range(args.runs)]
        say(f"idle: {idle}")
        with Streaming(settings, population, rate=args.rate, seconds=LONGEST_S, run=1, digits=DIGITS,
                       warm_s=args.warm_up) as streaming:
            streaming.go()
            time.sleep(args.warm_up)
            with profiled(args.profile, worker.pid, "lookup"):
                busy = [read(settings, args.users, args.calls) for _ in range(args.runs)]
            outcome = streaming.finish()
        say(f"under {args.rate:g} events/s: {busy}")
    return [Figure(CLAIMS[0], median([one.p99_ms for one in busy]), {
        **_summary(busy), "idle_system": _summary(idle), "load_generator": name,
        "freshness_meanwhile": {"p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms}})]


def _summary(rounds: list[Lookups]) -> dict[str, Any]:
    return {"lists_per_s": median([one.per_s for one in rounds]), "p50_ms": median([one.p50_ms for one in rounds]),
            "p99_ms": median([one.p99_ms for one in rounds]), "worst_ms": max(one.worst_ms for one in rounds)}


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
