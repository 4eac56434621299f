"""What a full row drops comes back with what it weighed."""

from __future__ import annotations

import numpy as np
import pytest

from models.ghosts import bury, ghost_code, ghost_weight, raise_ghost
from models.history import RECORD, WEIGHT_ONE, Columns, HistoryRules, absorb
from models.item_rows import AGAIN, gap_code
from models.lessons import LESSON, N_CONTEXT, ContextRules, Lessons
from models.user_row import EMPTY_ROW, N_GHOSTS, N_ITEMS, USER_ROW, to_ticks

DAY_MS = 86_400_000
NOW_MS = 1_763_778_821_000
HALF_LIFE_MS = 30.0 * DAY_MS
HALF_LIFE = HALF_LIFE_MS * 0.256  # in ticks
RULES = HistoryRules(np.zeros(9, np.uint8), HALF_LIFE_MS, 365 * DAY_MS, DAY_MS, 3, False)


def hashed(item: int) -> int:
    return ((item + 1) * 0x9E3779B97F4A7C15) % 2**64


def after(*events: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """The row of a user who took these (item, days from now), and what was said of items."""
    n = len(events)
    items = np.array([hashed(item) for item, _ in events], np.uint64)
    times = np.array([NOW_MS + round(days * DAY_MS) for _, days in events], np.int64)
    ids = np.arange(1, n + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    columns = Columns(np.zeros(n, np.int32), np.arange(n), items, ids, times, np.full(n, 4, np.uint8), np.full(n, 5, np.float32))
    rows, records = np.full(1, EMPTY_ROW, USER_ROW), np.empty(n * 7, RECORD)
    lessons = Lessons(np.empty(n, LESSON), np.empty(n * N_CONTEXT, np.uint64), np.empty(n * N_CONTEXT, np.uint8))
    said = absorb(rows, columns, RULES, np.empty(n, np.uint8), records, 0, ContextRules(HALF_LIFE_MS, 1.0, DAY_MS), lessons)
    return rows[0], records[: said[0]]


def weight_of(row: np.ndarray, item: int) -> float:
    (at,) = np.flatnonzero(row["items"] == np.uint64(hashed(item)))
    return float(row["weights"][at])


@pytest.mark.parametrize("weight", [1e-6, 0.5, 1.0, 5.0, 1e4])
@pytest.mark.parametrize("half_life_days", [1 / 24, 1.0, 90.0, 3650.0])
@pytest.mark.parametrize("half_lives", [0.0, 0.3, 4.0, 20.0])
def test_a_code_decays(weight: float, half_life_days: float, half_lives: float) -> None:
    half_life = half_life_days * DAY_MS * 0.256
    ticks = to_ticks(NOW_MS)
    later = ticks + round(half_lives * half_life)
    assert ghost_weight(ghost_code(weight, ticks, half_life), later, half_life) == pytest.approx(weight * 2**-half_lives, rel=0.012)


def test_an_item_that_comes_back_weighs_what_it_would_have_weighed() -> None:
    habit = [(0, -60.0 + k) for k in range(5)]
    others = [(1 + k, -20.0 + k / 10) for k in range(N_ITEMS + N_GHOSTS // 2)]
    row, _ = after(*habit, *others)
    assert np.uint64(hashed(0)) in row["items"]  # heavier than what was taken once
    row, _ = after((0, -60.0), *others, (0, -1.0))
    assert weight_of(row, 0) == pytest.approx(5.0 + 5.0 * 2 ** (-59 / 30), rel=0.02)


def test_the_lightest_ghost_makes_room() -> None:
    row = np.array(EMPTY_ROW)
    row["clock_ms"] = NOW_MS
    for k in range(3 * N_GHOSTS):
        bury(row[()], np.uint64(hashed(k)), 1.0 + k, to_ticks(NOW_MS), HALF_LIFE)
    known = [k for k in range(3 * N_GHOSTS) if raise_ghost(row[()], np.uint64(hashed(k)), to_ticks(NOW_MS), HALF_LIFE)]
    assert known == list(range(2 * N_GHOSTS, 3 * N_GHOSTS))
    assert not row["ghost_weights"].any()


def test_touches_say_how_long_ago() -> None:
    _, records = after((0, 0.0), (1, 0.0), (0, 8.0))
    touches = records[(records["other"] == 0) | (records["other"] >= AGAIN)]
    assert touches["other"].tolist() == [0, 0, int(AGAIN) + gap_code(8 * DAY_MS)]
    assert (touches["weight"] == 5 * WEIGHT_ONE).all()
    assert gap_code(8 * DAY_MS) == round(16 * np.log2(9.0))
