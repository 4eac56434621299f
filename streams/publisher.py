"""Refresh and publish: the users that have waited longest get their list, in chunks, fenced.

In: users marked by absorb. Out: one SET a user, and `{p}:shown` in the same transaction. Under a flood lists yield to
absorb (a user's many events then cost one list); at rest every event is followed by its list at once.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np

from streams.embeddings import write as write_embedding
from streams.fence import FenceLost
from streams.state import State, Tenure
from streams.store import Store

#: Events behind which lists get only `FLOOD_SHARE` of the time: their readers are behind anyway, catching up is first.
FLOOD_EVENTS = 20_000
FLOOD_SHARE = 0.05
#: So many rows are written in one cycle only at the end of a flood; they go first too, then the checkpoint can move.
FLOOD_ROWS = 5_000
FLOOD_PAUSE_S, FLOOD_STEP_S = 2.0, 0.01
#: With more users than this waiting, chunks grow: the cost of a transaction is shared by more lists.
MANY_WAITING = 1_000
LARGE_CHUNK = 250


class Publisher:
    """Publishes users' lists."""

    def __init__(self, state: State, store: Store) -> None:
        self._state, self._store = state, store
        self._work = asyncio.Event()
        self.n_published = 0
        self._next = 0
        self._short: dict[str, int] = {}  # users whose list was not full, with their partition

    def wake(self) -> None:
        """There are users who wait."""
        self._work.set()

    def n_waiting(self) -> int:
        """Users that wait for a list."""
        return sum(len(queue) for queue in self._state.users.queues)

    async def run(self) -> None:
        """Publish for ever."""
        while True:
            await self._work.wait()
            started = time.monotonic()
            chunk = self._take()
            if not chunk:
                self._work.clear()
                continue
            await self.publish(chunk)
            await self._yield_to_absorb(time.monotonic() - started)

    async def _yield_to_absorb(self, took_s: float) -> None:
        """Leave the loop to others: for a moment, or for as long as a flood of events needs it more."""
        await asyncio.sleep(0)
        pause_until_s = time.monotonic() + min(took_s * (1 / FLOOD_SHARE - 1), FLOOD_PAUSE_S)
        while self._flooded() and time.monotonic() < pause_until_s:
            await asyncio.sleep(FLOOD_STEP_S)

    def _flooded(self) -> bool:
        return self._state.lag() > FLOOD_EVENTS or self._state.n_saving > FLOOD_ROWS

    def _take(self) -> list[tuple[Tenure, list[int]]]:
        """The next chunk, from all partitions that may publish in turn."""
        state, queues = self._state, self._state.users.queues
        ready = [t for p, t in state.tenures.items() if queues[p] and state.may_publish(t)]
        if not ready:
            return []
        limit = LARGE_CHUNK if self.n_waiting() > MANY_WAITING else state.settings.refresh_chunk
        self._next += 1  # so that with more partitions than a chunk has users none is always last
        start = self._next % len(ready)
        share = -(-limit // len(ready))
        chunk = []
        for tenure in ready[start:] + ready[:start]:
            slots = state.users.take_waiting(tenure.partition, min(share, limit))
            limit -= len(slots)
            chunk.append((tenure, slots))
            if limit <= 0:
                break
        return chunk

    async def publish(self, chunk: list[tuple[Tenure, list[int]]]) -> None:
        """Compute and publish the lists of these users; those of partitions that are lost meanwhile are left out."""
        state, store = self._state, self._store
        table = state.users.table
        slots = [slot for _, some in chunk for slot in some]
        produced = table.produced_ms[slots]
        hidden_before = state.catalogue.n_hidden
        with state.metrics.stage.labels("refresh").time():
            made, lengths = state.refresher.lists(slots, state.clock_ms())
            bodies = iter(made)
            commands: dict[int, list[bytes]] = {}
            for tenure, some in chunk:
                p = tenure.partition
                # before the write: its reply may get lost, and readers have seen what it wrote
                tenure.shown = max(tenure.shown, int(table.rows["as_of"][some].max()))
                lists = [store.publish_user(table.ids[slot], next(bodies)) for slot in some]
                for k in np.flatnonzero(table.blank(some)).tolist():
                    lists[k] = store.unpublish_user(table.ids[some[k]])
                commands[p] = [store.save_shown(p, tenure.shown), *lists, *self._embeddings(p, some)]
        tokens = {tenure.partition: tenure.token for tenure, _ in chunk}
        with state.metrics.stage.labels("publish").time():
            while commands:
                try:
                    await store.fence.write(commands, tokens)
                    break
                except FenceLost as lost:
                    self._state.lost(lost)
                    commands = {p: some for p, some in commands.items() if p not in lost.partitions}
        self._note_short(slots, lengths)
        for tenure, some in chunk:
            if state.current(tenure) and tenure.partition in commands:
                state.users.published(some)
                if state.catalogue.n_hidden != hidden_before:  # said while this list was on its way, or waited for Redis
                    state.users.ask(tenure.partition, some)
        self._measure(produced)

    def _embeddings(self, partition: int, slots: list[int]) -> list[bytes]:
        """Commands that publish these users' vectors, where that is wanted and there is a model to give them."""
        state, table = self._state, self._state.users.table
        found = state.refresher.embeddings(slots) if state.settings.publish_embeddings == "on" else None
        if found is None:
            return []
        version, vectors = found
        as_of, clocks = table.rows["as_of"][slots].tolist(), table.rows["clock_ms"][slots].tolist()
        return [
            self._store.publish_embedding(table.ids[slot], write_embedding(version, (partition, as_of[k], clocks[k]), vectors[k]))
            for k, slot in enumerate(slots)
            if vectors[k].any()
        ]

    def _note_short(self, slots: list[int], lengths: list[int]) -> None:
        table, n = self._state.users.table, self._state.settings.list_size
        for slot, length in zip(slots, lengths, strict=True):
            if length < n and table.partition[slot] >= 0:
                self._short[table.ids[slot]] = int(table.partition[slot])

    def refill(self) -> None:
        """There are more items to choose from than before: users whose lists were not full get another."""
        short, self._short = self._short, {}
        slots = self._state.users.table.slots
        for user, p in short.items():
            if p in self._state.tenures and user in slots[p]:
                self._state.users.ask(p, [slots[p][user]])
        if short:
            self.wake()

    def _measure(self, produced_ms: np.ndarray) -> None:
        metrics = self._state.metrics
        metrics.lists_published.inc(len(produced_ms))
        self.n_published += len(produced_ms)
        now_ms = self._state.clock_ms()
        for ms in produced_ms.tolist():
            if ms:  # a sweep rewrites lists without an event
                metrics.freshness.observe(max(0, now_ms - ms) / 1000)
