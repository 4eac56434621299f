"""Claim `releases`: freshness while releases of the trained model are swapped, against its usual; and lists with all channels on.

A worker that serves a release; a stream of 1,000 events/s, seen from outside as in `freshness`; then the same stream again while another
release is announced every few seconds, each loaded, verified and swapped in beside it. The figure is the ratio of the two p99. Then
lists are counted as in `lists`, with the release served.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks._claims import BenchmarkError, Claim, Figure, Options, main, median, say
from benchmarks._events import Population
from benchmarks._live import begin, sizes, stream
from benchmarks._profile import profiled
from benchmarks._releases import release_for
from benchmarks._world import PARTITIONS, Worker, World, metrics
from benchmarks.lists import _round
from infra.settings import Settings
from models.release import Release, write
from streams.announcements import announce

CLAIMS = (
    Claim(name="releases", unit="x", at_most=2.0, what="freshness p99 while releases are swapped, in parts of its usual, 1,000 events/s"),
    Claim(name="releases freshness", unit="ms", at_most=100, what="freshness p99 with a release served, all channels on, 1,000 events/s"),
    Claim(name="releases lists", unit="lists/s", at_least=2_000, what="fresh top-100 lists/s when every user is dirty, all channels on, a release served"),
)
SWAPS = "streamrec_release_swaps_total"
DEADLINE_S = 60.0


def options(parser: Options) -> None:
    """Sizes, rates and times."""
    sizes(parser)
    parser.size("--rate", 1_000.0, 500.0, "events/s")
    parser.size("--seconds", 30.0, 6.0, "of each stream, after its warm-up")
    parser.size("--warm-up", 5.0, 1.0, "seconds of warm-up")
    parser.size("--every", 3.0, 2.0, "seconds from one announcement to the next")
    parser.size("--runs", 3, 1, "rounds of lists, of which the median counts")


def measure(args: argparse.Namespace) -> list[Figure]:
    """The stream at rest, the stream with swaps, and lists."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    release = release_for([item.decode() for item in population.items], args.seed)
    with World() as world, tempfile.TemporaryDirectory() as folder:
        settings, worker = begin(world, population, args.history)
        _serve(settings, worker, folder, release)
        times = {"seconds": args.seconds, "warm_s": args.warm_up, "rate": args.rate}
        usual = stream(world, settings, worker, population, run=1, **times)
        before = metrics(worker)[SWAPS]
        with _swapping(settings, folder, release, args.every), profiled(args.profile, worker.pid, "releases"):
            swapped = stream(world, settings, worker, population, run=2, **times)
        n_swaps = int(metrics(worker)[SWAPS] - before)
        if not n_swaps:
            raise BenchmarkError(f"no release was swapped within {args.seconds:g} s")
        with world.client(settings) as client:
            rounds = [_round(settings, worker, population, run, client) for run in range(3, 3 + args.runs)]
    return [
        Figure(CLAIMS[0], swapped.p99_ms / usual.p99_ms, {"swaps": n_swaps, "usual": usual.beside(), "with_swaps": swapped.beside()}),
        Figure(CLAIMS[1], usual.p99_ms, {"p50_ms": usual.p50_ms, "with_swaps_p50_ms": swapped.p50_ms, "with_swaps_p99_ms": swapped.p99_ms}),
        Figure(CLAIMS[2], median([rate for rate, _, _ in rounds]), {"rounds": [rate for rate, _, _ in rounds]}),
    ]


def _serve(settings: Settings, worker: Worker, folder: str, release: Release) -> None:
    """Have a release served."""
    asyncio.run(announce(settings, folder, write(folder, release)))
    deadline = time.monotonic() + DEADLINE_S
    while not metrics(worker).get(SWAPS):
        worker.must_live()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the release is not served after {DEADLINE_S:g} s")
        time.sleep(0.1)


@contextmanager
def _swapping(settings: Settings, folder: str, release: Release, every_s: float) -> Iterator[None]:
    """While entered, another release is announced every so often."""
    end = threading.Event()

    def announce_all() -> None:
        while not end.wait(every_s):
            version = write(folder, release)
            asyncio.run(announce(settings, folder, version))
            say(f"announced {version}")

    thread = threading.Thread(target=announce_all, name="announcements")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
