"""The channel of the online factors: what comes next for a user, again or anew.

P(i) = r * P(i | again) + (1 - r) * P(i | anew), r = how often the next item is one that the user had
(`MatrixFactors.repeat_rates`). Again: by the share of each item in the user's vector. Anew: by the dot product with that
vector. The vector is computed from the row at each refresh, so it is as fresh as the row.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories, ItemIndex
from models.hashing import find_all, find_slot, scratch
from models.lessons import ContextRules, context_weights
from models.mf import MatrixFactors
from models.mf_steps import N_FACTORS
from models.retrieval import Retrieval
from models.user_row import N_ITEMS

#: Candidates of what comes anew; what comes again is proposed besides.
N_CANDIDATES = 100
#: How much of what comes anew is among so many: on sessions a third to a half. Their softmax says nothing of the others.
COVERED = 0.3
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
    shares: np.ndarray,
) -> None:
    """Fill users' vectors (B, N_FACTORS) and the shares (B, N_ITEMS) of their rows' items, which sum to 1 or are all 0."""
    weights = np.empty(N_ITEMS, np.float64)
    for b in range(rows.shape[0]):
        row = rows[b]
        n_items = np.int64(row["n_items"])
        if context_weights(row, max(now_ms, row["clock_ms"]), False, rules, weights) == 0:
            continue
        total, known = 0.0, 0.0
        for k in range(n_items):
            if weights[k] <= 0:
                continue
            total += weights[k]
            slot = find_slot(keys, cells, row["items"][k])
            if slot < 0 or slot >= x.shape[0]:  # learned of this very moment, by another thread
                continue
            known += weights[k]
            for f in range(N_FACTORS):
                vectors[b, f] += np.float32(weights[k]) * x[slot, f]
        if total > 0:
            for k in range(n_items):
                shares[b, k] = np.float32(weights[k] / total)
        if known > 0:
            for f in range(N_FACTORS):
                vectors[b, f] /= np.float32(known)


@nb.njit(cache=True, nogil=True)
def _again_and_anew(
    own: np.ndarray,
    shares: np.ndarray,
    rates: np.ndarray,
    logits: np.ndarray,
    place: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Fills in what comes again behind what comes anew, the first columns of `items` (B, n + N_ITEMS), which lose what is there
    too; and all `scores`. `place` stays -1."""
    n = logits.shape[1]
    for b in range(items.shape[0]):
        end = n
        for k in range(own.shape[1]):
            if own[b, k] >= 0 and shares[b, k] > 0:
                place[own[b, k]] = end
                items[b, end], scores[b, end] = own[b, k], shares[b, k]
                end += 1
        again = rates[min(end - n, rates.shape[0] - 1)]
        best, total = np.float32(-np.inf), np.float32(0)
        for k in range(n):
            if items[b, k] >= 0 and place[items[b, k]] >= 0:
                items[b, k] = -1
            if items[b, k] >= 0:
                best = max(best, logits[b, k])
        for k in range(n):
            if items[b, k] >= 0:
                scores[b, k] = np.exp(logits[b, k] - best)
                total += scores[b, k]
        for k in range(n):
            if items[b, k] >= 0:
                scores[b, k] *= (np.float32(1) - again) * np.float32(COVERED) / total
        for k in range(n, end):
            scores[b, k] *= again
            place[items[b, k]] = -1


class OnlineFactors:
    """The channel; `n` candidates of what comes anew for a user, and his own items."""

    name = "mf"

    def __init__(self, factors: MatrixFactors, rules: ContextRules, *, n: int = N_CANDIDATES) -> None:
        self.factors, self.rules, self.n = factors, rules, n
        self._retrieval = Retrieval()
        self._n_taught = 0  # when it was last asked
        self._items = np.empty(0, np.int32)  # slot of the item table by slot of the factors, of those looked up so far
        self._n_looked_up = 0
        self._unknown = np.empty(0, np.int64)  # those among them that are in no item table yet
        self._place = np.empty(0, np.int32)

    def user_vectors(self, users: Histories) -> tuple[np.ndarray, np.ndarray]:
        """Users' vectors, (B, N_FACTORS) float32, zeros for those of whose items none is known; and the shares of the rows' items in
        them, (B, N_ITEMS) float32."""
        vectors = np.zeros((len(users.rows), N_FACTORS), np.float32)
        shares = np.zeros((len(users.rows), N_ITEMS), np.float32)
        _user_vectors(users.rows, users.now_ms, self.rules, self.factors.x, *self.factors.index, vectors, shares)
        return vectors, shares

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """The n items with the largest logits and the user's own, (B, n + N_ITEMS) in no order, -1 where there is none."""
        vectors, shares = self.user_vectors(users)
        n_taught = self.factors.n_taught
        slots, logits = self._retrieval.search(vectors, self.factors.y, self.n, max(0, n_taught - self._n_taught))
        self._n_taught = n_taught
        n = slots.shape[1]
        items = np.full((len(vectors), n + N_ITEMS), -1, np.int32)
        if n:
            items[:, :n] = np.where(np.any(vectors, axis=1, keepdims=True), self._item_slots(find)[slots], -1)
        scores = np.zeros(items.shape, np.float32)
        self._place = scratch(self._place, len(item_rows))
        _again_and_anew(users.items, shares, self.factors.repeat_rates, logits, self._place, items, scores)
        return Candidates(items, scores)

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
