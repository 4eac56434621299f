"""The keeper of item partitions: persists their rows, and publishes what is about items: similar, popular, hidden.

A worker keeps the item rows of partition p of interactions while it owns partition p of events. Every worker has the
same rows in memory, so keeping needs no hand-over: a new keeper writes what changed since the last one's checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import numpy as np

from streams.fence import FenceLost
from streams.state import State, Tenure
from streams.store import ItemsCheckpoint, Store

#: Neighbours published a second at most: an item's list of them is read rarely and changes slowly.
SIMILAR_PER_S = 250
POPULAR_S = 1.0
#: Public lists of items are written again this often even if nothing changed, so that quiet hours never expire them.
RENEWALS_PER_TTL = 4


class Keeper:
    """Writes what the item side owes to Redis. `on_growth` is called when there are more items to fill lists with."""

    def __init__(self, state: State, store: Store, on_growth: Callable[[], None]) -> None:
        self._state, self._store, self._on_growth = state, store, on_growth
        self._similar = np.zeros(0, np.uint8)  # neighbours changed since they were published
        self._cursor = 0
        self._written: dict[str, tuple[float, bytes]] = {}
        self._renewed_s = time.monotonic()
        self._folded = (-1, -1)
        self._n_popular = 0
        self._turn = asyncio.Lock()  # an older copy of a row must not be written behind a newer one

    def begin(self, tenure: Tenure, checkpoint: ItemsCheckpoint | None) -> None:
        """A partition's rows are ours to keep; `checkpoint` is the last keeper's."""
        items = self._state.items
        tenure.items_offset = 0 if checkpoint is None else checkpoint.offset
        slots = items.slots_in(tenure.partition)
        items.changed[slots] = items.rows["as_of"][slots] >= tenure.items_offset

    async def run(self) -> None:
        """Keep for ever."""
        state = self._state
        saved_s = time.monotonic()
        while True:
            await asyncio.sleep(POPULAR_S)
            self._renew_popularity()
            if time.monotonic() - saved_s >= state.settings.items_interval_ms / 1000:
                saved_s = time.monotonic()
                await self.save()
            await self._publish()

    def _renew_popularity(self) -> None:
        items = self._state.items
        if self._folded != (items.n_folded, items.n_items):
            self._folded = (items.n_folded, items.n_items)
            with self._state.metrics.stage.labels("popularity").time():
                n_before = self._n_popular
                self._n_popular = len(self._state.refresher.renew_popularity().order)
            if self._n_popular > n_before:
                self._on_growth()

    async def save(self, partitions: set[int] | None = None) -> None:
        """Write changed item rows and their checkpoints."""
        async with self._turn:
            await self._save(partitions)

    async def _save(self, partitions: set[int] | None) -> None:
        state, items = self._state, self._state.items
        copies: list[tuple[Tenure, np.ndarray, ItemsCheckpoint]] = []
        commands: dict[int, list[bytes]] = {}
        for p, tenure in list(state.tenures.items()):
            position = int(items.position[p])
            if (partitions is not None and p not in partitions) or position < tenure.items_offset:
                continue  # our replica is behind what the last keeper wrote
            slots = items.slots_in(p)
            slots = slots[items.changed[slots] != 0]
            if not len(slots) and position == tenure.items_offset:
                continue
            checkpoint = ItemsCheckpoint(position, tuple(items.highest[p].tolist()), items.clock_ms)
            rows = items.rows[slots]
            items.changed[slots] = 0
            self._mark_similar(slots)
            copies.append((tenure, slots, checkpoint))
            commands[p] = [
                *self._store.save_items(p, rows[rows["as_of"] >= 0]),
                self._store.save_items_checkpoint(p, checkpoint),
            ]
        with state.metrics.stage.labels("save_items").time():
            lost = await self._write(commands)
        for tenure, _, checkpoint in copies:
            if state.current(tenure) and tenure.partition not in lost:
                tenure.items_offset = checkpoint.offset

    async def _write(self, commands: dict[int, list[bytes]]) -> set[int]:
        gone: set[int] = set()
        tokens = {p: tenure.token for p, tenure in self._state.tenures.items()}  # no await since the commands were made
        while commands:
            try:
                await self._store.fence.write(commands, tokens)
                break
            except FenceLost as lost:
                self._state.lost(lost)
                gone |= lost.partitions
                commands = {p: some for p, some in commands.items() if p not in lost.partitions}
        return gone

    def _mark_similar(self, slots: np.ndarray) -> None:
        if len(self._similar) < len(self._state.items.rows):
            grown = np.zeros(len(self._state.items.rows), np.uint8)
            grown[: len(self._similar)] = self._similar
            self._similar = grown
        self._similar[slots] = 1

    async def _publish(self) -> None:
        state, store = self._state, self._store
        now_ms, now_s = state.clock_ms(), time.monotonic()
        state.catalogue.expire(now_ms)
        commands: dict[int, list[bytes]] = {}
        renew_s = state.settings.list_ttl_s / RENEWALS_PER_TTL
        if now_s - self._renewed_s > renew_s:
            self._renewed_s = now_s
            self._mark_similar(np.arange(state.items.n_items))
        if 0 in state.tenures:
            popular = state.refresher.popular_list(now_ms)
            hidden = msgspec.json.encode({"v": 1, "items": state.catalogue.announced(now_ms)})
            # `generated_at` differs each time: what is compared is what the list says
            for key, body, said in (
                (store.keys.popular, popular, popular.partition(b',"generated_at"')[0]),
                (store.keys.hidden, hidden, hidden),
            ):
                written_s, last = self._written.get(key, (0.0, b""))
                if said != last or now_s - written_s > min(60.0, renew_s):
                    commands.setdefault(0, []).append(store.publish(key, body))
                    self._written[key] = (now_s, said)
        for p, slot in self._similar_due():
            similar = state.refresher.similar_list(slot, now_ms)
            if similar is not None:
                commands.setdefault(p, []).append(store.publish(store.keys.similar(state.items.ids[slot]), similar))
        if await self._write(commands):
            self._written.clear()

    def _similar_due(self) -> list[tuple[int, int]]:
        """Items of ours whose neighbours changed, in turn."""
        state = self._state
        due = np.flatnonzero(self._similar[: state.items.n_items])
        if not len(due):
            return []
        due = np.roll(due, -int(np.searchsorted(due, self._cursor)))
        n = state.settings.partitions
        chosen = []
        for slot in due.tolist():
            p = int(state.items.rows[slot]["hash"]) % n
            self._similar[slot] = 0
            if p in state.tenures and state.items.visible[slot]:
                chosen.append((p, slot))
            if len(chosen) == SIMILAR_PER_S:
                break
            self._cursor = slot + 1
        return chosen

    def begin_again(self) -> None:
        """Redis lost data: write everything public again."""
        self._written.clear()
        self._mark_similar(np.arange(self._state.items.n_items))
