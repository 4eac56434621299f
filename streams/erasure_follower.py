"""Reads the topic `erasures` whole before a worker absorbs anything, then follows it."""

from __future__ import annotations

import asyncio

from streams.shared_logs import at_end, follow, poll
from streams.state import State

MESSAGES = 2_000


class ErasureFollower:
    """Tells the users' side who was erased; `loaded` is set once the topic has been read up to where it ended at the start."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.loaded = asyncio.Event()

    async def run(self) -> None:
        """Load, set `loaded`, follow for ever; raises `ForeignErasures`."""
        state, erasures = self._state, self._state.users.erasures
        consumer = await follow(state.settings, state.settings.topic("erasures"), None)
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            while True:
                if not self.loaded.is_set() and await at_end(consumer, ends):
                    self.loaded.set()
                for record in await poll(consumer, state.waiting("kafka"), MESSAGES):
                    erasures.hear(record.key, record.value, record.offset)
                await asyncio.sleep(0)
        finally:
            await consumer.stop()
