"""What is known of each event of a log beforehand: is it a repeat, how much had the user done, how old is the item.

In: a log. Out: `Facts`, one number an event, by which targets are told apart in the report. All of them look backwards from
the basket's beginning, since the basket is frozen: its own events are no history.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from consumers.backtest.log import Log


class Facts(NamedTuple):
    """All (n,), by event. `age_ms` int64 of the item, -1 where it was never seen before this basket."""

    basket: np.ndarray  # int64, counted from 0 without gaps
    repeat: np.ndarray  # bool: the user has an earlier event with this item
    distinct: np.ndarray  # bool: the first event with this item in its basket
    prior: np.ndarray  # int64: events of the user before the basket
    age_ms: np.ndarray
    pair_start: np.ndarray  # (n_users + 1,) int64: where a user's items begin in the two arrays below
    pair_items: np.ndarray  # int32, ascending for each user: items that he ever has
    pair_basket: np.ndarray  # int64: the basket in which he first had it


def facts_of(log: Log) -> Facts:
    """Facts of all events of a log."""
    n, starts = len(log), log.basket_starts()
    sizes = np.diff(starts)
    basket = np.repeat(np.arange(len(sizes)), sizes)
    pair = log.users.astype(np.int64) * log.n_items + log.items
    pairs, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    repeat = basket[first][inverse] < basket
    in_basket = basket * log.n_items + log.items
    distinct = np.zeros(n, bool)
    distinct[np.unique(in_basket, return_index=True)[1]] = True
    taught = np.arange(n) if log.probes is None else np.flatnonzero(~log.probes)  # what is only shown makes no item known
    age_ms = np.full(n, -1, np.int64)
    items, first_of_item = np.unique(log.items[taught], return_index=True)
    born = np.full(log.n_items, n, np.int64)
    born[items] = taught[first_of_item]
    event_born = born[log.items]
    known = event_born < starts[basket]
    age_ms[known] = log.times_ms[known] - log.times_ms[event_born[known]]
    return Facts(
        basket=basket, repeat=repeat, distinct=distinct, prior=_prior(log, starts, basket), age_ms=age_ms,
        pair_start=np.searchsorted(pairs // log.n_items, np.arange(log.n_users + 1)).astype(np.int64),
        pair_items=(pairs % log.n_items).astype(np.int32), pair_basket=basket[first].astype(np.int64),
    )


def _prior(log: Log, starts: np.ndarray, basket: np.ndarray) -> np.ndarray:
    """How many events of its user lie before each event's basket."""
    order = np.argsort(log.users, kind="stable")
    users = log.users[order]
    place = np.arange(len(order)) - np.searchsorted(users, users)  # k-th event of its user
    count = np.empty(len(order), np.int64)
    count[order] = place
    return np.asarray(count[starts[:-1]][basket])
