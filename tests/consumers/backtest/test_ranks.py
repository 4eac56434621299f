"""Ranks are pessimistic: ties count against, groups cut by the list's end are misses, and apart is among the own kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.backtest.ranks import DEPTH, RISING, TWICE, UNSEEN, find_ranks

N_ITEMS = 12


def ranks(items: list[int], scores: list[float], targets: list[int], *, own: list[int] = [], n_known: int = N_ITEMS,  # noqa: B006
          unknown: list[int] = []) -> tuple[tuple[int, int, int], list[int], list[int]]:  # noqa: B006
    known = np.ones(N_ITEMS, bool)
    known[unknown] = False
    out, apart = np.full(len(targets), 99, np.int16), np.full(len(targets), 99, np.int16)
    place, flags = np.full(N_ITEMS, -1, np.int32), np.zeros(N_ITEMS, bool)
    wrong = find_ranks(
        np.array([items], np.int32), np.array([scores], np.float32), np.zeros(1, np.int32), np.array([5]),
        np.array([0, len(targets)]), np.array(targets, np.int32), np.array([0, len(own)]), np.array(sorted(own), np.int32),
        np.zeros(len(own), np.int64), known, n_known, place, flags, out, apart,
    )
    assert (place == -1).all() and not flags.any(), "scratch must be clean for the next list"
    return wrong, out.tolist(), apart.tolist()


@pytest.mark.parametrize(("scores", "wanted"), [
    ([4, 3, 2, 1], [1, 2, 3, 0]),  # the last could be one of many with its score that the list does not show
    ([4, 4, 2, 1], [2, 2, 3, 0]),
    ([4, 4, 4, 1], [3, 3, 3, 0]),
    ([4, 1, 1, 1], [1, 0, 0, 0]),
    ([1, 1, 1, 1], [0, 0, 0, 0]),
])
def test_ties(scores: list[float], wanted: list[int]) -> None:
    assert ranks([3, 1, 7, 5], scores, [3, 1, 7, 5])[1] == wanted


def test_a_list_that_holds_every_item_cuts_nothing() -> None:
    assert ranks([3, 1, 7, 5], [4, 1, 1, 1], [3, 1, 7, 5], n_known=4)[1] == [1, 4, 4, 4]


def test_a_list_that_ends_early_cuts_nothing() -> None:
    assert ranks([3, 1, 7, -1], [4, 1, 1, 0], [3, 1, 7, 5])[1] == [1, 3, 3, 0]


def test_apart_counts_only_the_targets_kind() -> None:
    _, whole, apart = ranks([3, 1, 7, 5, 2, -1], [6, 5, 4, 3, 2, 0], [3, 1, 7, 5, 2], own=[1, 5])
    assert whole == [1, 2, 3, 4, 5]
    assert apart == [1, 1, 2, 2, 3]


def test_ties_apart_are_ties_within_the_kind() -> None:
    _, whole, apart = ranks([3, 1, 7, 5, -1], [6, 6, 6, 1, 0], [3, 1, 7, 5], own=[1])
    assert whole == [3, 3, 3, 4]
    assert apart == [2, 1, 2, 3]


@pytest.mark.parametrize(("items", "scores", "unknown", "wanted"), [
    ([3, 1, 3], [3, 2, 1], [], (TWICE, 0, 2)),
    ([3, 1, 7], [3, 2, 1], [1], (UNSEEN, 0, 1)),
    ([3, 1, 7], [3, 2, 2.5], [], (RISING, 0, 2)),
    ([3, 1, 7], [3, float("nan"), 2], [], (RISING, 0, 1)),
    ([3, 1, 7], [float("nan"), 2, 1], [], (RISING, 0, 0)),
])
def test_what_is_no_ranking_is_found(items: list[int], scores: list[float], unknown: list[int], wanted: tuple[int, int, int]) -> None:
    assert ranks(items, scores, [1], unknown=unknown)[0] == wanted


@given(st.lists(st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, 3)), unique_by=lambda pair: pair[0], max_size=N_ITEMS),
       st.sets(st.integers(0, N_ITEMS - 1)))
def test_as_the_definition_says(pairs: list[tuple[int, int]], own: set[int]) -> None:
    pairs = sorted(pairs, key=lambda pair: -pair[1])
    items, scores = [item for item, _ in pairs], [float(score) for _, score in pairs]
    score_of = dict(zip(items, scores, strict=True))
    _, whole, apart = ranks([*items, -1], [*scores, 0.0], list(range(N_ITEMS)), own=sorted(own))
    for item in range(N_ITEMS):
        at_least = [other for other in items if item in score_of and score_of[other] >= score_of[item]]
        assert whole[item] == len(at_least)
        assert apart[item] == len([other for other in at_least if (other in own) == (item in own)])


def test_beyond_the_depth_is_a_miss() -> None:
    n = DEPTH + 2
    out, apart = np.zeros(2, np.int16), np.zeros(2, np.int16)
    find_ranks(
        np.arange(n, dtype=np.int32)[None], np.arange(n, 0, -1, dtype=np.float32)[None], np.zeros(1, np.int32), np.array([1]),
        np.array([0, 2]), np.array([DEPTH - 1, DEPTH], np.int32), np.array([0, 1]), np.array([0], np.int32), np.zeros(1, np.int64),
        np.ones(n, bool), n, np.full(n, -1, np.int32), np.zeros(n, bool), out, apart,
    )
    assert out.tolist() == [DEPTH, 0]
    assert apart.tolist() == [DEPTH - 1, DEPTH]
