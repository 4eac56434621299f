"""The trainer: keeps the event log, and trains when there is a reason to.

In: settings. Out: the event log on disk, releases in the store, announcements on `models`. `serve` runs until it is told to stop, `train_once`
does one training. Both wait while another trainer is at work, and go on with a training that was broken off.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from aiokafka.errors import KafkaError

from consumers.erasing import read_erasures
from consumers.event_log import Follower, LogBusy, LogWriter
from consumers.event_log.writing import NoRoom
from consumers.trainer.configs import configs
from consumers.trainer.judging import Verdict
from consumers.trainer.learning import Report, TrainerError, check_packages
from consumers.lease import Lease
from consumers.trainer.metrics import TrainerMetrics
from consumers.trainer.surroundings import LiveSystem
from consumers.trainer.training import Training
from consumers.trainer.triggers import Circumstances, DriftWatch, reason_to_train
from consumers.trainer.window import TooLittle
from infra.settings import Settings
from models.release import BadRelease
from streams.erasures import Erasures
from streams.events import rating_scale

log = logging.getLogger(__name__)

BUSY_S = 2.0  # between two looks at a log that another process writes
LOOK_S = 1.0  # between two looks for a reason to train
AGAIN_S = 60.0  # before a step that failed is tried again: a store or a disk needs somebody
COMPACT_S = 3_600.0
COMPACT_ROWS = 2_000_000  # a compaction has those of one partition in memory

T = TypeVar("T")
Teller = Callable[[Report], None]


class Trainer:
    """One trainer; `tell` hears where a training stands, in the thread of the training."""

    def __init__(self, settings: Settings, tell: Teller | None = None) -> None:
        self.settings = settings
        self.metrics = TrainerMetrics()
        self._tell = tell
        self._stopping = False
        self._lease = Lease(settings)
        self.training = Training(settings, LiveSystem(settings), report=self._told, stop=lambda: self._stopping, turn=self._turn)
        self._drifts_before = 0

    def _told(self, report: Report) -> None:
        self.metrics.told(report)
        if self._tell is not None:
            self._tell(report)

    def _turn(self) -> None:
        """In the thread of a training."""
        while not self._lease.held and not self._stopping:
            time.sleep(LOOK_S)

    async def train_once(self, reason: str = "by hand") -> tuple[str, Verdict]:
        """Read what the topic holds, train, judge, release. Raises TooLittle, TrainerError, and what servers and stores raise."""
        check_packages()
        configs(self.settings, seed=0)  # a wrong setting is said at once
        with await self._log() as writer:
            async with self._lease as lease:
                async with Follower(self.settings, writer) as follower:
                    self._told(Report("reading Kafka"))
                    while not await follower.catch_up(COMPACT_ROWS):
                        await self._compacted(writer)
                await self._compacted(writer)
                await lease.wait()
                return await self._in_thread(lambda: self._train(reason, writer))

    async def serve(self) -> None:
        """Until cancelled."""
        check_packages()
        configs(self.settings, seed=0)  # a wrong setting is said at once
        self.metrics.serve(self.settings)
        with await self._log() as writer:
            async with self._lease as lease, Follower(self.settings, writer, flush_s=self.settings.train_log_flush_s) as follower:
                drifts = DriftWatch(self.settings)
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(follower.run())
                        tasks.create_task(drifts.run())
                        tasks.create_task(self._keep_compact(writer))
                        tasks.create_task(self._show(follower, lease, drifts))
                        tasks.create_task(self._train_when_due(writer, lease, drifts))
                except BaseExceptionGroup as group:  # the first of them ended the others
                    raise group.exceptions[0] from None
                finally:
                    with suppress(NoRoom):
                        writer.flush()

    async def _log(self) -> LogWriter:
        said = ""
        while True:
            try:
                writer = LogWriter(self.settings.trainer_folder() / "log", topic=self.settings.topic("events"), partitions=self.settings.partitions,
                                   scale=rating_scale(self.settings), erasures=Erasures(self.settings.erasure_key))
                break
            except LogBusy as busy:
                if str(busy) != said:
                    said = str(busy)
                    log.warning("%s", said)
                self.metrics.waiting.set(1)
            await asyncio.sleep(BUSY_S)
        await read_erasures(self.settings, writer.erasures)  # before any event of theirs is read
        return writer

    async def _compacted(self, writer: LogWriter) -> None:
        """Without those who were erased up to now."""
        await read_erasures(self.settings, writer.erasures)
        await self._in_thread(lambda: self._compact(writer))

    def _compact(self, writer: LogWriter) -> None:
        days = self.settings.train_log_days
        done = writer.compact(retention_days=None if days < 0 else days)
        if done.forgotten:
            log.info("event log: users were erased, %d files are written without them", done.forgotten)
        if done.rows or done.removed:
            log.info("event log: %s events moved into their days, %d files written, %d removed", f"{done.rows:,}", done.written, done.removed)

    async def _keep_compact(self, writer: LogWriter) -> None:
        while True:
            began, before = time.monotonic(), writer.n_added
            while time.monotonic() - began < COMPACT_S and writer.n_added - before < COMPACT_ROWS:
                await asyncio.sleep(LOOK_S)
            try:
                await self._compacted(writer)
            except (NoRoom, KafkaError) as error:
                log.error("the event log is not compacted now: %s", error if str(error) else repr(error))

    async def _show(self, follower: Follower, lease: Lease, drifts: DriftWatch) -> None:
        n_read = 0
        while True:
            self.metrics.events.inc(follower.n_read - n_read)
            n_read = follower.n_read
            self.metrics.log_lag.set(follower.lag)
            self.metrics.no_room.set(follower.no_room)
            self.metrics.waiting.set(not lease.held)
            self.metrics.drifts.set(drifts.n_drifts - self._drifts_before)
            await asyncio.sleep(LOOK_S)

    async def _train_when_due(self, writer: LogWriter, lease: Lease, drifts: DriftWatch) -> None:
        said, not_before = "", 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            if not lease.held or time.monotonic() < not_before:
                continue
            reason = "go on" if self.training.begun else self._reason(writer, drifts)
            if reason is None:
                continue
            try:
                writer.flush()
                await self._compacted(writer)
                self._drifts_before = drifts.n_drifts
                await self._in_thread(lambda: self._train(reason, writer))
                said = ""
            except (TooLittle, TrainerError, NoRoom, BadRelease, OSError, KafkaError) as error:
                not_before = time.monotonic() + AGAIN_S
                if isinstance(error, TrainerError):
                    self.metrics.trainings.labels("failed").inc()
                    not_before += max(self.settings.train_every_s, AGAIN_S)
                if type(error).__name__ != said:
                    said = type(error).__name__
                    log.warning("%s (tried again every %.0f s)", error if str(error) else repr(error), AGAIN_S)
            finally:
                self.metrics.training.set(0)

    def _reason(self, writer: LogWriter, drifts: DriftWatch) -> str | None:
        last = self.training.last()
        before = sum(last.ends.values()) if last else 0
        return reason_to_train(self.settings, Circumstances(
            time.time_ns() // 1_000_000, last.started_ms if last else None, sum(writer.next.values()) - before,
            drifts.n_drifts - self._drifts_before))

    def _train(self, reason: str, writer: LogWriter) -> tuple[str, Verdict]:
        erased, note = writer.erasures.digest, self.training.job / "erased"
        if self.training.begun and (note.read_text() if note.exists() else "") != erased:
            log.info("the training that was broken off begins anew: users were erased since")
            shutil.rmtree(self.training.job)
        if not self.training.begun:
            self.training.begin(reason)
            note.write_text(erased)
        done = self.training.run()
        self.metrics.judged(done[1])
        return done

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """In a thread, which is told to stop and waited for when we are cancelled: it must not go on behind our back."""
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._stopping = True
            with suppress(Exception):
                await task
            raise
