"""The sweep: rewrites lists that were published before an item was hidden. Low priority, restartable.

Each worker looks at all lists and rewrites those of its own users; each item in `to_sweep` gets a whole pass over
the keys, begun after it was hidden. A worker that takes a partition over sweeps once for all hidden items.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import msgspec
import redis.exceptions

from streams.fence import FenceLost
from streams.keys import literal
from streams.patience import GONE
from streams.resp import command
from streams.partitioner import partition_of
from streams.publisher import Publisher
from streams.state import State
from streams.store import Store

log = logging.getLogger(__name__)

SCAN_COUNT = 500
#: Between two steps, so that 1 million lists take a minute or two and events go first.
PAUSE_S = 0.005
FLOOD_EVENTS = 1_000


class _Items(msgspec.Struct, gc=False):
    items: list[str]


_items_of = msgspec.json.Decoder(_Items).decode


class Sweeper:
    """Sweeps whenever items were hidden."""

    def __init__(self, state: State, store: Store, publisher: Publisher, rows_turn: asyncio.Lock) -> None:
        self._state, self._store, self._publisher = state, store, publisher
        self._rows_turn = rows_turn
        self.n_swept = 0

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(0.25)
            catalogue = self._state.catalogue
            if not catalogue.to_sweep or not self._state.tenures:
                continue
            # taken whole: an item that is shown and hidden again during the pass, or a partition that comes during it,
            # asks for a pass of its own
            hidden, catalogue.to_sweep = catalogue.to_sweep, set()
            try:
                await self.sweep(hidden)
            except FenceLost as lost:
                catalogue.to_sweep |= hidden
                self._state.lost(lost)
            except (*GONE, redis.exceptions.RedisError) as error:
                catalogue.to_sweep |= hidden
                log.warning("the sweep begins again: %s", error)

    async def sweep(self, hidden: set[str]) -> None:
        """One pass over all lists for these items."""
        prefix = self._store.keys.list_of("")
        similar = self._store.keys.similar("")
        for start, rewrite in ((prefix, self._rewrite_users), (similar, self._rewrite_similar)):
            cursor: int | None = None
            while cursor != 0:
                cursor, names = await self._store.client.scan(cursor or 0, match=literal(start) + "*", count=SCAN_COUNT)
                bodies = await self._store.read(names)
                hit = [
                    name.decode("utf-8", "replace")[len(start) :]
                    for name, body in zip(names, bodies, strict=True)
                    if body is not None and not hidden.isdisjoint(_named(body))
                ]
                if hit:
                    await rewrite(hit)
                while self._state.lag() > FLOOD_EVENTS:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(PAUSE_S)

    async def _rewrite_users(self, users: Sequence[str]) -> None:
        n = self._state.settings.partitions
        by_partition: dict[int, list[str]] = {}
        for user in users:
            by_partition.setdefault(partition_of(user, n), []).append(user)
        for p, some in by_partition.items():
            await self.rewrite(p, some)
        self._publisher.wake()

    async def rewrite(self, p: int, users: Sequence[str], shown: Mapping[str, int] | None = None) -> None:
        """Ask for new lists of these users of a partition, if it is ours. `shown`: the offset that the list is as of which readers
        have; where a user's row knows less, it stays."""
        state = self._state
        if p not in state.tenures:
            return
        async with self._rows_turn:
            known = state.users.table.slots[p]
            missing = [user for user in users if user not in known]
            stored = await self._store.load_users(p, missing)
            if p not in state.tenures:
                return
            gone = [user for user, row in zip(missing, stored, strict=True) if row is None]
            kept = [(user, row) for user, row in zip(missing, stored, strict=True) if row is not None]
            state.users.load(p, [u for u, _ in kept], [r for _, r in kept], [known[user] for user in users if user in known])
            slots = [known[user] for user in users if user in known]
            if shown is not None:
                as_of = state.users.table.rows["as_of"]
                slots = [slot for slot in slots if as_of[slot] >= shown.get(state.users.table.ids[slot], -1)]
            state.users.ask(p, slots)
        if gone:  # silent for longer than retention: without a row there is nothing to make a list from
            dropped = [command(b"DEL", self._store.keys.list_of(user).encode()) for user in gone]
            await self._store.fence.write({p: dropped}, {p: state.tenures[p].token})
        self.n_swept += len(users)

    async def _rewrite_similar(self, item_ids: Sequence[str]) -> None:
        state, items, keys = self._state, self._state.items, self._store.keys
        commands: dict[int, list[bytes]] = {}
        for item_id in item_ids:
            slot = items.slot_of(item_id)
            p = int(items.rows[slot]["hash"]) % state.settings.partitions if slot >= 0 else 0
            if p not in state.tenures:
                continue
            body = state.refresher.similar_list(slot, state.clock_ms()) if slot >= 0 else None
            name = keys.similar(item_id)
            commands.setdefault(p, []).append(
                command(b"DEL", name.encode()) if body is None else self._store.publish(name, body)
            )
        if commands:
            await self._store.fence.write(commands, {p: state.tenures[p].token for p in commands})


def _named(body: bytes) -> Sequence[str]:
    """Items of a list; a value that is none was not written by us and is left alone."""
    try:
        return _items_of(body).items
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return ()
