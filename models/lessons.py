"""Lessons: what one event teaches the models that learn - what the user had before, and what he took next.

A lesson is written down by the owner of the user before the event is absorbed, and learned by every worker in the order
of one log, so that all of them learn the same from the same state.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from models.user_row import age_ms

#: Items of a context. Of longer histories as many are drawn, with probabilities by weight (on groceries 24 of 54 learn as
#: well as all, 12 less).
N_CONTEXT = 24
#: How many of the newest context items also learn the way back, from the item that follows them.
N_BACK = 2

#: One event as a lesson; its context lies in arrays beside it, `n_context` entries long.
LESSON = np.dtype(
    [
        ("item", "<u8"),  # what was taken
        ("source", "<u4"),  # offset of the event, counted from the section's first
        ("weight", "<f4"),  # that of its type; negative for dislike and remove
        ("n_context", "u1"),
        ("n_back", "u1"),  # so many of the first are of the same session
        ("n_before", "u1"),  # items that the context is drawn from, N_CONTEXT for more
        ("again", "u1"),  # 1: what was taken is one of these
    ]
)


class Lessons(NamedTuple):
    """n lessons and their contexts, one after the other: `heads` (n,) LESSON, `items` (m,) uint64, `shares` (m,) uint8."""

    heads: np.ndarray
    items: np.ndarray
    shares: np.ndarray


class ContextRules(NamedTuple):
    """How much each item of a history says: decayed weight x recency ** (number of newer items)."""

    half_life_ms: float
    recency: float
    session_ms: int


@nb.njit(cache=True, nogil=True)
def context_weights(row: np.void, now_ms: int, strictly: bool, rules: ContextRules, weights: np.ndarray) -> int:
    """Fill `weights` (N_ITEMS,) float64 for the row's items; 0: it says nothing. Returns how many speak.

    strictly: only items before `now_ms`, so that one basket does not predict itself.
    """
    n = 0
    recency = 1.0
    for k in range(np.int64(row["n_items"]) - 1, -1, -1):
        weights[k] = 0.0
        if row["weights"][k] <= 0:
            continue
        age = age_ms(row, k, now_ms)
        if strictly and age <= 0:
            continue
        weights[k] = row["weights"][k] * 2.0 ** (-max(age, 0) / rules.half_life_ms) * recency
        recency *= rules.recency
        n += 1
    return n


@nb.njit(cache=True, nogil=True)
def note(
    row: np.void,
    item: np.uint64,
    time_ms: int,
    weight: np.float32,
    source: np.uint32,
    rules: ContextRules,
    lessons: Lessons,
    n_lessons: int,
    n_context: int,
    weights: np.ndarray,
) -> int:
    """Write the lesson of one event, which the row has not absorbed yet; returns the new end of the contexts.

    No item before it: no lesson, and the end stays where it was.
    """
    n = context_weights(row, time_ms, True, rules, weights)
    if n == 0:
        return n_context
    n_items = np.int64(row["n_items"])
    total = 0.0
    most = 0.0
    again = np.uint8(0)
    for k in range(n_items):
        if weights[k] > 0 and row["items"][k] == item:
            again = np.uint8(1)
        total += weights[k]
        most = max(most, weights[k])
    if most < 1e-30:  # of another age
        return n_context
    # systematic sampling: entry k is drawn as often as marks lie in its stretch of the total
    step = total / N_CONTEXT
    start = ((np.uint64(source) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) / 16777216.0 * step
    reached = 0.0
    end = n_context
    n_back = 0
    in_session = True
    for k in range(n_items - 1, -1, -1):
        if weights[k] <= 0:
            continue
        share = np.int64(0)
        if n <= N_CONTEXT:
            share = np.int64(max(1, round(255 * weights[k] / most)))
        else:
            reached += weights[k]
            while start < reached and share < 255 and end < n_context + N_CONTEXT:
                share += 1
                start += step
        if share == 0 or end == n_context + N_CONTEXT:
            continue
        lessons.items[end] = row["items"][k]
        lessons.shares[end] = share
        in_session = in_session and age_ms(row, k, time_ms) <= rules.session_ms
        if in_session and n_back < N_BACK:
            n_back += 1
        end += 1
    head = lessons.heads[n_lessons]
    head["item"] = item
    head["source"] = source
    head["weight"] = weight
    head["n_context"] = end - n_context
    head["n_back"] = n_back
    head["n_before"] = min(n, N_CONTEXT)
    head["again"] = again
    return end
