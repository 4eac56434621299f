"""Claim `drain`: the backlog of 1,000,000 events until every list is published and the checkpoint stands at the log's end.

The same run as `backlog`, watched to its end: the checkpoint of a partition passes an event only when the list of its user
is in Redis, so that checkpoints at the ends of all logs say that nothing is left to do.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks._backlog import measure_runs, options, prepare
from benchmarks._claims import Claim, Figure, main, median
from benchmarks._world import World

CLAIMS = (Claim(name="drain", unit="events/s", at_least=50_000,
                what="the backlog until every list is published and the checkpoint stands at the log's end"),)


def measure(args: argparse.Namespace) -> list[Figure]:
    """The runs."""
    with World() as world:
        settings, last_users = prepare(world, args)
        runs = measure_runs(world, settings, last_users, args)
    rates = [args.events / max(run.drained_s, run.items_s) for run in runs]
    return [Figure(CLAIMS[0], median(rates), {
        "runs": rates, "until_the_last_row_s": median([run.rows_s for run in runs]),
        "until_the_last_list_s": median([run.drained_s for run in runs]), "stages_of_the_last_run_s": runs[-1].stages_s,
        "Redis_waited_for_the_disk_times": [run.fsync_delays for run in runs]})]


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
