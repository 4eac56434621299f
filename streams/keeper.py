"""The keeper of item partitions: persists the item rows of partitions that are ours.

A worker keeps the item rows of partition p of interactions while it owns partition p of events. Every worker has the
same rows in memory, so keeping needs no hand-over: a new keeper writes what changed since the last one's checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from streams.fence import FenceLost
from streams.showcase import Showcase
from streams.state import State, Tenure
from streams.store import ItemsCheckpoint, Store

#: The shortest window is an hour, so popularity may take this share of a core, and is renewed as often as that allows.
POPULAR_S = 1.0
POPULAR_SHARE = 0.005
#: Whatever it took: a first call on a cold or busy machine says nothing about the next.
POPULAR_MOST_S = 5.0
#: Nothing folded for this long: what is left is saved at once.
QUIET_S = 0.25


class Keeper:
    """Saves item rows and renews popularity. `on_growth` is called when there are more items to fill lists with."""

    def __init__(self, state: State, store: Store, showcase: Showcase, on_growth: Callable[[], None]) -> None:
        self._state, self._store, self._showcase, self._on_growth = state, store, showcase, on_growth
        self._seen = (-1, -1)
        self._n_popular = 0
        self._turn = asyncio.Lock()  # an older copy of a row must not be written behind a newer one

    def begin(self, tenure: Tenure, checkpoint: ItemsCheckpoint | None) -> None:
        """A partition's rows are ours to keep; `checkpoint` is the last keeper's."""
        items = self._state.items
        tenure.items_offset = 0 if checkpoint is None else checkpoint.offset
        slots = items.slots_in(tenure.partition)
        items.changed[slots] = items.rows["as_of"][slots] >= tenure.items_offset
        self._showcase.begin(tenure.partition, slots)

    async def run(self) -> None:
        """Save for ever: one partition after the other, spread over the interval; all at once when quiet returns."""
        state, items = self._state, self._state.items
        interval_s = state.settings.items_interval_ms / 1000
        saved_s = {p: time.monotonic() for p in range(state.settings.partitions)}
        folded, folded_s = 0, time.monotonic()
        whole: tuple[object, ...] = ()  # what was there when everything had been saved
        while True:
            await asyncio.sleep(min(QUIET_S, interval_s / len(saved_s)))
            now_s = time.monotonic()
            if items.n_folded != folded:
                folded, folded_s = items.n_folded, now_s
            there = (folded, *state.tenures.values())
            quiet = now_s - folded_s > QUIET_S and there != whole
            due = [p for p in sorted(saved_s, key=saved_s.__getitem__) if quiet or now_s - saved_s[p] >= interval_s]
            for p in due if quiet else due[:1]:
                saved_s[p] = now_s
                await self.save({p})
            if quiet:
                whole = there

    async def run_popularity(self) -> None:
        """Renew popularity for ever, while items change."""
        state = self._state
        took_s = 0.0
        while True:
            await asyncio.sleep(min(max(POPULAR_S, took_s / POPULAR_SHARE), POPULAR_MOST_S))
            seen = (state.items.n_folded, state.items.n_items)
            if seen == self._seen:
                continue
            self._seen = seen
            started_s = time.monotonic()
            with state.metrics.stage.labels("popularity").time():
                popular = state.refresher.use(await asyncio.to_thread(state.refresher.popularity))
            took_s = time.monotonic() - started_s if len(popular.order) == self._n_popular else 0.0
            grown, self._n_popular = len(popular.order) > self._n_popular, len(popular.order)
            if grown:
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
            checkpoint = ItemsCheckpoint(position, tuple(items.highest[p].tolist()), items.clock_ms, items.topic_id)
            rows = items.rows[slots]
            items.changed[slots] = 0
            self._showcase.changed(slots)
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
