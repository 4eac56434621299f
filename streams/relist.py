"""After a generation has gone live every user's list is written once more, so that no reader goes on with what the old one made.

In: `{p}:relist`, left by the switch. Each worker walks over the rows of its partitions and puts their users on the waiting list; the
mark goes when their lists are published. A worker that dies on the way leaves it to the next, which begins again.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from models.marks import oldest_waiting
from streams.fence import FenceLost
from streams.keys import literal
from streams.patience import until_there
from streams.publisher import Publisher
from streams.resp import command
from streams.state import State, Tenure
from streams.store import Store
from streams.sweep import Sweeper

log = logging.getLogger(__name__)

LOOK_S = 0.5
SCAN_COUNT = 2_000
#: More users than this do not wait at once: events' lists come behind them.
MOST_WAITING = 2_000
STEP_S = 0.01


class _AsOf(msgspec.Struct, gc=False):
    offset: int = -1


class _List(msgspec.Struct, gc=False):
    as_of: _AsOf | None = None


_list = msgspec.json.Decoder(_List).decode


class Relister:
    """Writes the lists of a generation that has gone live."""

    def __init__(self, state: State, store: Store, publisher: Publisher, sweeper: Sweeper) -> None:
        self._state, self._store, self._publisher, self._sweeper = state, store, publisher, sweeper
        self._seen: dict[int, Tenure] = {}  # tenures whose marks were looked at

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self._still()
            new = [tenure for p, tenure in self._state.tenures.items() if self._seen.get(p) is not tenure]
            if not new:
                continue
            self._seen = dict(self._state.tenures)
            marks = await self._store.read([self._store.keys.relist(tenure.partition).encode() for tenure in new])
            due = [tenure for tenure, mark in zip(new, marks, strict=True) if mark is not None]
            if due:
                log.info("writing all lists of partitions %s", [tenure.partition for tenure in due])
                n = await self._ask(due)
                for tenure in due:
                    await self._finish(tenure)
                log.info("%d lists of partitions %s are written", n, [tenure.partition for tenure in due])

    async def _still(self) -> None:
        """Whether the generation is what it was; writes tell too, but a worker without a partition has none."""
        (live,) = await self._store.read([self._store.keys.live.encode()])
        if live is not None:
            self._store.fence.check(live.decode())

    async def _ask(self, due: list[Tenure]) -> int:
        """Put all users of these tenures on the waiting list."""
        store, keys = self._store, self._store.keys
        starts = {tenure.partition: keys.user(tenure.partition, "").encode() for tenure in due}
        pattern = literal(keys.everything) + "{*}:u:*"
        cursor, n = 0, 0
        while True:
            cursor, names = await until_there(lambda at=cursor: store.client.scan(at, match=pattern, count=SCAN_COUNT), store.waiting)  # type: ignore[misc]
            found: dict[int, list[str]] = {}
            for name in names:
                p = next((p for p, start in starts.items() if name.startswith(start)), None)
                if p is not None:
                    found.setdefault(p, []).append(name[len(starts[p]) :].decode("utf-8", "replace"))
            for p, users in found.items():
                n += len(users)
                await self._sweeper.rewrite(p, users, await self._shown(users))
            self._publisher.wake()
            if cursor == 0:
                return n
            while self._publisher.n_waiting() > MOST_WAITING:
                await asyncio.sleep(STEP_S)
            await asyncio.sleep(0)

    async def _shown(self, users: list[str]) -> dict[str, int]:
        """The last event that the list knows which readers see now: a row that knows less (its settings refuse that event) waits for
        its user's next one."""
        bodies = await self._store.read([self._store.keys.list_of(user).encode() for user in users])
        shown = {}
        for user, body in zip(users, bodies, strict=True):
            try:
                as_of = _list(body or b"{}").as_of
            except (ValueError, RecursionError):  # no list of ours
                continue
            shown[user] = -1 if as_of is None else as_of.offset
        return shown

    async def _finish(self, tenure: Tenure) -> None:
        """Take the mark away once all who were asked have their list; not if the tenure has ended: the next one begins anew."""
        state, p, table = self._state, tenure.partition, self._state.users.table
        asked_at = state.users.position[p]
        while state.current(tenure):
            oldest = oldest_waiting(table.partition, table.waiting_since, table.publishing_since, state.settings.partitions)
            if oldest[p] > asked_at:
                break
            await asyncio.sleep(STEP_S)
        if state.current(tenure):
            try:
                await self._store.fence.write({p: [command(b"DEL", self._store.keys.relist(p).encode())]}, {p: tenure.token})
            except FenceLost as lost:
                state.lost(lost)
