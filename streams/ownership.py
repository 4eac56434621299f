"""Which partitions are ours: taken over, given back, lost, and taken again from Redis.

Everything of a partition lives within one tenure. A takeover fences, reads the checkpoint and begins with empty rows; a
fence that is lost ends the tenure at once, whatever was under way under it is stale.
"""

from __future__ import annotations

import asyncio
import logging
import time

import numpy as np
from aiokafka.errors import IllegalStateError

from streams.app import StreamApp, reseek
from streams.attempts import Attempts
from streams.commit import Committer
from streams.fence import FenceLost
from streams.keeper import Keeper
from streams.publisher import Publisher
from streams.state import State, Tenure
from streams.store import Store
from streams.tasks import cancelled

log = logging.getLogger(__name__)

#: How long a flush waits for lists: with the commit after it a revocation stays well under what the group allows.
FLUSH_LISTS_S = 1.0
#: Between two attempts to begin a tenure whose fence was lost while it began.
TAKE_AGAIN_S = 0.2


class Ownership:
    """Begins and ends tenures. `app` must be set before the first assignment."""

    app: StreamApp

    def __init__(
        self,
        state: State,
        store: Store,
        committer: Committer,
        publisher: Publisher,
        keeper: Keeper,
        attempts: Attempts,
    ) -> None:
        self.state, self.store = state, store
        self.committer, self.publisher, self.keeper, self.attempts = committer, publisher, keeper, attempts
        self._recoveries: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # one recovery at a time: a seek must not be overtaken by an older one
        state.lost = self.lost

    async def assign(self, partitions: set[int]) -> dict[int, int]:
        """Take these partitions over: fence, checkpoint, empty rows. Returns where absorb goes on."""
        while True:
            try:
                begun = await self._begin(partitions)
                break
            except FenceLost as lost:  # the group has moved on, which ends this call, or Redis was flushed just now
                self.lost(lost)
                await asyncio.sleep(TAKE_AGAIN_S)
        self.state.catalogue.to_sweep |= set(self.state.catalogue.hidden_since)
        self.state.metrics.partitions_owned.set(len(self.state.tenures))
        starts = {tenure.partition: tenure.checkpoint for tenure in begun}
        log.info("partitions %s are ours, from offsets %s", sorted(starts), [starts[p] for p in sorted(starts)])
        return starts

    async def _begin(self, partitions: set[int]) -> list[Tenure]:
        for p in partitions:
            self.state.end(p)
        found = await self.store.takeover(partitions)
        n, begun = self.state.settings.partitions, []
        for p, checkpoint in found.items():
            origins = np.full(n, -1, np.int64) if checkpoint.origins is None else np.array(checkpoint.origins, np.int64)
            shown = max(checkpoint.shown, self.state.shown.get(p, -1))
            tenure = Tenure(p, checkpoint.token, shown, checkpoint.offset, origins)
            self.keeper.begin(tenure, await self.store.items_checkpoint(p))
            await self.attempts.begin(tenure)
            begun.append(tenure)
        gone = {tenure.partition for tenure in begun if not self.store.fence.holds(tenure.partition, tenure.token)}
        if gone:  # found out by somebody else's write meanwhile
            raise FenceLost(gone)
        for tenure in begun:
            self.state.begin(tenure, tenure.checkpoint)
        return begun

    async def revoke(self, partitions: set[int]) -> None:
        """Flush what is possible and forget them."""
        await self._end_recoveries()  # what is ours after this is assigned anew
        ours = {p for p in partitions if p in self.state.tenures}
        try:
            if ours and not self.state.waits_for and not self.store.fence.moved:
                await self._flush(ours)
        finally:
            for task in self._recoveries:  # of what the flush has found lost
                task.cancel()
            for p in partitions:
                self.state.end(p)
            self.store.fence.release(partitions)
            self.state.metrics.partitions_owned.set(len(self.state.tenures))
            log.info("partitions %s are not ours any more", sorted(partitions))

    async def _flush(self, partitions: set[int]) -> None:
        """Lists first, so that the checkpoint can stand at the end; then rows and items."""
        deadline = time.monotonic() + FLUSH_LISTS_S
        self.publisher.wake()
        while time.monotonic() < deadline and any(
            self.state.users.queues[p] for p in partitions if p in self.state.tenures
        ):
            await asyncio.sleep(0.005)
        await self.committer.commit(partitions)
        await self.keeper.save(partitions)
        for p in partitions & self.state.tenures.keys():
            if not self.state.tenures[p].broken:
                await self.attempts.end(self.state.tenures[p])

    def lost(self, lost: FenceLost) -> None:
        """The fence of these partitions is gone: drop their state; start again unless another worker has them."""
        ours = {p for p in lost.partitions if p in self.state.tenures}
        for p in ours:
            self.state.end(p)
        self.store.fence.release(lost.partitions)
        self.state.metrics.fence_losses.inc(len(ours))
        if ours:
            log.warning(
                "partitions %s lost their fence (%s)",
                sorted(ours),
                "another worker has them" if ours & lost.foreign else "Redis lost data",
            )
            # a foreign owner that is none, because it had stopped for long, gives up within a session
            pause_s = self.state.settings.session_timeout_ms / 1000 + 2 if ours & lost.foreign else 0.0
            task = asyncio.ensure_future(self._recover(ours, pause_s))
            self._recoveries.add(task)
            task.add_done_callback(self._recovered)

    async def _recover(self, partitions: set[int], pause_s: float) -> None:
        """Begin again what has no tenure. A revocation ends this: what is ours after it is assigned anew."""
        while partitions:
            await asyncio.sleep(pause_s)
            while "kafka" in self.state.waits_for:  # cut off from the group we cannot know whose they are
                await asyncio.sleep(TAKE_AGAIN_S)
            await self.store.open()
            async with self._turn:
                partitions = {p for p in partitions if p not in self.state.tenures}
                still = {p for p in partitions if self.app.owns(p)}  # an assignment's own seek must come before ours
                if still:
                    log.warning("partitions %s start again from Redis", sorted(still))
                    self.app.make_stale(still)  # a batch read before must not meet the rows that we begin with
                    starts = await self.assign(still)
                    begun = {p: offset for p, offset in starts.items() if p in self.state.tenures}
                    try:
                        await reseek(self.app, begun)
                    except IllegalStateError:
                        return  # the group moves on just now
                partitions = partitions - still
            pause_s = TAKE_AGAIN_S

    def _recovered(self, task: asyncio.Task[None]) -> None:
        self._recoveries.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.fail(error)

    async def _end_recoveries(self) -> None:
        await cancelled(*self._recoveries)

    async def close(self) -> None:
        """Begin nothing more."""
        await self._end_recoveries()
