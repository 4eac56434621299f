"""Gives up on an event at which workers stop again and again, instead of stopping for ever.

`{p}:attempts` counts takeovers at the same checkpoint. After two without progress a worker treads carefully: it takes
one event at a time and notes which one before it starts. An event that was under attempt at three stops is a dead
letter with reason `crash`. Kills at random hit one single event three times running only if that event is the cause.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from streams.decode import Record
from streams.fence import FenceLost
from streams.patience import until_there
from streams.resp import command
from streams.outbox import dead_letter
from streams.state import State, Tenure
from streams.store import Store

log = logging.getLogger(__name__)

CAREFUL_AFTER = 2
GIVE_UP_AFTER = 3
#: Events taken one at a time before a careful worker strides again.
CAREFUL_EVENTS = 5_000
NONE = -1


@dataclass(slots=True)
class _Care:
    """What is noted in Redis. `suspect` was under attempt at `stops` stops; `trying` is under attempt now."""

    checkpoint: int
    starts: int = 0
    trying: int = NONE
    suspect: int = NONE
    stops: int = 0


class Attempts:
    """Keeps count for the partitions that are ours."""

    def __init__(self, state: State, store: Store) -> None:
        self._state, self._store = state, store
        self._care: dict[int, _Care] = {}
        self._left: dict[int, int] = {}  # events still to be taken one at a time
        self._idle: set[int] = set()  # taken over, and no event seen since

    async def begin(self, tenure: Tenure) -> None:
        """A takeover: did the last owner get anywhere, and at which event did it stop?"""
        p = tenure.partition
        key = self._store.keys.attempts(p)
        value = await until_there(lambda: self._store.client.get(key), self._store.waiting)
        care = _Care(**json.loads(value)) if value else _Care(tenure.checkpoint)
        if care.checkpoint != tenure.checkpoint:
            care.checkpoint, care.starts = tenure.checkpoint, 0
        if care.suspect < tenure.checkpoint:  # it has been absorbed since
            care.suspect, care.stops = NONE, 0
        if care.trying >= tenure.checkpoint:
            care.stops = care.stops + 1 if care.trying == care.suspect else 1
            care.suspect = care.trying
        care.trying = NONE
        self._care[p] = care
        self._idle.add(p)
        self._left[p] = CAREFUL_EVENTS if care.starts >= CAREFUL_AFTER or care.suspect != NONE else 0
        if self._left[p]:
            log.warning("partition %d: %d starts without progress; taking one event at a time", p, care.starts)

    async def _note(self, tenure: Tenure) -> None:
        p = tenure.partition
        body = json.dumps(asdict(self._care[p])).encode()
        key = self._store.keys.attempts(p).encode()
        await self._store.fence.write({p: [command(b"SET", key, body)]}, {p: tenure.token})

    async def _note_if_ours(self, tenure: Tenure) -> None:
        try:
            await self._note(tenure)
        except FenceLost as lost:
            self._state.lost(lost)

    async def end(self, tenure: Tenure) -> None:
        """An orderly end is no stop at an event, and its start does not count."""
        care = self._care.get(tenure.partition)
        if care is not None and tenure.partition not in self._idle:
            care.trying, care.starts = NONE, max(0, care.starts - 1)
            await self._note_if_ours(tenure)

    def split(self, tenure: Tenure, records: list[Record]) -> Iterator[list[Record]]:
        """The batch whole, or event by event while care is needed."""
        p = tenure.partition
        for i in range(len(records)):
            if not self._left.get(p):
                yield records[i:]
                return
            yield records[i : i + 1]

    async def before(self, tenure: Tenure, records: list[Record]) -> list[Record]:
        """Called before records are absorbed; returns those to absorb: an event that is given up is none of them."""
        p = tenure.partition
        if not self._state.current(tenure):
            return records
        if p in self._idle:  # only now does this start count: a worker killed at rest did not stop at an event
            self._idle.discard(p)
            self._care[p].starts += 1
            if not self._left[p]:
                await self._note_if_ours(tenure)
        if not self._left.get(p):
            return records
        care, record = self._care[p], records[0]
        self._left[p] -= 1
        if record.offset == care.suspect and care.stops >= GIVE_UP_AFTER:
            self._give_up(tenure, record, care.stops)
            self._care[p] = _Care(care.checkpoint)
            records = []
        else:
            care.trying = record.offset
        if not self._left[p]:  # far enough without a stop
            self._care[p] = _Care(care.checkpoint)
        await self._note_if_ours(tenure)
        return records

    async def after(self, tenure: Tenure) -> None:
        """Called when a batch is absorbed: whatever stops the worker from here on, it is not the batch's last event."""
        if self._left.get(tenure.partition) and self._care[tenure.partition].trying != NONE:
            self._care[tenure.partition].trying = NONE
            await self._note_if_ours(tenure)

    def _give_up(self, tenure: Tenure, record: Record, stops: int) -> None:
        settings = self._state.settings
        detail = f"a worker stopped at this event {stops} times"
        log.error("events partition %d offset %d: %s; giving it up", tenure.partition, record.offset, detail)
        tenure.outgoing.append(
            dead_letter(
                settings.topic("events.dlq"), settings.topic("events"), tenure.partition, record, "crash", detail
            )
        )
        self._state.metrics.events_rejected.labels("crash").inc()
