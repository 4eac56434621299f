"""`streamrec status`: the whole system at a glance, as tables or as one JSON object.

The object's keys: kafka {bootstrap, up, error}, redis {url, up, error, version, memory_bytes, memory_limit_bytes, keys},
stack {home, running}, topics {name: partitions}, lag {partition: events}, lag_total, rows, items, lists, counts_estimated,
workers [as in Redis], oldest_dirty_ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from infra.settings import Settings, StreamrecError

KAFKA_DEADLINE_S = 10.0  # a command that says how things are must not hang where they are bad
REDIS_TIMEOUT_S = 5.0
SCAN_CHUNK = 5_000
SCAN_BUDGET_S = 3.0  # about a million keys; what lies beyond is estimated from the part that was seen


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Gathers and prints; exit code 1 and a sentence for each server that does not answer."""
    report = gather(settings)
    if args.json:
        print(json.dumps(report))
    else:
        show(report)
    missing = [f"{name} at {report[name.lower()][place]} does not answer ({report[name.lower()]['error']})"
               for name, place in (("Kafka", "bootstrap"), ("Redis", "url")) if not report[name.lower()]["up"]]
    if missing:
        print(f"streamrec status: {'; '.join(missing)}; `streamrec up` starts local ones, STREAMREC_KAFKA_BOOTSTRAP and "
              "STREAMREC_REDIS_URL lead to others", file=sys.stderr)
    return 1 if missing else 0


def gather(settings: Settings) -> dict[str, Any]:
    """The report; servers that do not answer have up=false and why, and what depends on them is empty."""
    from infra.stack import LocalStack

    stack = LocalStack()
    report: dict[str, Any] = {
        "kafka": {"bootstrap": settings.kafka_bootstrap}, "redis": {"url": settings.public()["redis_url"]},
        "stack": {"home": str(stack.home), "running": stack.note_file.exists() and stack.running},
        "topics": {}, "lag": {}, "lag_total": None, "rows": None, "items": None, "lists": None, "counts_estimated": False,
        "workers": [], "oldest_dirty_ms": None,
    }
    checkpoints: dict[int, int] | None = None
    try:
        checkpoints = _redis(settings, report)
        report["redis"] |= {"up": True, "error": None}
    except Exception as error:
        if isinstance(error, StreamrecError) or not type(error).__module__.startswith("redis"):
            raise
        report["redis"] |= {"up": False, "error": _brief(error)}
    try:
        ends, starts = asyncio.run(asyncio.wait_for(_kafka(settings, report), KAFKA_DEADLINE_S))
        report["kafka"] |= {"up": True, "error": None}
        if checkpoints is not None:
            # no checkpoint: a worker will begin at the beginning of what the log still holds
            report["lag"] = {str(p): max(0, end - max(checkpoints.get(p, 0), starts[p])) for p, end in sorted(ends.items())}
            report["lag_total"] = sum(report["lag"].values())
    except Exception as error:
        if not (isinstance(error, (TimeoutError, OSError)) or type(error).__module__.startswith("aiokafka")):
            raise
        report["kafka"] |= {"up": False, "error": _brief(error)}
    return report


def _redis(settings: Settings, report: dict[str, Any]) -> dict[int, int]:
    """Fills in what Redis knows; returns the checkpoints' offsets."""
    import redis

    args = {"socket_timeout": REDIS_TIMEOUT_S, "socket_connect_timeout": REDIS_TIMEOUT_S, **settings.redis_client_args()}
    with redis.from_url(settings.redis_url, **args) as client:
        info = client.info()
        report["redis"] |= {"version": info["redis_version"], "memory_bytes": info["used_memory"],
                            "memory_limit_bytes": info.get("maxmemory", 0), "keys": client.dbsize()}
        live = client.get(settings.key("live"))
        generation = f"g{live.decode() if live else 1}:"
        counts, workers, estimated = _count(client, settings, generation)
        report |= {**counts, "counts_estimated": estimated}
        entries = [json.loads(text) for text in (client.mget(sorted(workers)) if workers else []) if text]
        report["workers"] = sorted(entries, key=lambda entry: str(entry.get("started_at", "")))
        ages = [entry["oldest_dirty_ms"] for entry in entries if entry.get("oldest_dirty_ms") is not None]
        report["oldest_dirty_ms"] = max(ages, default=None)
        pipe = client.pipeline(transaction=False)
        for p in range(settings.partitions):
            pipe.get(settings.key(f"{generation}{{{p}}}:checkpoint"))
            pipe.hlen(settings.key(f"{generation}{{{p}}}:items"))
        answers = pipe.execute()
        report["items"] = sum(answers[1::2])
        return {p: int(offset) for p, text in enumerate(answers[0::2])
                if text and (offset := json.loads(text).get("offset")) is not None}


