"""`python -m benchmarks.transformer ROW --data FOLDER --out FOLDER`: one published row, or the ablation table.

    python -m benchmarks.transformer diginetica --data ~/datasets --out state/diginetica
    python -m benchmarks.transformer yoochoose  --data ~/datasets --out state/yoochoose --periods 2
    python -m benchmarks.transformer ml-1m      --data ~/datasets --out state/ml-1m --minutes 5
    python -m benchmarks.transformer beauty     --data ~/datasets --out state/beauty --fraction 0.1
    python -m benchmarks.transformer diginetica --data ~/datasets --out state/ablation --ablation    # what each part is worth
    python -m benchmarks.transformer diginetica --data ~/datasets --out state/diginetica --int8     # what int8 costs that run's newest weights
    python -m benchmarks.transformer clock --fraction 0.05                                          # what the clock is worth

With --minutes it stops after that time; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from benchmarks._machine import machine
from benchmarks.transformer import ablation, ader, clock, compression, leave_one_out
from benchmarks.transformer.recipes import ADER, LEAVE_ONE_OUT
from models.transformer.training import Progress


class OutOfTime(Exception):
    """The minutes are over; the checkpoint is at most half a minute old."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transformer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=[*ADER, *LEAVE_ONE_OUT, "clock"], help="a published row, or what the clock is worth (Complete Journey)")
    parser.add_argument("--data", type=Path, default=Path(), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("state"), help="folder for the state of this run")
    parser.add_argument("--periods", type=int, default=16, help="tests of ADER's protocol, 1 to 16")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of sessions or users, in training and test")
    parser.add_argument("--tested", type=float, default=1.0, help="share of each test's sessions that are scored, ADER's protocol only")
    parser.add_argument("--scratch", action="store_true", help="learn all periods anew for each test, ADER's protocol only: better, and 8 times the work")
    parser.add_argument("--epochs", type=float, help="passes, leave-one-out and clock only; the recipe's own otherwise")
    parser.add_argument("--int8", action="store_true", help="ADER's protocol only: weights of the run under --out, in float32 and in int8")
    parser.add_argument("--ablation", action="store_true", help="ADER's protocol only: what each part is worth, on the first test")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long; the same command goes on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{machine()}, {asked.threads} threads\nPython {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}; seed {asked.seed}, share {asked.fraction:g}")
    began, said = time.monotonic(), 0.0

    def progress(now: Progress) -> None:
        nonlocal said
        if time.monotonic() - began > 60 * asked.minutes:
            raise OutOfTime
        if time.monotonic() - said > 10 or now.step == now.n_steps:
            said = time.monotonic()
            print(f"  step {now.step} of {now.n_steps}, loss {now.loss:.3f}, {now.tokens_per_s:,.0f} events/s, {now.eta_s:.0f} s left", file=sys.stderr, flush=True)

    try:
        if asked.row == "clock":
            clock.run(fraction=asked.fraction, epochs=asked.epochs or 6, n=3_000, seed=asked.seed, progress=progress, say=lambda line: print(line, flush=True))
        elif asked.ablation:
            ablation.run(ADER[asked.row], asked.data, asked.out, tested=asked.tested, seed=asked.seed, progress=progress, say=lambda line: print(line, flush=True))
        elif asked.int8:
            print("| | bytes | R@20 | MRR@20 | µs a user |\n| --- | --- | --- | --- | --- |")
            for line in compression.run(ADER[asked.row], asked.data, asked.out, fraction=asked.fraction, seed=asked.seed):
                print(f"| {line.name} | {line.n_bytes:,} | {line.recall:.4f} | {line.mrr:.4f} | {line.us_a_user:.0f} |")
        elif asked.row in ADER:
            recipe = ADER[asked.row]
            figures = ader.run(recipe, asked.data, asked.out, periods=asked.periods, fraction=asked.fraction, tested=asked.tested, scratch=asked.scratch, seed=asked.seed,
                               progress=progress, say=lambda line: print(line, flush=True))
            mine = fmean(f["recall"] for f in figures), fmean(f["mrr"] for f in figures)
            _table(("R@20", "MRR@20"), f"ours, mean of {len(figures)} of 16 tests", mine, recipe.published)
        else:
            row = LEAVE_ONE_OUT[asked.row]
            found = leave_one_out.run(row, asked.data, asked.out, fraction=asked.fraction, epochs=asked.epochs, seed=asked.seed, progress=progress)
            print(f"{found['n']:.0f} users, {found['n_items']:.0f} items, {found['epochs']:g} passes, {found['train_cpu_s']:.0f} CPU s; "
                  f"validation HR@10 {found['validation_hr']:.4f}, NDCG@10 {found['validation_ndcg']:.4f}")
            _table(("HR@10", "NDCG@10"), "ours, test", (found["test_hr"], found["test_ndcg"]), row.published)
    except OutOfTime:
        print("out of time: the same command goes on from here")
    except FileNotFoundError as error:
        print(f"{error.filename} is not there; --data names the folder that holds the sets", file=sys.stderr)
        return 2
    return 0


def _table(metrics: tuple[str, str], name: str, mine: tuple[float, float], published: dict[str, tuple[float, float]]) -> None:
    print(f"\n| | {metrics[0]} | {metrics[1]} |\n| --- | --- | --- |\n| **{name}** | {mine[0]:.4f} | {mine[1]:.4f} |")
    for other, (first, second) in published.items():
        print(f"| {other} (published) | {first:.4f} | {second:.4f} |")


if __name__ == "__main__":
    sys.exit(main())
