"""The fusion that learns, in the place of the fixed blend: proposals in, ranked items out, and lessons for what was taken.

Filters apply last and always. Behind the candidates a list is filled from popularity, so that it is as long as asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba as nb
import numpy as np

from models.blend import Ranked, excluded
from models.candidates import Candidates, Histories
from models.features import Features, Seen
from models.fusion import Lesson, fresh, gradient, scores
from models.hashing import scratch
from models.hit_rate import N_SHOWN, count_hits
from models.popularity import WINDOWS, Popularity
from models.top import bound_of


#: So many more than a list shows are put in order at first.
SPARE = 28


@nb.njit(cache=True, nogil=True)
def _settle_ties(order: np.ndarray, logits: np.ndarray, items: np.ndarray, item_rows: np.ndarray) -> None:
    """Equal logits in the order of the items' hashes: slots, and so places, differ between replicas."""
    for k in range(1, order.shape[0]):
        one = order[k]
        at = k
        while (
            at > 0
            and logits[order[at - 1]] == logits[one]
            and item_rows[items[order[at - 1]]]["hash"] > item_rows[items[one]]["hash"]
        ):
            order[at] = order[at - 1]
            at -= 1
        order[at] = one


@nb.njit(cache=True, nogil=True)
def _rank(
    rows: np.ndarray,
    seen: Seen,
    logits: np.ndarray,
    popular: Popularity,
    visible: np.ndarray,
    item_rows: np.ndarray,
    position: np.ndarray,
    n_personal: int,
    out_items: np.ndarray,
    out_scores: np.ndarray,
    out_why: np.ndarray,
) -> None:
    n = out_items.shape[1]
    for b in range(rows.shape[0]):
        row = rows[b]
        any_seen = row["bloom"].any()
        n_seen = seen.n[b]
        filled = 0
        last = np.float32(1.0)
        best = np.float32(0.0)
        # the best are put in order, and the others only where filters leave too few of these
        bound = bound_of(logits[b], n_seen, min(n_seen, n + SPARE)) if n_seen > 0 else np.float32(0.0)
        for below in range(2):
            if filled == n:
                break
            chosen = np.flatnonzero((logits[b, :n_seen] < bound) == (below == 1))
            order = chosen[np.argsort(-logits[b][chosen], kind="mergesort")]
            _settle_ties(order, logits[b], seen.items[b], item_rows)
            for k in order:
                item = seen.items[b, k]
                position[item] = 1
                if filled == n or not visible[item] or excluded(row, item_rows[item]["hash"], any_seen):
                    continue
                if filled == 0:
                    best = logits[b, k]
                # odds against the first: positive, as published scores are
                last = min(last, np.exp(max(logits[b, k] - best, np.float32(-60.0))))
                out_items[b, filled] = item
                out_scores[b, filled] = last
                out_why[b, filled] = seen.why[b, k]
                filled += 1
        top = np.float32(0.0)
        for k in range(popular.order.shape[0]):
            if filled == n:
                break
            item = popular.order[k]
            if position[item] >= 0 or not visible[item] or excluded(row, item_rows[item]["hash"], any_seen):
                continue
            top = max(top, popular.mixture[item])
            share = popular.mixture[item] / top if top > 0 else np.float32(0.0)
            out_items[b, filled] = item
            out_scores[b, filled] = np.float32(0.99) * last * share
            out_why[b, filled] = n_personal + popular.window[item]
            filled += 1
        for k in range(n_seen):
            position[seen.items[b, k]] = -1


class Reranker:
    """Learned fusion of `personal` channels, the user's own items first. `weights`: the fixed blend that it starts as,
    channel name -> weight >= 0, also of the windows in `WINDOWS`; 0 switches a channel off; `half_life_ms` of the rows' weights."""

    def __init__(self, personal: Sequence[str], weights: dict[str, float], *, half_life_ms: float) -> None:
        self.channels = (*personal, *WINDOWS)
        self.window_weights = np.array([weights.get(name, 0.0) for name in WINDOWS], np.float32)
        self.features = Features([weights.get(name, 0.0) for name in personal], half_life_ms)
        self.state = fresh(self.features.n_features)
        self._position = np.empty(0, np.int32)

    def rank(
        self,
        users: Histories,
        candidates: Sequence[Candidates],
        popular: Popularity,
        visible: np.ndarray,
        item_rows: np.ndarray,
        n: int,
    ) -> Ranked:
        """See `Fusion`."""
        return self._ranked(users, self.features(users, candidates, popular), popular, visible, item_rows, n)

    def _ranked(
        self, users: Histories, seen: Seen, popular: Popularity, visible: np.ndarray, item_rows: np.ndarray, n: int
    ) -> Ranked:
        b = len(users.rows)
        self._position = scratch(self._position, len(item_rows))
        ranked = Ranked(np.full((b, n), -1, np.int32), np.zeros((b, n), np.float32), np.zeros((b, n), np.uint8))
        n_personal = len(self.channels) - len(WINDOWS)
        logits = scores(seen, self.state)
        _rank(users.rows, seen, logits, popular, visible, item_rows, self._position, n_personal, *ranked)
        return ranked

    def lesson(
        self,
        users: Histories,
        candidates: Sequence[Candidates],
        popular: Popularity,
        visible: np.ndarray,
        item_rows: np.ndarray,
        taken: np.ndarray,
        ends: np.ndarray,
    ) -> Lesson:
        """What users' baskets teach, given their rows before them (see `models.fusion.gradient`), and how many of them the
        lists that these users would be shown have hit."""
        seen = self.features(users, candidates, popular)
        shown = self._ranked(users, seen, popular, visible, item_rows, N_SHOWN).items
        return gradient(seen, taken, ends, self.state, count_hits(shown, taken, ends))
