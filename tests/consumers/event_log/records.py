"""Records of a topic `events` as Kafka would bring them: late, sent twice, misplaced, moved, and some that are none at all."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumers.event_log import EventLog
from streams.decode import ORIGIN_HEADER
from streams.partitioner import partition_of
from tests.fetched import FetchedRecord

N = 3
NOW_MS = 1_763_778_821_000
DAY_MS = 86_400_000
BAD = (b"", b"{", b'{"event_id": "e"}', b'{"event_id":"e","user_id":"","item_id":"i","event_type":"view","timestamp":1763778821123}',
       b'{"event_id":"e","user_id":"u","item_id":"i","event_type":"stare","timestamp":1763778821123}',
       b'{"event_id":"e","user_id":"u","item_id":"i","event_type":"view","timestamp":12}', b"\xff", None)


@dataclass
class Topic:
    """Records by partition; an offset is a place in its list."""

    records: dict[int, list[FetchedRecord]] = field(default_factory=lambda: {p: [] for p in range(N)})

    def append(self, partition: int, value: bytes | None, headers: Any = ()) -> int:
        """Put one record at the end of a partition; its offset."""
        here = self.records[partition]
        here.append(FetchedRecord(len(here), NOW_MS + len(here), value, headers))
        return len(here) - 1


def event(n: int, user: str, time_ms: int, **more: Any) -> bytes:
    return json.dumps({"event_id": f"e{n}", "user_id": user, "item_id": f"i{n % 7}", "event_type": ("view", "purchase")[n % 2],
                       "timestamp": time_ms, **more}).encode()


def drawn(seed: int, n: int, *, days: int = 3) -> Topic:
    """Some `n` records a partition."""
    chance, topic = random.Random(seed), Topic()
    sent: list[tuple[str, bytes]] = []
    for k in range(n * N):
        user = f"u{chance.randrange(20)}" if chance.random() < 0.9 else "Ærøskøbing"
        home, action = partition_of(user, N), chance.random()
        value = event(k, user, NOW_MS - chance.randrange(days) * DAY_MS, **chance.choice(
            [{}, {"value": 2.5}, {"session_id": "s", "properties": {"page": "é", "n": [1, None]}}, {"request_id": "r"}]))
        if action < 0.1:
            topic.append(chance.randrange(N), chance.choice(BAD))
        elif action < 0.2 and sent:
            user, value = chance.choice(sent)
            topic.append(partition_of(user, N), value)
        elif action < 0.3:
            away = (home + 1) % N
            origin = [(ORIGIN_HEADER, b"%d/%d" % (away, topic.append(away, value)))]
            for _ in range(chance.choice([1, 1, 2])):  # a worker that crashed moves it again
                topic.append(home, value, origin)
        else:
            topic.append(home, value)
            sent.append((user, value))
    return topic


def rows(folder: Path, **options: Any) -> list[tuple[Any, ...]]:
    """All rows of a log in the order of partition and offset, with the partition."""
    log = EventLog(folder)
    with log.snapshot() as moment:
        found = [(part.partition, *row.values()) for part in moment.parts(**{"unique": False, **options}) for row in part.table.to_pylist()]
    return sorted(found, key=lambda row: row[:2])
