"""Claim `backlog`: a worker takes in 1,000,000 waiting events, until the last one's row is in Redis, item side included.

The clock starts when the worker has its first partition (its process has started and joined the group before) and stops when
the last event of every partition is in its user's row in Redis and the item rows in Redis hold all of `interactions`. The
median of several runs over the same log, each with an empty Redis. Beside it, over a part of the same log: a plain
Faust agent and bare aiokafka, both of which decode the events and do nothing else.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks._backlog import measure_runs, prepare
from benchmarks._backlog import options as run_options
from benchmarks._claims import Claim, Figure, Options, main, median, say
from benchmarks._compare import config_of
from benchmarks._world import World, run_and_read

CLAIMS = (Claim(name="backlog", unit="events/s", at_least=70_000,
                what="1,000,000 waiting events, until the last one's row is in Redis; interactions and item side included; learning on"),)


def options(parser: Options) -> None:
    """Sizes of the run, and of the comparison."""
    run_options(parser)
    parser.size("--compared-events", 200_000, 10_000, "events that the plain readers take")


def measure(args: argparse.Namespace) -> list[Figure]:
    """The runs, then the plain readers over the same log."""
    with World() as world:
        settings, last_users = prepare(world, args)
        runs = measure_runs(world, settings, last_users, args)
        plain = {}
        for which in ("faust", "aiokafka"):
            found = run_and_read("_compare", which, config_of(settings, min(args.compared_events, args.events)))
            plain[which] = found["events_per_s"]
            say(f"{which}, decoding only: {plain[which]:,.0f} events/s")
    rates = [args.events / max(run.rows_s, run.items_s) for run in runs]
    return [Figure(CLAIMS[0], median(rates), {
        "runs": rates, "user_rows_alone_events_per_s": median([args.events / run.rows_s for run in runs]),
        "plain_Faust_agent_that_only_decodes_events_per_s": plain["faust"],
        "bare_aiokafka_that_only_decodes_events_per_s": plain["aiokafka"],
        "process_start_to_first_partition_s": median([run.started_s for run in runs]),
        "cores_used": runs[-1].cpu, "stages_of_the_last_run_s": runs[-1].stages_s,
        "Redis_waited_for_the_disk_times": [run.fsync_delays for run in runs]})]


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
