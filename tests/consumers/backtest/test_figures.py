"""Intervals hold what they should, lists are described as they are, and ADER's protocol is its own log."""

from __future__ import annotations

import numpy as np
import pytest

from consumers.backtest.ader import ader
from consumers.backtest.bootstrap import differences
from consumers.backtest.contender import ContenderError
from consumers.backtest.lists import ListStatistics, gini
from consumers.backtest.log import LogError
from consumers.backtest.plan import Rules
from consumers.backtest.protocol import judge
from tests.consumers.backtest.worlds import Counting, LastItem, world


def test_no_difference_is_none() -> None:
    values = np.random.default_rng(0).random((100, 2))
    assert differences(np.arange(100) % 7, values, values) == [(0, 0, 0, 0)] * 2


def test_an_interval_by_user_is_as_wide_as_users_differ() -> None:
    """Twenty users with a hundred targets each that are all alike: by target the interval would be ten times too narrow."""
    rng = np.random.default_rng(1)
    effect = rng.normal(0.1, 1.0, 20)
    users = np.repeat(np.arange(20), 100)
    found = differences(users, effect[users][:, None], np.zeros((2000, 1)))[0]
    wanted = 1.96 * effect.std() / np.sqrt(20)
    assert found.high - found.value == pytest.approx(wanted, rel=0.2)
    assert found.value == pytest.approx(effect.mean())


def test_intervals_cover() -> None:
    """Of 200 worlds without a difference about 5% say that there is one."""
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(60), 5)
    outside = 0
    for _ in range(200):
        found = differences(users, rng.normal(size=(300, 1)), rng.normal(size=(300, 1)))[0]
        outside += not found.low <= 0 <= found.high
    assert 2 <= outside <= 24


def test_a_share_is_of_the_other() -> None:
    found = differences(np.arange(4), np.full((4, 1), 0.3), np.full((4, 1), 0.2))[0]
    assert (found.value, found.low, found.high, found.share) == pytest.approx((0.1, 0.1, 0.1, 0.5))


@pytest.mark.parametrize(("values", "wanted"), [([1, 1, 1, 1], 0.0), ([0, 0, 0, 4], 0.75), ([0, 0], 0.0), ([1, 3], 0.25)])
def test_gini(values: list[int], wanted: float) -> None:
    assert gini(np.array(values)) == pytest.approx(wanted)


def test_what_lists_are_like() -> None:
    log = world([("a", "i", 0), ("a", "j", 1), ("a", "k", 2), ("a", "m", 3)], categories={"i": "x", "j": "x", "k": "y"})
    lists = ListStatistics(log)
    counts = np.array([4, 2, 1, 1])
    lists.add(np.array([[0, 1, -1], [0, 2, -1]], np.int32), counts)
    lists.add(np.array([[0, 3, -1]], np.int32), counts)
    found = lists.figures()
    assert found["coverage@10"] == 1.0
    assert found["gini"] == pytest.approx(gini(np.array([3, 1, 1, 1])))
    assert found["popular_1%"] == pytest.approx(3 / 6), "one item of four is the head, shown in three places of six"
    assert found["novelty"] == pytest.approx((3 * 1 + 2 + 3 + 3) / 6)
    assert found["diversity"] == pytest.approx(1 / 2), "i and j are alike, i and k are not, m is of no known category"


SESSIONS = world(
    [("s0", "i", 0.0), ("s0", "j", 0.1), ("s1", "i", 1.0), ("s1", "new", 1.1), ("s1", "j", 1.2), ("s2", "new", 1.3), ("s2", "i", 1.4),
     ("s3", "new", 2.0), ("s3", "j", 2.1), ("s3", "i", 2.2)],
    periods=[0, 0, 1, 1, 1, 1, 1, 2, 2, 2],
)


def test_the_log_of_ader() -> None:
    log = ader(SESSIONS)
    told = [(log.user_ids[u], log.item_ids[i], bool(p)) for u, i, p in zip(log.users, log.items, log.probes, strict=True)]  # type: ignore[arg-type]
    assert told == [
        ("s0", "i", False), ("s0", "j", False),
        ("s1~1", "i", True), ("s1~1", "j", True),  # `new` was never learned; s2 is left with one item, and dropped
        ("s1", "i", False), ("s1", "new", False), ("s1", "j", False), ("s2", "new", False), ("s2", "i", False),
        ("s3~2", "new", True), ("s3~2", "j", True), ("s3~2", "i", True),
        ("s3", "new", False), ("s3", "j", False), ("s3", "i", False),
    ]
    assert (np.diff(log.times_ms) >= 0).all()


def test_every_beginning_of_a_session_predicts_its_next_item_from_what_periods_before_taught() -> None:
    asked: list[tuple[list[int], dict[int, int]]] = []

    class Recording(LastItem):
        def rank(self, users: np.ndarray, now_ms: int, n: int):  # type: ignore[no-untyped-def]
            asked.extend(([self.last[u]], dict(self.counts)) for u in users.tolist())
            return super().rank(users, now_ms, n)

    result = judge(ader(SESSIONS), [Recording()], Rules(protocol="ader"))
    i, j, new = (result.log.item_ids.index(name) for name in ("i", "j", "new"))
    assert result.log.items[result.plan.targets].tolist() == [j, j, i]
    assert asked == [([i], {i: 1, j: 1}), ([new], {i: 3, j: 2, new: 2}), ([j], {i: 3, j: 2, new: 2})]


def test_ader_needs_periods_and_contenders_that_observe() -> None:
    with pytest.raises(LogError, match="has no periods"):
        ader(world([("a", "i", 0)]))
    plain = type("Plain", (), {"name": "plain", "start": Counting.start, "rank": Counting.rank, "learn": Counting.learn})()
    with pytest.raises(ContenderError, match="needs a method observe"):
        judge(ader(SESSIONS), [plain], Rules(protocol="ader"))
