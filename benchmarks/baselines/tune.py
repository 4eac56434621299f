"""Tuning, in the warm-up only: learn its first two thirds, choose by a sample of the baskets of its last third.

From the defaults one parameter after the other takes its best value of `GRIDS`, in two rounds; of numbers, the values on both
sides of the best so far are tried until two in a row are no better. What is best: NDCG@10 over all events of groceries,
R@20 + MRR@20 of sessions. Everything is learned, a sample is scored, nothing after the warm-up is read. A choice at the end of
its values is named: there the grid may be too narrow.

    python -m benchmarks.baselines.tune DATASET [BASELINE ...] [--data DIR] [--sample 0.1] [--seed 1] [--start JSON] [--write]
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.baselines import BASELINES, TUNED
from benchmarks.baselines.grids import GRIDS
from consumers.backtest import datasets
from consumers.backtest.contender import Contender
from consumers.backtest.log import Log

CHUNK = 64  # baskets ranked together, as the judge does
N_BLOCKS = 10  # in which all before the first scored basket is learned: what retrains daily need not do so there
ROUNDS = 2
PATIENCE = 2  # values in a row that are no better: figures of a sample are no smooth curve
N = 20


class Choice(NamedTuple):
    parameters: dict[str, Any]
    value: float  # of the objective, in the last third of the warm-up
    n_tried: int
    n_scored: int
    at_end: list[str]  # parameters whose value is the smallest or largest that was allowed


def ndcg_10(ranks: np.ndarray) -> float:
    """`ranks` (n,) from 1, 0 where the target is not in the list."""
    return float(np.where((ranks > 0) & (ranks <= 10), 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0).mean())


def recall_and_mrr_20(ranks: np.ndarray) -> float:
    found = (ranks > 0) & (ranks <= 20)
    return float(found.mean() + np.where(found, 1.0 / np.maximum(ranks, 1), 0.0).mean())


def objective_of(log: Log) -> Callable[[np.ndarray], float]:
    """Sessions have baskets of one event each; groceries larger ones."""
    return ndcg_10 if len(log) > log.baskets[-1] + 1 else recall_and_mrr_20


def blocks(n: int) -> Iterator[tuple[int, int]]:
    """The first n baskets in long runs."""
    bounds = np.unique(np.linspace(0, n, N_BLOCKS + 1).astype(np.int64)).tolist()
    return zip(bounds, bounds[1:], strict=False)


def chunks(users: np.ndarray, size: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """Runs of baskets from the one at `first` on in which no user repeats, `size` at most; `users` (n_baskets,)."""
    known: set[int] = set()
    for at, user in enumerate(users[first:].tolist(), first):
        if user in known or at - first == size:
            yield first, at
            first, known = at, set()
        known.add(user)
    if first < len(users):
        yield first, len(users)


def sampled_ranks(log: Log, contender: Contender, first: int, last: int, *, sample: float, seed: int) -> np.ndarray:
    """Ranks of the targets (0: none) of a sample of the baskets that begin in [first, last), test-then-learn.

    Ties count against the target. A first basket of a user whose baskets are single events has nothing before it and no score.
    """
    log = log.until(last)
    starts = log.basket_starts()
    users = log.users[starts[:-1]]
    scored = (np.random.default_rng(seed).random(len(users)) < sample) & (starts[:-1] >= first)
    if objective_of(log) is recall_and_mrr_20:
        scored[np.unique(users, return_index=True)[1]] = False
    contender.start(log.until(0))
    ranks: list[np.ndarray] = []
    unscored = int(np.argmax(scored)) if scored.any() else len(users)
    for begin, end in [*blocks(unscored), *chunks(users, CHUNK, unscored)]:
        rows = begin + np.flatnonzero(scored[begin:end])
        if len(rows):
            ranking = contender.rank(users[rows], int(log.times_ms[starts[rows[0]]]), N)
            for row, basket in enumerate(rows):
                targets = log.items[starts[basket] : starts[basket + 1]]
                hit = ranking.items[row] == targets[:, None]
                level = np.where(hit, ranking.scores[row], np.inf).min(axis=1)  # the target's score
                behind = ((ranking.scores[row] >= level[:, None]) & (ranking.items[row] >= 0)).sum(axis=1)
                ranks.append(np.where(hit.any(axis=1), behind, 0))
        contender.learn(log.until(int(starts[end])), int(starts[begin]), int(starts[end]))
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def tune(log: Log, warm_up_end: int, name: str, *, sample: float = 0.1, seed: int = 1, start: dict[str, Any] | None = None,
         note: Callable[[dict[str, Any], float], None] = lambda parameters, value: None) -> Choice:
    """The best parameters of one baseline by the last third of the first `warm_up_end` events, from its defaults or `start`."""
    objective = objective_of(log)
    known: dict[str, float] = {}
    n_scored = 0

    def value_of(parameters: dict[str, Any]) -> float:
        nonlocal n_scored
        key = repr(sorted(parameters.items()))
        if key not in known:
            ranks = sampled_ranks(log, BASELINES[name](**parameters), warm_up_end * 2 // 3, warm_up_end, sample=sample, seed=seed)
            known[key], n_scored = objective(ranks), len(ranks)
            note(parameters, known[key])
        return known[key]

    best: dict[str, Any] = dict(start or {})
    value = value_of(best)
    for _ in range(ROUNDS):
        before = dict(best)
        for parameter, values in GRIDS[name].items():
            for side in sides(values, best.get(parameter, default_of(name, parameter))):
                n_worse = 0
                for candidate in side:
                    tried = {**best, parameter: candidate}
                    if value_of(tried) > value:
                        best, value, n_worse = tried, value_of(tried), 0
                    elif (n_worse := n_worse + 1) == PATIENCE and len(side) > PATIENCE:
                        break
        if best == before:
            break
    at_end = [parameter for parameter, chosen in best.items() if ordered(values := GRIDS[name][parameter])
              and chosen in (min(values), max(values)) and chosen not in (0, math.inf)]
    return Choice(best, value, len(known), n_scored, at_end)


def ordered(values: list[Any]) -> bool:
    """Whether these are numbers, not names or switches."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def sides(values: list[Any], here: Any) -> list[list[Any]]:
    """The values to try from `here`: those above, nearest first, and those below; names and switches all at once."""
    if not ordered(values):
        return [values]
    return [sorted(value for value in values if value > here), sorted((value for value in values if value < here), reverse=True)]


