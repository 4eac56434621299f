"""Claims `replay` and `replay beside`: the log once more into a shadow, while nothing else happens, and beside live traffic.

First a live worker takes the log in and is at rest; then `streamrec replay` reads it again. The clock starts when the shadow has its first
owner (processes have started before) and stops when its checkpoints stand at the end, so that every list is published. Then a stream of
2,000 events/s is seen from outside as in `freshness`, alone, and again while another replay of the same log is under way; the
figure is the ratio of the two p99, and the rate that is left to the replay stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import redis

from benchmarks._claims import BenchmarkError, Claim, Figure, Options, main, say
from benchmarks._events import Population
from benchmarks._live import begin, sizes, stream
from benchmarks._world import PARTITIONS, ROOT, World, wait_until
from infra.settings import Settings
from infra.stack.process import die_with_parent
from streams.keys import Keys

CLAIMS = (
    Claim(name="replay", unit="events/s", at_least=100_000, what="the log once more into a shadow, live at rest, until its last list is published"),
    Claim(name="replay beside", unit="x", at_most=2.0, what="freshness p99 at 2,000 events/s while a replay is under way, in parts of its usual"),
)
DEADLINE_S = 600.0


def options(parser: Options) -> None:
    """Sizes, rates and times."""
    sizes(parser)
    parser.size("--rate", 2_000.0, 500.0, "events/s of the stream")
    parser.size("--seconds", 30.0, 5.0, "of each stream, after its warm-up")
    parser.size("--warm-up", 5.0, 1.0, "seconds of warm-up")
    parser.size("--workers", 1, 1, "processes of the replay")


def measure(args: argparse.Namespace) -> list[Figure]:
    """The replay alone, the stream alone, both."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    with World() as world:
        settings, worker = begin(world, population, args.history)
        with world.client(settings) as client:
            with _replay(world, settings, "alone", args.workers) as process:
                keys = Keys(settings.prefix, "alone")
                wait_until(lambda: client.exists(*(keys.owner(p) for p in range(PARTITIONS))) or process.poll() is not None, DEADLINE_S, "the replay begins", 0.01)
                began, cores = time.perf_counter(), world.cpu()
                cpu_s = [_cpu_s(process)]
                while _position(client, keys) < args.history and process.poll() is None:
                    cpu_s[1:] = [_cpu_s(process)]
                    time.sleep(0.05)
                took_s, used = time.perf_counter() - began, cores()
                _ended(process)
            say(f"replay: {args.history / took_s:,.0f} events/s")
            times = {"seconds": args.seconds, "warm_s": args.warm_up, "rate": args.rate}
            usual = stream(world, settings, worker, population, run=1, **times)
            with _replay(world, settings, "beside", args.workers) as process:
                keys = Keys(settings.prefix, "beside")
                wait_until(lambda: client.exists(*(keys.owner(p) for p in range(PARTITIONS))), DEADLINE_S, "the replay begins")
                before, began = _position(client, keys), time.perf_counter()
                beside = stream(world, settings, worker, population, run=2, **times)
                left = (_position(client, keys) - before) / (time.perf_counter() - began)
                whole = process.poll() is not None
    return [
        Figure(CLAIMS[0], args.history / took_s, {
            "events_a_second_of_the_workers_processor_time": args.history / max(1e-9, cpu_s[-1] - cpu_s[0]), "cores_used": used, "workers": args.workers}),
        Figure(CLAIMS[1], beside.p99_ms / usual.p99_ms, {"left_to_the_replay_events_per_s": left, "replay_was_whole_before_the_end": whole,
                                                        "usual": usual.beside(), "beside": beside.beside()}),
    ]


@contextlib.contextmanager
def _replay(world: World, settings: Settings, name: str, n_workers: int) -> Iterator[subprocess.Popen[bytes]]:
    """The command under way, ended whatever happens."""
    inherited = {variable: value for variable, value in os.environ.items() if not variable.startswith("STREAMREC_")}
    env = {**inherited, **settings.environment(), "STREAMREC_HOME": str(world.folder)}
    command = [sys.executable, "-m", "infra.cli", "replay", "--shadow", name, "--workers", str(n_workers)]
    with (world.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Processor time that the workers of the replay have taken so far: also a busy machine tells by it what they cost."""
    with contextlib.suppress(psutil.Error):
        return float(sum(sum(child.cpu_times()[:2]) for child in psutil.Process(process.pid).children()))
    return 0.0


def _ended(process: subprocess.Popen[bytes]) -> None:
    if (code := process.wait(DEADLINE_S)) != 0:
        raise BenchmarkError(f"the replay ended with code {code}")


def _position(client: redis.Redis, keys: Keys) -> int:
    """Events up to the shadow's checkpoints."""
    values = client.mget([keys.checkpoint(p) for p in range(PARTITIONS)])
    return sum(json.loads(value)["offset"] for value in values if value)


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
