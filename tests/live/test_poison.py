"""An event at which every worker dies: it becomes a dead letter after three deaths, and costs nothing but itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from infra.settings import Settings
from tests.live.equality import compare, lockstep
from tests.live.load import Events, send
from tests.live.parts import Parts, world
from tests.live.reading import read_all

MOST_DEATHS = 8  # two in full stride, then three at the event itself; a few more where it lies far behind the checkpoint


class Poisoned(Exception):
    """What the event does."""


def test_a_poisoned_event_is_given_up(namespace: Callable[..., Settings]) -> None:
    settings = namespace(partitions=2)
    send(settings, Events(settings, seed=14, users=20), 400)

    async def run() -> tuple[int, Any, dict[int, list[Any]]]:
        async with world(settings) as w:
            log = await w.log()
            poison = log[0][123]

            def poisoned(parts: Parts) -> None:
                absorb = parts.state.users.absorb

                def die(partition: int, decoded: Any, end_offset: int) -> Any:
                    if partition == 0 and poison.offset in decoded.offsets:
                        raise Poisoned
                    return absorb(partition, decoded, end_offset)

                parts.state.users.absorb = die  # type: ignore[method-assign]

            for deaths in range(MOST_DEATHS + 1):
                parts = await w.parts()
                poisoned(parts)
                try:
                    await parts.drain()
                    return deaths, poison, dict(log)
                except Poisoned:
                    await parts.die()
        raise AssertionError("it is never given up")

    deaths, poison, log = asyncio.run(run())
    letters = asyncio.run(read_all(settings, "events.dlq"))
    assert [(letter.key, json.loads(letter.value)["reason"]) for letter in letters] == [
        (f"{settings.topic('events')}/0/{poison.offset}".encode(), "crash")]
    assert deaths <= MOST_DEATHS
    compare(settings, lockstep(settings, log | {0: [record for record in log[0] if record.offset != poison.offset]}))
