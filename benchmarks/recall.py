"""Claim `recall`: what a core embeds with a release of the trained model, in bulk; and what one user costs at rest.

The real graph (d 64, two blocks, types and times on) over full rows, no two alike, so nothing of what
is kept helps. CPU time of the thread, the fastest of several passes, in chunks as a worker has them. Beside it: shorter histories, the search for
100 candidates in two stages with its recall against the exhaustive one, the same graph in 8 bits, and equal histories, which are kept.
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
from benchmarks._releases import release_for
from models.candidates import Histories
from models.item_rows import ITEM_ROW
from models.recall import Recall
from models.release import Release
from models.top import exact_search
from models.user_row import EMPTY_ROW, N_ITEMS, N_TYPES, USER_ROW

CLAIMS = (
    Claim(name="recall", unit="users/s", at_least=4_000, what="users embedded in bulk on one core by the trained model, d 64, full rows"),
    Claim(name="recall at rest", unit="ms", at_most=2.0, what="one user embedded and his 100 candidates found"),
    Claim(name="recall of 100", unit="of 100", at_least=99.0, what="of the 100 best items by the model, those that two stages find"),
)
CHUNK = 64
K = 100


def options(parser: Options) -> None:
    """Sizes."""
    parser.size("--items", 20_000, 5_000, "items of the catalogue")
    parser.size("--users", 512, 128, "users")
    parser.size("--passes", 9, 3, "passes, of which the fastest counts for each chunk")


def measure(args: argparse.Namespace) -> list[Figure]:
    """All of it."""
    items = [f"i{k}" for k in range(args.items)]
    release = release_for(items, args.seed)
    item_rows = np.zeros(args.items, ITEM_ROW)
    item_rows["hash"] = release.keys
    model = Recall(_copy(release), item_rows)
    lengths = {length: _us(model, _users(args, length), args.passes) for length in (N_ITEMS, 20, 5)}
    full = _users(args, N_ITEMS)
    vectors = np.concatenate([model.embed(_part(full, a)) for a in range(0, args.users, CHUNK)])
    found = np.concatenate([model.candidates(vectors[a : a + CHUNK], K)[0] for a in range(0, args.users, CHUNK)])
    right = model.items.slots[exact_search(vectors, model.items.released, K)[0]]
    hits = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, right, strict=True)]))
    search_us = _fastest(lambda a: model.candidates(vectors[a : a + CHUNK], K), args.users, args.passes)
    exact_us = _fastest(lambda a: exact_search(vectors[a : a + CHUNK], model.items.released, K), args.users, min(3, args.passes))
    kept_us = _fastest(lambda a: model.embed(_part(full, a)), args.users, args.passes)
    alone_us = [_us(model, _part(full, a, 1), args.passes, 1) for a in range(min(20, args.users))]
    search_alone_us = _fastest(lambda a: model.candidates(vectors[a : a + 1], K), min(20, args.users), args.passes, 1)
    small = Recall(_copy(release_for(items, args.seed, quantised=True)), item_rows)
    in_8_bits = np.concatenate([small.embed(_part(full, a)) for a in range(0, args.users, CHUNK)])
    best = exact_search(in_8_bits, model.items.released, 20)[0], exact_search(vectors, model.items.released, 20)[0]
    beside: dict[str, Any] = {
        "us_a_user": {f"{length}_items": us for length, us in lengths.items()},
        "us_a_user_kept": kept_us,
        "8_bit_graph": {"us_a_user": _us(small, full, args.passes),
                        "of_20_best_the_same": float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(*best, strict=True)]))},
        "graph_kbytes": len(release.graph) / 1024,
    }
    return [
        Figure(CLAIMS[0], 1e6 / lengths[N_ITEMS], beside),
        Figure(CLAIMS[1], (float(np.median(alone_us)) + search_alone_us) / 1000, {"embedding_us": float(np.median(alone_us)), "search_us": search_alone_us}),
        Figure(CLAIMS[2], hits, {"two_stages_us_a_user": search_us, "exhaustive_us_a_user": exact_us, "items": args.items}),
    ]


def _copy(release: Release) -> Release:
    return release._replace(vectors=release.vectors.copy(), keys=release.keys.copy())


def _users(args: argparse.Namespace, length: int) -> Histories:
    """Users with so many items each."""
    random = np.random.default_rng([args.seed, 6, length])
    rows, slots = np.full(args.users, EMPTY_ROW, USER_ROW), np.full((args.users, N_ITEMS), -1, np.int32)
    rows["n_items"] = length
    for b in range(args.users):
        slots[b, :length] = random.choice(args.items, length, replace=False)
        rows[b]["seconds"][:length] = np.sort(random.integers(10**9, 10**9 + 10**7, length))
        rows[b]["types"][:length] = random.integers(0, N_TYPES, length)
    return Histories(rows, slots, 0)


def _part(users: Histories, start: int, n: int = CHUNK) -> Histories:
    return Histories(users.rows[start : start + n], users.items[start : start + n], users.now_ms)


def _us(model: Recall, users: Histories, passes: int, chunk: int = CHUNK) -> float:
    """CPU time of embedding a user, in us, with nothing kept from before."""
    def work(start: int) -> None:
        model.graph.forget()
        model.embed(_part(users, start, chunk))

    us = _fastest(work, len(users.rows), passes, chunk)
    if chunk > 1:
        say(f"{us:.0f} us a user with {int(users.rows['n_items'].max())} items")
    return us


def _fastest(work: Callable[[int], object], n: int, passes: int, chunk: int = CHUNK) -> float:
    best = np.full(-(-n // chunk), np.inf)
    for _ in range(passes):
        for c in range(len(best)):
            began = time.thread_time()
            work(c * chunk)
            best[c] = min(best[c], time.thread_time() - began)
    return float(best.sum()) / n * 1e6


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
