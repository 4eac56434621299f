"""What of the log a worker takes, and how fast: a shadow reads up to its generation's end, and makes way for live traffic.

A live worker takes everything at once; then all of this is nothing. A shadow on its way through a backlog would take whole cores
and fill Kafka's and Redis' queues, in which live lists wait. So while the log grows, it works in small steps and rests between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from streams.fetching import Batch
from streams.generations import Generation

#: A log that grows by so many events a second has live traffic ...
BUSY_EVENTS_S = 20.0
#: ... and then absorbing has this share of the time. What follows from it (rows, lists, learning) costs as much again.
BUSY_SHARE = 0.15
LOOK_S = 1.0
#: Growth is forgotten after this: traffic comes in waves.
CALM_S = 5.0
STEP_S = 0.25


class Stretch:
    """The part of the log that is to be taken. `log_end(p)`: where the log of a partition ends, as far as is known."""

    def __init__(self, log_end: Callable[[int], int | None], n_partitions: int) -> None:
        self._log_end, self._partitions = log_end, range(n_partitions)
        self._until: list[int] | None = None
        self._speed = 0.0
        self._makes_way = False
        self._resting = False
        self._began: tuple[float, int] | None = None  # when, and append time of the first event
        self._looked: tuple[float, dict[int, int]] = (0.0, {})
        self._busy_until_s = 0.0

    def begin(self, generation: Generation, is_live: bool) -> None:
        """This is whose part it is."""
        self._makes_way = not is_live
        if not is_live:
            self._until, self._speed = generation.until, generation.speed

    def end(self, partition: int) -> int | None:
        """Where there is nothing left to be taken; None: not known, or nothing is to be taken now."""
        end = None if self._resting else self._log_end(partition)
        return end if end is None or self._until is None else min(end, self._until[partition])

    async def parts(self, batch: Batch) -> AsyncIterator[tuple[list[Any], int]]:
        """The records of a batch that belong to it, each part when its turn has come, with the offset that follows it."""
        records, next_offset = batch.records, batch.next
        if self._until is not None and next_offset > (until := self._until[batch.partition]):
            records, next_offset = [record for record in records if record.offset < until], until
        if not batch.records:  # of files that hold none here
            yield [], next_offset
        start = 0
        for end in self._cuts(records):
            part = records[start:end]
            if self._speed:
                await self._keep_time(part[0].timestamp)
            began_s = time.monotonic()
            yield part, next_offset if end == len(records) else part[-1].offset + 1
            if self._makes_way:
                await self._make_way(time.monotonic() - began_s)
            start = end

    def _cuts(self, records: list[Any]) -> Iterator[int]:
        """Where to cut, so that a part lasts for a step at most."""
        if self._speed and records:
            width_ms, first_ms = max(1.0, STEP_S * 1000 * self._speed), records[0].timestamp
            for k, record in enumerate(records):
                if record.timestamp - first_ms > width_ms:
                    yield k
                    first_ms = record.timestamp
        if records:
            yield len(records)

    async def _make_way(self, took_s: float) -> None:
        """Rest, after work that took so long, while there is live traffic."""
        self._look(time.monotonic())
        if time.monotonic() < self._busy_until_s:
            await asyncio.sleep(min(took_s, STEP_S) * (1 / BUSY_SHARE - 1))

    def _look(self, now_s: float) -> None:
        """Whether the log has grown."""
        looked_s, before = self._looked
        if now_s - looked_s < LOOK_S:
            return
        ends = {p: end for p in self._partitions if (end := self._log_end(p)) is not None}
        grown = sum(end - before[p] for p, end in ends.items() if p in before)
        if before and grown > BUSY_EVENTS_S * (now_s - looked_s):
            self._busy_until_s = now_s + CALM_S
        self._looked = (now_s, ends)

    async def _keep_time(self, appended_ms: int) -> None:
        """As fast as events came, times the speed."""
        began_s, first_ms = self._began = self._began or (time.monotonic(), appended_ms)
        due_s = began_s + (appended_ms - first_ms) / 1000 / self._speed
        self._resting = True  # so that the watchdog sees no lag, and lists no flood
        try:
            while (left_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(min(left_s, STEP_S))
        finally:
            self._resting = False
