"""How often each channel alone would have been right, and popularity for everybody: what the lists are held against.

In: what the channels propose for users, before their baskets are absorbed, and what these baskets took. Out: counts of baskets of
which an item stood among the first ten, by whose ten: `list` (the ranked list itself), `popular` (the list of those who have none), and
each channel by its name. Filters apply as they do to lists; ties never count in favour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba as nb
import numpy as np

from models.blend import excluded
from models.candidates import Candidates, Histories
from models.fusion import Lesson
from models.hit_rate import N_SHOWN, count_hits

LIST, POPULAR = "list", "popular"
#: Of the recent share: long enough that a difference of a percent shows, short enough that a change does within minutes under load.
HALF_LIFE_BASKETS = 2_000


@nb.njit(cache=True, nogil=True)
def _hits(
    rows: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
    visible: np.ndarray,
    item_rows: np.ndarray,
    taken: np.ndarray,
    ends: np.ndarray,
) -> int:
    n_hits, start = 0, 0
    for b in range(rows.shape[0]):
        row = rows[b]
        any_seen = row["bloom"].any()
        hit = False
        for t in range(start, ends[b]):
            at = -1
            for k in range(items.shape[1]):
                if taken[t] >= 0 and items[b, k] == taken[t]:
                    at = k
            if at < 0 or scores[b, at] <= 0 or not visible[taken[t]] or excluded(row, item_rows[taken[t]]["hash"], any_seen):
                continue
            better = 0
            for k in range(items.shape[1]):
                other = items[b, k]
                if other < 0 or k == at or scores[b, k] < scores[b, at] or not visible[other]:
                    continue
                better += not excluded(row, item_rows[other]["hash"], any_seen)
            hit = hit or better < N_SHOWN
        n_hits += hit
        start = ends[b]
    return n_hits


class ChannelHits:
    """Counts for `channels`. `n` baskets were asked about, of which `hits[k]` had a hit in the ten of `names[k]`; `recent_n` and
    `recent` are the same with what is old counting less and less."""

    def __init__(self, channels: Sequence[str]) -> None:
        self.names = (LIST, POPULAR, *channels)
        self.n, self.hits = 0, np.zeros(len(self.names), np.int64)
        self.recent_n, self.recent = 0.0, np.zeros(len(self.names))

    def add(
        self,
        users: Histories,
        candidates: Sequence[Candidates],
        popular: np.ndarray,
        visible: np.ndarray,
        item_rows: np.ndarray,
        taken: np.ndarray,
        ends: np.ndarray,
        lesson: Lesson,
    ) -> None:
        """Count the baskets of B users: `taken` (T,) item slots, those of user b end at ends[b]; popular (<= 10,) item slots of the
        list for everybody; `lesson`: what the ranked lists themselves have hit."""
        everybody = np.broadcast_to(popular, (len(ends), len(popular))).copy()
        found = [lesson.n_hits, count_hits(everybody, taken, ends)]
        found += [_hits(users.rows, c.items, c.scores, visible, item_rows, taken, ends) for c in candidates]
        fade = 0.5 ** (len(ends) / HALF_LIFE_BASKETS)
        self.n += len(ends)
        self.hits += found
        self.recent_n = self.recent_n * fade + len(ends)
        self.recent = self.recent * fade + found
