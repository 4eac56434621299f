"""Co-visitation on a toy world: what both channels must say can be counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.candidates import Histories, ItemIndex
from models.covisitation import N_FAR, PRIOR, RECENCY, CoVisitation, TwoHop
from models.hashing import find_all, rebuild
from models.history import RECORD, WEIGHT_ONE
from models.item_rows import DAY_MS, ITEM_ROW, N_SUCCESSORS, ItemRules, fold, item_rules, successor_strengths
from models.user_row import EMPTY_ROW, EPOCH_MS, USER_ROW

NOW_MS = 1_763_778_821_000
RULES: ItemRules = item_rules(30 * DAY_MS, 30 * DAY_MS)
CHANNELS = [CoVisitation, TwoHop]


def world(n_items: int, pairs: list[tuple[int, int, float]]) -> tuple[np.ndarray, ItemIndex]:
    """Rows of items 0..n-1, hash = number + 1, after these visits (item, near item, weight), said of both."""
    rows, changed = np.zeros(n_items, ITEM_ROW), np.zeros(n_items, np.uint8)
    rows["as_of"] = -1
    rows["hash"] = np.arange(1, n_items + 1)
    said = [(x + 1, y + 1, NOW_MS, round(weight * WEIGHT_ONE), 0) for a, b, weight in pairs for x, y in ((a, b), (b, a))]
    records = np.array(said, RECORD)
    fold(rows, (records["item"] - np.uint64(1)).astype(np.int32), records, 0, RULES, changed)
    cells = 1 << (4 * n_items).bit_length()
    index = ItemIndex(np.zeros(cells, np.uint64), np.zeros(cells, np.int32))
    rebuild(index.keys, index.cells, rows["hash"], n_items)
    return rows, index


def user(*moments: list[int], weight: float = 1.0) -> np.void:
    """A row of these moments' items, oldest first, a second apart."""
    row = np.array(EMPTY_ROW, USER_ROW)
    items = [(item, moment) for moment, together in enumerate(moments) for item in together]
    row["n_items"] = len(items)
    row["clock_ms"] = NOW_MS
    for k, (item, moment) in enumerate(items):
        row["items"][k] = item + 1
        row["seconds"][k] = (NOW_MS - EPOCH_MS) // 1000 + moment
        row["weights"][k] = weight
    return row[()]


def propose(channel: Any, users: list[np.void], rows: np.ndarray, index: ItemIndex) -> list[dict[int, float]]:
    """Item -> score for each user."""
    batch = np.array(users, USER_ROW)
    slots = np.full(batch["items"].shape, -1, np.int32)
    find_all(index.keys, index.cells, batch["items"], slots)
    found = channel.propose(Histories(batch, slots, NOW_MS), rows, index)
    return [
        {int(i): float(s) for i, s in zip(items, scores, strict=True) if i >= 0}
        for items, scores in zip(found.items, found.scores, strict=True)
    ]


def shares(rows: np.ndarray, item: int) -> dict[int, float]:
    """P(near | item) by the definition."""
    n = int(rows[item]["n_successors"])
    weights = {int(h) - 1: float(s) for h, s in zip(rows[item]["successors"][:n], successor_strengths(rows[item]), strict=True)}
    return {other: weight / (PRIOR + sum(weights.values())) for other, weight in weights.items()}


PAIRS = [(0, 1, 6.0), (0, 2, 2.0), (1, 3, 8.0), (2, 4, 1.0), (3, 5, 4.0)]


def test_one_hop_is_the_share_of_what_was_near() -> None:
    rows, index = world(6, PAIRS)
    (found,) = propose(CoVisitation(), [user([0])], rows, index)
    assert found == pytest.approx({1: 6 / 12, 2: 2 / 12})  # 8 visits and a prior of 4


def test_later_moments_count_more_and_a_basket_is_one_moment() -> None:
    rows, index = world(6, PAIRS)
    late, early, together = propose(CoVisitation(), [user([3], [0]), user([0], [3]), user([3, 0])], rows, index)
    for found, first, second in ((late, 0, 3), (early, 3, 0)):
        wanted: dict[int, float] = {}
        for source, factor in ((first, RECENCY[0]), (second, RECENCY[1])):
            for other, share in shares(rows, source).items():
                wanted[other] = wanted.get(other, 0.0) + share * factor / (RECENCY[0] + RECENCY[1])
        assert found == pytest.approx(wanted)
    assert together == pytest.approx({other: 0.5 * (shares(rows, 0).get(other, 0) + shares(rows, 3).get(other, 0)) for other in (1, 2, 5)})


def test_two_hops_are_the_walks_of_two_steps() -> None:
    rows, index = world(6, PAIRS)
    (found,) = propose(TwoHop(), [user([0])], rows, index)
    walks = {3: shares(rows, 0)[1] * shares(rows, 1)[3], 4: shares(rows, 0)[2] * shares(rows, 2)[4]}
    assert found == pytest.approx(walks)  # never back to where it came from


def test_two_hops_keep_the_most_probable_ends() -> None:
    between, ends = 10, 400
    pairs = [(0, 1 + y, 50.0) for y in range(between)]
    pairs += [(1 + e % between, 11 + e, 1.0 + e) for e in range(ends)]
    rows, index = world(11 + ends, pairs)
    (found,) = propose(TwoHop(), [user([0])], rows, index)
    first, by_definition = shares(rows, 0), {}
    for y in range(1, 11):
        for end, share in shares(rows, y).items():
            if end != 0:
                by_definition[end] = by_definition.get(end, 0.0) + first[y] * share
    wanted = sorted(by_definition.values(), reverse=True)[:N_FAR]
    assert sorted(found.values(), reverse=True) == pytest.approx(wanted)
    assert all(found[end] == pytest.approx(by_definition[end]) for end in found)


@pytest.mark.parametrize("make", CHANNELS)
def test_scores_are_probabilities_whatever_the_batch(make: Any) -> None:
    rng = np.random.default_rng(5)
    n = 200
    pairs = [(int(a), int(b), float(w)) for a, b, w in zip(
        rng.integers(0, n, 9000), rng.integers(0, n, 9000), rng.integers(1, 9, 9000), strict=True) if a != b]
    rows, index = world(n, pairs)
    assert (rows["n_successors"] == N_SUCCESSORS).all()
    users = [user(*[[int(i)] for i in rng.permutation(n)[: 1 + k]]) for k in range(12)]
    channel = make()
    together = propose(channel, users, rows, index)
    assert together == [propose(channel, [one], rows, index)[0] for one in users]
    assert all(0 < sum(found.values()) <= 1 and min(found.values()) > 0 for found in together)


@pytest.mark.parametrize("make", CHANNELS)
def test_nothing_is_proposed_where_nothing_is_known(make: Any) -> None:
    rows, index = world(6, PAIRS)
    unknown = user([99])
    assert propose(make(), [user(), unknown, user([0], weight=-1.0)], rows, index) == [{}, {}, {}]
