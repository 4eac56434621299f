"""Recall by a trained sequence model: a release's network and item vectors, over the items of the worker that serves it.

Score of item i for a user = his vector . the item's vector. His vector is a function of his row: the last `max_len` distinct
items, their types, and how long before the newest of them each was. Released vectors stay as they are, so candidates are
found by `models.two_stage`, and among the few that came later by what follows vectors as they move (`models.retrieval`).
"""

from __future__ import annotations

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories, ItemIndex
from models.graph import Graph, Sequences, pack
from models.item_rows import ITEM_ROW
from models.item_vectors import ItemVectors, index_of
from models.release import Manifest, Release, Shape
from models.retrieval import Retrieval
from models.two_stage import TwoStage
from models.user_row import EMPTY_ROW, N_ITEMS, SEEN, USER_ROW, ticks_at

#: So many items that come later are no reason to make a model anew.
FEW = 4_096
PRIME = np.uint64(0x9E3779B97F4A7C15)


@nb.njit(cache=True, nogil=True)
def _histories(rows: np.ndarray, items: np.ndarray, place: np.ndarray, n_released: int, most: int, out: Sequences) -> None:
    for b in range(rows.shape[0]):
        row = rows[b]
        n, first = 0, int(row["n_items"])
        while first > 0 and n < most:
            first -= 1
            item = items[b, first]
            if item >= 0 and item < place.shape[0] and place[item] >= 0:
                n += 1
        out.lengths[b] = n
        name = np.uint64(0)
        kept = True
        newest = 0
        at = n
        for k in range(int(row["n_items"]) - 1, first - 1, -1):  # from the newest, whose time the others are told by
            item = items[b, k]
            if item < 0 or item >= place.shape[0] or place[item] < 0:
                continue
            ticks = ticks_at(row, k)
            if at == n:
                newest = ticks
            at -= 1
            out.places[b, at] = place[item]
            out.types[b, at] = row["types"][k] & (SEEN - 1)
            out.ticks[b, at] = ticks
            kept = kept and place[item] < n_released  # a new item's vector moves
            for part in (np.uint64(item), np.uint64(out.types[b, at]), np.uint64(newest - ticks)):
                name = (name ^ part) * PRIME
                name ^= name >> np.uint64(29)
        out.names[b] = name if kept else np.uint64(0)


def sequences(users: Histories, place: np.ndarray, n_released: int, most: int) -> Sequences:
    """The newest `most` items of each user that have a vector; place (n items,): see `ItemVectors`."""
    shape = (len(users.rows), min(most, N_ITEMS))
    of = Sequences(
        np.empty(shape, np.int32),
        np.empty(shape, np.uint8),
        np.empty(shape, np.int64),
        np.empty(shape[0], np.int64),
        np.empty(shape[0], np.uint64),
    )
    _histories(users.rows, users.items, place, n_released, shape[1], of)
    return of


class Recall:
    """A release over the items of one worker; it takes the release's arrays over. Raises BadRelease for a graph that does not fit.

    Not for several threads at once, but one may make it while another goes on with an older one. item_rows (n_items,) ITEM_ROW.
    """

    def __init__(self, release: Release, item_rows: np.ndarray) -> None:
        self.version, self.shape = release.manifest.version, release.manifest.shape
        self.graph = Graph(release.graph, self.shape)
        self.items = ItemVectors(release, item_rows)
        self._search = TwoStage(self.items.released[: self.items.n_known])
        self._search_new = Retrieval()

    @property
    def outgrown(self) -> bool:
        """Whether so many of its items came later that it should be made anew, over all of them."""
        return self.items.n_late > max(FEW, self.items.n_known)

    def embed(self, users: Histories) -> np.ndarray:
        """Users' vectors, (B, d) float32; zeros for those of whose items none has a vector."""
        of = sequences(users, self.items.place, self.shape.n_items, self.shape.max_len)
        return self.graph.users(of, self.items.released, self.items.new)

    def candidates(self, vectors: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The n items with the largest scores: item slots (B, <= n) int32, scores (B, <= n) float32, best first."""
        items = self.items
        places, scores = self._search.search(vectors, n)
        slots = items.slots[places]
        if items.n_new:
            places, more = self._search_new.search(vectors, items.new[: items.n_new], n)
            slots = np.concatenate([slots, items.new_slots[places]], axis=1)
            scores = np.concatenate([scores, more], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
            slots, scores = np.take_along_axis(slots, order, 1), np.take_along_axis(scores, order, 1)
        return slots, scores


class TransformerRecall:
    """The channel; `n` candidates a user. `model` is None while no release is served: then it proposes nothing, and costs nothing."""

    name = "transformer"

    def __init__(self, *, n: int) -> None:
        self.n = n
        self.model: Recall | None = None

    def propose(self, users: Histories, item_rows: np.ndarray, find: ItemIndex) -> Candidates:
        """The n items with the largest scores, (B, <= n); none for users without a vector."""
        model = self.model
        if model is None:
            return Candidates(np.empty((len(users.rows), 0), np.int32), np.empty((len(users.rows), 0), np.float32))
        model.items.follow(item_rows, find)
        vectors = model.embed(users)
        slots, scores = model.candidates(vectors, self.n)
        if not slots.shape[1]:
            return Candidates(slots, scores)
        shares = np.exp(scores - scores[:, :1])
        shares /= shares.sum(axis=1, keepdims=True)
        known = np.any(vectors, axis=1, keepdims=True)
        return Candidates(np.where(known, slots, -1).astype(np.int32), np.where(known, shares, 0).astype(np.float32))


def compile_kernels() -> None:
    """Run once what is compiled, at set-up: a worker's first release must not be loaded beside a compiler."""
    item_rows, rows = np.zeros(2, ITEM_ROW), np.full(1, EMPTY_ROW, USER_ROW)
    item_rows["hash"] = 1, 2
    rows["n_items"] = 1
    release = Release(Manifest(shape=Shape(1, 8, 4, 1)), np.ones((1, 8), np.float32), np.ones(1, np.uint64), b"")
    items = ItemVectors(release, item_rows)
    items.follow(item_rows, index_of(np.array([1, 2], np.uint64)))
    of = sequences(Histories(rows, np.zeros((1, N_ITEMS), np.int32), 0), items.place, 1, 4)
    pack(of, np.zeros(1, np.int64), items.released, items.new, 1)
    TwoStage(np.ones((1_024, 8), np.float32), exact_up_to=0).search(np.ones((1, 8), np.float32), 1)
