"""What a contender's lists are like, whatever they hit: how much of the catalogue they show, how popular, how alike.

All of it over the first `TOP` items of each list that was scored.
"""

from __future__ import annotations

import numpy as np

from consumers.backtest.log import Log

TOP = 10
HEAD = 0.01  # the most popular items by this share
#: Popularity is looked at again when the log has grown by this share: its head moves slowly, and sorting costs.
GROWN = 1.01


class ListStatistics:
    """Gathers exposure, novelty, popularity and diversity, list by list."""

    def __init__(self, log: Log) -> None:
        self._categories = log.categories
        self.exposure = np.zeros(log.n_items, np.int64)
        self.n_lists = self.n_shown = 0
        self._novelty = self._head = 0.0
        self._alike, self._pairs = 0.0, 0
        self._is_head = np.zeros(log.n_items, bool)
        self._looked_at = 0.0
        self._n_known = 0

    def add(self, items: np.ndarray, counts: np.ndarray) -> None:
        """Lists (B, n), -1 behind the end; counts (n_items,) events learned so far."""
        top = items[:, :TOP]
        shown = top[top >= 0]
        total = float(counts.sum())
        if total >= self._looked_at * GROWN:
            self._looked_at = total
            self._n_known = int(np.count_nonzero(counts))
            n_head = max(1, round(self._n_known * HEAD))
            self._is_head[:] = False
            self._is_head[np.argpartition(-counts, min(n_head, len(counts)) - 1)[:n_head]] = True
        self.n_lists += len(top)
        self.n_shown += len(shown)
        np.add.at(self.exposure, shown, 1)
        self._novelty += float(np.log2(total / np.maximum(counts[shown], 1)).sum()) if total else 0.0
        self._head += float(np.count_nonzero(self._is_head[shown]))
        if self._categories is not None:
            kinds = np.where(top >= 0, self._categories[top], -1)
            same = (kinds[:, :, None] == kinds[:, None, :]) & (kinds >= 0)[:, :, None]
            there = (kinds >= 0).sum(axis=1)
            self._alike += float((same.sum(axis=(1, 2)) - there).sum())
            self._pairs += int((there * (there - 1)).sum())

    def figures(self) -> dict[str, float | None]:
        """coverage@10: share of the items seen so far that some list showed; gini: of exposure over all these, 0 is even;
        popular_1%: share of places given to the 1% most popular; novelty: mean -log2 of an item's share of events;
        diversity: share of pairs of a list that are of different categories (None without categories)."""
        n = max(1, self._n_known, int(np.count_nonzero(self.exposure)))
        shown = max(1, self.n_shown)
        return {
            "coverage@10": int(np.count_nonzero(self.exposure)) / n,
            "gini": gini(np.sort(self.exposure)[-n:]),
            "popular_1%": self._head / shown,
            "novelty": self._novelty / shown,
            "diversity": 1 - self._alike / self._pairs if self._pairs else None,
        }


def gini(values: np.ndarray) -> float:
    """Gini coefficient of counts (n,): 0 where all are equal, towards 1 where one has everything."""
    values = np.sort(values).astype(np.float64)
    n, total = len(values), values.sum()
    if not total:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ values / (n * total))
