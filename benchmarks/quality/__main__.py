"""python -m benchmarks.quality run all|NAME [CONTENDER ...] --data FOLDER; python -m benchmarks.quality render

Runs take from a minute to hours, so each keeps its own figures below --results: run what changed, then render.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.quality.measurements import MEASUREMENTS
from infra.settings import StreamrecError

RESULTS = Path("build/quality")


def main() -> int:
    """Parses and runs; exit code 1 where something could not be run, with a sentence for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="judge contenders on a measurement")
    run.add_argument("name", choices=["all", *MEASUREMENTS])
    run.add_argument("contenders", nargs="*", help="product, its channels, baselines, module:Name (default: those of the measurement)")
    run.add_argument("--data", type=Path, help="folder of the data sets")
    run.add_argument("--sample", type=float, default=1.0, help="score this share of the baskets, to try it out")
    run.add_argument("--label", default="", help="name of the run's folder (default: its contenders)")
    run.add_argument("--audit", action="store_true", help="first check that nobody looks ahead")
    render = verbs.add_parser("render", help="write docs/quality.md from all runs")
    for verb in (run, render):
        verb.add_argument("--results", type=Path, default=RESULTS, help=f"where runs lie (default {RESULTS})")
    args = parser.parse_args()
    if args.verb == "render":
        from benchmarks.quality.render import render as write

        write(args.results)
        return 0
    from benchmarks.quality.run import run as measure

    failed = 0
    for name in MEASUREMENTS if args.name == "all" else [args.name]:
        for group in [args.contenders] if args.contenders else _groups(MEASUREMENTS[name].contenders):
            try:
                print(measure(name, group, args.results, data=args.data, label=args.label, sample=args.sample, audited=args.audit), flush=True)
            except StreamrecError as error:  # one that cannot be run holds up none of the others
                failed = 1
                print(f"{name}, {', '.join(group)}: {error}", file=sys.stderr, flush=True)
    return failed


def _groups(names: tuple[str, ...]) -> list[list[str]]:
    """The product and its channels in one pass, since they share a system; each baseline in its own, so that one can be repeated."""
    from benchmarks.baselines import BASELINES

    ours = [name for name in names if name not in BASELINES]
    return [*([ours] if ours else []), *([name] for name in names if name in BASELINES)]


if __name__ == "__main__":
    sys.exit(main())
