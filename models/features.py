"""What the fusion sees of each candidate: a few numbers between -3 and 3, computed where candidates are merged.

In: users' rows, what the channels propose, popularity. Out: for each user the union of all proposals and of the top of each
popularity window, and for each item of it `n_features` numbers: the fixed blend's score, what the row knows of the item
(weight, age, place, whether it is due), what is known of the item for everybody, each channel's probability, and the user's own circumstances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories
from models.fastlog import log_all
from models.ghosts import ghost_weight
from models.hashing import scratch
from models.item_rows import DAY_MS
from models.popularity import GAP, N_FACTS, Popularity
from models.user_row import N_GHOSTS, age_ms, to_ticks

#: Candidates of one user at most; what comes first has been proposed by the more personal channel.
MAX_CANDIDATES = 640
#: Logarithms of probabilities start here: below it an item is as good as not proposed.
LEAST_SHARE = np.float32(1e-4)
LEAST_MIXTURE = np.float32(1e-7)

#: Features by place. From CHANNELS on: one for each channel but the first, which is the user's own items.
MIXTURE, OWN, OWN_WEIGHT, OWN_AGE, OWN_AGE_SQUARE, OWN_SHARE, OWN_PLACE, OWN_DUE, OWN_DUE_SQUARE, GHOST = range(10)
FACTS = 10  # N_FACTS of them, as in `Popularity.facts`
USER_ITEMS, USER_EVENTS, USER_IDLE = range(FACTS + N_FACTS, FACTS + N_FACTS + 3)
CHANNELS = USER_IDLE + 1


class Seen(NamedTuple):
    """What fusion ranks, for B users: `items` (B, M) int32, -1 behind the last; `phi` (B, F, M) float32, features in rows so
    that kernels run along candidates; `why` (B, M) uint8: the channel that gives most to the fixed blend; `n` (B,) int32."""

    items: np.ndarray
    phi: np.ndarray
    why: np.ndarray
    n: np.ndarray


def n_features(n_channels: int) -> int:
    """Numbers a candidate, for so many personal channels."""
    return CHANNELS + n_channels - 1


@nb.njit(cache=True, nogil=True)
def _merge(
    items: np.ndarray,
    scores: np.ndarray,
    starts: np.ndarray,
    weights: np.ndarray,
    popular: Popularity,
    position: np.ndarray,
    out_items: np.ndarray,
    phi: np.ndarray,
    out_why: np.ndarray,
    most: np.ndarray,
) -> int:
    """The union: fills items, channels' shares and the blend's score; `position` is left filled. Returns their number."""
    n = 0
    n_channels = weights.shape[0]
    for c in range(n_channels):
        if weights[c] == 0:
            continue
        row = OWN_SHARE if c == 0 else CHANNELS + c - 1
        for k in range(starts[c], starts[c + 1]):
            item = items[k]
            if item < 0 or scores[k] <= 0:
                continue
            at = position[item]
            if at < 0:
                if n == out_items.shape[0]:
                    continue
                at = n
                position[item] = at
                out_items[at] = item
                phi[MIXTURE, at] = most[at] = popular.mixture[item]
                out_why[at] = n_channels + popular.window[item]
                n += 1
            phi[row, at] = scores[k]
            part = scores[k] * weights[c]
            phi[MIXTURE, at] += part
            if part > most[at]:
                most[at] = part
                out_why[at] = c
    for k in range(popular.picks.shape[0]):
        item = popular.picks[k]
        if position[item] < 0 and n < out_items.shape[0]:
            position[item] = n
            out_items[n] = item
            phi[MIXTURE, n] = popular.mixture[item]
            out_why[n] = n_channels + popular.window[item]
            n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _own(
    row: np.void,
    own: np.ndarray,
    clock: int,
    half_life_days: float,
    popular: Popularity,
    position: np.ndarray,
    phi: np.ndarray,
) -> None:
    n_items = np.int64(row["n_items"])
    for k in range(n_items):
        at = position[own[k]] if own[k] >= 0 else -1
        if at < 0 or row["weights"][k] <= 0:
            continue
        days = max(0, age_ms(row, k, clock)) / DAY_MS
        age = math.log(1.0 + days)
        phi[OWN, at] = 1.0
        phi[OWN_WEIGHT, at] = math.log(row["weights"][k] * 2.0 ** (-days / half_life_days) / 5.0 + 0.05)
        phi[OWN_AGE, at] = age - 2.0
        phi[OWN_AGE_SQUARE, at] = (age * age - 6.0) / 4.0
        phi[OWN_SHARE, at] = (math.log(phi[OWN_SHARE, at] + 1e-3) + 4.0) / 1.5
        due = age - popular.facts[own[k], GAP]
        phi[OWN_DUE, at] = due
        phi[OWN_DUE_SQUARE, at] = due * due / 4.0
        phi[OWN_PLACE, at] = math.log(1.0 + n_items - 1 - k) - 2.0


@nb.njit(cache=True, nogil=True)
def _ghosts(
    row: np.void,
    items: np.ndarray,
    clock: int,
    half_life_days: float,
    fingerprints: np.ndarray,
    marks: np.ndarray,
    phi: np.ndarray,
) -> None:
    """What the row has dropped and others propose: its weight, as far as 16 bits of a hash can tell. `marks` stays 0."""
    for k in range(N_GHOSTS):
        if row["ghost_weights"][k] != 0:
            marks[row["ghosts"][k]] = k + 1
    ticks, half_life = to_ticks(clock), half_life_days * DAY_MS * 0.256
    for at in range(items.shape[0]):
        g = np.int64(marks[fingerprints[items[at]]])
        if g > 0 and phi[OWN, at] == 0:
            weight = ghost_weight(int(row["ghost_weights"][g - 1]), ticks, half_life)
            phi[GHOST, at] = math.log(weight / 5.0 + 0.05) + 3.0
    for k in range(N_GHOSTS):
        marks[row["ghosts"][k]] = 0


@nb.njit(cache=True, nogil=True)
def _log(values: np.ndarray, least: np.float32) -> None:
    values += least
    log_all(values)
    values += np.float32(8.0)
    values *= np.float32(0.5)


@nb.njit(cache=True, nogil=True)
def _fill(
    rows: np.ndarray,
    own: np.ndarray,
    now_ms: int,
    items: np.ndarray,
    scores: np.ndarray,
    starts: np.ndarray,
    weights: np.ndarray,
    half_life_days: float,
    popular: Popularity,
    position: np.ndarray,
    seen: Seen,
) -> None:
    most, marks = np.empty(seen.items.shape[1], np.float32), np.zeros(65_536, np.uint8)
    for b in range(rows.shape[0]):
        row, phi = rows[b], seen.phi[b]
        n = _merge(items[b], scores[b], starts, weights, popular, position, seen.items[b], phi, seen.why[b], most)
        clock = max(now_ms, row["clock_ms"])
        _own(row, own[b], clock, half_life_days, popular, position, phi)
        _ghosts(row, seen.items[b, :n], clock, half_life_days, popular.fingerprints, marks, phi)
        _log(phi[MIXTURE, :n], LEAST_MIXTURE)
        for c in range(1, weights.shape[0]):
            _log(phi[CHANNELS + c - 1, :n], LEAST_SHARE)
        for at in range(n):
            item = seen.items[b, at]
            position[item] = -1
            for f in range(N_FACTS):
                phi[FACTS + f, at] = popular.facts[item, f]
        events = 0.0
        for t in range(row["counts"].shape[0]):
            events += row["counts"][t]
        phi[USER_ITEMS, :n] = math.log(1.0 + row["n_items"]) - 3.0
        phi[USER_EVENTS, :n] = math.log(1.0 + events) / 2.0 - 2.5
        phi[USER_IDLE, :n] = math.log(1.0 + max(0, clock - row["clock_ms"]) / DAY_MS) - 1.0
        seen.n[b] = n


class Features:
    """Merges proposals; `weights` (n_channels,) of the fixed blend, 0 switches a channel off; `half_life_ms` of the rows'
    weights. Has scratch of its own."""

    def __init__(self, weights: Sequence[float], half_life_ms: float) -> None:
        self.weights, self.half_life_ms = np.array(weights, np.float32), half_life_ms
        self.n_features = n_features(len(self.weights))
        self._position = np.empty(0, np.int32)

    def __call__(self, users: Histories, candidates: Sequence[Candidates], popular: Popularity) -> Seen:
        """Candidates of B users with their features."""
        b = len(users.rows)
        self._position = scratch(self._position, len(popular.mixture))
        widths = [c.items.shape[1] for c in candidates]
        m = min(MAX_CANDIDATES, sum(widths) + len(popular.picks))
        seen = Seen(
            np.full((b, m), -1, np.int32),
            np.zeros((b, self.n_features, m), np.float32),
            np.zeros((b, m), np.uint8),
            np.zeros(b, np.int32),
        )
        _fill(
            users.rows,
            users.items,
            users.now_ms,
            np.concatenate([c.items for c in candidates], axis=1),
            np.concatenate([c.scores for c in candidates], axis=1),
            np.concatenate([[0], np.cumsum(widths)]),
            self.weights,
            self.half_life_ms / DAY_MS,
            popular,
            self._position,
            seen,
        )
        return seen
