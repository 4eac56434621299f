"""What the workers say of themselves: their /metrics pages, added up, as rates and quantiles.

In: ports. Out: a `Sample` at each look, and what happened between two of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from infra.quantiles import quantile_ms

LOOK_TIMEOUT_S = 3.0  # in a flood a worker answers between two batches


@dataclass(frozen=True)
class Sample:
    """All workers together at one moment. `freshness`: (upper bound in s, how many at most that), cumulative."""

    at_s: float
    absorbed: int = 0
    rejected: int = 0
    duplicates: int = 0
    lists: int = 0
    folded: int = 0
    lag: int = 0
    dirty: int = 0
    freshness: tuple[tuple[float, int], ...] = ()
    resident_bytes: int = 0
    cpu_s: float = 0.0
    swaps: int = 0  # releases swapped in


@dataclass(frozen=True)
class Flow:
    """What happened between two samples."""

    events_per_s: float = 0.0
    lists_per_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass
class Gauges:
    """Looks at the workers' pages over one connection each."""

    ports: Sequence[int]
    latest: dict[int, dict[str, float]] = field(default_factory=dict)

    async def look(self, session: aiohttp.ClientSession) -> Sample:
        """One sample; a worker that does not answer in time counts as it last was."""
        await asyncio.gather(*(self._look(session, port) for port in self.ports))
        total: dict[str, float] = {}
        for values in self.latest.values():
            for name, value in values.items():
                total[name] = total.get(name, 0.0) + value

        def count(name: str) -> int:
            return round(total.get(f"streamrec_{name}", 0.0))

        buckets = sorted((float(name.removeprefix("le:")), round(n)) for name, n in total.items() if name.startswith("le:"))
        return Sample(time.monotonic(), count("events_absorbed_total"), count("events_rejected_total"),
                      count("events_duplicate_total"), count("lists_published_total"), count("items_folded_total"),
                      count("lag"), count("users_dirty"), tuple(buckets),
                      round(total.get("process_resident_memory_bytes", 0.0)), total.get("process_cpu_seconds_total", 0.0),
                      count("release_swaps_total"))

    async def _look(self, session: aiohttp.ClientSession, port: int) -> None:
        try:
            async with session.get(f"http://127.0.0.1:{port}/metrics", timeout=aiohttp.ClientTimeout(LOOK_TIMEOUT_S)) as page:
                self.latest[port] = parse(await page.text())
        except (TimeoutError, aiohttp.ClientError):
            pass  # whether it lives is seen elsewhere


def parse(text: str) -> dict[str, float]:
    """A page's values by name, labels added up; the buckets of the freshness histogram as `le:<bound>`.

    >>> parse('# TYPE streamrec_lag gauge\\nstreamrec_lag{partition="0"} 2\\nstreamrec_lag{partition="1"} 3\\n')
    {'streamrec_lag': 5.0}
    """
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name
            if name == "streamrec_freshness_seconds_bucket":
                name = f"le:{sample.labels['le']}"
            values[name] = values.get(name, 0.0) + sample.value
    return values


def flow(before: Sample, now: Sample) -> Flow:
    """Rates and freshness of what lies between two samples."""
    seconds = max(1e-9, now.at_s - before.at_s)
    earlier = dict(before.freshness)
    buckets = [(bound, n - earlier.get(bound, 0)) for bound, n in now.freshness]
    return Flow((now.absorbed - before.absorbed) / seconds, (now.lists - before.lists) / seconds,
                quantile_ms(buckets, 0.5), quantile_ms(buckets, 0.99))
