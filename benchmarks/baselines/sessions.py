"""Past sessions and which of them hold an item: the memory beneath the neighbourhood baselines, current to the last event.

A session is a user (data sets whose users are sessions) or one basket. `items[s, p % length]` is its p-th item; the
entries of an item name the sessions that hold it, newest first, so that the m most recent are found by walking m steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

END = -1


class Sessions(NamedTuple):
    """Arrays that numba takes as they are."""

    items: np.ndarray  # (n_sessions, length) int32
    counts: np.ndarray  # (n_sessions,) int64
    times_ms: np.ndarray  # (n_sessions,) int64 of the last event
    last_seen: np.ndarray  # (n_sessions,) int64 running number of the last event, for exact recency
    newest: np.ndarray  # (n_items,) int64 newest entry of an item
    n_holding: np.ndarray  # (n_items,) int64 sessions that hold it
    entry_session: np.ndarray  # (capacity,) int32
    entry_before: np.ndarray  # (capacity,) int64 the next older entry of the same item
    sizes: np.ndarray  # (2,) int64: sessions, entries
    of_user: np.ndarray  # (n_users,) int64 the user's current session
    basket_of: np.ndarray  # (n_users,) int64 its basket


def no_sessions(n_users: int, n_items: int, length: int) -> Sessions:
    capacity = 1 << 14
    return Sessions(np.zeros((capacity, length), np.int32), np.zeros(capacity, np.int64), np.zeros(capacity, np.int64),
                    np.zeros(capacity, np.int64), np.full(n_items, END, np.int64), np.zeros(n_items, np.int64),
                    np.empty(capacity, np.int32), np.empty(capacity, np.int64), np.zeros(2, np.int64),
                    np.full(n_users, END, np.int64), np.full(n_users, END, np.int64))


def with_room(sessions: Sessions, n_more: int) -> Sessions:
    """The same sessions with room for n_more events."""
    grown = {}
    for field, used in (("items", 0), ("counts", 0), ("times_ms", 0), ("last_seen", 0), ("entry_session", 1), ("entry_before", 1)):
        array = getattr(sessions, field)
        if int(sessions.sizes[used]) + n_more > len(array):
            larger = np.zeros((2 * len(array) + n_more, *array.shape[1:]), array.dtype)
            larger[: len(array)] = array
            grown[field] = larger
    return sessions._replace(**grown)


@njit(cache=True)
def learn(sessions: Sessions, by_basket: bool, users: np.ndarray, items: np.ndarray, times_ms: np.ndarray,
          baskets: np.ndarray) -> None:
    """Append events. An item entered once and seen again in the same session moves to the front of its item's entries."""
    length = sessions.items.shape[1]
    for at in range(users.shape[0]):
        user, item = users[at], items[at]
        session = sessions.of_user[user]
        if session < 0 or (by_basket and sessions.basket_of[user] != baskets[at]):
            session = sessions.sizes[0]
            sessions.sizes[0] += 1
            sessions.of_user[user], sessions.basket_of[user] = session, baskets[at]
        known = False
        for place in range(min(sessions.counts[session], length)):
            known = known or sessions.items[session, place] == item
        sessions.n_holding[item] += not known
        sessions.items[session, sessions.counts[session] % length] = item
        sessions.counts[session] += 1
        sessions.times_ms[session] = times_ms[at]
        entry = sessions.sizes[1]
        sessions.sizes[1] += 1
        sessions.last_seen[session] = entry
        newest = sessions.newest[item]
        if newest < 0 or sessions.entry_session[newest] != session:
            sessions.entry_session[entry], sessions.entry_before[entry] = session, newest
            sessions.newest[item] = entry


@njit(cache=True)
def candidates(sessions: Sessions, items: np.ndarray, own: int, m: int, marked: np.ndarray, mark: int) -> np.ndarray:
    """The m most recent sessions but `own` that hold one of the distinct `items`; `marked` is scratch, (n_sessions,) int64."""
    found, n_found = np.empty(m * items.shape[0], np.int64), 0
    for item in items:
        entry, n_walked = sessions.newest[item], 0
        while entry >= 0 and n_walked < m:
            session = sessions.entry_session[entry]
            if session != own:
                n_walked += 1
                if marked[session] != mark:
                    marked[session] = mark
                    found[n_found] = session
                    n_found += 1
            entry = sessions.entry_before[entry]
    found = found[:n_found]
    if n_found <= m:
        return found
    order = np.argsort(-sessions.last_seen[found])
    return found[order[:m]]
