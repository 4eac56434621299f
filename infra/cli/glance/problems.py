"""Is it well? A report of `look` goes in, a sentence for each thing that is not comes out; none: healthy.

The bounds are those of the alert rules (infra/prometheus/alerts.yml), which also wait before they speak; this is the moment's view.
"""

from __future__ import annotations

from typing import Any

from infra.metrics import OBJECTIVE_SHARE

#: Beyond this a worker gives lists 5% of its time until it has caught up.
MOST_LAG = 20_000
#: Later than the objective may be five times what the objective allows, and only where there are enough lists to tell and
#: it has been so for some time.
MOST_LATE, LEAST_LISTS, LATE_S = 5 * (1 - OBJECTIVE_SHARE), 100, 15
OLDEST_DIRTY_MS = 10_000
MOST_MEMORY = 0.9
MOST_REJECTED, LEAST_EVENTS = 0.05, 100
#: So many baskets tell a difference of two percent from chance.
LEAST_BASKETS = 1_000


def problems_of(report: dict[str, Any]) -> list[str]:
    """Sentences, the gravest first."""
    return [*_servers(report), *_workers(report), *_flow(report), *_quality(report)]


def _servers(report: dict[str, Any]) -> list[str]:
    found = [f"{name} at {report[name.lower()][place]} does not answer ({report[name.lower()]['error']})"
             for name, place in (("Kafka", "bootstrap"), ("Redis", "url")) if not report[name.lower()]["up"]]
    if report["kafka"]["up"] and not report["topics"]:
        found.append("no topics under this prefix yet: `streamrec up` or the first worker creates them")
    used, limit = report["redis"].get("memory_bytes", 0), report["redis"].get("memory_limit_bytes", 0)
    if limit and used > MOST_MEMORY * limit:
        found.append(f"Redis has used {used / limit:.0%} of its memory")
    return found


def _workers(report: dict[str, Any]) -> list[str]:
    if not report["redis"]["up"]:
        return []  # nobody can say who is there
    workers = report["workers"]
    if not workers:
        return ["no worker runs: `streamrec worker` runs one"]
    ready = [worker for worker in workers if worker.get("ready")]
    found = [] if len(ready) == len(workers) else [f"{len(workers) - len(ready)} of {len(workers)} workers are not ready"]
    found += [f"worker {worker['id']} is {worker['state']}" for worker in workers if str(worker.get("state", "")).startswith("waiting")]
    events = next((n for name, n in report["topics"].items() if name == f"{report['prefix']}events"), 0)
    if ready and (orphans := sorted(set(range(events)) - {p for worker in workers for p in worker.get("partitions", ())})):
        found.append(f"nobody has partitions {', '.join(map(str, orphans))} of events")
    return found


def _flow(report: dict[str, Any]) -> list[str]:
    found = []
    if (report["lag_total"] or 0) > MOST_LAG:
        found.append(f"{report['lag_total']:,} events are not absorbed yet")
    if (report["oldest_dirty_ms"] or 0) > OLDEST_DIRTY_MS:
        found.append(f"a user waits for a list since {report['oldest_dirty_ms'] / 1000:.0f} s")
    freshness, recent = report["freshness"], report["recent"]
    # a burst, an import say, makes lists late for a moment; a backlog is told above
    if freshness and recent["late_s"] >= LATE_S and freshness["n"] >= LEAST_LISTS and 1 - freshness["within_objective"] > MOST_LATE:
        found.append(f"{1 - freshness['within_objective']:.0%} of lists come later than {freshness['objective_ms']:.0f} ms")
    if recent and (all_events := recent["events"] + recent["rejected"]) >= LEAST_EVENTS and recent["rejected"] > MOST_REJECTED * all_events:
        found.append(f"{recent['rejected'] / all_events:.0%} of events are rejected")
    return found


def _quality(report: dict[str, Any]) -> list[str]:
    found = [f"worker {worker} has refused release {refused.get('version') or '?'}" for worker, refused in report["model"]["refused"].items()]
    baskets = report["baskets"]
    if baskets and baskets["n"] >= LEAST_BASKETS and baskets["rates"].get("list", 0) < baskets["rates"].get("popular", 0):
        found.append("the lists hit less often than what is popular does")
    return found
