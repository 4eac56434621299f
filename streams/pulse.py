"""What a sign of life says beyond the moment: the last minute's events, lists and freshness, how good the lists are, the model.

In: the worker's own metrics and state, looked at with each sign. Out: figures that add up over workers, so that whoever reads all
signs knows the whole system without reaching the workers' pages, which may lie in another network.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import psutil

from infra.metrics import OBJECTIVE_S, OBJECTIVE_SHARE
from models.manifest import made_ms
from streams.events import REASONS
from streams.state import State

#: What "recent" is. Long enough for a quantile at ten events a second, short enough for somebody who waits for an effect.
RECENT_S = 60.0


class Pulse:
    """Of one worker; `observe` often, `look` once for each sign."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._process = psutil.Process()
        self._looks: deque[tuple[float, dict[str, float]]] = deque()
        for reason in REASONS:  # so that a rate sees a 0 before the first, not a gap
            state.metrics.events_rejected.labels(reason)
        self._n_baskets, self._hits = 0, [0] * len(state.refresher.hits.names)

    def observe(self) -> None:
        """Bring metrics up to date that nobody else counts."""
        metrics, hits = self._state.metrics, self._state.refresher.hits
        metrics.baskets.inc(hits.n - self._n_baskets)
        for k, name in enumerate(hits.names):
            metrics.basket_hits.labels(name).inc(int(hits.hits[k]) - self._hits[k])
        self._n_baskets, self._hits = hits.n, hits.hits.tolist()
        metrics.release_made.set((self._made_ms() or 0) / 1000)

    def memory(self, info: dict[str, Any]) -> None:
        """What Redis says of its memory; without a limit of its own it has the machine's."""
        metrics = self._state.metrics
        metrics.redis_memory.set(info.get("used_memory", 0))
        metrics.redis_memory_limit.set(info.get("maxmemory") or info.get("total_system_memory", 0))

    def look(self) -> None:
        """Note how far the counters are."""
        now_s, counts = time.monotonic(), self._counts()
        if self._looks:
            before_s, before = self._looks[-1]
            counts["late_s"] = before["late_s"] + (now_s - before_s if _was_late(before, counts) else 0.0)
        self._looks.append((now_s, counts))
        while len(self._looks) > 2 and now_s - self._looks[1][0] >= RECENT_S:
            self._looks.popleft()

    def describe(self) -> dict[str, object]:
        """The part of the sign of life that this room knows."""
        state, hits = self._state, self._state.refresher.hits
        return {
            "recent": self._recent(),
            "baskets": {
                "n": round(hits.recent_n, 1),
                "hits": {name: round(float(n), 1) for name, n in zip(hits.names, hits.recent, strict=True)},
            },
            "drifts": state.learner.hit_rate.n_drifts,
            "lessons_lag": round(_sum(state.metrics.lessons_lag)),
            "release_made_ms": self._made_ms(),
            "memory_bytes": self._process.memory_info().rss,
        }

    def _made_ms(self) -> int | None:
        return made_ms(self._state.release) if self._state.release else None

    def _counts(self) -> dict[str, float]:
        metrics = self._state.metrics
        counts = {
            "events": _sum(metrics.events_absorbed),
            "rejected": _sum(metrics.events_rejected),
            "lists": _sum(metrics.lists_published),
            "late_s": 0.0,
        }
        below = 0.0
        for sample in next(iter(metrics.freshness.collect())).samples:
            if sample.name.endswith("_bucket"):
                counts[sample.labels["le"]] = sample.value - below
                below = sample.value
        return counts

    def _recent(self) -> dict[str, object]:
        """What lies between the oldest and the newest look; `late_s`: seconds in which more lists than the objective allows came
        later than it says; `freshness`: lists by the upper bound in seconds of how old their event was, empty ranges left out."""
        (began_s, before), (ended_s, now) = (self._looks[0], self._looks[-1]) if self._looks else ((0.0, {}), (0.0, {}))
        change = {name: round(n - before[name]) for name, n in now.items()}
        said = {name: change.pop(name, 0) for name in ("events", "rejected", "lists", "late_s")}
        return {"seconds": round(ended_s - began_s, 1), **said, "freshness": {bound: n for bound, n in change.items() if n}}


def _was_late(before: dict[str, float], now: dict[str, float]) -> bool:
    """Whether more lists than the objective allows came late between two looks."""
    lists = {float(name): n - before[name] for name, n in now.items() if name not in ("events", "rejected", "lists", "late_s")}
    late = sum(n for bound, n in lists.items() if bound > OBJECTIVE_S)
    return late > (1 - OBJECTIVE_SHARE) * sum(lists.values())


def _sum(metric: Any) -> float:
    """The value of a counter or gauge, labels added up."""
    return float(sum(s.value for family in metric.collect() for s in family.samples if not s.name.endswith("_created")))
