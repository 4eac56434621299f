"""What is public about items: the popular list, each item's neighbours, and the names that readers must drop.

Written by the owner of the item's partition (popular and hidden: of partition 0), a few at a time beside everything else,
and written again long before they expire, so that quiet hours never empty them.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import numpy as np

from streams.fence import FenceLost
from streams.state import State
from streams.store import Store

STEP_S = 0.1
POPULAR_STEPS = 10
#: Neighbours published in a step: they are read rarely and change slowly, so lists of users come first.
SIMILAR_BUSY, SIMILAR_IDLE = 25, 100
RENEWALS_PER_TTL = 4
RENEW_MOST_S = 60.0


class Showcase:
    """Publishes what is about items."""

    def __init__(self, state: State, store: Store) -> None:
        self._state, self._store = state, store
        self._due = np.zeros(0, np.uint8)  # neighbours changed since they were published
        self._cursor = 0
        self._written: dict[str, tuple[float, bytes]] = {}
        self._renewed_s = time.monotonic()

    def changed(self, slots: np.ndarray) -> None:
        """The rows of these items have changed."""
        if len(self._due) < len(self._state.items.rows):
            grown = np.zeros(len(self._state.items.rows), np.uint8)
            grown[: len(self._due)] = self._due
            self._due = grown
        self._due[slots] = 1

    def begin(self, partition: int, slots: np.ndarray) -> None:
        """A partition with these items is ours, anew or for the first time: everything of it is due."""
        self.changed(slots)
        if partition == 0:
            self._written.clear()

    async def run(self) -> None:
        """Publish for ever."""
        step = 0
        while True:
            await asyncio.sleep(STEP_S)
            state = self._state
            now_ms = state.clock_ms()
            state.catalogue.expire(now_ms)
            commands: dict[int, list[bytes]] = {}
            if step % POPULAR_STEPS == 0 and 0 in state.tenures:
                commands[0] = self._overview(now_ms)
            step += 1
            idle = not state.lag() and not any(state.users.queues)
            for p, slot in self._next(SIMILAR_IDLE if idle else SIMILAR_BUSY):
                body = state.refresher.similar_list(slot, now_ms)
                if body is not None:
                    name = self._store.keys.similar(state.items.ids[slot])
                    commands.setdefault(p, []).append(self._store.publish(name, body))
            tokens = {p: tenure.token for p, tenure in state.tenures.items()}
            commands = {p: some for p, some in commands.items() if some}
            while commands:
                try:
                    await self._store.fence.write(commands, tokens)
                    break
                except FenceLost as lost:
                    state.lost(lost)
                    commands = {p: some for p, some in commands.items() if p not in lost.partitions}

    def _overview(self, now_ms: int) -> list[bytes]:
        """The popular list and the hidden names, where they changed or are due again."""
        state, keys = self._state, self._store.keys
        now_s, renew_s = time.monotonic(), state.settings.list_ttl_s / RENEWALS_PER_TTL
        if now_s - self._renewed_s > renew_s:
            self._renewed_s = now_s
            self.changed(np.arange(state.items.n_items))
        popular = state.refresher.popular_list(now_ms)
        hidden = msgspec.json.encode({"v": 1, "items": state.catalogue.announced(now_ms)})
        commands = []
        # `generated_at` differs each time: what is compared is what the list says
        for key, body, said in (
            (keys.popular, popular, popular.partition(b',"generated_at"')[0]),
            (keys.hidden, hidden, hidden),
        ):
            written_s, last = self._written.get(key, (0.0, b""))
            if said != last or now_s - written_s > min(RENEW_MOST_S, renew_s):
                commands.append(self._store.publish(key, body))
                self._written[key] = (now_s, said)
        return commands

    def _next(self, limit: int) -> list[tuple[int, int]]:
        """(partition, slot) of items of ours whose neighbours are due, in turn."""
        items, tenures = self._state.items, self._state.tenures
        due = np.flatnonzero(self._due[: items.n_items])
        if not len(due):
            return []
        owners = (items.rows["hash"][due] % np.uint64(items.n_partitions)).astype(np.int64)
        ours = np.isin(owners, list(tenures)) & (items.visible[due] == 1)
        self._due[due[~ours]] = 0  # a new owner, or being shown again, makes them due again
        due, owners = due[ours], owners[ours]
        first = int(np.searchsorted(due, self._cursor))
        chosen = np.concatenate([np.arange(first, len(due)), np.arange(first)])[:limit]
        self._due[due[chosen]] = 0
        if len(chosen):
            self._cursor = int(due[chosen[-1]]) + 1
        return list(zip(owners[chosen].tolist(), due[chosen].tolist(), strict=True))
