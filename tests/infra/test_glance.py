"""A report of the whole system: what workers say is added up, what is wrong is said, and all of it fits one screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from infra.cli.glance.problems import problems_of
from infra.cli.glance.screen import line, screen
from infra.cli.glance.workers import told_by_workers
from infra.metrics import FRESHNESS_BUCKETS_S, OBJECTIVE_S

NOW_MS = 1_795_350_000_000
CHANNELS = ("repeat", "covisitation", "two_hop", "mf", "transformer")


def sign(k: int, **changes: Any) -> dict[str, Any]:
    """A sign of life of a busy worker with large figures."""
    return {
        "id": f"recommender-node-{k}-123456-abcdef", "pid": k, "host": "box", "web_port": 28_000 + k, "partitions": list(range(4 * k, 4 * k + 4)),
        "started_at": NOW_MS - 7_200_000 + k, "lag": {str(p): 0 for p in range(4 * k, 4 * k + 4)}, "rows": 199_999, "dirty_users": 12_345,
        "oldest_dirty_ms": 40, "items": 70_000, "ready": True, "release": "20261122T112000Z-3fa2c1", "release_made_ms": NOW_MS - 3 * 3_600_000,
        "release_refused": None, "recent": {"seconds": 60.0, "events": 120_000, "rejected": 120, "lists": 90_000, "late_s": 2,
                                            "freshness": {"0.006": 45_000, "0.04": 44_000, "0.25": 1_000}},
        "baskets": {"n": 2_000.0, "hits": {"list": 500.0, "popular": 200.0, **{name: 100.0 for name in CHANNELS}}}, "drifts": 1,
        "lessons_lag": 3, "memory_bytes": 512 * 2**20, "state": "running", **changes}


def report(signs: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "at_ms": NOW_MS, "prefix": "", "kafka": {"bootstrap": "127.0.0.1:29092", "up": True, "error": None},
        "redis": {"url": "redis://127.0.0.1:26379/0", "up": True, "error": None, "version": "8.2.1", "memory_bytes": 700 * 2**20,
                  "memory_limit_bytes": 1536 * 2**20, "keys": 1_234_567},
        "stack": {"home": "/srv/streamrec/.streamrec", "running": True}, "topics": {"events": 8, "items": 1}, "lag": {str(p): 0 for p in range(8)},
        "lag_total": 0, "rows": 612_345, "items": 70_000, "lists": 612_345, "counts_estimated": True, "shadows": ["trial", "week"],
        "dead_letters": {"n": 12_345, "looked_at": 1_000, "reasons": {"json": 600, "schema": 300, "event_type": 50, "timestamp": 50},
                         "newest_ms": NOW_MS - 200_000}, **told_by_workers(signs, NOW_MS), **changes}
    problems = problems_of(found)
    return {"healthy": not problems, "problems": problems, **found}


def shown(found: dict[str, Any], width: int = 100) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(screen(found))
    return out.getvalue().rstrip("\n").split("\n")


def test_two_workers_add_up() -> None:
    found = report([sign(0), sign(1, release=None, release_made_ms=None, drifts=2, lessons_lag=9, oldest_dirty_ms=70)])
    assert found["healthy"], found["problems"]
    assert found["recent"] == {"seconds": 60.0, "late_s": 2, "events": 240_000, "rejected": 240, "lists": 180_000, "events_per_s": 4_000.0, "lists_per_s": 3_000.0}
    fresh = found["freshness"]
    assert fresh["n"] == 180_000 and fresh["p50_ms"] == 6.0 and fresh["within_objective"] == pytest.approx(89 / 90)
    assert 100 < fresh["p99_ms"] <= 250
    assert found["baskets"]["rates"]["list"] == 0.25 and found["baskets"]["rates"]["popular"] == 0.1
    assert (found["drifts"], found["lessons_lag"], found["oldest_dirty_ms"]) == (2, 9, 70)
    assert found["model"] == {"version": "20261122T112000Z-3fa2c1", "made_ms": NOW_MS - 10_800_000, "age_s": 10_800.0,
                              "workers": {"20261122T112000Z-3fa2c1": 1}, "refused": {}}


def test_all_of_it_fits_one_screen() -> None:
    found = report([sign(0, state="waiting for kafka and redis", ready=False), sign(1)], lag={str(p): 1_234_567 for p in range(8)}, lag_total=9_876_536)
    found["problems"] = [*found["problems"], *["something " * 20] * 9]
    lines = shown(found)
    assert len(lines) <= 24 and max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for part in ("NOT WELL", "and 9 more" if len(found["problems"]) == 14 else "more", "20261122T112000Z-3fa2c1, 3 h old, served by 2 of 2", "4,000 events/s",
                 "p50 6 ms", "98.9% within 100 ms", "25.0% of the last 4,000 baskets, popularity 10.0%", "transformer 5.0%", "json 600", "of the last 1,000",
                 "(46%)", "0-3", "4-7", "about 612,345 lists", "shadows: trial, week", "partition 7: 1,234,567"):
        assert part in text, f"{part!r} is not in\n{text}"


def test_a_bare_sign_of_an_older_worker_is_enough() -> None:
    found = report([{"id": "a", "ready": True, "lag": {}, "oldest_dirty_ms": 4, "partitions": list(range(8))}])
    assert found["healthy"] and found["recent"] is None and found["baskets"] is None and found["model"]["version"] is None
    assert "no basket was judged yet" in "\n".join(shown(found))
    assert line(found).startswith("2026-11-22 12:20:00Z well, 1 workers, 0 events/s")


@pytest.mark.parametrize(("changes", "said"), [
    ({"kafka": {"bootstrap": "b:9", "up": False, "error": "gone"}, "topics": {}, "lag": {}, "lag_total": None}, "Kafka at b:9 does not answer (gone)"),
    ({"topics": {}}, "no topics under this prefix"),
    ({"lag_total": 20_001}, "20,001 events are not absorbed yet"),
    ({"oldest_dirty_ms": 10_001}, "a user waits for a list since 10 s"),
    ({"redis": {"url": "r", "up": True, "error": None, "version": "8", "memory_bytes": 91, "memory_limit_bytes": 100, "keys": 1}},
     "Redis has used 91% of its memory"),
])
def test_what_is_wrong_is_said(changes: dict[str, Any], said: str) -> None:
    found = report([sign(0), sign(1)], **changes)
    assert len(found["problems"]) == 1 and said in found["problems"][0], found["problems"]
    assert "NOT WELL" in shown(found)[0] and said in line(found)


@pytest.mark.parametrize(("changes", "said"), [
    ({"ready": False}, "1 of 2 workers are not ready"),
    ({"state": "waiting for redis"}, "is waiting for redis"),
    ({"partitions": [4, 5]}, "nobody has partitions 6, 7 of events"),
    ({"release_refused": {"version": "v", "why": "damaged"}}, "has refused release v"),
    ({"recent": {"seconds": 60.0, "events": 100, "rejected": 9_000, "lists": 0, "late_s": 0, "freshness": {}}}, "7% of events are rejected"),
    ({"recent": {"seconds": 60.0, "events": 9, "rejected": 0, "lists": 9_000, "late_s": 20, "freshness": {"+Inf": 9_000}}}, "10% of lists come later than 100 ms"),
    ({"baskets": {"n": 2_000.0, "hits": {"list": 0.0, "popular": 400.0}}}, "the lists hit less often than what is popular does"),
])
def test_what_is_wrong_with_a_worker_is_said(changes: dict[str, Any], said: str) -> None:
    found = report([sign(0), sign(1, **changes)])
    assert len(found["problems"]) == 1 and said in found["problems"][0], found["problems"]


def test_no_worker_at_all_and_nobody_who_could_say() -> None:
    assert report([])["problems"] == ["no worker runs: `streamrec worker` runs one"]
    nobody = report([], redis={"url": "r", "up": False, "error": "gone"}, lists=None, rows=None, items=None, lag_total=None, dead_letters=None)
    assert nobody["problems"] == ["Redis at r does not answer (gone)"]
    assert "no worker says" in "\n".join(shown(nobody))


def test_the_objective_can_be_counted() -> None:
    assert OBJECTIVE_S in FRESHNESS_BUCKETS_S
