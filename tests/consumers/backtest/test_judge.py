"""The judge on worlds whose right answers can be proved: figures by hand, a frozen basket, cheaters caught, rules kept."""

from __future__ import annotations

import math

import numpy as np
import pytest

from consumers.backtest.audit import audit, replace_future
from consumers.backtest.contender import ContenderError, Ranking
from consumers.backtest.log import Log
from consumers.backtest.metrics import ONLY_NEW, TWO_LISTS, figures, over_time
from consumers.backtest.plan import Rules
from consumers.backtest.protocol import judge
from tests.consumers.backtest.worlds import DAY_MS, Cheat, Counting, LastItem, pack, random_world, world


def judged(log: Log, contender: Counting, **rules: object) -> tuple[list[int], dict[str, dict[str, float | int]]]:
    result = judge(log, [contender], Rules(**{"warmup": 0.0, "chunk": 1, **rules}))  # type: ignore[arg-type]
    return result.judged[0].ranks.tolist(), figures(result, result.judged[0])


def test_figures_by_hand() -> None:
    log = world([("a", "i", 0), ("b", "i", 1), ("a", "j", 2), ("b", "j", 3), ("a", "i", 4), ("c", "j", 5)])
    ranks, found = judged(log, Counting())
    # counts before each: {} | i1 | i2 | i2 j1 | i2 j2 (a tie) | i3 j2
    assert ranks == [0, 1, 0, 2, 2, 2]
    assert found["all"]["hr@10"] == pytest.approx(4 / 6)
    assert found["all"]["ndcg@10"] == pytest.approx((1 + 3 / math.log2(3)) / 6)
    assert found["all"]["mrr@20"] == pytest.approx((1 + 3 / 2) / 6)
    assert found["all"]["recall@20"] == found["all"]["hit@20"] == pytest.approx(4 / 6)
    assert found["repeat"]["n"] == 1 and found["repeat"]["mrr@20"] == 0.5
    assert found["history 0"]["n"] == 3 and found["history 1-4"]["n"] == 3
    assert (found["item never seen"]["n"], found["item < 7 d"]["n"]) == (2, 4)
    # without i, which b has had, j is the first of what is new to him; for c both are new
    assert found[ONLY_NEW]["mrr@20"] == pytest.approx((0 + 1 + 0 + 1 + 1 / 2) / 5)
    assert found[TWO_LISTS]["mrr@20"] == pytest.approx((0 + 1 + 0 + 1 + 1 / 2 + 1 / 2) / 6)


def test_one_kind_alone() -> None:
    log = world([("a", "i", 0), ("b", "i", 1), ("a", "j", 2), ("b", "j", 3), ("a", "i", 4), ("c", "j", 5)])
    assert judged(log, Counting(), repeats="new")[0] == [0, 1, 0, 1, 2]
    assert judged(log, Counting(), repeats="repeat")[0] == [2]


def test_a_basket_is_frozen() -> None:
    log = world([("a", "i", 0), ("b", "j", 1), ("b", "k", 1), ("b", "j", 1), ("a", "k", 2), ("a", "j", 2)])
    ranks, found = judged(log, Counting())
    assert ranks[:4] == [0, 0, 0, 0], "what lies in a basket is not learned before its end"
    assert ranks[4:] == [3, 1], "j twice, k and i once"
    assert found["all"]["hit@20"] == pytest.approx(1 / 3)
    assert found["all"]["recall@20"] == pytest.approx(1 / 3)


def test_recall_counts_distinct_items() -> None:
    log = world([("a", "i", 0), ("b", "i", 1), ("b", "i", 1), ("b", "z", 1)])
    assert judged(log, Counting(), warmup=0.5)[1]["all"]["recall@20"] == 0.5


def test_who_knows_the_answer_is_right() -> None:
    log = world([("a", f"i{k % 3}", k) for k in range(30)])

    class Successor(LastItem):
        def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
            return pack([[((self.last[u] + 1) % 3, 1.0)] if u in self.last else [] for u in users.tolist()], n)

    assert judged(log, Successor(), warmup=0.3)[1]["all"]["hr@10"] == 1.0
    assert judged(log, LastItem(), warmup=0.3)[1]["all"]["hr@200"] == 0.0


@pytest.mark.parametrize(("rules", "right"), [
    ({}, 1.0),
    ({"protocol": "lagged", "lag_ms": DAY_MS}, 1.0),
    ({"protocol": "lagged", "lag_ms": DAY_MS + 1}, 0.0),
    ({"protocol": "periodic"}, 1.0),
    ({"protocol": "periodic", "period_ms": 400 * DAY_MS}, 0.0),
])
def test_a_state_that_is_behind(rules: dict[str, object], right: float) -> None:
    """Everybody takes one item on day 0 and another for ever after; who ranks the last item known is right from day 2 on."""
    log = world([("u", "old", 0), *[("u", f"n{k}", k) for k in range(1, 2)], *[("u", "n1", k) for k in range(2, 3)]])
    ranks, _ = judged(log, LastItem(), **rules)
    assert ranks[2] == right


