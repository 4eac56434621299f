"""Who is near whom: what a visit says of the items before it, and they of it."""

from __future__ import annotations

import json

from infra.settings import Settings
from streams.engine import Engine, LogRecord

NOW_MS = 1_763_778_821_000
HOUR_MS = 3_600_000


def near(visits: list[tuple[str, int]], **settings: int) -> dict[str, dict[str, int]]:
    """Item -> the items near it with their fixed-point weights, after one user's visits (item, ms)."""
    engine = Engine(Settings(partitions=1, **settings), clock_ms=lambda: NOW_MS)
    engine.absorb(0, [
        LogRecord(k, NOW_MS, json.dumps({"event_id": f"e{k}", "user_id": "u", "item_id": item, "event_type": "view",
                                         "timestamp": NOW_MS + ms}).encode())
        for k, (item, ms) in enumerate(visits)
    ])
    items = engine.state.items
    name = {int(items.rows[slot]["hash"]): items.ids[slot] for slot in range(items.n_items)}
    return {
        items.ids[slot]: {
            name[int(row["successors"][s])]: int(row["followed"][s].sum()) for s in range(int(row["n_successors"]))
        }
        for slot, row in enumerate(items.rows[: items.n_items])
    }


def test_both_know_each_other_less_backwards_and_with_distance_up_to_the_depth() -> None:
    found = near([("a", 0), ("b", 1000), ("c", 2000), ("d", 3000)], covisitation_depth=2)
    assert found == {"a": {"b": 64, "c": 32}, "b": {"a": 40, "c": 64, "d": 32}, "c": {"b": 40, "a": 20, "d": 64},
                     "d": {"c": 40, "b": 20}}


def test_a_basket_has_no_order_but_that_of_the_log() -> None:
    assert near([("a", 0), ("b", 0)]) == {"a": {"b": 64}, "b": {"a": 64}}


def test_far_apart_in_time_is_not_near() -> None:
    assert near([("a", 0), ("b", 3 * HOUR_MS)], covisitation_window_s=2 * 3600) == {"a": {}, "b": {}}
