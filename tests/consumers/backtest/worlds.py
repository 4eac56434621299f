"""Small worlds whose right answers can be proved, and contenders that are right, wrong or cheat."""

from __future__ import annotations

import numpy as np

from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log, make_log

DAY_MS = 86_400_000
START_MS = 1_600_000_000_000


def world(rows: list[tuple[str, str, float]], *, baskets: list[str] | None = None, periods: list[int] | None = None,
          categories: dict[str, str] | None = None) -> Log:
    """A log from (user, item, day)."""
    users, items, days = zip(*rows, strict=True)
    times = START_MS + np.round(np.array(days) * DAY_MS).astype(np.int64)
    return make_log("world", list(users), list(items), times, np.zeros(len(rows), np.uint8), baskets=baskets,
                    periods=None if periods is None else np.array(periods), categories=categories)


def random_world(seed: int, *, n: int = 400, n_users: int = 12, n_items: int = 30, same_time: float = 0.3) -> Log:
    """Events at random; some at the same moment as the one before, so that there are baskets."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(np.where(rng.random(n) < same_time, 0.0, rng.random(n) * 0.2))
    users = rng.integers(0, n_users, n)
    return world([(f"u{u}", f"i{i}", float(t)) for u, i, t in zip(users, rng.integers(0, n_items, n), times, strict=True)])


def pack(lists: list[list[tuple[int, float]]], n: int) -> Ranking:
    """A ranking from (item, score) pairs."""
    items, scores = np.full((len(lists), n), -1, np.int32), np.zeros((len(lists), n), np.float32)
    for b, pairs in enumerate(lists):
        for k, (item, score) in enumerate(pairs[:n]):
            items[b, k], scores[b, k] = item, score
    return Ranking(items, scores)


class Counting:
    """Popularity by plain counts, in plain Python: what the judge's figures can be worked out from."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name

    def start(self, log: Log) -> None:
        assert len(log) == 0
        self.counts: dict[int, int] = {}
        self.learned: list[tuple[int, int]] = []  # (user, item)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        best = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return pack([[(item, float(count)) for item, count in best]] * len(users), n)

    def learn(self, log: Log, first: int, last: int) -> None:
        assert len(log) == last
        for user, item in zip(log.users[first:last].tolist(), log.items[first:last].tolist(), strict=True):
            self.counts[item] = self.counts.get(item, 0) + 1
            self.learned.append((user, item))

    def observe(self, log: Log, first: int, last: int) -> None:
        pass


class LastItem(Counting):
    """Ranks a user's last item first, and nothing else."""

    def start(self, log: Log) -> None:
        super().start(log)
        self.last: dict[int, int] = {}

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        return pack([[(self.last[u], 1.0)] if u in self.last else [] for u in users.tolist()], n)

    def learn(self, log: Log, first: int, last: int) -> None:
        super().learn(log, first, last)
        self.observe(log, first, last)

    def observe(self, log: Log, first: int, last: int) -> None:
        for user, item in zip(log.users[first:last].tolist(), log.items[first:last].tolist(), strict=True):
            self.last[user] = item


class Cheat(Counting):
    """Reads what comes next out of the memory behind the arrays it was given."""

    def start(self, log: Log) -> None:
        super().start(log)
        self.end = 0
        self.whole = (log.users.base, log.items.base)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        all_users, all_items = self.whole
        lists = []
        for user in users.tolist():
            next_items = dict.fromkeys(all_items[self.end:][all_users[self.end:] == user].tolist())
            lists.append([(item, 1000.0 - k) for k, item in enumerate(i for i in next_items if i in self.counts)])
        return pack(lists, n)

    def learn(self, log: Log, first: int, last: int) -> None:
        super().learn(log, first, last)
        self.end = last
