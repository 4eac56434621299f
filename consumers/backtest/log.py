"""A recorded log as arrays: who took what, when, in which basket. Everything here is judged on; nothing here judges.

In: columns of any length, in any order. Out: a `Log` in time order whose users and items are numbered by first appearance -
which says how old an item is, so no contender may use a number as more than a name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.settings import StreamrecError


class LogError(StreamrecError):
    """What was given is no log that can be judged on."""


@dataclass(frozen=True)
class Log:
    """Events in time order. `user_ids` and `item_ids` name the numbers in `users` and `items`.

    users, items (n,) int32; times_ms (n,) int64, non-decreasing; types (n,) uint8, places in EVENT_TYPES; baskets (n,) int64: a
    running number, non-decreasing, all events of one basket contiguous, of one user and of one moment; values (n,) float64, NaN
    where an event carries none, or None; categories (n_items,) int32, -1 unknown, or None; periods (n,) int16, non-decreasing,
    or None; probes (n,) bool: events that are shown as a user's history but are never learned from (None: there are none; see
    `protocol.ader`).
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    times_ms: np.ndarray
    types: np.ndarray
    baskets: np.ndarray
    user_ids: list[str]
    item_ids: list[str]
    values: np.ndarray | None = None
    categories: np.ndarray | None = None
    periods: np.ndarray | None = None
    probes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_users(self) -> int:
        """Users there are, those of later events included."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items there are, those of later events included."""
        return len(self.item_ids)

    def until(self, last: int) -> Log:
        """The first `last` events: all that a contender is ever given. What follows cannot be read from it."""
        return dataclasses.replace(
            self, users=self.users[:last], items=self.items[:last], times_ms=self.times_ms[:last], types=self.types[:last],
            baskets=self.baskets[:last], values=None if self.values is None else self.values[:last],
            periods=None if self.periods is None else self.periods[:last],
            probes=None if self.probes is None else self.probes[:last],
        )

    def basket_starts(self) -> np.ndarray:
        """(n_baskets + 1,) int64: where each basket begins, and the end."""
        if not len(self):
            return np.zeros(1, np.int64)
        inner = np.flatnonzero(np.diff(self.baskets)) + 1
        return np.concatenate([[0], inner, [len(self)]]).astype(np.int64)


def make_log(
    name: str,
    users: Sequence[str] | np.ndarray,
    items: Sequence[str] | np.ndarray,
    times_ms: np.ndarray,
    types: np.ndarray,
    *,
    baskets: Sequence[str] | np.ndarray | None = None,
    values: np.ndarray | None = None,
    periods: np.ndarray | None = None,
    categories: dict[str, str] | None = None,
) -> Log:
    """A log from columns of equal length, in any order: sorted by time, numbered, put into baskets.

    baskets: what lies in one basket carries the same value and user (a basket's moment is its first event's); None: events of
    one user at the same millisecond are one. categories: by item, as text. Raises LogError where there is no event.
    """
    if not len(times_ms):
        raise LogError(f"{name} holds no event; a backtest needs a log with users, items and, at best, times")
    user_codes, user_ids = _codes(users)
    item_codes, item_ids = _codes(items)
    keys = np.unique(times_ms, return_inverse=True)[1].reshape(-1) if baskets is None else _codes(baskets)[0]
    _, first, basket = np.unique(user_codes * (int(keys.max()) + 1) + keys, return_index=True, return_inverse=True)
    began = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(began, basket, times_ms)
    # by the basket's moment; of one moment by the row at which the basket begins, so that a sorted log stays as it is
    order = np.lexsort((np.arange(len(basket)), first[basket], began[basket]))
    basket, moments = basket[order], began[basket[order]]
    user_codes, user_ids = _renumber(user_codes[order], user_ids)
    item_codes, item_ids = _renumber(item_codes[order], item_ids)
    number = None
    if categories is not None:
        kinds = {kind: k for k, kind in enumerate(dict.fromkeys(categories.values()))}
        number = np.array([kinds[categories[i]] if i in categories else -1 for i in item_ids], np.int32)
    return Log(
        name=name, users=user_codes, items=item_codes, times_ms=moments, types=np.asarray(types, np.uint8)[order],
        baskets=np.concatenate([[0], np.cumsum(np.diff(basket) != 0)]).astype(np.int64), user_ids=user_ids, item_ids=item_ids,
        values=None if values is None else np.asarray(values, np.float64)[order], categories=number,
        periods=None if periods is None else np.asarray(periods, np.int16)[order],
    )


def _codes(values: Sequence[str] | np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(n,) int64 numbers, and the texts that they stand for."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        found, codes = np.unique(values, return_inverse=True)
        return codes.reshape(-1), [str(value) for value in found.tolist()]
    known: dict[str, int] = {}
    codes = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int64, len(values))
    return codes, list(known)


def _renumber(codes: np.ndarray, ids: list[str]) -> tuple[np.ndarray, list[str]]:
    """The same by first appearance."""
    found, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(found), np.int32)
    rank[order] = np.arange(len(found), dtype=np.int32)
    return rank[inverse.reshape(-1)], [ids[code] for code in found[order].tolist()]
