"""What is judged: a `Contender` ranks items for users, then learns what they did. Baselines and the product implement it.

The judge calls `start` once, and then, over and over, `rank` for the users whose baskets come next and `learn` with these
baskets. A contender that retrains daily does so itself within `learn`, when event time has passed a day.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from consumers.backtest.log import Log
from infra.settings import StreamrecError


class ContenderError(StreamrecError):
    """A contender broke the rules of the judge, or lacks what a protocol needs."""


class Ranking(NamedTuple):
    """`items` (B, n) int32 numbers of items, best first, -1 behind a list's end; `scores` (B, n) float32, never increasing.

    Scores matter where they are equal: an item counts as standing behind all that have its score.
    """

    items: np.ndarray
    scores: np.ndarray


class Contender(Protocol):
    """A recommender under judgement. All arrays are the judge's: read them, keep copies."""

    name: str

    def start(self, log: Log) -> None:
        """Forget everything. `log` has no events yet: it tells how many users and items there will be, and categories."""
        ...

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        """The n best of all items seen so far for each of `users` (B,) int32, all different, at event time `now_ms`."""
        ...

    def learn(self, log: Log, first: int, last: int) -> None:
        """Absorb events [first, last) in order; `log` ends there."""
        ...


@runtime_checkable
class Observer(Protocol):
    """A contender that can be shown events as a user's history alone: for protocols in which items stand still."""

    def observe(self, log: Log, first: int, last: int) -> None:
        """From now on rank these users as if they had these events; learn nothing of items from them."""
        ...
