"""The channel of the online factors: what comes next for a user, by the dot product with his vector.

Score = softmax of the logits over the candidates. The user's vector is computed from his row at each refresh, so it is as
fresh as the row.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories, ItemIndex
from models.hashing import find_all, find_slot
from models.lessons import ContextRules, context_weights
from models.mf import N_FACTORS, MatrixFactors
from models.retrieval import Retrieval
from models.user_row import N_ITEMS

N_CANDIDATES = 100
#: Items not folded yet that are looked for again in each call.
N_ASKED_AGAIN = 1_024


@nb.njit(cache=True, nogil=True)
def _user_vectors(
    rows: np.ndarray,
    now_ms: int,
    rules: ContextRules,
    x: np.ndarray,
    keys: np.ndarray,
    cells: np.ndarray,
    vectors: np.ndarray,
) -> None:
    weights = np.empty(N_ITEMS, np.float64)
    for b in range(rows.shape[0]):
        row = rows[b]
        if context_weights(row, max(now_ms, row["clock_ms"]), False, rules, weights) == 0:
            continue
        total = 0.0
        for k in range(np.int64(row["n_items"])):
            slot = find_slot(keys, cells, row["items"][k]) if weights[k] > 0 else -1
            if slot < 0 or slot >= x.shape[0]:  # learned of this very moment, by another thread
                continue
            total += weights[k]
            for f in range(N_FACTORS):
                vectors[b, f] += np.float32(weights[k]) * x[slot, f]
        if total > 0:
            for f in range(N_FACTORS):
                vectors[b, f] /= np.float32(total)


class OnlineFactors:
    """The channel; `n` candidates a user."""

    name = "mf"

    def __init__(self, factors: MatrixFactors, rules: ContextRules, *, n: int = N_CANDIDATES) -> None:
        self.factors, self.rules, self.n = factors, rules, n
        self._retrieval = Retrieval()
        self._items = np.empty(0, np.int32)  # slot of the item table by slot of the factors, of those looked up so far
        self._n_looked_up = 0
        self._unknown = np.empty(0, np.int64)  # those among them that are in no item table yet

    def user_vectors(self, users: Histories) -> np.ndarray:
        """Users' vectors, (B, N_FACTORS) float32; zeros for those of whose items none is known."""
        vectors = np.zeros((len(users.rows), N_FACTORS), np.float32)
        _user_vectors(users.rows, users.now_ms, self.rules, self.factors.x, *self.factors.index, vectors)
        return vectors

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """The n items with the largest logits, (B, n); none for users without a vector."""
        vectors = self.user_vectors(users)
        slots, logits = self._retrieval.search(vectors, self.factors.y, self.n)
        if not slots.shape[1]:
            return Candidates(np.full((len(vectors), 1), -1, np.int32), np.zeros((len(vectors), 1), np.float32))
        items = self._item_slots(find)[slots]
        shares = np.exp(logits - logits[:, :1])
        shares /= shares.sum(axis=1, keepdims=True)
        known = np.any(vectors, axis=1, keepdims=True) & (items >= 0)
        return Candidates(np.where(known, items, -1).astype(np.int32), np.where(known, shares, 0).astype(np.float32))

    def _item_slots(self, find: ItemIndex) -> np.ndarray:
        """Slots of the item table by slot of the factors, -1 where an item was learned from before it was folded."""
        n, n_known = self.factors.n_items, self._n_looked_up
        if n < n_known:  # another state was loaded
            n_known, self._unknown = 0, np.empty(0, np.int64)
        if n > len(self._items):
            grown = np.full(max(1024, 2 * n), -1, np.int32)
            grown[:n_known] = self._items[:n_known]
            self._items = grown
        if n > n_known or len(self._unknown):
            # items that stay unknown are asked for in turn, so that they cost no list its time
            asked = np.concatenate([self._unknown[:N_ASKED_AGAIN], np.arange(n_known, n)])
            found = np.empty((1, len(asked)), np.int32)
            find_all(find.keys, find.cells, self.factors.hashes[asked].reshape(1, -1), found)
            self._items[asked] = found[0]
            self._unknown = np.concatenate([self._unknown[N_ASKED_AGAIN:], asked[found[0] < 0]])
            self._n_looked_up = n
        return self._items
