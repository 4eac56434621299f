"""Popularity: what everybody does now.

    score(i, t) = events of i in (t - window, t]                           `WindowPopularity`
    score(i, t) = sum over events e of i of 2^(-(t - t_e) / half_life)     `DecayedPopularity`

A window adds the item's share of all events ever (below 1), so that where counts are equal or a window is empty the
order is that of all time. The same list for every user.
Reference: Ji et al., "A Re-visit of the Popularity Baseline in Recommender Systems", SIGIR 2020 (popularity at the time).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmarks.baselines.ranked import best_of_rows
from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@njit(cache=True)
def add_levels(levels: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
    """Add 2^time to each item's sum, all sums held as base-2 logarithms: exact for ever, nothing to rescale."""
    for at in range(items.shape[0]):
        old, new = levels[items[at]], times[at]
        high, low = max(old, new), min(old, new)
        levels[items[at]] = high + math.log2(1.0 + 2.0 ** (low - high))


class Trend:
    """Decayed counts of all items, `half_life_ms` may be infinite. Also the tail of baselines whose own lists are short."""

    def __init__(self, half_life_ms: float) -> None:
        self.half_life_ms = half_life_ms

    def start(self, n_items: int) -> None:
        self._levels = np.full(n_items, -np.inf)

    def learn(self, items: np.ndarray, times_ms: np.ndarray) -> None:
        add_levels(self._levels, items, times_ms / self.half_life_ms)

    @property
    def seen(self) -> np.ndarray:
        """(n_items,) bool."""
        return self._levels > -np.inf

    def shares(self) -> np.ndarray:
        """(n_items,) float64 relative to the most popular item's, which is 1."""
        highest = self._levels.max()
        return np.exp2(self._levels - highest) if highest > -np.inf else np.zeros_like(self._levels)

    def popular(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Shares of all items and the n most popular, -1 behind their end."""
        return self.shares(), best_of_rows(self._levels[None], self.seen, n).items[0]


class DecayedPopularity:
    """Parameter: `half_life_days` of an event's weight."""

    def __init__(self, *, half_life_days: float = 3.0) -> None:
        self.name = f"popularity, half-life {half_life_days:g} d"
        self._trend = Trend(half_life_days * DAY_MS)

    def start(self, log: Log) -> None:
        self._trend.start(len(log.item_ids))

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        shares, items = self._trend.popular(n)
        scores = np.where(items >= 0, shares[items], 0.0).astype(np.float32)
        return Ranking(np.tile(items, (len(users), 1)), np.tile(scores, (len(users), 1)))

    def learn(self, log: Log, first: int, last: int) -> None:
        self._trend.learn(log.items[first:last], log.times_ms[first:last])

    def observe(self, log: Log, first: int, last: int) -> None:
        """One list for all: nothing changes."""


class WindowPopularity:
    """Parameter: `hours`, the window's length."""

    def __init__(self, *, hours: float = 24.0) -> None:
        self.name = f"popularity, last {hours:g} h"
        self._window_ms = hours * HOUR_MS

    def start(self, log: Log) -> None:
        self._ever = np.zeros(len(log.item_ids))
        self._now = np.zeros(len(log.item_ids))
        self._held: list[tuple[np.ndarray, np.ndarray]] = []  # slices of (items, times) that lie in the window, oldest first

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        while self._held and self._held[0][1][0] <= now_ms - self._window_ms:
            items, times_ms = self._held[0]
            n_old = int(np.searchsorted(times_ms, now_ms - self._window_ms, side="right"))
            np.subtract.at(self._now, items[:n_old], 1.0)
            if n_old == len(items):
                self._held.pop(0)
            else:
                self._held[0] = (items[n_old:], times_ms[n_old:])
        scores = self._now + self._ever / (self._ever.sum() + 1.0)
        one = best_of_rows(scores[None], self._ever > 0, n)
        return Ranking(np.tile(one.items, (len(users), 1)), np.tile(one.scores, (len(users), 1)))

    def learn(self, log: Log, first: int, last: int) -> None:
        items = log.items[first:last]
        np.add.at(self._now, items, 1.0)
        np.add.at(self._ever, items, 1.0)
        self._held.append((items.copy(), log.times_ms[first:last].copy()))

    def observe(self, log: Log, first: int, last: int) -> None:
        """One list for all: nothing changes."""
