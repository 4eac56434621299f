"""Who knows what when: which baskets are ranked, and how much of the log must have been learned before each.

In: a log and `Rules`. Out: a `Plan` and its steps. One loop serves every protocol: they differ only in `due`, the number
of baskets that have been learned before a basket is ranked (instant: all before it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from consumers.backtest.facts import Facts
from consumers.backtest.log import Log, LogError
from streams.events import EVENT_TYPES, TYPE_CODES

INSTANT, LAGGED, PERIODIC, ADER = "instant", "lagged", "periodic", "ader"
PROTOCOLS = (INSTANT, LAGGED, PERIODIC, ADER)
#: What tells of no wish for the item.
NO_TARGETS = frozenset({"dislike", "remove", "impression"})
DAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a log is judged. Shares are of events; what is drawn is drawn from `seed`."""

    protocol: str = INSTANT
    lag_ms: int = 0
    period_ms: int | None = None  # periodic: None takes the log's own periods, else a day
    repeats: str = "all"  # all, new, repeat
    warmup: float = 0.3  # share of events before the first that is scored
    score_periods: tuple[int, int] | None = None  # first and last period that is scored, instead of a warm-up
    min_history: int = 0  # events of users with fewer before are not scored
    target_types: frozenset[str] = frozenset(EVENT_TYPES) - NO_TARGETS
    disliked_below: float | None = None  # ratings with a lower value tell of no wish either
    sample: float = 1.0  # share of baskets to score
    sample_baskets: int | None = None  # so many baskets, drawn without replacement
    seed: int = 42
    chunk: int = 64  # what others did is at most so many baskets old


class Plan(NamedTuple):
    """`scored` (S,) int64 baskets to rank, ascending; `due` (n_baskets,) int64; `targets` (T,) int64: their events to score,
    ascending; `starts` (S + 1,) into `targets`."""

    scored: np.ndarray
    due: np.ndarray
    targets: np.ndarray
    starts: np.ndarray


class Step(NamedTuple):
    """Learn baskets [learned, learn_to), then rank those with places [first, last) in `Plan.scored`."""

    learn_to: int
    first: int
    last: int


def make_plan(log: Log, facts: Facts, rules: Rules) -> Plan:
    """Raises LogError where nothing is left to score."""
    starts = log.basket_starts()
    moments = log.times_ms[starts[:-1]]
    wanted = np.isin(log.types, [TYPE_CODES[name] for name in rules.target_types]) & (facts.prior >= rules.min_history)
    if log.values is not None and rules.disliked_below is not None:
        wanted &= ~((log.types == TYPE_CODES["rating"]) & (log.values < rules.disliked_below))
    if rules.repeats != "all":
        wanted &= facts.repeat == (rules.repeats == "repeat")
    if log.probes is not None:
        wanted &= log.probes & (facts.prior > 0)  # every beginning of a session tells its next item
    if rules.score_periods is not None:
        if log.periods is None:
            raise LogError(f"{log.name} has no periods to choose from; give a warm-up instead")
        low, high = rules.score_periods
        wanted &= (log.periods >= low) & (log.periods <= high)
    elif log.probes is None:
        wanted &= log.times_ms >= log.times_ms[min(int(len(log) * rules.warmup), len(log) - 1)]
    candidates = np.unique(facts.basket[wanted])
    rng = np.random.default_rng(rules.seed)
    if rules.sample_baskets is not None:
        if rules.sample_baskets > len(candidates):
            raise LogError(f"{rules.sample_baskets:,} baskets are to be drawn, and there are {len(candidates):,} after the warm-up")
        scored = np.sort(candidates[rng.choice(len(candidates), rules.sample_baskets, replace=False)])
    else:
        scored = candidates if rules.sample >= 1 else candidates[rng.random(len(candidates)) < rules.sample]
    if not len(scored):
        raise LogError(f"nothing of {log.name} is left to score: {len(log):,} events, {int(wanted.sum()):,} after the warm-up that "
                       f"are {', '.join(sorted(rules.target_types))}; choose a shorter warm-up or a larger sample")
    targets = np.flatnonzero(wanted & np.isin(facts.basket, scored))
    ends = np.searchsorted(facts.basket[targets], scored, side="right")
    return Plan(scored, _due(log, moments, starts, rules), targets, np.concatenate([[0], ends]).astype(np.int64))


def _due(log: Log, moments: np.ndarray, starts: np.ndarray, rules: Rules) -> np.ndarray:
    """How many baskets are known before each is ranked."""
    if rules.protocol == LAGGED:
        return np.minimum(np.searchsorted(moments, moments - rules.lag_ms, side="right"), np.arange(len(moments)))
    if rules.protocol == PERIODIC:
        if rules.period_ms is None and log.periods is not None:
            period = log.periods[starts[:-1]].astype(np.int64)
        else:
            period = moments // (rules.period_ms or DAY_MS)
        return np.asarray(np.searchsorted(period, period))
    return np.arange(len(moments))


def steps(plan: Plan, basket_users: np.ndarray, chunk: int) -> Iterator[Step]:
    """Groups of baskets that are ranked together, each before any of it is learned.

    Nobody stands in a group twice, and nobody whose own earlier basket is due waits in it: a user's own history is exact, and
    what others did is at most `chunk` - 1 baskets older than it should be. basket_users (n_baskets,).
    """
    users, due, scored = basket_users.tolist(), plan.due.tolist(), plan.scored.tolist()
    first, learned, seen_to = 0, 0, 0
    taken: set[int] = set()  # users of the group, and of baskets that are due but not learned
    for place, basket in enumerate(scored):
        must = due[basket]
        if place > first and must - learned < chunk:
            while seen_to < must:
                taken.add(users[seen_to])
                seen_to += 1
        if place > first and (must - learned >= chunk or place - first >= chunk or users[basket] in taken):
            yield Step(learned, first, place)
            first = place
        if place == first:
            learned = seen_to = max(must, learned)
            taken = set()
        taken.add(users[basket])
    yield Step(learned, first, len(scored))
