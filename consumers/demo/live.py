"""The last week, live: baskets come at their own times, only faster; before each the lists are read, after it the clock runs.

In: baskets, a producer, a reader. Out: hits and waiting times on the board. The waiting time is the whole truth, seen
from outside: from the first event of a basket handed to the producer until a list that knows the basket's last event
(`as_of` at or past its offset) has been read from Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from consumers.demo.board import Board
from consumers.demo.purchases import Basket
from consumers.demo.quality import PlainPopularity
from consumers.demo.scale import DAY_S
from consumers.demo.stage import DemoError
from consumers.producer import Delivery, Producer
from consumers.reader import AsyncReader

NOBODY = "(nobody)"  # has no list, so is given popular:all
LOOK_S = 0.002  # how closely lists are watched for; a waiting time is at most this much too long
LIST_DEADLINE_S = 30.0
RELEASE_MARK = "+"  # in the name of the model that made a list (docs/contract.md)


@dataclass
class LiveWeek:
    """Plays baskets. `worst_late_s` tells how far behind its own schedule it fell."""

    board: Board
    producer: Producer
    reader: AsyncReader
    plain: PlainPopularity
    speed_up: float
    worst_late_s: float = 0.0
    _pending: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # user -> (offset, sent at)
    _sent: set[asyncio.Task[None]] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, baskets: Sequence[Basket]) -> None:
        """All of them, until each one's list has been read."""
        watch = asyncio.ensure_future(self._watch())
        try:
            await self._send_all(baskets, watch)
            await asyncio.gather(*self._sent)
            while self._pending and not watch.done():
                await asyncio.sleep(LOOK_S)
            if watch.done():
                watch.result()
        finally:
            watch.cancel()
            for task in self._sent:
                task.cancel()

    async def _send_all(self, baskets: Sequence[Basket], watch: asyncio.Future[None]) -> None:
        began_s, first_ms = time.monotonic(), baskets[0].time_ms
        span_ms = max(1, baskets[-1].time_ms - first_ms)
        for basket in baskets:
            due_s = began_s + (basket.time_ms - first_ms) / 1000 / self.speed_up
            ahead_s = due_s - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            self.worst_late_s = max(self.worst_late_s, time.monotonic() - due_s)
            if watch.done():
                watch.result()
            await self._one(basket)
            self.board.done = (basket.time_ms - first_ms) / span_ms
            self.board.detail = f"day {(basket.time_ms - first_ms) / 1000 / DAY_S + 1:.1f}"

    async def _one(self, basket: Basket) -> None:
        own = await self.reader.get(basket.user)
        popular = await self.reader.get(NOBODY)
        self.board.hits.add(basket.user, basket.items, (own.items, popular.items, self.plain.top()))
        self.plain.add(basket.items, basket.time_ms)
        sent_s = time.perf_counter()
        deliveries = [
            await self.producer.send(user_id=basket.user, item_id=item, event_type="purchase", timestamp=basket.time_ms,
                                     session_id=basket.session, event_id=event_id)
            for item, event_id in zip(basket.items, basket.event_ids, strict=True)]
        self.board.n_sent += len(deliveries)
        task = asyncio.ensure_future(self._delivered(basket.user, deliveries, sent_s))
        self._sent.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:  # a failed one is left for `play` to raise
            self._sent.discard(task)

    async def _delivered(self, user: str, deliveries: Sequence[Delivery], sent_s: float) -> None:
        receipts = await asyncio.gather(*deliveries)
        self._pending.setdefault(user, []).append((max(receipt.offset for receipt in receipts), sent_s))
        self._news.set()

    async def _watch(self) -> None:
        """Read the lists of those whose basket is on its way, until they know it."""
        while True:
            if not self._pending:
                self._news.clear()
                await self._news.wait()
            lists = await self.reader.get_many(list(self._pending))
            now_s = time.perf_counter()
            for user, found in lists.items():
                known = found.as_of.offset if found.as_of is not None else -1
                waiting = self._pending[user]
                self.board.waited_ms += [(now_s - sent_s) * 1000 for offset, sent_s in waiting if offset <= known]
                left = [(offset, sent_s) for offset, sent_s in waiting if offset > known]
                if not left:
                    self.board.n_with_release += RELEASE_MARK in found.model
                    del self._pending[user]
                    continue
                self._pending[user] = left
                if now_s - left[0][1] > LIST_DEADLINE_S:
                    raise DemoError(f"household {user} bought something {LIST_DEADLINE_S:.0f} s ago and its list does not know "
                                    "it yet; are the workers well? Their logs lie beside the demo's data")
            await asyncio.sleep(LOOK_S)
