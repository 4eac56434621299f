"""Toy worlds whose right answers can be proved, and small configurations that learn them in seconds."""

from __future__ import annotations

import numpy as np

from models.transformer.config import ModelConfig, TrainConfig
from models.transformer.data import Sequences

N_ITEMS = 24
SMALL = ModelConfig(d=16, n_blocks=1, n_heads=2, max_len=8, dropout=0.0)
QUICK = TrainConfig(epochs=6, tokens=256, learning_rate=0.01, n_negatives=64, seed=3)


def ring(n_users: int = 150, length: int = 9, step: int = 7) -> Sequences:
    """A Markov chain without chance: behind item i comes (i + step) mod N_ITEMS. Step and N_ITEMS have no common divisor."""
    first = np.random.default_rng(0).integers(N_ITEMS, size=n_users)
    items = (first[:, None] + step * np.arange(length)[None, :]) % N_ITEMS
    return sequences(items)


def sequences(items: np.ndarray, types: np.ndarray | None = None, times_ms: np.ndarray | None = None) -> Sequences:
    """Users of equal length, (users, length)."""
    n_users, length = items.shape
    return Sequences(items.ravel().astype(np.int32), (np.zeros_like(items) if types is None else types).ravel().astype(np.uint8),
                     None if times_ms is None else times_ms.ravel().astype(np.int64), (np.arange(n_users) + 1) * length)


def ragged(seed: int = 0, n_users: int = 40, longest: int = 20) -> Sequences:
    """Users of any length from 0 on, with types and times."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.integers(0, longest, n_users))
    n = int(ends[-1])
    return Sequences(rng.integers(0, N_ITEMS, n).astype(np.int32), rng.integers(0, 3, n).astype(np.uint8), np.cumsum(rng.integers(0, 10**6, n)), ends)
