"""The part of the log that a shadow takes, and how it rests."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from streams import stretch
from streams.fetching import Batch
from streams.generations import Generation
from streams.stretch import Stretch


def batch(first: int, n: int, *, ms_each: int = 0, partition: int = 0) -> Batch:
    records: list[Any] = [SimpleNamespace(offset=first + k, timestamp=1_000 + k * ms_each) for k in range(n)]
    return Batch(partition, records, 0, first, first + n)


def taken(one: Stretch, *batches: Batch) -> list[tuple[list[int], int]]:
    async def run() -> list[tuple[list[int], int]]:
        return [([r.offset for r in records], end) for some in batches async for records, end in one.parts(some)]

    return asyncio.run(run())


def test_a_live_worker_takes_everything_at_once() -> None:
    one = Stretch(lambda _: 50, 1)
    one.begin(Generation(until=[3], speed=0.001), True)
    assert one.end(0) == 50
    assert taken(one, batch(0, 10, ms_each=1_000)) == [(list(range(10)), 10)]


def test_a_shadow_ends_where_it_shall() -> None:
    one = Stretch(lambda _: 50, 2)
    one.begin(Generation(until=[12, 100]), False)
    assert (one.end(0), one.end(1)) == (12, 50)
    assert taken(one, batch(0, 5), batch(5, 10), batch(15, 5), batch(0, 5, partition=1)) == [
        (list(range(5)), 5), (list(range(5, 12)), 12), (list(range(5)), 5)]


def test_events_come_at_the_speed_that_was_asked_for() -> None:
    one = Stretch(lambda _: 50, 1)
    one.begin(Generation(speed=10.0), False)
    began_s = time.monotonic()
    parts = taken(one, batch(0, 30, ms_each=500))  # 14.5 s of events
    assert [offset for some, _ in parts for offset in some] == list(range(30)) and parts[-1][1] == 30
    assert [end for _, end in parts] == [some[-1] + 1 for some, _ in parts]
    assert 0.9 < time.monotonic() - began_s and len(parts) > 3


def test_it_rests_while_the_log_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "LOOK_S", 0.0)
    monkeypatch.setattr(stretch, "CALM_S", 0.3)
    end = 1_000_000

    async def run() -> tuple[float, float, float]:
        nonlocal end
        one, took = Stretch(lambda _: end, 1), []
        one.begin(Generation(), False)
        for grows in (False, True, False):
            if not grows:
                await asyncio.sleep(0.5)  # what came before is forgotten
            began_s = time.monotonic()
            for k in range(5):
                end += 1_000 * grows
                async for _ in one.parts(batch(k, 1)):
                    await asyncio.sleep(0.01)
            took.append(time.monotonic() - began_s)
        return took[0], took[1], took[2]

    calm, busy, again = asyncio.run(run())
    assert busy > 2 * calm and busy > 2 * again
