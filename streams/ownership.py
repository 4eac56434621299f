"""Which partitions are ours: taken over, given back, lost, and taken again from Redis.

Everything of a partition lives within one tenure. A takeover fences, reads the checkpoint and begins with empty rows; a
fence that is lost ends the tenure at once, whatever was under way under it is stale.
"""

from __future__ import annotations

import asyncio
import logging
import time

import numpy as np

from streams.app import StreamApp, reseek
from streams.attempts import Attempts
from streams.commit import Committer
from streams.fence import FenceLost
from streams.keeper import Keeper
from streams.publisher import Publisher
from streams.state import State, Tenure
from streams.store import Store

log = logging.getLogger(__name__)

#: How long a flush waits for lists: with the commit after it a revocation stays well under what the group allows.
FLUSH_LISTS_S = 1.0


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
        state.lost = self.lost

    async def assign(self, partitions: set[int]) -> dict[int, int]:
        """Take these partitions over: fence, checkpoint, empty rows. Returns where absorb goes on."""
        for p in partitions:
            self.state.end(p)
        checkpoints = await self.store.takeover(partitions)
        starts, taken_again = {}, None
        for p, found in checkpoints.items():
            offset = found.offset or 0
            n = self.state.settings.partitions
            origins = np.full(n, -1, np.int64) if found.origins is None else np.array(found.origins, np.int64)
            tenure = Tenure(p, found.token, found.shown, offset, origins)
            self.keeper.begin(tenure, await self.store.items_checkpoint(p))
            try:
                await self.attempts.begin(tenure)
            except FenceLost as lost:  # the group has moved on, or Redis was flushed just now
                taken_again = lost
            self.state.begin(tenure, offset)
            starts[p] = offset
        if taken_again is not None:
            self.lost(taken_again)
        if 0 in partitions:
            self.keeper.begin_again()
        self.state.catalogue.to_sweep |= set(self.state.catalogue.hidden_since)
        self.state.metrics.partitions_owned.set(len(self.state.tenures))
        log.info("partitions %s are ours, from offsets %s", sorted(starts), [starts[p] for p in sorted(starts)])
        return starts

    async def revoke(self, partitions: set[int]) -> None:
        """Flush what is possible and forget them."""
        ours = {p for p in partitions if p in self.state.tenures}
        try:
            if ours and not self.state.waits_for:
                await self._flush(ours)
        finally:
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
            epochs = {p: self.app.epoch(p) for p in ours}
            task = asyncio.ensure_future(self._recover(epochs, pause_s))
            self._recoveries.add(task)
            task.add_done_callback(self._recovered)

    async def _recover(self, epochs: dict[int, int], pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        await self.store.open()
        still = {p for p, epoch in epochs.items() if self.app.epoch(p) == epoch and self.app.owns(p)}
        if still:
            log.warning("partitions %s start again from Redis", sorted(still))
            self.keeper.begin_again()
            await reseek(self.app, await self.assign(still))

    def _recovered(self, task: asyncio.Task[None]) -> None:
        self._recoveries.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.fail(error)

    async def close(self) -> None:
        """Begin nothing more."""
        for task in self._recoveries:
            task.cancel()
        await asyncio.gather(*self._recoveries, return_exceptions=True)
