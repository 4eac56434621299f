"""Claim `event_log`: events that wait in Kafka come into the event log, by the time of one core.

Time of the process, so that a busy machine tells the same; the wall clock stands beside it. The clock starts when the follower is
connected and stops when the last event is written and synced. Beside it: the same events' compaction into their days, reading them
back as columns, and what an event takes on disk. Median of several runs over the same topic.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._backlog import options as run_options
from benchmarks._backlog import prepare
from benchmarks._claims import Claim, Figure, Options, main, median, say
from benchmarks._world import World
from consumers.event_log import EventLog, Follower, LogWriter
from infra.settings import Settings

CLAIMS = (Claim(name="event_log", unit="events/s", at_least=50_000, what="waiting events into the event log, by the time of one core"),)
COLUMNS = ("user_id", "item_id", "event_type", "time_ms")


def options(parser: Options) -> None:
    """Sizes of the run."""
    run_options(parser)


def measure(args: argparse.Namespace) -> list[Figure]:
    """The runs, each into a folder of its own."""
    with World() as world:
        settings, _ = prepare(world, args)
        runs = [asyncio.run(_run(settings, world.folder / f"log{run}", args.events)) for run in range(args.runs)]

    def rates(name: str) -> list[float]:
        return [args.events / run[name] for run in runs]

    return [Figure(CLAIMS[0], median(rates("cpu_s")), {
        "runs": rates("cpu_s"), "by_the_wall_clock_events_per_s": median(rates("wall_s")),
        "compaction_events_per_s_of_a_core": median(rates("compaction_s")),
        "read_back_as_4_columns_events_per_s_of_a_core": median(rates("reading_s")),
        "bytes_an_event_on_disk": runs[-1]["bytes"] / args.events})]


async def _run(settings: Settings, folder: Path, n: int) -> dict[str, float]:
    found: dict[str, float] = {}

    @contextmanager
    def clock(name: str) -> Iterator[None]:
        began, wall = time.process_time(), time.perf_counter()
        yield
        found[f"{name}_s"] = time.process_time() - began
        if name == "cpu":
            found["wall_s"] = time.perf_counter() - wall

    with LogWriter(folder, topic=settings.topic("events"), partitions=settings.partitions) as writer:
        async with Follower(settings, writer) as follower:
            with clock("cpu"):
                await follower.catch_up()
        with clock("compaction"):
            writer.compact()
    with clock("reading"):
        n_rows = len(EventLog(folder).read(COLUMNS, unique=False))
    if n_rows != n:
        say(f"{n_rows:,} rows for {n:,} events: the others were not valid")
    found["bytes"] = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    say(f"{n / found['cpu_s']:,.0f} events/s of a core, {n / found['wall_s']:,.0f} by the wall clock")
    return found


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
