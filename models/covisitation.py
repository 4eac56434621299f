"""Co-visitation: what followed the user's last items, for everybody, decayed.

Score = sum over the user's last items of recency x P(next | item), where P is the share of the item's successors.
The item-to-item form of Linden, Smith, York, "Amazon.com recommendations" (2003), directed and kept online.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories, ItemIndex
from models.hashing import find_slot, scratch
from models.item_rows import N_SUCCESSORS, successor_strength

#: The user's last items that speak, and how much less each older one counts (tuned on Complete Journey, weeks 1-8).
N_SOURCES = 8
RECENCY = 0.8
#: Evidence below which a successor share is shrunk: one follower of one follower is not P = 1.
PRIOR = 4.0 * 64


@nb.njit(cache=True, nogil=True)
def _propose(
    rows: np.ndarray,
    items: np.ndarray,
    item_rows: np.ndarray,
    keys: np.ndarray,
    cells: np.ndarray,
    position: np.ndarray,
    out_items: np.ndarray,
    out_scores: np.ndarray,
) -> None:
    # position[item]: where an item stands in this user's output, -1 between users
    strengths = np.empty(N_SUCCESSORS, np.float64)
    norm = (1.0 - RECENCY**N_SOURCES) / (1.0 - RECENCY)
    for b in range(rows.shape[0]):
        row = rows[b]
        n_out = 0
        factor = 1.0 / norm
        n_sources = 0
        for k in range(np.int64(row["n_items"]) - 1, -1, -1):
            if n_sources == N_SOURCES:
                break
            slot = items[b, k]
            if row["weights"][k] <= 0 or slot < 0:
                continue
            n_sources += 1
            source = item_rows[slot]
            n = np.int64(source["n_successors"])
            total = PRIOR
            for s in range(n):
                strengths[s] = successor_strength(source["followed"][s], source["newest_followed"])
                total += strengths[s]
            for s in range(n):
                other = find_slot(keys, cells, source["successors"][s])
                if other < 0 or strengths[s] <= 0:
                    continue
                at = position[other]
                if at < 0:
                    at = n_out
                    position[other] = at
                    out_items[b, at] = other
                    n_out += 1
                out_scores[b, at] += factor * strengths[s] / total
            factor *= RECENCY
        for at in range(n_out):
            position[out_items[b, at]] = -1


class CoVisitation:
    """The channel; it has no state of its own but scratch, successors lie in the item rows."""

    name = "covisitation"

    def __init__(self) -> None:
        self._position = np.empty(0, np.int32)

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """Successors of the last items, (B, N_SOURCES * N_SUCCESSORS)."""
        shape = (len(users.rows), N_SOURCES * N_SUCCESSORS)
        items, scores = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        self._position = scratch(self._position, len(item_rows))
        _propose(users.rows, users.items, item_rows, find.keys, find.cells, self._position, items, scores)
        return Candidates(items, scores)
