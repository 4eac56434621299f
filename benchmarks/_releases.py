"""A release of the real model for benchmarks: d 64, histories of 50, types and times on, trained for a moment, which its cost does not ask.

Needs the packages of `streamrec[train]`; what serves it needs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks._claims import BenchmarkError, say
from models.hashing import stable_hash
from models.release import Manifest, Release, Shape
from models.user_row import N_TYPES

D, MAX_LEN = 64, 50
N_USERS, LENGTH = 500, 12


def release_for(items: Sequence[str], seed: int, *, quantised: bool = False) -> Release:
    """A release that knows these items. quantised: with matrices of 8 bits."""
    try:
        from models.transformer.config import ModelConfig, TrainConfig
        from models.transformer.data import Sequences
        from models.transformer.export import item_vectors, quantise, to_onnx
        from models.transformer.training import fit
    except ImportError as error:
        raise BenchmarkError(f"a model is needed, and what trains one is not installed ({error}); pip install 'streamrec[train]'") from None
    random = np.random.default_rng([seed, 5])
    n = N_USERS * LENGTH
    histories = Sequences(
        random.integers(0, len(items), n).astype(np.int32),
        random.integers(0, N_TYPES, n).astype(np.uint8),
        np.cumsum(random.integers(1, 100_000, n)).astype(np.int64),
        np.arange(1, N_USERS + 1, dtype=np.int64) * LENGTH,
    )
    model = ModelConfig(d=D, max_len=MAX_LEN, n_types=N_TYPES, time=True)
    weights = fit(histories, len(items), model, TrainConfig(epochs=0.2, seed=seed))
    graph = to_onnx(weights)
    say(f"a release of {len(items):,} items is there")
    keys = np.array([stable_hash(item) for item in items], np.uint64)
    manifest = Manifest(shape=Shape(len(items), D, MAX_LEN, N_TYPES), config={"benchmark": True})
    return Release(manifest, item_vectors(weights).astype(np.float32), keys, quantise(graph) if quantised else graph)
