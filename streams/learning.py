"""Learning in a worker: follows the `lessons` topic, and keeps what was learned so that a worker that starts need not begin anew.

Every worker learns everything, in the order of the log, and so all hold the same. The owner of partition 0 writes it to
Redis from time to time: in pieces, under the one of two names that is not in use, and then the checkpoint that names it. So
what the checkpoint names is always whole, and from one moment: steps read all over the model, so rows of different
moments would be no state that any worker ever had.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing

import xxhash

from streams.fence import FenceLost
from streams.horizon import Horizon
from streams.lessons import HEADER, SECTION, Noted
from streams.shared_logs import NOT_THERE, MadeAnew, Message, SharedLog
from streams.state import State
from streams.store import LearnedCheckpoint, Store

log = logging.getLogger(__name__)

#: Messages learned in one go: some ten thousand lessons, a tenth of a second.
MESSAGES = 8
#: While events lag, learning takes at most this share of a core: lists need the rows first.
SHARE = 0.25
#: A snapshot when so many lessons would have to be learned again, or after so long, but its bytes at a bearable rate.
SNAPSHOT_LESSONS = 200_000
SNAPSHOT_S = 60.0
SNAPSHOT_BYTES_A_S = 4_000_000
#: Nothing to learn for this long: what is not kept yet is kept now.
QUIET_S = 1.0
PIECE_BYTES = 512 * 1024


class LessonFollower:
    """Learns from all of `lessons`."""

    def __init__(self, state: State, store: Store, horizon: Horizon) -> None:
        self._state, self._store = state, store
        lost = "what they taught is lost, and this worker may rank otherwise than those that have read them"
        self._log = SharedLog(state, horizon, "lessons", HEADER, SECTION, lost)
        self._n_drifts = 0
        self._topic_id = ""  # of the log that was learned from
        self._void: LearnedCheckpoint | None = None  # lies in Redis, of no use: of a log that is gone, or unreadable
        self._turn = asyncio.Lock()  # what is learned and what is kept: never half a message

    async def load(self) -> None:
        """What was kept, if it is whole."""
        found = await self._store.load_learned()
        if found is None:
            return
        checkpoint, data = found
        learner = self._state.learner
        if xxhash.xxh3_64_intdigest(data) != checkpoint.checksum or len(checkpoint.highest) != learner.n_partitions:
            log.warning("what was learned lies in Redis damaged: learning again from the beginning of the lessons")
            self._void = checkpoint
            return
        try:
            learner.load(data, checkpoint.offset, checkpoint.highest)
            self._topic_id = checkpoint.topic
        except ValueError as error:
            log.warning("what was learned cannot be read (%s): learning again from the beginning of the lessons", error)
            self._void = checkpoint

    async def run(self) -> None:
        """Learn for ever; from the beginning, if the log was made anew: only what is learned hangs on it, not state."""
        if self._state.settings.learn == "off":
            log.info("learning is off: our events teach nothing, what is learned stays as it was kept, or as other workers teach it")
        while True:
            try:
                await self._run()
            except MadeAnew as error:
                log.warning("%s. Learning anew from what is there", error)
                self._state.metrics.logs_anew.labels("lessons").inc()
                async with self._turn:
                    self._state.learner.forget()
                    self._topic_id, self._void = "", await self._store.learned_checkpoint()

    async def _run(self) -> None:
        state, learner, shared = self._state, self._state.learner, self._log
        async with aclosing(shared.messages(MESSAGES, {0: learner.position}, {self._topic_id})) as arriving:
            async for messages in arriving:
                self._topic_id = shared.topic_id or self._topic_id
                if not messages:
                    continue
                started = time.monotonic()
                await self.learn(messages)
                state.metrics.lessons_lag.set(shared.behind())
                if state.lag():
                    await asyncio.sleep((time.monotonic() - started) * (1 / SHARE - 1))

    async def learn(self, messages: list[Message]) -> None:
        """Learn from these, in a thread: lists go on meanwhile, from vectors that move beneath them."""
        state, learner = self._state, self._state.learner
        async with self._turn:
            with state.metrics.stage.labels("learn").time():
                noted = [part for message in messages for part in self._take(message)]
                work = asyncio.ensure_future(asyncio.to_thread(learner.learn, noted))
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    await work  # a thread cannot be stopped, and must not go on behind our back
                    raise
        metrics = state.metrics
        metrics.lessons_learned.inc(work.result())
        metrics.hit_rate.set(learner.hit_rate.value)
        metrics.drifts.inc(learner.hit_rate.n_drifts - self._n_drifts)
        self._n_drifts = learner.hit_rate.n_drifts

    def _take(self, message: Message) -> list[Noted]:
        learner = self._state.learner
        foreign, noted = learner.n_foreign, []
        if message.true:
            noted = learner.take(message.offset, message.value)
        else:
            learner.pass_over(message.offset, NOT_THERE)
        self._state.metrics.messages_skipped.labels("lessons", "foreign").inc(learner.n_foreign - foreign)
        return noted

    async def run_keeping(self) -> None:
        """Keep for ever, while partition 0 is ours."""
        learner = self._state.learner
        kept_taught, kept, kept_s = learner.n_taught, (self._topic_id, learner.position), time.monotonic()
        position, moved_s = learner.position, time.monotonic()
        tenure: object = None
        while True:
            await asyncio.sleep(QUIET_S / 2)
            now_s = time.monotonic()
            if position != learner.position:
                position, moved_s = learner.position, now_s
            ours = self._state.tenures.get(0)
            if ours is None:
                continue
            there = (self._topic_id, position)
            if there == kept and ours is tenure:
                continue
            n_bytes = learner.n_bytes
            if now_s - kept_s < n_bytes / SNAPSHOT_BYTES_A_S and ours is tenure:
                continue
            due = now_s - kept_s > SNAPSHOT_S or learner.n_taught - kept_taught > SNAPSHOT_LESSONS
            if due or now_s - moved_s > QUIET_S:
                await self.keep()
                kept_taught, kept, kept_s, tenure = learner.n_taught, there, now_s, ours

    async def keep(self) -> None:
        """Write what is learned, if Redis holds less."""
        state, learner, store = self._state, self._state.learner, self._store
        tenure = state.tenures.get(0)
        last = await store.learned_checkpoint()
        if tenure is None or (last is not None and self._counts(last) and last.offset >= learner.position):
            return
        async with self._turn:
            data = await asyncio.to_thread(learner.dump)
            offset, highest, topic = learner.position, tuple(learner.highest.tolist()), self._topic_id
        checksum = await asyncio.to_thread(xxhash.xxh3_64_intdigest, data)
        name = "b" if last is not None and last.name == "a" else "a"
        starts = range(0, len(data), PIECE_BYTES)
        checkpoint = LearnedCheckpoint(offset, highest, name, len(starts), checksum, topic)
        with state.metrics.stage.labels("save_learned").time():
            try:
                for k, start in enumerate(starts):  # cut one by one: half a gigabyte at once would hold the loop
                    piece = bytes(data[start : start + PIECE_BYTES])
                    await store.fence.write({0: [store.save_learned(name, k, piece)]}, {0: tenure.token})
                done = [store.save_learned_checkpoint(checkpoint)]
                if last is not None and last.pieces:  # what nothing names any more
                    done.append(store.drop_learned(last.name, last.pieces))
                await store.fence.write({0: done}, {0: tenure.token})
            except FenceLost as lost:
                state.lost(lost)

    def _counts(self, last: LearnedCheckpoint) -> bool:
        """Whether what lies in Redis is of the log that we learn from, and can be read."""
        return last != self._void and (last.topic == self._topic_id or "" in (last.topic, self._topic_id))
