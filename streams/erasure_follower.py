"""Reads the topic `erasures` whole before a worker absorbs anything, then follows it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from streams.shared_logs import compacted
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
        async with aclosing(compacted(state.settings, state.settings.topic("erasures"), MESSAGES, lambda: state.waiting("kafka"))) as arriving:
            async for records, whole in arriving:
                for record in records:
                    erasures.hear(record.key, record.value, record.offset)
                if whole:
                    self.loaded.set()
