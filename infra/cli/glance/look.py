"""One look at everything: what Redis says, what Kafka says, what the workers say of themselves, as one JSON object.

The object's keys: healthy, problems [sentences], at_ms, prefix, kafka {bootstrap, up, error}, redis {url, up, error, version, memory_bytes,
memory_limit_bytes, keys}, stack {home, running}, topics {name: partitions}, lag {partition: events}, lag_total, rows, items, lists,
counts_estimated, shadows [names], workers [as in Redis], oldest_dirty_ms, lessons_lag, recent {seconds, events, rejected, lists, events_per_s,
lists_per_s}, freshness {n, p50_ms, p99_ms, within_objective, objective_ms}, baskets {n, rates {whose first ten: share}}, drifts,
model {version, made_ms, age_s, workers {version: count}, refused {worker: {version, why}}}, dead_letters {n, looked_at, reasons, newest_ms}.
What cannot be known, because a server does not answer or nobody has said it, is null or empty.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from infra.cli.glance.kafka_side import KafkaSide
from infra.cli.glance.problems import problems_of
from infra.cli.glance.redis_side import RedisSide
from infra.cli.glance.workers import told_by_workers
from infra.settings import Settings
from infra.stack import LocalStack

DEADLINE_S = 10.0  # a command that says how things are must not hang where they are bad


class Glance:
    """Looks at one system as often as it is asked; connections stay open in between. count_every_s: what takes a walk over all keys
    (lists, rows, which workers and shadows there are) is looked up again after so long."""

    def __init__(self, settings: Settings, *, count_every_s: float = 0.0) -> None:
        self._settings = settings
        self._redis, self._kafka = RedisSide(settings, count_every_s), KafkaSide(settings)
        self._stack = LocalStack()

    async def look(self) -> dict[str, Any]:
        """The report; a server that does not answer has up=false and why."""
        settings, stack = self._settings, self._stack
        now_ms = time.time_ns() // 1_000_000
        report: dict[str, Any] = {
            "at_ms": now_ms, "prefix": settings.prefix,
            "kafka": {"bootstrap": settings.kafka_bootstrap}, "redis": {"url": settings.public()["redis_url"]},
            "stack": {"home": str(stack.home), "running": stack.note_file.exists() and stack.running},
            "topics": {}, "lag": {}, "lag_total": None, "rows": None, "items": None, "lists": None, "counts_estimated": False, "shadows": [],
            "dead_letters": None,
        }
        (redis, signs, checkpoints), (kafka, ends, starts) = await asyncio.gather(
            self._guarded(self._redis, report["redis"], ({}, [], None)), self._guarded(self._kafka, report["kafka"], ({}, {}, {})))
        report |= {**kafka, **redis, "redis": report["redis"] | redis.get("redis", {})}
        report |= told_by_workers(signs, now_ms)
        if checkpoints is not None and report["kafka"]["up"]:
            # no checkpoint: a worker will begin at the beginning of what the log still holds
            report["lag"] = {str(p): max(0, end - max(checkpoints.get(p, 0), starts[p])) for p, end in sorted(ends.items())}
            report["lag_total"] = sum(report["lag"].values())
        problems = problems_of(report)
        return {"healthy": not problems, "problems": problems, **report}

    async def close(self) -> None:
        """Leave nothing open."""
        await self._redis.close()
        await self._kafka.close()

    async def _guarded(self, side: RedisSide | KafkaSide, server: dict[str, Any], nothing: Any) -> Any:
        """What one side says; where it does not answer, why, and nothing."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                found = await side.look()
            server |= {"up": True, "error": None}
            return found
        except Exception as error:
            if not (isinstance(error, (TimeoutError, OSError)) or type(error).__module__.partition(".")[0] in ("redis", "aiokafka")):
                raise
            server |= {"up": False, "error": _brief(error)}
            await side.close()  # the next look begins anew
            return nothing


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) and not text:
        return f"no answer within {DEADLINE_S:.0f} s"
    return text[:150] if text.startswith(name := type(error).__name__) else f"{name}: {text[:150]}" if text else name
