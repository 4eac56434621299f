"""Where a generation goes on that has gone live: nothing that the old one has not answered is passed over, copies that were moved included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from infra.settings import Settings
from streams.generations import finish_switch, new_generation
from streams.keys import SWITCH, Keys


def mark(offset: int, origins: list[int]) -> bytes:
    return json.dumps({"v": 1, "offset": offset, "origins": origins}).encode()


@pytest.mark.parametrize(("left", "reached", "start", "goes_on"), [
    (mark(100, [-1, 3]), mark(200, [-1, 7]), [], (100, [-1, 3])),
    (mark(300, [-1, 9]), mark(200, [-1, 7]), [], (200, [-1, 7])),
    (None, mark(900, [-1, 7]), [], (0, [-1, -1])),  # no worker of the old one has run
    (None, mark(900, [-1, 7]), [50, 0], (50, [-1, -1])),
    (mark(100, [-1, 3]), mark(200, [-1, 7]), [150, 0], (150, [-1, 3])),
])
def test_it_goes_on_at_the_lower_mark_with_what_was_moved_by_then(
        namespace: Callable[..., Settings], redis_client: Callable[..., redis.Redis], left: bytes | None, reached: bytes, start: list[int],
        goes_on: tuple[int, list[int]]) -> None:
    settings = namespace(partitions=2)
    old, new = Keys(settings.prefix, "1", is_live=False), Keys(settings.prefix, "trial", is_live=False)
    client = redis_client(settings)
    if left is not None:
        client.set(old.checkpoint(0), left)
    client.set(new.checkpoint(0), reached)
    client.set(new.meta, new_generation(settings, start=start).bytes())
    client.set(new.live, "1" + SWITCH + "trial")

    async def run() -> None:
        async with redis.asyncio.from_url(settings.redis_url) as one:
            await finish_switch(one, settings.prefix, "1", "trial")

    asyncio.run(run())
    found: dict[str, Any] = json.loads(client.get(new.checkpoint(0)) or b"")  # type: ignore[arg-type]
    assert (found["offset"], found["origins"]) == goes_on and client.get(new.live) == b"trial"