def default_of(name: str, parameter: str) -> Any:
    """What a baseline has where nothing is said."""
    return inspect.signature(type(BASELINES[name]())).parameters[parameter].default


def warm_up_end(log: Log) -> int:
    """The first event that tuning must not see: of Complete Journey week 9 begins, of others 30% are over."""
    if log.name == "completejourney" and log.periods is not None:
        return int(np.searchsorted(log.periods, 9))
    return len(log) * 3 // 10


def write(dataset: str, name: str, choice: Choice, command: str) -> None:
    """Note a choice and what made it; the choices of others stay."""
    known = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    known.setdefault(dataset, {})[name] = {**choice._asdict(), "value": round(choice.value, 5), "command": command}
    TUNED.write_text(json.dumps({key: dict(sorted(known[key].items())) for key in sorted(known)}, indent=1) + "\n")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines.tune", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", choices=sorted(datasets.SETS))
    parser.add_argument("baselines", nargs="*", metavar="BASELINE", help=f"of {', '.join(BASELINES)}; all where none is named")
    parser.add_argument("--data", type=Path, help="the folder of data sets")
    parser.add_argument("--sample", type=float, default=0.1, help="share of the baskets that is scored")
    parser.add_argument("--seed", type=int, default=1, help="of that sample")
    parser.add_argument("--start", type=json.loads, default={}, metavar="JSON", help="parameters to begin from where defaults lie far off")
    parser.add_argument("--write", action="store_true", help=f"note the choices in {TUNED.name}")
    options = parser.parse_args(arguments)
    log = datasets.load(options.dataset, options.data).log
    command = shlex.join(["python", "-m", "benchmarks.baselines.tune", options.dataset, "--sample", f"{options.sample:g}",
                          "--seed", str(options.seed), *(["--start", json.dumps(options.start)] if options.start else [])])
    for name in options.baselines or BASELINES:
        began = time.perf_counter()
        choice = tune(log, warm_up_end(log), name, sample=options.sample, seed=options.seed, start=options.start,
                      note=lambda parameters, value: print(f"  {value:.5f} {parameters}", file=sys.stderr, flush=True))
        print(f"{name}: {choice.parameters} {choice.value:.5f}, {choice.n_tried} tried on {choice.n_scored} targets, at the end of {choice.at_end}, "
              f"{time.perf_counter() - began:.0f} s", flush=True)
        if options.write:
            write(options.dataset, name, choice, f"{command} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
