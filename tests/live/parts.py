"""A worker without its app: the real parts on real servers, but nothing happens except what a test calls.

So a crash can be put between any two steps, and two workers can be interleaved at will. `Parts` is one worker; `LogReader`
follows a topic as Faust and the followers do. A worker "dies" by being dropped: nothing of it is flushed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.settings import Settings
from streams.fetching import Batch
from streams.shared_logs import Message
from streams.worker import Worker


class LogReader:
    """All records of one topic so far, by partition; an offset is a place in its list (nothing is ever removed)."""

    def __init__(self, settings: Settings, name: str) -> None:
        n = 1 if name == "lessons" else settings.partitions
        self.records: dict[int, list[Any]] = {p: [] for p in range(n)}
        self._tps = [TopicPartition(settings.topic(name), p) for p in range(n)]
        self._consumer = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="earliest", **settings.kafka_client_args())

    async def start(self) -> None:
        """Connect."""
        await self._consumer.start()
        self._consumer.assign(self._tps)

    async def refresh(self) -> None:
        """Read up to where the log ends now."""
        ends = await self._consumer.end_offsets(self._tps)
        while any(len(self.records[tp.partition]) < end for tp, end in ends.items()):
            for tp, found in (await self._consumer.getmany(timeout_ms=200)).items():
                self.records[tp.partition] += found

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()


class _NoApp:
    """Stands for the Faust app: no partition comes back by itself."""

    def owns(self, partition: int) -> bool:
        return False

    def make_stale(self, partitions: Iterable[int]) -> None:
        """Nothing is fetched here that could be stale."""

    def fail(self, reason: BaseException) -> None:
        raise reason


class Parts:
    """One worker, driven by hand. Steps may raise what a test has put in their way."""

    def __init__(self, settings: Settings, events: LogReader, interactions: LogReader) -> None:
        self.worker = worker = Worker(settings)
        self.settings, self.state = settings, worker.state
        self._events, self._interactions = events, interactions
        self._at: dict[int, int] = {}
        worker.ownership.app = _NoApp()  # type: ignore[assignment]
        worker.state.log_end = lambda _: None

    async def open(self, partitions: Iterable[int] | None = None) -> Parts:
        """Load, and take these partitions (all of them) over."""
        await self.worker.store.open()
        await self.worker.outbox.start()
        await self.worker.horizon.start()
        await self.worker.items.load()
        await self.assign(range(self.settings.partitions) if partitions is None else partitions)
        return self

    async def assign(self, partitions: Iterable[int]) -> None:
        """Become the owner of these, and read them from where their rows stand."""
        self._at |= await self.worker.ownership.assign(set(partitions))

    async def absorb(self, most: int | None = None, *, batch: int = 100) -> None:
        """Absorb what the log holds of our partitions, `most` events of each."""
        await self._events.refresh()
        for p in list(self._at):
            records = self._events.records[p][self._at[p] :][:most]
            for start in range(0, len(records), batch):
                if p not in self.state.tenures:
                    break
                part = records[start : start + batch]
                await self.worker.intake.absorb(Batch(p, part, 0, part[0].offset, part[-1].offset + 1))
                self._at[p] = part[-1].offset + 1

    async def publish(self) -> None:
        """Publish the lists of all who wait."""
        while chunk := self.worker.publisher._take():
            await self.worker.publisher.publish(chunk)

    async def commit(self) -> None:
        """One commit cycle."""
        await self.worker.committer.commit()

    async def fold(self) -> None:
        """Fold what the log of interactions holds."""
        await self._interactions.refresh()
        position = self.state.items.position
        for p, records in self._interactions.records.items():
            for record in records[int(position[p]) :]:
                self.worker.items.fold(Message(p, record.offset, record.value))

    async def save_items(self) -> None:
        """Write item rows."""
        await self.worker.keeper.save()

    async def drain(self) -> None:
        """All of it until nothing is left, moved events included."""
        while True:
            for step in (self.absorb, self.publish, self.commit, self.commit, self.fold, self.save_items):
                await step()
            await self._events.refresh()
            ends = {p: len(records) for p, records in self._events.records.items()}
            if all(tenure.checkpoint == ends[p] for p, tenure in self.state.tenures.items()):
                return

    async def die(self) -> None:
        """Close the connections; what was not written is lost, as by a kill."""
        await self.worker.ownership.close()
        await self.worker.outbox.stop()
        await self.worker.horizon.stop()
        await self.worker.store.close()


@contextlib.asynccontextmanager
async def world(settings: Settings) -> AsyncIterator[SimpleNamespace]:
    """The logs of a system, and `parts()` that makes workers on them; all are closed at the end.

    `log()` is what the lockstep engine is to be fed with.
    """
    events, interactions = LogReader(settings, "events"), LogReader(settings, "interactions")
    made: list[Parts] = []

    async def parts(partitions: Iterable[int] | None = None) -> Parts:
        made.append(Parts(settings, events, interactions))
        return await made[-1].open(partitions)

    async def log() -> Mapping[int, list[Any]]:
        await events.refresh()
        return events.records

    await asyncio.gather(events.start(), interactions.start())
    try:
        yield SimpleNamespace(parts=parts, log=log)
    finally:
        await asyncio.gather(*[one.die() for one in made], events.stop(), interactions.stop(), return_exceptions=True)
