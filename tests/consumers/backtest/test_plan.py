"""Who knows what when: nothing too early, a user's own history exactly, what others did a chunk late at most."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.backtest.facts import facts_of
from consumers.backtest.log import LogError
from consumers.backtest.plan import Plan, Rules, make_plan, steps

from streams.events import TYPE_CODES
from tests.consumers.backtest.worlds import DAY_MS, random_world, world

RULES = [
    Rules(), Rules(sample=0.3), Rules(sample_baskets=20), Rules(protocol="lagged", lag_ms=DAY_MS), Rules(protocol="lagged", lag_ms=1),
    Rules(protocol="periodic"), Rules(protocol="periodic", period_ms=5 * DAY_MS), Rules(min_history=3), Rules(repeats="new"),
]


def test_a_low_rating_is_no_target() -> None:
    log = world([("u", f"i{k}", float(k)) for k in range(6)])
    values = np.array([5, 1, 5, 2, 4, np.nan])
    rated = dataclasses.replace(log, types=np.full(6, TYPE_CODES["rating"], np.uint8), values=values)
    rules = Rules(warmup=0, disliked_below=2.5)
    assert make_plan(rated, facts_of(rated), rules).targets.tolist() == [0, 2, 4, 5], "what carries no value is a target"
    bought = dataclasses.replace(rated, types=np.full(6, TYPE_CODES["purchase"], np.uint8))
    for other in (make_plan(bought, facts_of(bought), rules), make_plan(rated, facts_of(rated), Rules(warmup=0))):
        assert other.targets.tolist() == list(range(6))


@given(st.integers(0, 10_000), st.sampled_from(RULES), st.integers(1, 20))
def test_the_steps_of_any_log(seed: int, rules: Rules, chunk: int) -> None:
    log = random_world(seed, n=150)
    plan = make_plan(log, facts_of(log), rules)
    starts = log.basket_starts()
    users = log.users[starts[:-1]]
    ranked: list[int] = []
    learned = 0
    for step in steps(plan, users, chunk):
        assert step.learn_to >= learned, "nothing is unlearned"
        learned = step.learn_to
        group = plan.scored[step.first : step.last]
        ranked += group.tolist()
        assert 0 < len(group) <= chunk and len(set(users[group])) == len(group)
        for basket in group.tolist():
            due = int(plan.due[basket])
            assert learned <= due <= basket, "nothing is known before its time"
            assert due - learned < chunk
            assert users[basket] not in users[learned:due], "a user's own history is exact"
    assert ranked == plan.scored.tolist()


def test_due_of_each_protocol() -> None:
    log = world([("a", "i", 0.0), ("b", "i", 0.4), ("a", "j", 0.9), ("b", "j", 1.1), ("a", "k", 1.9), ("b", "k", 3.0)])
    facts = facts_of(log)

    def due(**rules: object) -> list[int]:
        return make_plan(log, facts, Rules(warmup=0.0, **rules)).due.tolist()  # type: ignore[arg-type]

    assert due() == [0, 1, 2, 3, 4, 5]
    assert due(protocol="lagged", lag_ms=DAY_MS) == [0, 0, 0, 1, 3, 5]
    midnight = (log.times_ms // DAY_MS).tolist()
    assert due(protocol="periodic") == [midnight.index(day) for day in midnight]


def test_periods_of_the_log_are_its_periods() -> None:
    log = world([("a", "i", 0), ("b", "i", 1), ("a", "j", 2), ("b", "j", 3)], periods=[0, 0, 1, 1])
    plan = make_plan(log, facts_of(log), Rules(protocol="periodic", score_periods=(1, 1)))
    assert plan.due.tolist() == [0, 0, 2, 2] and plan.scored.tolist() == [2, 3]


def test_what_is_scored() -> None:
    log = world([("a", "i", 0), ("b", "j", 1), ("a", "i", 2), ("a", "k", 2), ("b", "i", 3), ("a", "k", 4)])
    facts = facts_of(log)

    def targets(**rules: object) -> list[int]:
        return make_plan(log, facts, Rules(**{"warmup": 0.0, **rules})).targets.tolist()  # type: ignore[arg-type]

    assert targets() == [0, 1, 2, 3, 4, 5]
    assert targets(warmup=0.5) == [2, 3, 4, 5], "half of the events lie before; of one moment all are scored"
    assert targets(repeats="repeat") == [2, 5]
    assert targets(repeats="new") == [0, 1, 3, 4]
    assert targets(min_history=2) == [5]
    liked = dataclasses.replace(log, types=np.array([5, 6, 5, 8, 5, 0], np.uint8))
    assert make_plan(liked, facts, Rules(warmup=0.0)).targets.tolist() == [0, 2, 4, 5], "dislikes and impressions are no wishes"
    assert make_plan(liked, facts, Rules(warmup=0.0, target_types=frozenset({"view"}))).targets.tolist() == [5]


def test_drawing() -> None:
    log = random_world(1)
    facts = facts_of(log)
    whole = make_plan(log, facts, Rules(warmup=0.9))
    plan = make_plan(log, facts, Rules(warmup=0.9, sample_baskets=10))
    drawn = np.random.default_rng(42).choice(len(whole.scored), 10, replace=False)
    assert plan.scored.tolist() == sorted(whole.scored[drawn].tolist())
    assert plan.targets.tolist() == [t for t in whole.targets.tolist() if facts.basket[t] in set(plan.scored.tolist())]
    assert np.diff(plan.starts).tolist() == [int((facts.basket == b).sum()) for b in plan.scored.tolist()]


@pytest.mark.parametrize(("rules", "said"), [
    (Rules(sample_baskets=1000), "1,000 baskets are to be drawn"),
    (Rules(score_periods=(1, 2)), "has no periods"),
    (Rules(min_history=10_000), "nothing of world is left to score"),
])
def test_nothing_to_score_is_said(rules: Rules, said: str) -> None:
    log = random_world(1)
    with pytest.raises(LogError, match=said):
        make_plan(log, facts_of(log), rules)


def test_facts() -> None:
    log = world([("a", "i", 0), ("b", "j", 1), ("a", "i", 2), ("a", "k", 2), ("a", "i", 2), ("b", "i", 3), ("a", "k", 4)])
    facts = facts_of(log)
    assert facts.basket.tolist() == [0, 1, 2, 2, 2, 3, 4]
    assert facts.repeat.tolist() == [False, False, True, False, True, False, True], "the basket itself is no history"
    assert facts.distinct.tolist() == [True, True, True, True, False, True, True]
    assert facts.prior.tolist() == [0, 0, 1, 1, 1, 1, 4]
    assert (facts.age_ms / DAY_MS).tolist() == [-1 / DAY_MS, -1 / DAY_MS, 2, -1 / DAY_MS, 2, 3, 2]


def test_an_empty_group_is_never_made() -> None:
    plan = Plan(np.array([3]), np.arange(5), np.array([3]), np.array([0, 1]))
    assert [*steps(plan, np.zeros(5, np.int32), 64)] == [(3, 0, 1)]
