"""A system at work, for claims about freshness: rows of all users and items, one worker ready, a stream started at will.

What the stream sees from outside is the figure. Beside it stands what the worker says of itself (its freshness histogram,
from the event's append to Kafka), as a check of the one by the other.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from benchmarks._claims import BenchmarkError, Options, quantile, say
from benchmarks._events import Population
from benchmarks._preload import preload
from benchmarks._stream import Config
from benchmarks._world import ROOT, STAGE, Worker, World, metrics, wait_drained
from infra.settings import Settings
from infra.stack.process import die_with_parent

HISTOGRAM = "streamrec_freshness_seconds_bucket"


def sizes(parser: Options) -> None:
    """Sizes of the system that is there before the measuring begins."""
    parser.size("--users", 50_000, 5_000, "users")
    parser.size("--items", 20_000, 2_000, "items")
    parser.size("--history", 200_000, 20_000, "events before the measuring: each user and each item has at least one")


def begin(world: World, population: Population, history: int, **overrides: Any) -> tuple[Settings, Worker]:
    """A worker that has taken in the history and is at rest."""
    settings = world.settings(**overrides)
    preload(settings, population, population.draw(history, run=0, all_once=True))
    worker = world.start_worker(settings)
    with world.client(settings) as client:
        wait_drained(client, settings, worker)
    say(f"{history:,} events of history are in; the worker is at rest")
    return settings, worker


@dataclass(slots=True)
class Outcome:
    """What one stream saw. A list that did not come within the grace took for ever."""

    rate: float
    seconds: float
    n_probes: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    late_p99_ms: float
    generator_cores: float
    worker_says: dict[str, float] = field(default_factory=dict)
    cores: dict[str, float] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)  # of the worker: how often a second, how long each

    def beside(self) -> dict[str, Any]:
        """For the report."""
        return {"probes": self.n_probes, "p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "worst_ms": self.worst_ms,
                "generator_late_p99_ms": self.late_p99_ms, "generator_cores": self.generator_cores,
                "worker_says_append_to_list": self.worker_says, "cores_used": self.cores,
                "worker_stages": self.stages}


class Streaming:
    """One stream in a process of its own: `go()` after everything else is ready, `outcome()` waits for its end."""

    def __init__(self, settings: Settings, population: Population, *, rate: float, seconds: float, run: int, digits: int = 8,
                 **options: Any) -> None:
        config = Config(settings.kafka_bootstrap, settings.redis_url, settings.prefix, settings.partitions, rate, seconds,
                        len(population.users), len(population.items), digits, population.seed, run, **options)
        self.config = config
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._stream", msgspec.json.encode(config).decode()], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self._line()  # it is ready

    def go(self) -> None:
        """Start sending."""
        self._say("go")

    def finish(self) -> Outcome:
        """Send no more, and see what came of it."""
        self._say("stop")
        return self.outcome()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the stream ended with code {self.process.wait()}; what it said stands above")
        return line

    def told(self) -> list[tuple[int, int, int, float]] | None:
        """With `tell`: (user, partition, offset, due) of the next events that Kafka has; None at the end."""
        found = json.loads(self._line())
        return found if isinstance(found, list) else None

    def outcome(self) -> Outcome:
        """At its end; skips what was told."""
        while isinstance(found := json.loads(self._line()), list):
            continue
        self.process.wait()
        latencies = found["latencies_ms"] + [math.inf] * found["unresolved"]
        if not latencies:
            raise BenchmarkError("the stream watched no event; give it more seconds or a higher rate")
        return Outcome(self.config.rate, found["seconds"], len(latencies), quantile(latencies, 0.5), quantile(latencies, 0.99),
                       max(latencies), found["late_p99_ms"], found["cpu"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def stream(world: World, settings: Settings, worker: Worker, population: Population, **options: Any) -> Outcome:
    """One stream from its begin to its end, with what the worker says of the same time."""
    with Streaming(settings, population, **options) as streaming:
        before, cores = metrics(worker), world.cpu(worker)
        streaming.go()
        outcome = streaming.outcome()
        outcome.cores = cores()
    worker.must_live()
    after = metrics(worker)
    outcome.worker_says = {f"p{share * 100:.0f}_ms": histogram_quantile(before, after, share) for share in (0.5, 0.99)}
    outcome.stages = _stages(before, after, outcome.seconds)
    say(f"{outcome.rate:,.0f} events/s: p50 {outcome.p50_ms:.1f} ms, p99 {outcome.p99_ms:.1f} ms over {outcome.n_probes} lists")
    return outcome


def _stages(before: dict[str, float], after: dict[str, float], seconds: float) -> dict[str, dict[str, float]]:
    found = {}
    for name, total in after.items():
        if match := STAGE.fullmatch(name):
            count = name.replace("_sum{", "_count{")
            n = after[count] - before.get(count, 0.0)
            if n:
                found[match[1]] = {"a_second": n / seconds, "ms_each": 1000 * (total - before.get(name, 0.0)) / n}
    return found


def histogram_quantile(before: dict[str, float], after: dict[str, float], share: float) -> float:
    """Quantile in ms of what came between two looks at the freshness histogram, by linear interpolation in its bucket."""
    counts = sorted((float(bound[1].replace("+Inf", "inf")), value - before.get(name, 0.0)) for name, value in after.items()
                    if name.startswith(HISTOGRAM) and (bound := re.search(r'le="([^"]+)"', name)))
    if not counts or not (total := counts[-1][1]):
        return math.nan
    low_s = low_n = 0.0
    for high_s, n in counts:
        if n >= share * total:
            within = (share * total - low_n) / max(n - low_n, 1e-9)
            return 1000 * (low_s if math.isinf(high_s) else low_s + (high_s - low_s) * within)
        low_s, low_n = high_s, n
    return math.nan
