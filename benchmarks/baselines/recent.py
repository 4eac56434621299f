"""Each user's last items, a ring a user: the current session of the neighbourhood and rule baselines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Recent(NamedTuple):
    """`items[u, p % length]` is user u's p-th item; `counts[u]` how many there were."""

    items: np.ndarray  # (n_users, length) int32
    counts: np.ndarray  # (n_users,) int64
    baskets: np.ndarray  # (n_users,) int64 basket of the last item, -1 before the first


def no_items(n_users: int, length: int) -> Recent:
    return Recent(np.zeros((n_users, length), np.int32), np.zeros(n_users, np.int64), np.full(n_users, -1, np.int64))


@njit(cache=True)
def append(recent: Recent, user: int, item: int, basket: int) -> None:
    recent.items[user, recent.counts[user] % recent.items.shape[1]] = item
    recent.counts[user] += 1
    recent.baskets[user] = basket


@njit(cache=True)
def append_all(recent: Recent, users: np.ndarray, items: np.ndarray) -> None:
    for at in range(users.shape[0]):
        append(recent, users[at], items[at], 0)


@njit(cache=True)
def held(recent: Recent, user: int) -> int:
    """How many items the ring holds."""
    return min(recent.counts[user], recent.items.shape[1])


@njit(cache=True)
def back(recent: Recent, user: int, steps: int) -> int:
    """The item `steps` before the last; 0 is the last."""
    return recent.items[user, (recent.counts[user] - 1 - steps) % recent.items.shape[1]]