def test_the_chunk_changes_nothing_of_a_users_own_history() -> None:
    log = random_world(3)
    assert judged(log, LastItem(), chunk=1)[0] == judged(log, LastItem(), chunk=64)[0]


def test_everything_due_is_learned_once_in_order() -> None:
    log, contender = random_world(4), Counting()
    judge(log, [contender], Rules(sample=0.2))
    n = len(contender.learned)
    assert n and contender.learned == [*zip(log.users[:n].tolist(), log.items[:n].tolist(), strict=True)]


def test_two_contenders_are_judged_as_each_alone() -> None:
    log = random_world(5)
    both = judge(log, [Counting(), LastItem("last")], Rules())
    assert both.judged[0].ranks.tolist() == judge(log, [Counting()], Rules()).judged[0].ranks.tolist()
    assert both.judged[1].ranks.tolist() == judge(log, [LastItem()], Rules()).judged[0].ranks.tolist()


def test_what_a_contender_is_given_ends_where_it_has_come_to() -> None:
    class Looking(Counting):
        def learn(self, log: Log, first: int, last: int) -> None:
            assert last == len(log) == len(log.items) == len(log.baskets)
            super().learn(log, first, last)

    judge(random_world(6), [Looking()], Rules())


def test_a_cheat_is_caught() -> None:
    log = random_world(7)
    seen = [i for i in range(log.n_items) if i in set(log.items[:120].tolist())]
    assert len(seen) == log.n_items, "from here on the cheat has every item to name"
    _, found = judged(log, Cheat("cheat"), warmup=0.35, chunk=1)
    assert found["all"]["hr@200"] == 1.0, "it cheats indeed"
    assert audit(log, [Counting(), LastItem("last")], Rules(warmup=0.35)) > 50
    with pytest.raises(ContenderError, match=r"cheat looks ahead: \d+ of \d+ lists changed"):
        audit(log, [Counting(), Cheat("cheat")], Rules(warmup=0.35))


def test_whoever_looks_no_further_than_the_next_basket_is_caught_too() -> None:
    class Peek(Counting):
        """Looks only at the one event after what it has learned."""

        def start(self, log: Log) -> None:
            super().start(log)
            self.items, self.end = log.items.base, 0

        def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
            item = int(self.items[self.end])
            return pack([[(item, 1.0)] if item in self.counts else []] * len(users), n)

        def learn(self, log: Log, first: int, last: int) -> None:
            super().learn(log, first, last)
            self.end = last

    with pytest.raises(ContenderError, match="peek looks ahead"):
        audit(random_world(7), [Peek("peek")], Rules(warmup=0.35))


def test_a_replaced_future_is_another() -> None:
    log = random_world(8)
    end = int(log.basket_starts()[log.baskets[220] + 1])
    other = replace_future(log, 200, end, 42)
    assert (other.items[:200] == log.items[:200]).all() and (other.users[:end] == log.users[:end]).all()
    assert (other.items[200:] != log.items[200:]).mean() > 0.9 and (other.users[end:] != log.users[end:]).mean() > 0.8
    assert (other.times_ms == log.times_ms).all() and (other.baskets == log.baskets).all()
    assert all(len(set(other.users[other.baskets == b])) == 1 for b in np.unique(other.baskets))


class Broken(Counting):
    """Ranks what `ranking` says."""

    def __init__(self, ranking: Ranking) -> None:
        super().__init__("broken")
        self.ranking = ranking

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        return self.ranking


@pytest.mark.parametrize(("ranking", "said"), [
    (pack([[(2, 1.0)]], 3), "item 'k', of which it has learned nothing yet"),
    (pack([[(0, 1.0), (0, 0.5)]], 3), "item 'i' a second time"),
    (pack([[(0, 1.0), (1, 2.0)]], 3), "never increase"),
    (pack([[(0, float("nan"))]], 3), "or no number"),
    (pack([[(99, 1.0)]], 3), "ranked item 99; there are 3"),
    (pack([[], []], 3), "expected \\(1, n\\) both"),
    (pack([[]], 999), "n at most 20"),
])
def test_a_contender_that_breaks_the_rules_is_told(ranking: Ranking, said: str) -> None:
    log = world([("a", "i", 0), ("a", "j", 1), ("b", "i", 2), ("a", "k", 3)])
    with pytest.raises(ContenderError, match=said):
        judge(log, [Broken(ranking)], Rules(warmup=0.5, chunk=1))


def test_names_must_differ() -> None:
    with pytest.raises(ContenderError, match="a name of its own"):
        judge(random_world(9), [Counting(), Counting()], Rules())


def test_over_time_is_all_of_it() -> None:
    result = judge(random_world(10), [Counting()], Rules())
    bins = over_time(result, result.judged[0])
    whole = figures(result, result.judged[0])["all"]
    assert sum(b["n"] for b in bins) == whole["n"]
    assert sum(b["n"] * b["hr@10"] for b in bins) / whole["n"] == pytest.approx(whole["hr@10"])
