"""A world in which the next item can be foreseen: most users go round a ring of items, and popularity knows nothing of that."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from consumers.event_log import LogWriter
from streams.partitioner import partition_of
from tests.consumers.event_log.records import DAY_MS, NOW_MS, FetchedRecord

N = 4
RING = 30
#: Enough for that, in seconds on one core.
QUICK = "d=16,n_blocks=1,n_heads=1,epochs=12,tokens=512,max_len=20"


def events(seed: int, users: int, *, days: int = 20, first_user: int = 0) -> list[dict[str, Any]]:
    """Events in order of time."""
    chance, found = random.Random(seed), []
    for u in range(first_user, first_user + users):
        item, time_ms = chance.randrange(RING), NOW_MS - chance.randrange(1, days * DAY_MS)
        for _ in range(chance.randrange(4, 25)):
            item = (item + 1) % RING if chance.random() < 0.9 else chance.randrange(RING)
            time_ms += chance.randrange(60_000, DAY_MS // 2)
            if time_ms > NOW_MS:
                break
            found.append({"user_id": f"u{u}", "item_id": f"i{item}", "event_type": "view", "timestamp": time_ms})
    found.sort(key=lambda event: event["timestamp"])
    return [{"event_id": f"e{seed}-{n}", **event} for n, event in enumerate(found)]


def fill(folder: Path, *logs: list[dict[str, Any]]) -> None:
    """An event log of these events, as if Kafka had brought them."""
    with LogWriter(folder, topic="events", partitions=N) as log:
        for some in logs:
            records: dict[int, list[FetchedRecord]] = {p: [] for p in range(N)}
            for event in some:
                p = partition_of(event["user_id"], N)
                records[p].append(FetchedRecord(log.next.get(p, 0) + len(records[p]), NOW_MS + DAY_MS, json.dumps(event).encode()))
            for p, found in records.items():
                log.add(p, found)
            log.flush()
            log.compact()
