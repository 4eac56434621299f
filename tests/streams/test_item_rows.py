"""Item rows commute: touches and successions that come in any order, cut into any messages, end in the same rings."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.history import RECORD
from models.item_rows import DAY_MS, ITEM_ROW, N_RINGS, N_SUCCESSORS, RING_BUCKETS, RING_START, fold, item_rules

RULES = item_rules(30 * DAY_MS, 30 * DAY_MS)
BASE_MS = 1_763_778_821_000
N_ITEMS, N_OTHERS = 3, 8

# from within one bucket to far beyond the longest ring, both ways
times = st.integers(0, 300 * DAY_MS) | st.integers(0, 7_200_000) | st.sampled_from([0, 299_999, 300_000, DAY_MS, 120 * DAY_MS])
records = st.lists(st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, N_OTHERS), times, st.integers(-300, 300)), min_size=1, max_size=40)
Said = list[tuple[int, int, int, int]]


def folded(said: Said, cuts: list[int], weight_at_least: int = 1) -> np.ndarray:
    """Rows after these records (item, other or 0, time, weight), one message from each cut to the next."""
    rows, changed = np.zeros(N_ITEMS, ITEM_ROW), np.zeros(N_ITEMS, np.uint8)
    rows["as_of"] = -1
    bounds = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
    for offset, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        part = said[start:end]
        values = [(item + 1, other, BASE_MS + ms, max(weight, weight_at_least) if other else weight, 0) for item, other, ms, weight in part]
        fold(rows, np.array([item for item, *_ in part], np.int32), np.array(values, RECORD), offset, RULES, changed)
    return rows


def facts(rows: np.ndarray) -> list[dict[str, Any]]:
    """What a row says, whatever the places of its successors; one that has faded is none."""
    found = []
    for row in rows:
        n = int(row["n_successors"])
        others = {int(o): c.tolist() for o, c in zip(row["successors"][:n], row["followed"][:n], strict=True) if c.any()}
        plain = {name: row[name].tobytes() for name in ("first_ms", "last_ms", "newest", "newest_followed", "counts")}
        found.append(plain | {"others": others})
    return found


@settings(deadline=None)
@given(records, st.randoms(use_true_random=False), st.lists(st.integers(1, 39), max_size=5), st.lists(st.integers(1, 39), max_size=5))
def test_any_order(said: Said, chance: Any, cuts: list[int], other_cuts: list[int]) -> None:
    shuffled = list(said)
    chance.shuffle(shuffled)
    assert facts(folded(said, cuts)) == facts(folded(shuffled, other_cuts))


@settings(deadline=None)
@given(records)
def test_rings_hold_the_newest_buckets(said: Said) -> None:
    """Against the definition: for each ring the sums of its newest buckets, as many as it has cells."""
    row = folded([(0, 0, ms, weight) for _, _, ms, weight in said], [])[0]
    for r in range(N_RINGS):
        size, start, width = int(RING_BUCKETS[r]), int(RING_START[r]), int(RULES.ring_ms[r])
        sums: dict[int, int] = {}
        for _, _, ms, weight in said:
            bucket = (BASE_MS + ms) // width
            sums[bucket] = sums.get(bucket, 0) + weight
        newest = max(sums)
        wanted = np.zeros(size, np.int64)
        for bucket, total in sums.items():
            if bucket > newest - size:
                wanted[bucket % size] = total
        assert row["newest"][r] == newest
        assert (row["counts"][start : start + size] == wanted).all(), f"ring {r}"


def test_a_message_folded_again_changes_nothing() -> None:
    said = [(0, 0, 5, 64), (0, 3, 5, 32), (1, 0, 9, 64)]
    rows, changed = folded(said, []), np.zeros(N_ITEMS, np.uint8)
    before = rows.tobytes()
    values = np.array([(item + 1, other, BASE_MS + ms, weight, 0) for item, other, ms, weight in said], RECORD)
    fold(rows, np.array([0, 0, 1], np.int32), values, 0, RULES, changed)
    assert rows.tobytes() == before and not changed.any()
    fold(rows, np.array([0, 0, 1], np.int32), values, 1, RULES, changed)
    assert changed.tolist() == [1, 1, 0] and rows["as_of"].tolist() == [1, 1, -1]


def test_counts_stop_at_the_end_of_their_numbers() -> None:
    for weight, end in ((2**30, 2**31 - 1), (-(2**30), -(2**31))):
        row = folded([(0, 0, 0, weight)] * 5, [])[0]
        assert set(row["counts"][row["counts"] != 0].tolist()) == {end}


def test_a_full_row_drops_the_weakest() -> None:
    said = [(0, other, 0, 10 + other) for other in range(1, N_SUCCESSORS + 1)]
    row = folded([*said, (0, 99, 0, 5)], [])[0]
    assert row["n_successors"] == N_SUCCESSORS
    assert set(row["successors"].tolist()) == {*range(2, N_SUCCESSORS + 1), 99}
