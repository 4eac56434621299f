"""The channel of the online factors: what comes again and what comes anew, as shares of one probability."""

from __future__ import annotations

import numpy as np
import pytest

from models.candidates import Histories, ItemIndex
from models.hashing import find_all, put_slot
from models.item_rows import ITEM_ROW
from models.lessons import LESSON, ContextRules, Lessons
from models.lessons import N_CONTEXT
from models.mf import MatrixFactors
from models.mf_channel import COVERED, OnlineFactors
from models.user_row import N_ITEMS, USER_ROW, to_ticks

RULES = ContextRules(half_life_ms=86_400_000.0, recency=1.0, session_ms=0)
NOW_MS = 1_700_000_000_000


def index_of(n: int) -> ItemIndex:
    """Items 1 to n, in slots 0 to n - 1."""
    keys, cells = np.zeros(256, np.uint64), np.zeros(256, np.int32)  # a power of two
    for item in range(1, n + 1):
        put_slot(keys, cells, np.uint64(item), item - 1)
    return ItemIndex(keys, cells)


def users(items: list[dict[int, float]], find: ItemIndex) -> Histories:
    """Users whose rows hold these items with these weights, all of one moment."""
    rows = np.zeros(len(items), USER_ROW)
    for row, weights in zip(rows, items, strict=True):
        row["n_items"], row["clock_ms"] = len(weights), NOW_MS
        for k, (item, weight) in enumerate(weights.items()):
            row["items"][k], row["weights"][k] = item, weight
            row["seconds"][k], row["fractions"][k] = divmod(to_ticks(NOW_MS), 256)
    slots = np.empty((len(items), N_ITEMS), np.int32)
    find_all(find.keys, find.cells, np.ascontiguousarray(rows["items"]), slots)
    return Histories(rows, slots, NOW_MS)


def taught(n: int, share_again: float) -> MatrixFactors:
    """Baskets of two, and next one of them with this probability, else anything."""
    rng = np.random.default_rng(3)
    contexts = np.sort(rng.permuted(np.tile(np.arange(1, n + 1), (6_000, 1)), axis=1)[:, :2], axis=1)
    again = rng.random(6_000) < share_again
    other = rng.integers(1, n + 1, 6_000)
    targets = np.where(again, contexts[np.arange(6_000), rng.integers(0, 2, 6_000)], other)
    heads = np.zeros(6_000, LESSON)
    heads["item"], heads["weight"], heads["n_context"] = targets, 1.0, 2
    heads["n_before"], heads["again"] = 2, (contexts == targets[:, None]).any(axis=1)
    model = MatrixFactors()
    model.teach(Lessons(heads, contexts.astype(np.uint64).ravel(), np.full(12_000, 255, np.uint8)))
    return model


@pytest.mark.parametrize("share_again", [0.1, 0.6])
def test_it_counts_how_often_people_take_again(share_again: float) -> None:
    model = taught(50, share_again)
    expected = share_again + (1 - share_again) * 2 / 50
    assert model.repeat_rates.shape == (N_CONTEXT + 1,)
    assert model.repeat_rates[2] == pytest.approx(expected, abs=0.03)
    assert (model.repeat_rates[3:] == np.float32(0.2)).all(), "nobody had more items: what it began as"


def test_what_is_disliked_counts_for_nothing() -> None:
    model = MatrixFactors()
    heads = np.zeros(1, LESSON)
    heads["item"], heads["weight"], heads["n_context"], heads["n_before"], heads["again"] = 7, -1.0, 1, 1, 1
    model.teach(Lessons(heads, np.array([7], np.uint64), np.array([255], np.uint8)))
    assert model.repeat_rates[1] == np.float32(0.2)


def test_again_by_share_anew_by_factors_and_nothing_twice() -> None:
    model, find = taught(50, 0.6), index_of(50)
    channel = OnlineFactors(model, RULES, n=20)
    proposed = channel.propose(users([{3: 3.0, 9: 1.0}, {5: 1.0}], find), np.zeros(50, ITEM_ROW), find)
    for b, own in enumerate(({2: 0.75, 8: 0.25}, {4: 1.0})):
        known = proposed.items[b] >= 0
        items, scores = proposed.items[b][known], proposed.scores[b][known]
        assert len(set(items.tolist())) == len(items)
        rate = model.repeat_rates[len(own)]
        found = dict(zip(items.tolist(), scores.tolist(), strict=True))
        for item, share in own.items():
            assert found.pop(item) == pytest.approx(rate * share, rel=1e-5)
        assert 18 <= len(found) <= 20
        assert sum(found.values()) == pytest.approx((1 - rate) * COVERED, rel=1e-4)
        assert (proposed.scores[b][~known] == 0).all()


def test_an_item_of_which_nothing_was_learned_comes_again_all_the_same() -> None:
    """Its lesson may come later than the row: the first event of a new item is the last thing its user has taken."""
    model, find = taught(50, 0.6), index_of(60)
    channel = OnlineFactors(model, RULES, n=20)
    proposed = channel.propose(users([{55: 1.0}, {}], find), np.zeros(60, ITEM_ROW), find)
    assert proposed.items[0][proposed.items[0] >= 0].tolist() == [54]
    assert proposed.scores[0].max() == model.repeat_rates[1]
    assert (proposed.items[1] == -1).all(), "who has nothing gets nothing"


def test_asked_twice_it_says_the_same() -> None:
    """What the kernel notes while it works is gone when it returns."""
    model, find = taught(50, 0.6), index_of(50)
    channel = OnlineFactors(model, RULES, n=20)
    histories = users([{3: 3.0, 9: 1.0}, {5: 1.0}], find)
    first = channel.propose(histories, np.zeros(50, ITEM_ROW), find)
    again = channel.propose(users([{20: 1.0}], find), np.zeros(50, ITEM_ROW), find)
    second = channel.propose(histories, np.zeros(50, ITEM_ROW), find)
    assert np.array_equal(first.items, second.items) and np.array_equal(first.scores, second.scores)
    assert 2 in again.items[0], "what others had is no business of this user"
