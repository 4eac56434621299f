"""The protocol of ADER (Mi, Lin, Faltings, "ADER: Adaptively Distilled Exemplar Replay", RecSys 2020), as a log of its own.

For t = 0, 1, ...: learn all periods up to t, test on t + 1. Items never seen in training are taken out of the test's sessions,
sessions left with one item are dropped, every beginning of a session predicts its next item, and seen items are not filtered.

In: a log with periods. Out: the same log with the test sessions of each period before the period itself, under users of their
own, as probes: events that are shown as a history and never learned from. So testing leaves nothing behind.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from consumers.backtest.log import Log, LogError


def ader(log: Log) -> Log:
    """The log that `judge` runs for this protocol; raises LogError for a log without periods."""
    if log.periods is None or log.periods[0] == log.periods[-1]:
        raise LogError(f"{log.name} has no periods, which the protocol of ADER goes by; it is for diginetica and yoochoose")
    order: list[np.ndarray] = []
    probes: list[np.ndarray] = []
    users: list[np.ndarray] = []
    user_ids = list(log.user_ids)
    bounds = np.flatnonzero(np.diff(log.periods)) + 1
    seen = np.zeros(log.n_items, bool)
    for start, end in zip([0, *bounds], [*bounds, len(log)], strict=True):
        whole = np.arange(start, end)
        if start:
            kept = whole[seen[log.items[whole]]]
            sessions, place, sizes = np.unique(log.users[kept], return_inverse=True, return_counts=True)
            chosen = sizes[place] > 1
            kept, place = kept[chosen], place[chosen]
            numbers = np.cumsum(sizes > 1) - 1 + len(user_ids)
            order.append(kept)
            probes.append(np.ones(len(kept), bool))
            users.append(numbers[place].astype(np.int32))
            period = int(log.periods[start])
            user_ids += [f"{log.user_ids[s]}~{period}" for s in sessions[sizes > 1].tolist()]
        order.append(whole)
        probes.append(np.zeros(len(whole), bool))
        users.append(log.users[whole])
        seen[log.items[whole]] = True
    rows = np.concatenate(order)
    times = log.times_ms[rows]
    # a test stands at the end of what was learned: time does not go back to where its sessions are learned from
    probe = np.concatenate(probes)
    learned_to = np.maximum.accumulate(np.where(probe, np.iinfo(np.int64).min, times))
    return dataclasses.replace(
        log, users=np.concatenate(users), items=log.items[rows], times_ms=np.where(probe, learned_to, times), types=log.types[rows],
        values=None if log.values is None else log.values[rows], baskets=np.arange(len(rows), dtype=np.int64), user_ids=user_ids, periods=log.periods[rows], probes=probe,
    )
