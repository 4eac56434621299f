"""Hits of each channel alone: as a plain count says, filters and ties included; and what is recent fades."""

from __future__ import annotations

import json

import numpy as np
import pytest

from infra.settings import Settings
from models.candidates import Candidates, Histories
from models.channel_hits import HALF_LIFE_BASKETS, ChannelHits
from models.fusion import Lesson
from models.item_rows import ITEM_ROW
from models.user_row import EMPTY_ROW
from streams.engine import Engine, LogRecord

N_ITEMS, N_BASKETS = 40, 6


def plain(items: np.ndarray, scores: np.ndarray, hidden: set[int], taken: list[list[int]]) -> int:
    """Baskets with a hit: an item is among the first ten if fewer than ten others are as good, of those that may be shown."""
    n = 0
    for b, basket in enumerate(taken):
        shown = {int(i): float(s) for i, s in zip(items[b], scores[b], strict=True) if i >= 0 and int(i) not in hidden}
        n += any(t in shown and shown[t] > 0 and sum(s >= shown[t] for i, s in shown.items() if i != t) < 10 for t in basket)
    return n


@pytest.mark.parametrize("seed", range(20))
def test_hits_are_what_a_plain_count_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    item_rows = np.zeros(N_ITEMS, ITEM_ROW)
    item_rows["hash"] = np.arange(1, N_ITEMS + 1)
    hidden = set(rng.choice(N_ITEMS, 8, replace=False).tolist())
    visible = np.array([i not in hidden for i in range(N_ITEMS)], np.uint8)
    taken = [rng.choice(N_ITEMS, rng.integers(1, 4), replace=False).tolist() for _ in range(N_BASKETS)]
    items = np.stack([rng.permutation(N_ITEMS)[:25] for _ in range(N_BASKETS)]).astype(np.int32)
    items[:, 20:] = -1  # a user with fewer candidates
    scores = rng.integers(0, 6, items.shape).astype(np.float32)  # with many ties
    users = Histories(np.full(N_BASKETS, EMPTY_ROW), np.full((N_BASKETS, 1), -1, np.int32), 0)
    popular = rng.choice([i for i in range(N_ITEMS) if i not in hidden], 10, replace=False).astype(np.int32)
    hits = ChannelHits(["one"])
    flat, ends = np.array(sum(taken, []), np.int32), np.cumsum([len(basket) for basket in taken])
    hits.add(users, [Candidates(items, scores)], popular, visible, item_rows, flat, ends, Lesson(np.zeros(0), N_BASKETS, len(flat), 0, 3, 0.0))
    assert dict(zip(hits.names, hits.hits.tolist(), strict=True)) == {
        "list": 3, "popular": sum(bool(set(basket) & set(popular.tolist())) for basket in taken), "one": plain(items, scores, hidden, taken)}


def test_what_a_user_must_not_see_again_is_no_hit_and_recent_fades() -> None:
    now_ms = 1_763_778_821_000
    engine = Engine(Settings(partitions=1, list_size=20, max_users=64), clock_ms=lambda: now_ms)
    offset = 0

    def absorb(user: str, item: str, seconds: int, kind: str = "purchase") -> None:
        nonlocal offset
        event = {"event_id": f"e{offset}", "user_id": user, "item_id": item, "event_type": kind, "timestamp": now_ms + 1000 * seconds}
        engine.absorb(0, [LogRecord(offset, now_ms, json.dumps(event).encode())])
        offset += 1

    for item in ("i", "j"):
        absorb("a", item, 0)
    hits = engine.state.refresher.hits
    absorb("a", "i", 10)
    assert (hits.n, hits.hits[hits.names.index("repeat")], hits.hits[hits.names.index("popular")]) == (1, 1, 1)
    absorb("a", "j", 20, "dislike")  # opens nothing
    assert hits.n == 1
    absorb("a", "j", 30)  # the lists must not show it
    assert (hits.n, hits.hits[hits.names.index("repeat")], hits.hits[hits.names.index("list")]) == (2, 1, 1)
    assert hits.recent_n == pytest.approx(1 + 0.5 ** (1 / HALF_LIFE_BASKETS))
