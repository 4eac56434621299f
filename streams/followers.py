"""What every worker reads whole into its item side: `interactions` (item rows) and `items` (attributes)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from streams.catalogue import decode_item
from streams.events import InvalidEvent
from streams.horizon import Horizon
from streams.interactions import HEADER, SECTION
from streams.outbox import dead_letter
from streams.shared_logs import NOT_THERE, LogMissing, MadeAnew, Message, SharedLog, compacted
from streams.state import State
from streams.store import Store

#: Messages folded before other tasks get their turn: about 5 ms at full messages.
FOLD_MESSAGES = 4
CATALOGUE_MESSAGES = 2_000


class ItemFollower:
    """Folds all of `interactions` into the item rows."""

    def __init__(self, state: State, store: Store, horizon: Horizon) -> None:
        self._state, self._store = state, store
        self._log = SharedLog(state, horizon, "interactions", HEADER, SECTION, "what they said of items is lost")
        self._built_from: set[str] = set()
        self._met: set[int] = set()
        self.folds = 0  # messages folded, for the watchdog

    async def load(self) -> None:
        """Rows and checkpoints of all partitions, as their keepers wrote them."""
        items = self._state.items
        for p in range(self._state.settings.partitions):
            checkpoint, rows = await self._store.load_items(p)
            if checkpoint is not None:
                items.load(p, rows, checkpoint.offset, checkpoint.highest, checkpoint.clock_ms)
                self._built_from.add(checkpoint.topic)

    async def run(self) -> None:
        """Follow for ever from where the loaded rows stand."""
        try:
            await self._run()
        except MadeAnew as error:
            self._state.metrics.logs_anew.labels("interactions").inc()
            raise LogMissing(f"{error}. Build new state from the log that is there (docs/operations.md, Rebuild)") from error

    async def _run(self) -> None:
        state, items = self._state, self._state.items
        start = dict(enumerate(items.position.tolist()))
        async with aclosing(self._log.messages(FOLD_MESSAGES, start, self._built_from)) as arriving:
            async for messages in arriving:
                items.topic_id = self._log.topic_id
                with state.metrics.stage.labels("fold").time():
                    for message in messages:
                        self.fold(message)
                if messages:
                    await asyncio.sleep(0)

    def meet(self, hashes: list[int]) -> None:
        """Items that our users have met: known by name at once, not only when their interactions come back."""
        items, names = self._state.items, self._state.users.decoder.names
        for item in set(hashes) - self._met:
            self._met.add(item)
            items.add(names[item].decode())

    def fold(self, message: Message) -> None:
        """One message into the rows."""
        items, metrics = self._state.items, self._state.metrics
        folded, foreign = items.n_folded, items.n_foreign
        if message.true:
            items.fold(message.partition, message.offset, message.value)
        else:
            items.pass_over(message.partition, message.offset, NOT_THERE)
        self.folds += 1
        metrics.items_folded.inc(items.n_folded - folded)
        metrics.messages_skipped.labels("interactions", "foreign").inc(items.n_foreign - foreign)


class CatalogueFollower:
    """Reads the compacted `items` topic whole, then follows it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.loaded = asyncio.Event()

    async def run(self) -> None:
        """Load, set `loaded`, follow for ever."""
        state = self._state
        topic = state.settings.topic("items")
        async with aclosing(compacted(state.settings, topic, CATALOGUE_MESSAGES, lambda: state.waiting("kafka"))) as arriving:
            async for records, whole in arriving:
                for record in records:
                    self._apply(topic, record)
                if whole:
                    self.loaded.set()

    def _apply(self, topic: str, record: Any) -> None:
        state = self._state
        try:
            item_id, attributes = decode_item(record.key, record.value)
            state.catalogue.apply(item_id, attributes, record.timestamp, state.clock_ms())
        except InvalidEvent as error:
            tenure = state.tenures.get(0)  # all workers read this topic, one tells
            if tenure is not None:
                letter = dead_letter(
                    state.settings.topic("events.dlq"), topic, record.partition, record, error.reason, error.detail
                )
                tenure.outgoing.append(letter)
                state.metrics.events_rejected.labels(error.reason).inc()
