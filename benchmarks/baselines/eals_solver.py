"""The coordinate steps of eALS (see `eals` for the objective), and the pairs that they run over.

In: the pairs taken so far, vectors, weights of missing data and the cache of their outer products. Changed in place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.typed import Dict

END = -1


class Taken(NamedTuple):
    """Distinct pairs, a linked list a user and one an item."""

    keys: dict  # numba typed: user * n_items + item -> entry
    users: np.ndarray
    items: np.ndarray
    weights: np.ndarray  # float32
    of_user: np.ndarray  # (capacity,) next entry of the same user
    of_item: np.ndarray
    user_head: np.ndarray
    item_head: np.ndarray
    user_size: np.ndarray
    item_size: np.ndarray


def nothing_taken(n_users: int, n_items: int) -> Taken:
    users, items, of_user, of_item = (np.empty(1 << 14, np.int64) for _ in range(4))
    return Taken(
        Dict.empty(types.int64, types.int64), users, items, np.empty(1 << 14, np.float32), of_user, of_item,
        np.full(n_users, END, np.int64), np.full(n_items, END, np.int64), np.zeros(n_users, np.int64), np.zeros(n_items, np.int64),
    )


def with_room(taken: Taken, n: int) -> Taken:
    if n <= len(taken.users):
        return taken

    def larger(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.empty(n, array.dtype)])

    return taken._replace(users=larger(taken.users), items=larger(taken.items), weights=larger(taken.weights),
                          of_user=larger(taken.of_user), of_item=larger(taken.of_item))


@njit(cache=True, fastmath=True)
def _solve(vector: np.ndarray, others: np.ndarray, weights: np.ndarray, missing: np.ndarray, cache: np.ndarray,
           share: float, decay: float) -> None:
    """Each coordinate of one vector to its minimum, given (n_factors, m) vectors of what it was taken with.

    `missing` (m,) are the weights that these pairs have within the cache, whose part counts `share` times.
    """
    n_factors, m = others.shape
    predicted = np.zeros(m, np.float32)
    for f in range(n_factors):
        for at in range(m):
            predicted[at] += vector[f] * others[f, at]
    for f in range(n_factors):
        above, below = np.float32(0.0), np.float32(0.0)
        old = vector[f]
        for at in range(m):
            value, surplus = others[f, at], weights[at] - missing[at]
            above += (weights[at] - surplus * (predicted[at] - old * value)) * value
            below += surplus * value * value
        rest = np.float32(0.0)
        for g in range(n_factors):
            rest += vector[g] * cache[f, g]
        rest -= old * cache[f, f]
        new = (above - np.float32(share) * rest) / (below + np.float32(share) * cache[f, f] + np.float32(decay))
        vector[f] = new
        for at in range(m):
            predicted[at] += (new - old) * others[f, at]


@njit(cache=True)
def _solve_user(taken: Taken, user: int, user_vectors: np.ndarray, item_vectors: np.ndarray,
                missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    m, at, entry = taken.user_size[user], 0, taken.user_head[user]
    others, weights, own = np.empty((item_vectors.shape[1], m), np.float32), np.empty(m, np.float32), np.empty(m, np.float32)
    while entry >= 0:
        item = taken.items[entry]
        for f in range(item_vectors.shape[1]):
            others[f, at] = item_vectors[item, f]
        weights[at], own[at] = taken.weights[entry], missing[item]
        at += 1
        entry = taken.of_user[entry]
    _solve(user_vectors[user], others, weights, own, cache, 1.0, decay)


@njit(cache=True)
def _solve_item(taken: Taken, item: int, user_vectors: np.ndarray, item_vectors: np.ndarray,
                missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    m, at, entry = taken.item_size[item], 0, taken.item_head[item]
    others, weights = np.empty((item_vectors.shape[1], m), np.float32), np.empty(m, np.float32)
    while entry >= 0:
        user = taken.users[entry]
        for f in range(item_vectors.shape[1]):
            others[f, at] = user_vectors[user, f]
        weights[at] = taken.weights[entry]
        at += 1
        entry = taken.of_item[entry]
    _solve(item_vectors[item], others, weights, np.full(m, missing[item], np.float32), cache, missing[item], decay)


@njit(cache=True)
def sweep_users(taken: Taken, users: np.ndarray, user_vectors: np.ndarray, item_vectors: np.ndarray,
                missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    for user in users:
        _solve_user(taken, user, user_vectors, item_vectors, missing, cache, decay)


@njit(cache=True)
def sweep_items(taken: Taken, items: np.ndarray, user_vectors: np.ndarray, item_vectors: np.ndarray,
                missing: np.ndarray, cache: np.ndarray, decay: float) -> None:
    for item in items:
        _solve_item(taken, item, user_vectors, item_vectors, missing, cache, decay)


@njit(cache=True)
def _move(cache: np.ndarray, old: np.ndarray, new: np.ndarray, weight: float) -> None:
    for f in range(cache.shape[0]):
        for g in range(cache.shape[0]):
            cache[f, g] += np.float32(weight) * (new[f] * new[g] - old[f] * old[g])


@njit(cache=True)
def learn(taken: Taken, n_taken: int, user_vectors: np.ndarray, item_vectors: np.ndarray, missing: np.ndarray, caches: np.ndarray,
           users: np.ndarray, items: np.ndarray, new_weight: float, decay: float, passes: int) -> int:
    n_items = item_vectors.shape[0]
    for at in range(users.shape[0]):
        user, item = users[at], items[at]
        if taken.item_size[item] == 0:  # in the cache before it is used: what is taken from the cache must have been in it
            _move(caches[0], np.zeros_like(item_vectors[item]), item_vectors[item], missing[item])
        key = np.int64(user) * n_items + item
        entry = np.int64(n_taken)
        if key in taken.keys:
            entry = taken.keys[key]
        else:
            n_taken += 1
            taken.keys[key] = entry
            taken.users[entry], taken.items[entry] = user, item
            taken.of_user[entry], taken.of_item[entry] = taken.user_head[user], taken.item_head[item]
            taken.user_head[user] = taken.item_head[item] = entry
            taken.user_size[user] += 1
            taken.item_size[item] += 1
        taken.weights[entry] = new_weight
        for _ in range(passes):
            old = user_vectors[user].copy()
            _solve_user(taken, user, user_vectors, item_vectors, missing, caches[0], decay)
            _move(caches[1], old, user_vectors[user], 1.0)
            old = item_vectors[item].copy()
            _solve_item(taken, item, user_vectors, item_vectors, missing, caches[1], decay)
            _move(caches[0], old, item_vectors[item], missing[item])
    return n_taken


@njit(cache=True)
def show(shown: Taken, n_shown: int, taken: Taken, vectors: np.ndarray, item_vectors: np.ndarray, missing: np.ndarray,
         cache: np.ndarray, users: np.ndarray, items: np.ndarray, new_weight: float, decay: float, passes: int) -> int:
    """Users' `vectors` (n_users, n_factors) of what they took and were `shown`, items standing still."""
    for at in range(users.shape[0]):
        user, again = users[at], False
        if shown.user_size[user] == 0:
            entry = taken.user_head[user]
            while entry >= 0:
                n_shown = _append(shown, n_shown, user, taken.items[entry], taken.weights[entry])
                entry = taken.of_user[entry]
        entry = shown.user_head[user]
        while entry >= 0:
            if shown.items[entry] == items[at]:
                shown.weights[entry], again = new_weight, True
            entry = shown.of_user[entry]
        if not again:
            n_shown = _append(shown, n_shown, user, items[at], new_weight)
        for _ in range(passes):
            _solve_user(shown, user, vectors, item_vectors, missing, cache, decay)
    return n_shown


@njit(cache=True)
def _append(shown: Taken, n_shown: int, user: int, item: int, weight: float) -> int:
    shown.items[n_shown], shown.weights[n_shown] = item, weight
    shown.of_user[n_shown] = shown.user_head[user]
    shown.user_head[user] = n_shown
    shown.user_size[user] += 1
    return n_shown + 1
