"""What all workers together say of themselves: their signs of life, added up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from infra.metrics import FRESHNESS_BUCKETS_S, OBJECTIVE_S
from infra.quantiles import quantile_ms, share_within


def told_by_workers(signs: list[dict[str, Any]], now_ms: int) -> dict[str, Any]:
    """The part of the report that the workers tell; an older worker may not say everything."""
    recents = [sign["recent"] for sign in signs if sign.get("recent")]
    return {
        "workers": sorted(signs, key=lambda sign: str(sign.get("started_at", ""))),
        "oldest_dirty_ms": max((sign["oldest_dirty_ms"] for sign in signs if sign.get("oldest_dirty_ms") is not None), default=None),
        "lessons_lag": max((sign["lessons_lag"] for sign in signs if sign.get("lessons_lag") is not None), default=None),
        "recent": _recent(recents),
        "freshness": _freshness(recents),
        "baskets": _baskets([sign["baskets"] for sign in signs if sign.get("baskets")]),
        # every worker learns from all events, so all of them see the same falls, since they were started
        "drifts": max((sign["drifts"] for sign in signs if sign.get("drifts") is not None), default=None),
        "model": _model(signs, now_ms),
    }


def _recent(recents: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not recents:
        return None
    total: dict[str, Any] = {name: sum(recent[name] for recent in recents) for name in ("events", "rejected", "lists")}
    for name in ("events", "lists"):
        total[f"{name}_per_s"] = round(sum(recent[name] / recent["seconds"] for recent in recents if recent["seconds"] > 0), 1)
    return {**{name: max(recent.get(name, 0) for recent in recents) for name in ("seconds", "late_s")}, **total}


def _freshness(recents: list[dict[str, Any]]) -> dict[str, Any] | None:
    counts: Counter[float] = Counter()
    for recent in recents:
        for bound, n in recent["freshness"].items():
            counts[float(bound)] += n
    cumulative, n = [], 0
    for bound in (*FRESHNESS_BUCKETS_S, float("inf")):
        n += counts[bound]
        cumulative.append((bound, n))
    if not n:
        return None
    return {"n": n, "p50_ms": quantile_ms(cumulative, 0.5), "p99_ms": quantile_ms(cumulative, 0.99),
            "within_objective": share_within(cumulative, OBJECTIVE_S), "objective_ms": OBJECTIVE_S * 1000}


def _baskets(told: list[dict[str, Any]]) -> dict[str, Any] | None:
    n = sum(one["n"] for one in told)
    if n <= 0:
        return None
    hits: Counter[str] = Counter()
    for one in told:
        hits.update(one["hits"])
    return {"n": round(n, 1), "rates": {name: hits[name] / n for name in hits}}


def _model(signs: list[dict[str, Any]], now_ms: int) -> dict[str, Any]:
    """Of several releases that are served at once (they swap one by one) the newest."""
    serving = Counter(sign["release"] for sign in signs if sign.get("release"))
    version = max(serving, default=None)
    made_ms = next((sign.get("release_made_ms") for sign in signs if version and sign.get("release") == version), None)
    return {"version": version, "made_ms": made_ms, "age_s": None if made_ms is None else max(0.0, (now_ms - made_ms) / 1000),
            "workers": dict(serving), "refused": {sign["id"]: sign["release_refused"] for sign in signs if sign.get("release_refused")}}
