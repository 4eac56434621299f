"""Any split of a log into fetches ends the same, at any offset: absorb, marks, interactions and fold."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import Settings
from streams.engine import Engine, LogRecord
from streams.events import EVENT_TYPES

N = 2
NOW_MS = 1_763_778_821_000
DAY_MS = 86_400_000
# what the fusion is asked depends on how the log is cut
SETTINGS = Settings(partitions=N, list_size=20, max_users=64, learn="off")
FIRST = [0, 2**32 - 3, 2**32 + 5, 2**52]  # sources are 32-bit numbers, offsets are not


def events(seed: int, n: int, first: int) -> dict[int, list[LogRecord]]:
    """A log of few users and items, with repeated ids, late times, bad events and gaps between offsets."""
    chance, log = random.Random(seed), {p: [] for p in range(N)}
    engine = Engine(SETTINGS)
    at = dict.fromkeys(range(N), first)
    for number in range(n):
        user = f"u{chance.randrange(6)}"
        p = engine.partition_of(user)
        late_ms = 0 if chance.random() < 0.7 else chance.randrange(60 * DAY_MS)
        event = {"event_id": f"e{chance.randrange(number + 1)}", "user_id": user, "item_id": f"i{chance.randrange(12)}",
                 "event_type": chance.choice(EVENT_TYPES), "timestamp": NOW_MS + number * 1000 - late_ms}
        if event["event_type"] == "rating" and chance.random() < 0.8:
            event["value"] = chance.choice([1, 2, 3, 3.5, 5, 6])
        value = b"{" if chance.random() < 0.05 else json.dumps(event).encode()
        log[p].append(LogRecord(at[p], NOW_MS + number * 1000, value))
        at[p] += chance.choice([1, 1, 1, 2, 300])
    return log


def outcome(engine: Engine) -> dict[str, Any]:
    """All that an engine holds, apart from offsets of interactions, which count messages."""
    users, items = engine.state.users, engine.state.items
    rows = items.rows[: items.n_items].copy()
    rows["as_of"] = 0
    return {
        "rows": [{user: users.table.rows[slot].tobytes() for user, slot in slots.items()} for slots in users.table.slots],
        "items": {items.ids[slot]: rows[slot].tobytes() for slot in range(items.n_items)},
        "position": users.position.tolist(),
        "highest": items.highest.tolist(),
        "clock": items.clock_ms,
        "folded": items.n_folded,
        "waiting": [{users.table.ids[slot]: int(users.table.waiting_since[slot]) for slot in queue} for queue in users.queues],
        "lists": {user: json.loads(body)["items"] for user, body in engine.lists(f"u{k}" for k in range(6)).items()},
    }


def absorbed(log: dict[int, list[LogRecord]], sizes: list[int]) -> Engine:
    engine = Engine(SETTINGS, clock_ms=lambda: NOW_MS)
    # the items' clock goes on by a day a message at most: from far behind, cuts decide how soon it is there
    engine.state.items.clock_ms = NOW_MS
    for p, records in log.items():
        start, k = 0, 0
        while start < len(records):
            size = sizes[k % len(sizes)]
            engine.absorb(p, records[start : start + size])
            start, k = start + size, k + 1
    return engine


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 120), st.sampled_from(FIRST), st.lists(st.integers(1, 50), min_size=1, max_size=10))
def test_any_split(seed: int, n: int, first: int, sizes: list[int]) -> None:
    log = events(seed, n, first)
    assert outcome(absorbed(log, sizes)) == outcome(absorbed(log, [1]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 100), st.lists(st.integers(1, 30), min_size=1, max_size=5), st.data())
def test_redelivered_from_anywhere(seed: int, n: int, sizes: list[int], data: st.DataObject) -> None:
    """What comes again after a takeover changes no row and says nothing twice, however it is cut then."""
    log = events(seed, n, FIRST[2])
    engine = absorbed(log, [1])
    before = outcome(engine)
    for p, records in log.items():
        if records:
            again = records[data.draw(st.integers(0, len(records) - 1)) :]
            for start in range(0, len(again), sizes[0]):
                engine.absorb(p, again[start : start + sizes[0]])
    assert outcome(engine) == before


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("position", [0, None])
def test_sources_count_from_the_first_event(first: int, position: int | None) -> None:
    """The log may begin far behind where a partition was begun: retention has deleted what lay between."""
    engine = Engine(SETTINGS)
    users = engine.state.users
    users.start(0, first if position is None else position)
    user = next(u for u in (f"u{k}" for k in range(99)) if engine.partition_of(u) == 0)
    event = {"event_id": "e", "user_id": user, "item_id": "i", "event_type": "view", "timestamp": NOW_MS}
    decoded = users.decode(0, [LogRecord(first + 9, NOW_MS, b"{"), LogRecord(first + 10, NOW_MS, json.dumps(event).encode())])
    users.admit(0, decoded, [None])
    users.absorb(0, decoded, first + 11)
    said = users.take_records(0)
    assert said.base + said.records["source"].astype(np.int64) == [first + 10]
