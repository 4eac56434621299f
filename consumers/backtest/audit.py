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
from consumers.backtest.plan import Plan, Rules, make_plan, steps
from consumers.backtest.protocol import Fingerprints, judge


def replace_future(log: Log, cut: int, keep_users_to: int, seed: int) -> Log:
    """The log with other items from `cut` on, and other users too from `keep_users_to` on, at the same times."""
    rng = np.random.default_rng(seed)
    users, items = log.users.copy(), log.items.copy()
    starts = log.basket_starts()
    later = starts[(starts >= keep_users_to) & (starts < len(log))]
    sizes = np.diff(np.append(later, len(log)))
    users[keep_users_to:] = np.repeat(rng.integers(0, log.n_users, len(later)), sizes)  # a basket stays one user's
    items[cut:] = rng.integers(0, log.n_items, len(log) - cut)
    return dataclasses.replace(log, users=users, items=items)


def audit(log: Log, contenders: Sequence[Contender], rules: Rules, *, n_baskets: int = 500) -> int:
    """Compare lists of the first half of what is scored, at most `n_baskets`, the last of them right before the cut.

    Returns how many were compared; raises ContenderError that names who looked ahead, and where first.
    """
    whole = make_plan(log, facts_of(log), rules)
    baskets = whole.scored[: max(1, len(whole.scored) // 2)][-n_baskets:]
    plan = _only(whole, baskets)
    starts = log.basket_starts()
    # the last baskets that are ranked together, none of which is learned before: what is in them is replaced already, who takes
    # them stays, since the judge itself asks by user
    for step in steps(plan, log.users[starts[:-1]], rules.chunk):
        last_group = step
    cut, keep_users_to = int(starts[baskets[last_group.first]]), int(starts[baskets[-1] + 1])
    found = []
    for version in (log, replace_future(log, cut, keep_users_to, rules.seed)):
        prints = [Fingerprints() for _ in contenders]
        judge(version, contenders, rules, plan=plan, fingerprints=prints)
        found.append(prints)
    for contender, first, second in zip(contenders, *found, strict=True):
        changed = [basket for basket in baskets.tolist() if first.found[basket] != second.found[basket]]
        if changed:
            raise ContenderError(
                f"{contender.name} looks ahead: {len(changed):,} of {len(baskets):,} lists changed when only events after them "
                f"were replaced (the first before event {int(starts[changed[0]]):,})"
            )
    return len(baskets)


def _only(plan: Plan, baskets: np.ndarray) -> Plan:
    """The plan cut down to these baskets."""
    chosen = np.isin(plan.scored, baskets)
    sizes = np.diff(plan.starts)
    return Plan(plan.scored[chosen], plan.due, plan.targets[np.repeat(chosen, sizes)],
                np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64))
