"""Co-visitation: what people visit around the user's last items, for everybody, decayed; directly, and over one more item.

`CoVisitation` (one hop): score = sum over the user's last items x of recency(x) x P(item | x), where P is the item's share
of what was visited within a few steps of x. `TwoHop`: the same with P(item | x) = sum over neighbours y of x of
P(y | x) x P(item | y), which reaches what nobody has visited together with x yet. The item-to-item form of Linden,
Smith, York, "Amazon.com recommendations" (2003), kept online; the second is a random walk of two steps on it.

Two channels and not one, since how much to trust the second hop differs: it is half of what is found where items are
many and visits of each few, and little where every item has been visited a thousand times.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories, ItemIndex
from models.hashing import find_slot, scratch
from models.item_rows import N_SUCCESSORS, decayed, successor_factors
from models.user_row import ticks_at

#: The user's last items that speak, and how much less those of each earlier moment count. A basket is one moment.
N_SOURCES = 8
RECENCY = 0.65 ** np.arange(N_SOURCES) / np.sqrt(1 + np.arange(N_SOURCES))
#: Evidence below which a share is shrunk: one visitor who went on to one item is not P = 1.
PRIOR = 4.0 * 64

#: Two hops go from the last items over the strongest neighbours of each; more of either changes nothing that is measured.
N_FAR_SOURCES = 2
N_BETWEEN = 10
#: Walks less probable than this are not looked up: recall@20 is the same to 0.01 points.
LEAST_WALK = 3e-4
N_FAR = 128


@nb.njit(cache=True, nogil=True)
def _sources(row: np.void, slots: np.ndarray, sources: np.ndarray, factors: np.ndarray) -> int:
    """The user's last items that count for something, newest first, and their shares of 1; returns their number."""
    n = 0
    moment = 0
    ticks = -1
    total = 0.0
    for k in range(np.int64(row["n_items"]) - 1, -1, -1):
        if n == sources.shape[0]:
            break
        if row["weights"][k] <= 0 or slots[k] < 0:
            continue
        at = ticks_at(row, k)
        if n > 0 and at != ticks:
            moment += 1
        ticks = at
        sources[n] = slots[k]
        factors[n] = RECENCY[moment]
        total += factors[n]
        n += 1
    for s in range(n):
        factors[s] /= total
    return n


@nb.njit(cache=True, nogil=True)
def _strengths(source: np.void, strengths: np.ndarray) -> float:
    """Decayed weights of a row's neighbours into `strengths`; returns what their shares are shares of."""
    total = PRIOR
    factors = successor_factors(source["newest_followed"])
    followed = source["followed"]
    for s in range(np.int64(source["n_successors"])):
        strengths[s] = decayed(followed[s], factors)
        total += strengths[s]
    return total


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
    sources, factors = np.empty(N_SOURCES, np.int32), np.empty(N_SOURCES, np.float64)
    strengths = np.empty(N_SUCCESSORS, np.float64)
    for b in range(rows.shape[0]):
        n_out = 0
        for k in range(_sources(rows[b], items[b], sources, factors)):
            source = item_rows[sources[k]]
            share = factors[k] / _strengths(source, strengths)
            for s in range(np.int64(source["n_successors"])):
                other = find_slot(keys, cells, source["successors"][s])
                if other < 0 or strengths[s] <= 0:
                    continue
                at = position[other]
                if at < 0:
                    at = n_out
                    position[other] = at
                    out_items[b, at] = other
                    n_out += 1
                out_scores[b, at] += share * strengths[s]
        for at in range(n_out):
            position[out_items[b, at]] = -1


@nb.njit(cache=True, nogil=True)
def _propose_far(
    rows: np.ndarray,
    items: np.ndarray,
    item_rows: np.ndarray,
    keys: np.ndarray,
    cells: np.ndarray,
    position: np.ndarray,
    out_items: np.ndarray,
    out_scores: np.ndarray,
) -> None:
    sources, factors = np.empty(N_FAR_SOURCES, np.int32), np.empty(N_FAR_SOURCES, np.float64)
    near, far = np.empty(N_SUCCESSORS, np.float64), np.empty(N_SUCCESSORS, np.float64)
    most = N_FAR_SOURCES * N_BETWEEN * N_SUCCESSORS
    found, scores = np.empty(most, np.int32), np.empty(most, np.float32)
    for b in range(rows.shape[0]):
        n_found = 0
        for k in range(_sources(rows[b], items[b], sources, factors)):
            start = sources[k]
            source = item_rows[start]
            total = _strengths(source, near)
            n_near = np.int64(source["n_successors"])
            for _ in range(N_BETWEEN if n_near > N_BETWEEN else n_near):
                s = np.argmax(near[:n_near])
                step = near[s] / total
                near[s] = 0.0
                between = find_slot(keys, cells, source["successors"][s])
                if step < LEAST_WALK or between < 0:
                    continue
                middle = item_rows[between]
                step /= _strengths(middle, far)
                for t in range(np.int64(middle["n_successors"])):
                    walk = step * far[t]
                    if walk < LEAST_WALK or middle["successors"][t] == source["hash"]:
                        continue
                    other = find_slot(keys, cells, middle["successors"][t])
                    if other < 0:
                        continue
                    at = position[other]
                    if at < 0:
                        at = n_found
                        position[other] = at
                        found[at] = other
                        scores[at] = 0.0
                        n_found += 1
                    scores[at] += factors[k] * walk
        bar = np.float32(0.0)
        if n_found > N_FAR:
            bar = np.partition(scores[:n_found], n_found - N_FAR)[n_found - N_FAR]
        n_out = 0
        for at in range(n_found):
            position[found[at]] = -1
            if scores[at] >= bar and n_out < N_FAR:
                out_items[b, n_out] = found[at]
                out_scores[b, n_out] = scores[at]
                n_out += 1


class CoVisitation:
    """The channel; it has no state of its own but scratch, neighbours lie in the item rows."""

    name = "covisitation"

    def __init__(self) -> None:
        self._position = np.empty(0, np.int32)

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """Neighbours of the last items, (B, N_SOURCES * N_SUCCESSORS)."""
        shape = (len(users.rows), N_SOURCES * N_SUCCESSORS)
        items, scores = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        self._position = scratch(self._position, len(item_rows))
        _propose(users.rows, users.items, item_rows, find.keys, find.cells, self._position, items, scores)
        return Candidates(items, scores)


class TwoHop:
    """The channel of neighbours' neighbours; items that are neighbours as well are among them, the last items may be."""

    name = "two_hop"

    def __init__(self) -> None:
        self._position = np.empty(0, np.int32)

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """The most probable ends of two steps, (B, N_FAR), in no order."""
        shape = (len(users.rows), N_FAR)
        items, scores = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        self._position = scratch(self._position, len(item_rows))
        _propose_far(users.rows, users.items, item_rows, find.keys, find.cells, self._position, items, scores)
        return Candidates(items, scores)
