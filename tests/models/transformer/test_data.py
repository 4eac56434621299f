"""Sequences and batches: every pair once, nobody beside strangers, as user rows remember."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.transformer.data import DataError, Sequences, batch, one_a_row, plan
from tests.models.transformer.worlds import ragged


def pairs(sequences: Sequences) -> list[tuple[int, int, int]]:
    """(event, item, next item) of all."""
    return [(at, int(sequences.items[at]), int(sequences.items[at + 1]))
            for start, end in zip(sequences.starts, sequences.ends, strict=True) for at in range(start, end - 1)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), max_len=st.integers(1, 12), more=st.integers(0, 20))
def test_every_pair_is_in_one_window_whatever_the_packing(seed: int, max_len: int, more: int) -> None:
    sequences = ragged(seed)
    numbered = Sequences(np.arange(len(sequences.items), dtype=np.int32), sequences.types, sequences.times_ms, sequences.ends)
    where = plan(numbered, max_len, max_len + more, np.random.default_rng(seed))
    rows = batch(numbered, where, np.arange(where.n_rows), max_len + more)
    found = sorted(zip(rows.items[rows.targets >= 0].tolist(), rows.targets[rows.targets >= 0].tolist(), strict=True))
    assert found == [(at, at + 1) for at, _, _ in pairs(numbered)]
    assert ((rows.windows >= 0) == (rows.targets >= 0)).all()
    assert (rows.items.ravel()[rows.places] + 1 == rows.wanted).all() and len(rows.wanted) == where.n_wanted(np.arange(where.n_rows)) == len(found)
    for r in range(where.n_rows):  # a window is one run of one user, no longer than max_len
        for window in np.unique(rows.windows[r][rows.windows[r] >= 0]):
            here = rows.items[r][rows.windows[r] == window]
            assert len(here) <= max_len and (np.diff(here) == 1).all()
            assert len(np.unique(np.searchsorted(sequences.ends, here, side="right"))) == 1


def test_packing_wastes_little() -> None:
    sequences = ragged(1, n_users=3000, longest=12)
    where = plan(sequences, 10, 50, np.random.default_rng(0))
    assert where.size.sum() / (where.n_rows * 50) > 0.97


def test_batches_are_a_function_of_the_seed() -> None:
    sequences = ragged()
    first, second, other = (plan(sequences, 5, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in ((first.first, second.first), (first.column, second.column), (first.rows, second.rows)))
    assert len(first.first) != len(other.first) or (first.first != other.first).any()


def test_ages_count_from_the_newest_of_the_window_and_again_finds_the_next_of_an_item() -> None:
    sequences = Sequences(np.array([4, 5, 4, 6], np.int32), np.zeros(4, np.uint8), np.array([1000, 3000, 9000, 11000]), np.array([4]))
    rows = batch(sequences, one_a_row(sequences, 3), np.array([0]), 4)
    assert rows.items.tolist() == [[5, 4, 6, 0]] and rows.targets.tolist() == [[4, 6, -1, -1]]
    assert rows.ages.tolist() == [[8.0, 2.0, 0.0, 0.0]]
    rows = batch(sequences, one_a_row(sequences, 4), np.array([0]), 4)
    assert rows.again.tolist() == [[2, 4, 4, 4]]


def test_as_rows_keeps_the_last_event_of_each_item_and_the_newest_items() -> None:
    sequences = Sequences(np.array([1, 2, 1, 3, 9, 9], np.int32), np.arange(6, dtype=np.uint8), np.arange(6), np.array([4, 4, 6]))
    rows = sequences.as_rows()
    assert rows.items.tolist() == [2, 1, 3, 9] and rows.types.tolist() == [1, 2, 3, 5] and rows.ends.tolist() == [3, 3, 4]
    assert sequences.as_rows(2).items.tolist() == [1, 3, 9]


def test_sequences_of_mixed_events_are_by_user_in_order() -> None:
    made = Sequences.of(np.array([7, 3, 7, 3]), np.array([1, 2, 3, 4]))
    assert made.items.tolist() == [1, 3, 2, 4] and made.ends.tolist() == [2, 4]
    assert made.take(np.array([1])).items.tolist() == [2, 4] and (made + made).ends.tolist() == [2, 4, 6, 8]


def test_a_basket_is_predicted_from_what_was_before_all_of_it() -> None:
    """User 0: moments {1}, {2, 3}, {4, 5}; user 1: {6, 7} and nothing after; user 2: {8}, {9}."""
    times = np.array([10, 20, 20, 30, 30, 5, 5, 1, 2])
    sequences = Sequences(np.arange(1, 10, dtype=np.int32), np.zeros(9, np.uint8), times, np.array([5, 7, 9]))
    where = plan(sequences, 10, 10, np.random.default_rng(0), baskets=True)
    rows = batch(sequences, where, np.arange(where.n_rows), 10)
    asked = sorted(zip(rows.items.ravel()[rows.places].tolist(), rows.wanted.tolist(), strict=True))
    assert asked == [(1, 2), (1, 3), (3, 4), (3, 5), (8, 9)]
    assert where.n_wanted(np.arange(where.n_rows)) == 5
    with pytest.raises(DataError, match="no clock"):
        plan(Sequences(sequences.items, sequences.types, None, sequences.ends), 10, 10, np.random.default_rng(0), baskets=True)


@pytest.mark.parametrize(("ends", "said"), [([2], "last must be"), ([3, 2, 4], "must not fall")])
def test_what_are_no_sequences_is_said(ends: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Sequences(np.zeros(4, np.int32), np.zeros(4, np.uint8), None, np.array(ends))


def test_empty_logs_have_no_rows() -> None:
    nothing = Sequences(np.empty(0, np.int32), np.empty(0, np.uint8), None, np.empty(0, np.int64))
    assert plan(nothing, 5, 5, np.random.default_rng(0)).n_rows == 0 and nothing.as_rows().n_users == 0
