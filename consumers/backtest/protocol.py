"""The loop: rank, score, learn. One pass over a log for any number of contenders, each seeing exactly the same.

In: a log, contenders, rules. Out: a `Result` - the rank of every target by contender, and what their lists were like. That a
contender cannot learn before it ranks lies in the loop's form, and what it is given of the log ends where it has come to.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from consumers.backtest.contender import Contender, ContenderError, Observer
from consumers.backtest.facts import Facts, facts_of
from consumers.backtest.lists import ListStatistics
from consumers.backtest.log import Log
from consumers.backtest.plan import Plan, Rules, make_plan, steps
from consumers.backtest.ranks import DEPTH, RISING, TWICE, UNSEEN, find_ranks, keep_kind

#: Events learned in one call where nothing is scored in between.
BLOCK = 4096


@dataclass
class Judged:
    """What came of one contender: `ranks` (T,) int16 by target, 0 a miss; `apart`, the same among items of the target's kind
    (had before by this user, or new to him); CPU seconds spent; what its lists were like."""

    name: str
    ranks: np.ndarray
    apart: np.ndarray
    lists: ListStatistics
    rank_s: float = 0.0
    learn_s: float = 0.0
    about: dict[str, object] = field(default_factory=dict)  # what the contender tells of itself


@dataclass(frozen=True)
class Result:
    """A pass: what was judged, by which rules, and what came out."""

    log: Log
    rules: Rules
    facts: Facts
    plan: Plan
    judged: list[Judged]


class Fingerprints:
    """Collects a hash of each basket's list, for the audit."""

    def __init__(self) -> None:
        self.found: dict[int, bytes] = {}

    def add(self, baskets: np.ndarray, items: np.ndarray, scores: np.ndarray) -> None:
        """Note the lists of these baskets."""
        for k, basket in enumerate(baskets.tolist()):
            self.found[basket] = hashlib.blake2b(items[k].tobytes() + scores[k].tobytes(), digest_size=8).digest()


def judge(
    log: Log,
    contenders: Sequence[Contender],
    rules: Rules,
    *,
    progress: Callable[[int, int], None] | None = None,
    plan: Plan | None = None,
    fingerprints: Sequence[Fingerprints] | None = None,
) -> Result:
    """Run the log through the contenders; `progress` is called with events done and events there are.

    Raises ContenderError where one breaks the rules, LogError where there is nothing to score.
    """
    facts = facts_of(log)
    plan = plan or make_plan(log, facts, rules)
    starts = log.basket_starts()
    users = log.users[starts[:-1]]
    moments = log.times_ms[starts[:-1]]
    n_targets = len(plan.targets)
    judged = [Judged(c.name, np.zeros(n_targets, np.int16), np.zeros(n_targets, np.int16), ListStatistics(log)) for c in contenders]
    _begin(log, contenders, rules)
    known = np.zeros(log.n_items, bool)
    counts = np.zeros(log.n_items, np.int64)
    place, own = np.full(log.n_items, -1, np.int32), np.zeros(log.n_items, bool)  # scratch
    pairs = (facts.pair_start, facts.pair_items, facts.pair_basket)
    learned = 0
    end = int(starts[plan.due[plan.scored[-1]]])
    for step in steps(plan, users, rules.chunk):
        learn_to = int(starts[step.learn_to])
        for first, last, probe in _blocks(log, learned, learn_to):
            seen = log.until(last)
            for contender, one in zip(contenders, judged, strict=True):
                began = time.process_time()
                (contender.observe if probe else contender.learn)(seen, first, last)  # type: ignore[attr-defined]
                one.learn_s += time.process_time() - began
            if not probe:
                known[log.items[first:last]] = True
                np.add.at(counts, log.items[first:last], 1)
            if progress:
                progress(last, end)
        learned = learn_to
        baskets = plan.scored[step.first : step.last]
        asked, now_ms = users[baskets], int(moments[baskets[0]])
        n = DEPTH + _most_had(facts, asked, baskets)
        at = slice(int(plan.starts[step.first]), int(plan.starts[step.last]))
        rows = plan.starts[step.first : step.last + 1] - plan.starts[step.first]
        n_known = int(np.count_nonzero(known))
        for k, (contender, one) in enumerate(zip(contenders, judged, strict=True)):
            began = time.process_time()
            items, scores = contender.rank(asked, now_ms, n)
            one.rank_s += time.process_time() - began
            items, scores = _checked(one.name, items, scores, len(asked), n, log)
            if fingerprints:
                fingerprints[k].add(baskets, items, scores)
            wrong, row, where = find_ranks(
                items, scores, asked, baskets, rows, log.items[plan.targets[at]], *pairs, known, n_known, place, own,
                one.ranks[at], one.apart[at],
            )
            if wrong:
                raise ContenderError(_complaint(wrong, one.name, log, int(asked[row]), int(items[row, where]), where))
            if rules.repeats != "all":
                one.ranks[at] = one.apart[at]
                keep_kind(items, asked, baskets, rules.repeats == "repeat", *pairs, own)
            one.lists.add(items, counts)
    for contender, one in zip(contenders, judged, strict=True):
        one.about = dict(getattr(contender, "about", {}))
    return Result(log, rules, facts, plan, judged)


