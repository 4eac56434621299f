"""What channels take and give: users' histories in, candidates with scores out.

A score is the channel's estimate of the probability that the item is the user's next: per user a channel's scores sum
to 1 at most. That makes scores of different channels comparable, and their weighted sum a mixture.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Histories(NamedTuple):
    """B users. `rows` (B,) USER_ROW; `items` (B, H) int32: slots of the rows' items, -1 where unknown."""

    rows: np.ndarray
    items: np.ndarray
    now_ms: int


class Candidates(NamedTuple):
    """`items` (B, C) int32 slots, -1 where there is none; `scores` (B, C) float32 probabilities."""

    items: np.ndarray
    scores: np.ndarray


class Channel(Protocol):
    """Proposes items for users, from one point of view. `name` stands in the published lists."""

    name: str

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """Candidates for B users; item_rows (n_items,) ITEM_ROW."""
        ...


class ItemIndex(NamedTuple):
    """Hash table from item hashes to slots, as `models.hashing.find_slot` takes it."""

    keys: np.ndarray
    cells: np.ndarray
