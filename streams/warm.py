"""Compiles (or loads from the cache) every kernel, by running the lockstep engine over a few events.

`python -m streams.warm` is part of the set-up, so that no worker's first event waits for a compiler; a worker does it
once more when it starts, which then takes a fraction of a second. What only a release needs is compiled here and loaded with one.
"""

from __future__ import annotations

import msgspec

from infra.settings import Settings
from models.recall import compile_kernels
from streams.engine import Engine, LogRecord
from streams.events import EVENT_TYPES
from streams.users import UserSide


def warm() -> None:
    """Run every kernel once with the types that a worker gives it."""
    settings = Settings(partitions=2, list_size=10, max_users=64)
    now_ms = 1_763_778_821_000
    engine = Engine(settings, clock_ms=lambda: now_ms)
    for repeat in range(2):
        for k, kind in enumerate(EVENT_TYPES):
            user = f"u{k % 3}"
            event = {
                "event_id": f"e{repeat}.{k}",
                "user_id": user,
                "item_id": f"i{k % 4}",
                "event_type": kind,
                "timestamp": now_ms + k,
            }
            p = engine.partition_of(user)
            offset = int(engine.state.users.position[p])
            engine.absorb(p, [LogRecord(offset, now_ms, msgspec.json.encode(event))])
    engine.lists([f"u{k}" for k in range(3)])
    engine.state.refresher.popular_list(now_ms)
    for slot in range(engine.state.items.n_items):
        engine.state.refresher.similar_list(slot, now_ms)
    UserSide(settings).table.drop(0)


if __name__ == "__main__":
    warm()
    compile_kernels()
