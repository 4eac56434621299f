"""Repeat consumption: items that this user takes again, by recency and frequency.

Score = decayed weight of the item in the user's row / their sum. Where things repeat (groceries, music) this is the
strongest single channel (Anderson et al., "The dynamics of repeat consumption", WWW 2014: recency and frequency).
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories, ItemIndex
from models.user_row import age_ms


@nb.njit(cache=True, nogil=True)
def _propose(rows: np.ndarray, items: np.ndarray, now_ms: int, half_life_ms: float, scores: np.ndarray) -> None:
    for b in range(rows.shape[0]):
        row = rows[b]
        total = 0.0
        for k in range(np.int64(row["n_items"])):
            if row["weights"][k] > 0 and items[b, k] >= 0:
                age = max(0, age_ms(row, k, max(now_ms, row["clock_ms"])))
                scores[b, k] = row["weights"][k] * 2.0 ** (-age / half_life_ms)
                total += scores[b, k]
        for k in range(np.int64(row["n_items"])):
            scores[b, k] = scores[b, k] / total if total > 0 else 0.0


class Repeat:
    """The channel; `half_life_ms` is that of the row's weights."""

    name = "repeat"

    def __init__(self, *, half_life_ms: float) -> None:
        self.half_life_ms = half_life_ms

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """The user's own items, (B, N_ITEMS)."""
        scores = np.zeros(users.items.shape, np.float32)
        _propose(users.rows, users.items, users.now_ms, self.half_life_ms, scores)
        return Candidates(np.where(scores > 0, users.items, -1).astype(np.int32), scores)
