"""Does a contender look ahead? Its lists must not change when what comes after them does.

The log is judged twice: as it is, and with everything after a cut replaced by other events. Lists before the cut that differ
were made from what had not happened yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from consumers.backtest.contender import Contender, ContenderError
from consumers.backtest.facts import facts_of
from consumers.backtest.log import Log
from consumers.backtest.plan import Plan, Rules, make_plan
from consumers.backtest.protocol import Fingerprints, judge


def replace_future(log: Log, cut: int, seed: int) -> Log:
    """The log with the events from `cut` on shuffled: other users take other items at the same times."""
    rng = np.random.default_rng(seed)
    users, items = log.users.copy(), log.items.copy()
    starts = log.basket_starts()
    later = starts[(starts >= cut) & (starts < len(log))]
    sizes = np.diff(np.append(later, len(log)))
    users[cut:] = np.repeat(rng.integers(0, log.n_users, len(later)), sizes)  # a basket stays one user's
    items[cut:] = rng.integers(0, log.n_items, len(log) - cut)
    return dataclasses.replace(log, users=users, items=items)


def audit(log: Log, contenders: Sequence[Contender], rules: Rules, *, n_baskets: int = 500) -> int:
    """Compare the lists before a cut in the middle of what is scored; returns how many were compared.

    At most `n_baskets` baskets before the cut are ranked. Raises ContenderError that names who looked ahead, and where first.
    """
    plan = make_plan(log, facts_of(log), rules)
    before = plan.scored[: max(1, len(plan.scored) // 2)]
    before = before[-n_baskets:]  # the last ones: right before what is replaced
    cut = int(log.basket_starts()[before[-1]])  # the events of the last basket that is ranked are already others
    shown = _only(plan, before)
    found = []
    for version in (log, replace_future(log, cut, rules.seed)):
        prints = [Fingerprints() for _ in contenders]
        judge(version, contenders, rules, plan=shown, fingerprints=prints)
        found.append(prints)
    for contender, first, second in zip(contenders, *found, strict=True):
        changed = [basket for basket in before[:-1].tolist() if first.found[basket] != second.found[basket]]
        if changed:
            raise ContenderError(
                f"{contender.name} looks ahead: {len(changed):,} of {len(before) - 1:,} lists changed when only events after them "
                f"were replaced (the first before event {int(log.basket_starts()[changed[0]]):,})"
            )
    return len(before) - 1


def _only(plan: Plan, baskets: np.ndarray) -> Plan:
    """The plan cut down to these baskets."""
    chosen = np.isin(plan.scored, baskets)
    sizes = np.diff(plan.starts)
    return Plan(plan.scored[chosen], plan.due, plan.targets[np.repeat(chosen, sizes)],
                np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64))
