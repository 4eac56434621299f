"""Refresh: from rows to lists. Channels propose, fusion ranks, filters apply last; the result is ready to publish.

Synchronous and without I/O: the worker publishes what this returns, the lockstep engine and the tests read it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infra.settings import Settings, SettingsError
from models.blend import Ranked
from models.candidates import Candidates, Channel, Histories, ItemIndex
from models.channel_hits import ChannelHits
from models.covisitation import CoVisitation, TwoHop
from models.fusion import Lesson
from models.hashing import find_all
from models.hit_rate import N_SHOWN
from models.lessons import ContextRules
from models.mf import MatrixFactors
from models.mf_channel import OnlineFactors
from models.item_rows import successor_strengths
from models.popularity import Popularity, popularity, with_new
from models.recall import Recall, TransformerRecall
from models.repeat import Repeat
from models.reranker import Reranker
from streams.items import ItemTable
from streams.lists import ListWriter
from streams.user_table import UserTable

MODEL = "fusion-1"
#: Popular items beyond the list's size that stand ready to fill lists whose first choices a user has seen.
SPARE = 2_000
N_SIMILAR = 50


class Refresher:
    """Computes lists from the state that it is given. `clock` returns the wall clock in epoch ms."""

    def __init__(
        self, settings: Settings, users: UserTable, items: ItemTable, factors: MatrixFactors, rules: ContextRules
    ) -> None:
        self.users, self.items, self.n = users, items, settings.list_size
        self.transformer = TransformerRecall(n=settings.list_size)
        self.channels: list[Channel] = [
            Repeat(half_life_ms=settings.repeat_half_life_s * 1000.0),
            CoVisitation(),
            TwoHop(),
            OnlineFactors(factors, rules, n=settings.list_size),
            self.transformer,
        ]
        try:
            self.fusion = Reranker(
                [c.name for c in self.channels], settings.blend_weights(), half_life_ms=settings.repeat_half_life_s * 1000.0
            )
        except ValueError as error:
            raise SettingsError(f"{error}; set STREAMREC_BLEND to channel=weight pairs of these") from error
        self.hits = ChannelHits([c.name for c in self.channels])
        self._window_weights = self.fusion.window_weights
        self.serve(None)
        self._popular: Popularity | None = None

    def serve(self, model: Recall | None) -> None:
        """From now on lists are made with this release, and name it; None: without one."""
        self.transformer.model = model
        # the end of its name, which the commands take too: a longer one would put most lists into Redis' next size of memory
        self._writer = ListWriter(self.fusion.channels, MODEL if model is None else f"{MODEL}+{model.version[-6:]}")

    def embeddings(self, slots: Sequence[int]) -> tuple[str, np.ndarray] | None:
        """Version of the release and the vectors that it gives the users at `slots`, (B, d); None while none is served."""
        model = self.transformer.model
        if model is None:
            return None
        rows = self.users.rows[slots]
        return model.version, model.embed(Histories(rows, find_slots(self.items, rows["items"]), self.items.clock_ms))

    def renew_popularity(self) -> Popularity:
        """Recompute the order of popular items and use it from now on."""
        return self.use(self.popularity())

    def popularity(self) -> Popularity:
        """The same without using it: 20 ms at 70,000 items, so a worker calls it in a thread, beside folds that go on.

        A count that changes meanwhile is read old or new; either will do for an order that is renewed every second.
        """
        items, n = self.items, self.items.n_items
        return popularity(
            items.rows[:n], items.visible[:n], items.clock_ms, items.rules, self._window_weights, self.n + SPARE
        )

    def use(self, popular: Popularity) -> Popularity:
        """From now on lists are filled from this."""
        self._popular = popular
        return popular

    def _current_popularity(self) -> Popularity:
        popular = self._popular
        if popular is None:
            return self.renew_popularity()
        self._popular = popular = with_new(popular, self.items.n_items)
        return popular

    def propose(self, slots: Sequence[int]) -> tuple[Histories, list[Candidates], Popularity]:
        """What fusion works on, for the users at `slots`: histories, proposals by channel, popularity."""
        items = self.items
        rows = self.users.rows[slots]
        histories = Histories(rows, find_slots(items, rows["items"]), items.clock_ms)
        item_rows = items.rows[: items.n_items]
        index = ItemIndex(items.keys, items.cells)
        candidates = [channel.propose(histories, item_rows, index) for channel in self.channels]
        return histories, candidates, self._current_popularity()

    def rank(self, slots: Sequence[int], n: int | None = None) -> Ranked:
        """The best n items (default: a list's size) of each user at `slots`, by item slot, -1 behind a list's end."""
        items = self.items
        histories, candidates, popular = self.propose(slots)
        item_rows, visible = items.rows[: items.n_items], items.visible[: items.n_items]
        return self.fusion.rank(histories, candidates, popular, visible, item_rows, self.n if n is None else n)

    def lesson(self, slots: Sequence[int], taken: np.ndarray, ends: np.ndarray) -> Lesson:
        """What the baskets of the users at `slots` teach fusion: `taken` (T,) item slots, those of the b-th user end at ends[b]."""
        items = self.items
        users, candidates, popular = self.propose(slots)
        visible, item_rows = items.visible[: items.n_items], items.rows[: items.n_items]
        lesson = self.fusion.lesson(users, candidates, popular, visible, item_rows, taken, ends)
        shown = self.rank_popular(N_SHOWN).items[0]
        self.hits.add(users, candidates, shown, visible, item_rows, taken, ends, lesson)
        return lesson

    def rank_popular(self, n: int | None = None) -> Ranked:
        """The same, (1, <= n), for users without an event."""
        popular = self._current_popularity()
        order = popular.order[self.items.visible[popular.order] == 1][: self.n if n is None else n]  # it may be a second old
        why = popular.window[order] + np.uint8(len(self.channels))
        return Ranked(order[None], popular.mixture[order][None], why[None])

    def lists(self, slots: Sequence[int], generated_at_ms: int) -> tuple[list[bytes], list[int]]:
        """The published form of the lists of the users at `slots`, and how many items each has."""
        users, items = self.users, self.items
        ranked = self.rank(slots)
        lengths = (ranked.items >= 0).sum(axis=1).tolist()
        quoted, write = items.quoted, self._writer.write
        rows = users.rows
        partitions = users.partition[slots].tolist()
        as_of, clocks = rows["as_of"][slots].tolist(), rows["clock_ms"][slots].tolist()
        chosen = ranked.items.tolist()
        bodies = [
            write(
                users.ids[slot],
                [quoted[i] for i in chosen[b][:n]],
                ranked.scores[b, :n],
                ranked.why[b, :n],
                generated_at_ms,
                (partitions[b], as_of[b], clocks[b]),
            )
            for b, (slot, n) in enumerate(zip(slots, lengths, strict=True))
        ]
        return bodies, lengths

    def popular_list(self, generated_at_ms: int) -> bytes:
        """The list for users without one."""
        ranked = self.rank_popular()
        return self._writer.write(
            None,
            [self.items.quoted[i] for i in ranked.items[0].tolist()],
            ranked.scores[0],
            ranked.why[0],
            generated_at_ms,
            None,
        )

    def similar_list(self, slot: int, generated_at_ms: int) -> bytes | None:
        """An item's neighbours, strongest successors first; None where it has none to show."""
        items = self.items
        strengths = successor_strengths(items.rows[slot])
        others = find_slots(items, items.rows["successors"][slot : slot + 1, : len(strengths)])[0]
        order = np.argsort(-strengths, kind="stable")
        order = order[(strengths[order] > 0) & (others[order] >= 0)]
        shown = order[items.visible[others[order]] == 1][:N_SIMILAR]
        if not len(shown):
            return None
        channel = self.fusion.channels.index("covisitation")
        return self._writer.write(
            None,
            [items.quoted[i] for i in others[shown].tolist()],
            strengths[shown].astype(np.float32),
            np.full(len(shown), channel, np.uint8),
            generated_at_ms,
            None,
        )


def find_slots(items: ItemTable, hashes: np.ndarray) -> np.ndarray:
    """Slots of item hashes, (B, H) uint64 -> (B, H) int32, -1 where unknown."""
    slots = np.empty(hashes.shape, np.int32)
    find_all(items.keys, items.cells, np.ascontiguousarray(hashes), slots)
    return slots
