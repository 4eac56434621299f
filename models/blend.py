"""Fusion: one list from many channels. `Blend` is the plain one, a mixture with fixed weights; a learned one follows.

score(item) = sum over channels of weight x P_channel(item), popularity among them. An item's reason is the channel that
gave the largest part. Filters apply last and always: hidden, expired, and what this user must not be shown again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numba as nb
import numpy as np

from models.candidates import Candidates, Histories
from models.hashing import scratch
from models.popularity import WINDOWS, Popularity
from models.user_row import SEEN, bloom_has


class Ranked(NamedTuple):
    """`items` (B, N) int32, best first, -1 behind a list's end; `scores` (B, N) float32; `why` (B, N) uint8: channel."""

    items: np.ndarray
    scores: np.ndarray
    why: np.ndarray


class Fusion(Protocol):
    """Ranks what the channels propose."""

    channels: tuple[str, ...]

    def rank(
        self,
        users: Histories,
        candidates: Sequence[Candidates],
        popular: Popularity,
        visible: np.ndarray,
        item_rows: np.ndarray,
        n: int,
    ) -> Ranked:
        """Top n for B users; `why` indexes `channels`, personal ones first, then the popularity windows."""
        ...


@nb.njit(cache=True, nogil=True)
def excluded(row: np.void, item: np.uint64, any_seen: bool) -> bool:
    """Whether this user must not be shown the item again."""
    for k in range(np.int64(row["n_items"])):
        if row["items"][k] == item:
            return bool(row["types"][k] >= SEEN or row["weights"][k] < 0)
    return bool(any_seen and bloom_has(row["bloom"], item))


@nb.njit(cache=True, nogil=True)
def _rank(
    rows: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
    column_channel: np.ndarray,
    column_weight: np.ndarray,
    mixture: np.ndarray,
    window: np.ndarray,
    order: np.ndarray,
    visible: np.ndarray,
    item_rows: np.ndarray,
    position: np.ndarray,
    n_personal: int,
    out_items: np.ndarray,
    out_scores: np.ndarray,
    out_why: np.ndarray,
) -> None:
    n = out_items.shape[1]
    found = np.empty(items.shape[1], np.int32)
    total = np.empty(items.shape[1], np.float32)
    most = np.empty(items.shape[1], np.float32)
    why = np.empty(items.shape[1], np.uint8)
    for b in range(rows.shape[0]):
        row = rows[b]
        n_found = 0
        for c in range(items.shape[1]):
            item = items[b, c]
            part = scores[b, c] * column_weight[c]
            if item < 0 or part <= 0:
                continue
            at = position[item]
            if at < 0:
                at = n_found
                position[item] = at
                n_found += 1
                found[at] = item
                total[at] = mixture[item]
                most[at] = mixture[item]
                why[at] = n_personal + window[item]
            total[at] += part
            if part > most[at]:
                most[at] = part
                why[at] = column_channel[c]
        any_seen = False
        for w in range(row["bloom"].shape[0]):
            if row["bloom"][w] != 0:
                any_seen = True
                break
        # two sorted sequences, personal candidates and popular items, are merged until the list is full
        personal = np.argsort(-total[:n_found], kind="mergesort")
        a = 0
        p = 0
        filled = 0
        while filled < n and (a < n_found or p < order.shape[0]):
            take_personal = a < n_found and (p >= order.shape[0] or total[personal[a]] >= mixture[order[p]])
            if take_personal:
                at = personal[a]
                a += 1
                item, score, reason = found[at], total[at], why[at]
            else:
                item = order[p]
                p += 1
                if position[item] >= 0:  # stands among the personal ones
                    continue
                score, reason = mixture[item], np.uint8(n_personal + window[item])
            if not visible[item] or excluded(row, item_rows[item]["hash"], any_seen):
                continue
            out_items[b, filled] = item
            out_scores[b, filled] = score
            out_why[b, filled] = reason
            filled += 1
        for at in range(n_found):
            position[found[at]] = -1


class Blend:
    """Mixture with fixed weights. `weights`: channel name -> weight >= 0; names of windows are in `WINDOWS`."""

    def __init__(self, personal: Sequence[str], weights: dict[str, float]) -> None:
        known = {*personal, *WINDOWS}
        unknown = set(weights) - known
        if unknown:
            raise ValueError(f"blend names {sorted(unknown)}, there are {sorted(known)}")
        self.channels = (*personal, *WINDOWS)
        self._position = np.empty(0, np.int32)
        self._personal = np.array([weights.get(name, 0.0) for name in personal], np.float32)
        self.window_weights = np.array([weights.get(name, 0.0) for name in WINDOWS], np.float32)

    def rank(
        self,
        users: Histories,
        candidates: Sequence[Candidates],
        popular: Popularity,
        visible: np.ndarray,
        item_rows: np.ndarray,
        n: int,
    ) -> Ranked:
        """See `Fusion`."""
        b = len(users.rows)
        self._position = scratch(self._position, len(item_rows))
        widths = [c.items.shape[1] for c in candidates]
        channel = np.repeat(np.arange(len(candidates), dtype=np.uint8), widths)
        ranked = Ranked(np.full((b, n), -1, np.int32), np.zeros((b, n), np.float32), np.zeros((b, n), np.uint8))
        _rank(
            users.rows,
            np.concatenate([c.items for c in candidates], axis=1),
            np.concatenate([c.scores for c in candidates], axis=1),
            channel,
            np.repeat(self._personal, widths),
            popular.mixture,
            popular.window,
            popular.order,
            visible,
            item_rows,
            self._position,
            len(candidates),
            *ranked,
        )
        return ranked
