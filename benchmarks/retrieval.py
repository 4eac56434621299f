"""Claim `retrieval`: of the 100 best items by the online factors, the approximate search finds as many as the exact one.

Vectors are learned from a synthetic stream with tastes (see `_tastes`), not drawn: real ones have popular directions and long
tails, which random ones have not. The lists of the search are built before the last `--moving` events, and live through them
as in a worker: 64 events are learned, 64 users' lists computed, and so on. Then recall@100 of users who came last is taken
against the exact search over the same vectors, and both are timed in chunks of 64 users, by CPU time of the thread, the
fastest of several passes for each chunk. BLAS runs on one thread (set before numpy is loaded).
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._claims import Claim, Figure, Options, main, say
from benchmarks._tastes import Tastes
from models.retrieval import N_FIRST_LOOKS, Retrieval
from models.top import exact_search

CLAIMS = (
    Claim(name="retrieval", unit="of 100", at_least=99.0,
          what="items that the approximate search finds of the 100 best by learned vectors, worst of all sizes"),
    Claim(name="retrieval cost", unit="us", at_most=60.0, what="one user's 100 best of 100,000 items, keeping the lists included"),
)
SIZES = (20_000, 100_000, 1_000_000)
CLAIMED = 100_000
EVENTS_AN_ITEM = (75, 40, 12)
K = 100
CHUNK = 64
STEP = 50_000


def options(parser: Options) -> None:
    """Sizes."""
    parser.size("--items", 1_000_000, 20_000, "largest catalogue; the smaller of 20,000, 100,000 and 1,000,000 are measured too")
    parser.size("--moving", 200_000, 20_000, "events that are learned while lists are computed, before recall is taken")
    parser.size("--users", 1_024, 256, "users of whom recall is taken")
    parser.size("--passes", 9, 3, "passes of the timing, of which the fastest counts for each chunk")


def measure(args: argparse.Namespace) -> list[Figure]:
    """All sizes."""
    sizes = [size for size in SIZES if size < args.items] + [args.items]
    found = {size: _one(args, size) for size in sizes}
    timed = min(sizes, key=lambda size: abs(size - CLAIMED))
    beside: dict[str, Any] = {f"{size:,}_items": entry for size, entry in found.items()}
    return [Figure(CLAIMS[0], min(entry["recall_of_100"] for entry in found.values()), beside),
            Figure(CLAIMS[1], found[timed]["us_a_user"], {"items": timed, "exact_us_a_user": found[timed]["exact_us_a_user"]})]


def _one(args: argparse.Namespace, n_items: int) -> dict[str, float]:
    events_an_item = EVENTS_AN_ITEM[min(int(np.searchsorted(SIZES, n_items)), len(SIZES) - 1)]
    n_events = n_items * events_an_item
    tastes = Tastes(n_items, n_events, args.seed)
    for _ in tastes.teach(n_events - args.moving, STEP):
        pass
    model, retrieval = tastes.model, Retrieval(exact_up_to=min(n_items // 2, 16_384))
    say(f"{n_items:,} items: learned from {tastes.at:,} events")
    began = time.thread_time()
    retrieval.keep(model.y)
    built_s = time.thread_time() - began
    for _ in range(model.n_items // N_FIRST_LOOKS):
        retrieval.keep(model.y)
    last: list[np.ndarray] = []
    for sessions in tastes.teach(n_events, CHUNK):
        seen = np.unique(sessions)
        retrieval.search(tastes.users(seen), model.y, K)
        last.append(seen)
    who = np.unique(np.concatenate(last))
    who = np.random.default_rng(args.seed).permutation(who)[: args.users // CHUNK * CHUNK]
    queries, y = tastes.users(who), model.y
    right = _all(queries, lambda chunk: exact_search(chunk, y, K))
    got = _all(queries, lambda chunk: retrieval.search(chunk, y, K))
    hits = [len(np.intersect1d(a, b)) for a, b in zip(got, right, strict=True)]
    exact = Retrieval(exact_up_to=len(y))
    entry = {
        "recall_of_100": float(np.mean(hits)), "worst_user_of_20": float(np.quantile(hits, 0.05)),
        "us_a_user": _us(queries, args.passes, lambda chunk: retrieval.search(chunk, y, K)),
        "of_which_keeping_us": _us(queries, args.passes, lambda _: retrieval.keep(y)),
        "exact_us_a_user": _us(queries, min(3, args.passes), lambda chunk: exact.search(chunk, y, K)),
        "building_s": built_s, "events": n_events,
    }
    say(f"{n_items:,} items: " + ", ".join(f"{name} {value:.4g}" for name, value in entry.items()))
    return entry


def _all(queries: np.ndarray, search: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.concatenate([search(queries[a : a + CHUNK])[0] for a in range(0, len(queries), CHUNK)])


def _us(queries: np.ndarray, passes: int, work: Callable[[np.ndarray], object]) -> float:
    """CPU time a user in us: of each chunk the fastest pass, so that neighbours on the machine count less."""
    best = np.full(len(queries) // CHUNK, np.inf)
    for _ in range(passes):
        for c in range(len(best)):
            began = time.thread_time()
            work(queries[c * CHUNK : (c + 1) * CHUNK])
            best[c] = min(best[c], time.thread_time() - began)
    return float(best.mean()) / CHUNK * 1e6


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