def _begin(log: Log, contenders: Sequence[Contender], rules: Rules) -> None:
    names = [contender.name for contender in contenders]
    if len(set(names)) < len(names):
        raise ContenderError(f"contenders are named {', '.join(names)}; each needs a name of its own")
    if log.probes is not None:
        for contender in contenders:
            if not isinstance(contender, Observer):
                raise ContenderError(f"{contender.name} cannot be judged by protocol {rules.protocol}: items must stand still while "
                                     "sessions go on, so it needs a method observe(log, first, last) beside learn")
    for contender in contenders:
        contender.start(log.until(0))


def _blocks(log: Log, first: int, last: int) -> list[tuple[int, int, bool]]:
    """[first, last) cut into blocks that are all shown or all learned."""
    cuts = [first, last]
    if log.probes is not None:
        cuts[1:1] = (np.flatnonzero(np.diff(log.probes[first:last].view(np.int8))) + first + 1).tolist()
    return [
        (start, min(start + BLOCK, end), bool(log.probes is not None and log.probes[start]))
        for begin, end in zip(cuts, cuts[1:], strict=False)
        for start in range(begin, end, BLOCK)
    ]


def _most_had(facts: Facts, users: np.ndarray, baskets: np.ndarray) -> int:
    """So many items at most a user of these has had, and they may all stand before what is new to him."""
    spans = zip(facts.pair_start[users].tolist(), facts.pair_start[users + 1].tolist(), baskets.tolist(), strict=True)
    return max(int(np.count_nonzero(facts.pair_basket[first:last] < basket)) for first, last, basket in spans)


def _checked(name: str, items: np.ndarray, scores: np.ndarray, n_users: int, n: int, log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Own copies of a ranking, in the kernel's types; raises ContenderError where it is none."""
    if items.shape != scores.shape or items.ndim != 2 or len(items) != n_users or items.shape[1] > n:
        raise ContenderError(f"{name} ranked {n_users} users with items {items.shape} and scores {scores.shape}; expected "
                             f"({n_users}, n) both, n at most {n}")
    items, scores = np.array(items, np.int32), np.array(scores, np.float32)
    if items.size and int(items.max()) >= log.n_items:
        raise ContenderError(f"{name} ranked item {int(items.max())}; there are {log.n_items}, counted from 0")
    return items, scores


def _complaint(wrong: int, name: str, log: Log, user: int, item: int, place: int) -> str:
    where = f"{name} ranked for user {log.user_ids[user]!r}, at place {place + 1},"
    if wrong == UNSEEN:
        return f"{where} item {log.item_ids[item]!r}, of which it has learned nothing yet; items enter at their first event"
    if wrong == TWICE:
        return f"{where} item {log.item_ids[item]!r} a second time; a list holds each item once"
    assert wrong == RISING
    return f"{where} a score that is larger than the one before it, or no number; scores never increase along a list"
