"""One worker: the parts put together, opened in order, run side by side, closed whatever happens.

The Faust app (`streams.app`) calls `assign`, `revoke` and `absorb`; beside it run the committer, the publisher, the
followers, the keeper, the sweeper and the web pages. All of them share one event loop and one `State`.
"""

from __future__ import annotations

import asyncio
import gc
import logging

from infra.settings import Settings
from streams.app import StreamApp, build_app, run_app
from streams.attempts import Attempts
from streams.commit import Committer
from streams.earlier import OpenFiles, earlier_of
from streams.erasure_follower import ErasureFollower
from streams.fetching import Batch
from streams.followers import CatalogueFollower, ItemFollower
from streams.health import Health
from streams.horizon import Horizon
from streams.intake import Intake
from streams.keeper import Keeper
from streams.learning import LessonFollower
from streams.outbox import Outbox
from streams.ownership import Ownership
from streams.publisher import Publisher
from streams.releases import START_S, ReleaseFollower
from streams.relist import Relister
from streams.showcase import Showcase
from streams.state import State
from streams.store import Store
from streams.stretch import Stretch
from streams.sweep import Sweeper
from streams.tasks import until_one_ends
from streams.warm import warm

log = logging.getLogger(__name__)

#: Records and events are young garbage without cycles: Python's default of 700 looks through them again and again.
GC_ALLOCATIONS = 50_000
CLOSE_S = 1.0
#: Exit code of a worker that has to start again because another generation is live now (EX_TEMPFAIL).
MOVED = 75


class Worker:
    """A worker's life; implements `streams.transport.PartitionHost`."""

    def __init__(self, settings: Settings, open_files: OpenFiles | None = None) -> None:
        self._open_files = open_files
        self.state = state = State(settings)
        self.store = store = Store(settings, lambda: state.waiting("redis"))
        self.outbox = Outbox(settings, state.waiting)
        self.horizon = Horizon(settings, lambda: state.users.position, state.waiting)
        self.items = ItemFollower(state, store, self.horizon)
        self.lessons = LessonFollower(state, store, self.horizon)
        self.catalogue = CatalogueFollower(state)
        self.erasures = ErasureFollower(state)
        self.releases = ReleaseFollower(state)
        self.committer = Committer(state, store, self.outbox)
        self.publisher = Publisher(state, store)
        self.showcase = Showcase(state, store)
        self.keeper = Keeper(state, store, self.showcase, self.publisher.refill)
        attempts = Attempts(state, store)
        self.ownership = Ownership(state, store, self.committer, self.publisher, self.keeper, attempts)
        self.stretch = Stretch(lambda p: self.app.log_end(p), settings.partitions)
        self.intake = Intake(state, store, self.committer, self.publisher, self.items, attempts, self.horizon, self.stretch)
        self.sweeper = Sweeper(state, store, self.publisher, self.intake.rows_turn)
        self.relister = Relister(state, store, self.publisher, self.sweeper)
        self.app: StreamApp = build_app(settings, self)
        self.ownership.app = self.app
        state.log_end = self.stretch.end
        self.health = Health(state, store, lambda: (self.publisher.n_published, self.items.folds))

    async def open(self) -> None:
        """Everything that must be there before the first event: state checked, item rows and attributes loaded."""
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        await self.health.start()
        warm()
        await self.store.open()
        assert self.store.generation is not None
        self.stretch.begin(self.store.generation, self.store.keys.is_live)
        self.state.metrics.generation.labels(self.store.keys.generation).set(int(self.store.keys.is_live))
        log.info("generation %s, %s", self.store.keys.generation, "live" if self.store.keys.is_live else "a shadow")
        await self.outbox.start()
        await self.horizon.start()
        await self._find_files()
        await self.items.load()
        await self.lessons.load()
        parts: tuple[CatalogueFollower | ErasureFollower, ...] = (self.erasures, self.catalogue)
        self._releases_task = asyncio.ensure_future(self.releases.run())
        self._loaded_tasks = await asyncio.gather(*(self._loaded(part) for part in parts))
        settled = asyncio.ensure_future(self.releases.settled.wait())
        await asyncio.wait([self._releases_task, settled], timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()
        self.state.refresher.renew_popularity()
        gc.collect()
        gc.freeze()
        self.health.ready = True
        self.state.metrics.ready.set(1)

    async def _find_files(self) -> None:
        """What of the log lies in files, before partitions are ours."""
        assert self.store.generation is not None
        if self._open_files is not None:
            topic = await self.horizon.topic_id(self.state.settings.topic("events"))
            self.app.earlier = earlier_of(self.state.settings, self.store.generation, self.store.keys.is_live, self._open_files, topic or "",
                                          not self.horizon.by_time)

    @staticmethod
    async def _loaded(part: CatalogueFollower | ErasureFollower) -> asyncio.Task[None]:
        """A follower that has read its topic whole, and goes on."""
        follow, loaded = asyncio.ensure_future(part.run()), asyncio.ensure_future(part.loaded.wait())
        await asyncio.wait([follow, loaded], return_when=asyncio.FIRST_COMPLETED)
        if follow.done():
            loaded.cancel()
            follow.result()
        return follow

    async def run_beside(self) -> None:
        """All that runs beside the app; ends with the first part that fails."""
        parts = (
            self.items.run,
            self.lessons.run,
            self.lessons.run_keeping,
            self.committer.run,
            self.committer.run_ahead,
            self.publisher.run,
            self.keeper.run,
            self.keeper.run_popularity,
            self.showcase.run,
            self.sweeper.run,
            self.relister.run,
            self.health.run,
        )
        try:
            await until_one_ends(*self._loaded_tasks, self._releases_task, *(run() for run in parts))
        finally:
            await self.ownership.close()

    async def close(self) -> None:
        """Leave nothing open."""
        await self.health.stop()
        for part in (self.outbox.stop, self.horizon.stop, self.store.close):
            try:
                async with asyncio.timeout(CLOSE_S):
                    await part()
            except Exception as error:  # noqa: BLE001 - the process ends, whatever is in the way
                log.warning("closing: %r", error)

    async def assign(self, partitions: set[int]) -> dict[int, int]:
        """See `Ownership.assign`."""
        return await self.ownership.assign(partitions)

    async def revoke(self, partitions: set[int]) -> None:
        """See `Ownership.revoke`."""
        await self.ownership.revoke(partitions)

    async def absorb(self, batch: Batch) -> None:
        """See `Intake.absorb`."""
        await self.intake.absorb(batch)

    def low_water(self, partition: int) -> int | None:
        """What Kafka's lag tools are shown."""
        tenure = self.state.tenures.get(partition)
        return None if tenure is None else tenure.checkpoint


def run(settings: Settings, open_files: OpenFiles | None = None) -> int:
    """Run a worker of the generation that the settings name until SIGTERM; returns the exit code, `MOVED` among them. open_files: how
    an event log is opened, where what Kafka has dropped may lie."""
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)
    worker = Worker(settings, open_files)

    async def beside() -> None:
        try:
            await worker.run_beside()
        finally:
            await worker.close()

    code = run_app(worker.app, before=worker.open, beside=[beside])
    return MOVED if code and worker.store.fence.moved else code