def _count(client: Any, settings: Settings, generation: str) -> tuple[dict[str, int], list[bytes], bool]:
    """Lists and user rows, and the names of the workers' entries, by one walk over the keys; estimated if that takes long."""
    list_prefix, row_prefix = settings.key("rec:").encode(), settings.key(generation + "{").encode()
    worker_prefix = settings.key("workers:").encode()
    lists = rows = seen = 0
    workers: list[bytes] = []
    deadline = time.monotonic() + SCAN_BUDGET_S
    cursor, whole = 0, True
    while True:
        cursor, keys = client.scan(cursor, count=SCAN_CHUNK)
        seen += len(keys)
        for key in keys:
            if key.startswith(list_prefix):
                lists += 1
            elif key.startswith(row_prefix) and b"}:u:" in key[:len(row_prefix) + 10]:
                rows += 1
            elif key.startswith(worker_prefix):
                workers.append(key)
        if cursor == 0:
            break
        if time.monotonic() > deadline:
            whole = False
            workers = list(client.scan_iter(match=worker_prefix + b"*", count=SCAN_CHUNK))
            break
    scale = 1.0 if whole else client.dbsize() / max(1, seen)
    return {"lists": round(lists * scale), "rows": round(rows * scale)}, sorted(set(workers)), not whole


async def _kafka(settings: Settings, report: dict[str, Any]) -> tuple[dict[int, int], dict[int, int]]:
    """Fills in the topics; returns end and beginning offsets of the partitions of events."""
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

    from infra.topics import partition_counts, plan

    args = {"request_timeout_ms": int(KAFKA_DEADLINE_S * 1000), **settings.kafka_client_args()}
    admin, consumer = AIOKafkaAdminClient(**args), AIOKafkaConsumer(**args)
    try:
        await admin.start()
        wanted = [topic.name for topic in plan(settings)]
        present = await partition_counts(admin, wanted)
        report["topics"] = {name: present[name] for name in wanted if name in present}
        events = settings.topic("events")
        if events not in present:
            return {}, {}
        partitions = [TopicPartition(events, p) for p in range(present[events])]
        await consumer.start()
        ends, starts = await consumer.end_offsets(partitions), await consumer.beginning_offsets(partitions)
        return {tp.partition: end for tp, end in ends.items()}, {tp.partition: start for tp, start in starts.items()}
    finally:
        await admin.close()
        await consumer.stop()


def show(report: dict[str, Any]) -> None:
    """Prints the report as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    kafka, redis = report["kafka"], report["redis"]
    system = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    system.add_row("Kafka", kafka["bootstrap"], "up" if kafka["up"] else "[red]does not answer[/]")
    memory = f", {redis['memory_bytes'] / 2**20:.1f} MiB" if redis["up"] else ""
    system.add_row("Redis", redis["url"], f"up{memory}" if redis["up"] else "[red]does not answer[/]")
    about = "about " if report["counts_estimated"] else ""
    for name in ("lists", "rows", "items"):
        if report[name] is not None:
            system.add_row({"rows": "user rows", "items": "item rows"}.get(name, name), f"{about if name != 'items' else ''}"
                           f"{report[name]:,}", "")
    if report["oldest_dirty_ms"] is not None:
        system.add_row("oldest dirty user", f"{report['oldest_dirty_ms'] / 1000:.1f} s", "")
    console.print(system)
    if report["topics"]:
        topics = Table("topic", "partitions", "lag", box=None, padding=(0, 2, 0, 0))
        for name, n_partitions in report["topics"].items():
            lag = report["lag"] if name.endswith("events") and report["lag"] else {}
            topics.add_row(name, str(n_partitions), " ".join(f"{p}:{n:,}" for p, n in lag.items()))
        console.print(topics)
    elif kafka["up"]:
        console.print("no topics under this prefix yet: `streamrec up` or the first worker creates them")
    if report["workers"]:
        workers = Table("worker", "state", "partitions", "lag", "rows", "dirty", "page", box=None, padding=(0, 2, 0, 0))
        for entry in report["workers"]:
            lag = sum((entry.get("lag") or {}).values())
            workers.add_row(str(entry.get("id", "?")), str(entry.get("state", "?")), " ".join(map(str, entry.get("partitions", []))),
                            f"{lag:,}", f"{entry.get('rows', 0):,}", f"{entry.get('dirty_users', 0):,}",
                            f"{entry.get('host', '?')}:{entry.get('web_port', '?')}")
        console.print(workers)
    elif redis["up"]:
        console.print("no workers: `streamrec worker` runs one")


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) and not text:
        return f"no answer within {KAFKA_DEADLINE_S:.0f} s"
    return text[:150] if text.startswith(name := type(error).__name__) else f"{name}: {text[:150]}" if text else name
