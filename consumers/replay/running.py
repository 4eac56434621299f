"""Workers of a shadow, until they have read what they shall read, or have caught up with the log.

In: a generation that is there. Its workers are the ordinary ones, as processes of their own; this one starts them, starts them again
where they end (as whoever runs live workers does), and looks at their checkpoints. Nothing else knows how far they are, so it can be
killed and begun again at any time, and more workers may run elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumers.replay.places import NothingBetween, Place, stretch_of
from consumers.replay.shadows import ShadowError, checkpoints
from consumers.replay.source import Chosen, still_needed
from infra.settings import Settings, stack_home
from infra.stack import WorkerProcess
from streams.generations import Generation
from streams.keys import Keys

LOOK_S = 0.25
#: A worker that gets nowhere is started so often: an event that stops it is given up at the fifth stop.
MOST_STARTS = 7
#: Caught up: where the log ended so long ago has been read.
BEHIND_S = 3.0
STOP_S = 10.0


@dataclass
class Progress:
    """How far a replay is. Events count from the generation's start; `until` moves while it catches up with a log that grows."""

    position: int
    until: int
    events_a_s: float = 0.0
    doing: str = "events"  # then items, lessons

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left, as it goes now."""
        return (self.until - self.position) / self.events_a_s if self.events_a_s > 0 else None


Tell = Callable[[Progress], None]


@dataclass
class _Pace:
    """Events a second over the last ten seconds."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    def now(self, position: int) -> float:
        self.seen = [*self.seen[-40:], (time.monotonic(), position)]
        (began_s, first), (ended_s, last) = self.seen[0], self.seen[-1]
        return (last - first) / (ended_s - began_s) if ended_s > began_s else 0.0


class Workers:
    """Processes of a shadow's workers; started again where they end, but not for ever without progress."""

    def __init__(self, settings: Settings, n: int) -> None:
        self._settings = replace(settings, web_port=0)  # the port that is set is the live worker's
        self._folder = stack_home() / "replay" / settings.generation
        self._starts, self._position = 0, -1
        self._all = [self._start(k) for k in range(n)]

    def _start(self, k: int) -> WorkerProcess:
        return WorkerProcess(self._settings, log_file=self._folder / f"worker{k + 1}.log")

    def look(self, position: int) -> None:
        """Start again what has ended; raises `ShadowError` where that is of no use."""
        if position != self._position:
            self._position, self._starts = position, 0
        for k, worker in enumerate(self._all):
            if worker.alive:
                continue
            said = worker.log[-1500:].strip()
            self._starts += 1
            if self._starts > MOST_STARTS or "is live now" in said or "there is no generation" in said:
                raise ShadowError(f"a worker of generation {self._settings.generation} ended with code {worker.exit_code}; its log "
                                  f"({worker.log_file}) ends: {said}")
            self._all[k] = self._start(k)

    def end(self) -> None:
        """In order, all at once."""
        for worker in self._all:
            if worker.alive:
                os.kill(worker.pid, signal.SIGTERM)
        for worker in self._all:
            worker.stop(STOP_S)


@contextlib.contextmanager
def workers(settings: Settings, n: int) -> Iterator[Workers]:
    """So many workers, ended whatever happens."""
    running = Workers(settings, n)
    try:
        yield running
    finally:
        running.end()


class Log:
    """Where topics end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = AIOKafkaConsumer(enable_auto_commit=False, **settings.kafka_client_args())

    async def __aenter__(self) -> Log:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def ends(self, name: str) -> list[int]:
        """End of each partition."""
        n = 1 if name == "lessons" else self._settings.partitions
        tps = [TopicPartition(self._settings.topic(name), p) for p in range(n)]
        found = await self._consumer.end_offsets(tps)
        return [found[tp] for tp in tps]


async def run(client: Any, settings: Settings, generation: Generation, n: int, tell: Tell, chosen: Chosen | None = None) -> None:
    """Until the generation's stretch is read, and all that it said of items and taught. `settings`: the generation's; chosen: the events
    of a stretch of event time, which are those that count then."""
    assert generation.until is not None
    async with Log(settings) as log:
        with workers(settings, n) as running:
            await _until(client, settings, generation, generation.until, running, tell, chosen)
            for name in ("interactions", "lessons"):
                ends, pace = await log.ends(name), _Pace()
                while not _there(at := await _kept(client, settings, name, len(ends)), ends):
                    running.look(sum(at))
                    tell(Progress(sum(at), sum(ends), pace.now(sum(at)), "items" if name == "interactions" else name))
                    await asyncio.sleep(LOOK_S)


async def catch_up(client: Any, settings: Settings, generation: Generation, n: int, tell: Tell) -> None:
    """Until the generation is where the log ended some seconds ago."""
    with workers(settings, n) as running:
        while True:
            began_s = time.monotonic()
            at = await checkpoints(client, settings, settings.generation, generation)
            try:
                source = await still_needed(settings, generation.filed, at)
                begins, ends = await stretch_of(settings, Place(offsets=dict(enumerate(at))), Place(), source)
            except NothingBetween:
                return
            # an empty partition begins where it ends, and a checkpoint gets there with the next event only
            ends = [min(reached, end) if begin == end else end for reached, begin, end in zip(at, begins, ends, strict=True)]
            await _until(client, settings, generation, ends, running, tell)
            if time.monotonic() - began_s < BEHIND_S:
                return


async def _until(client: Any, settings: Settings, generation: Generation, until: Sequence[int], running: Workers, tell: Tell,
                 chosen: Chosen | None = None) -> None:
    start, pace = generation.start or [0] * len(until), _Pace()
    while True:
        at = await checkpoints(client, settings, settings.generation, generation)
        running.look(sum(at))
        position, total = sum(min(reached, end) for reached, end in zip(at, until, strict=True)) - sum(start), sum(until) - sum(start)
        if chosen is not None:
            position, total = chosen.below(at), sum(chosen.n)
        tell(Progress(position, total, pace.now(position)))
        if _there(at, until):
            return
        await asyncio.sleep(LOOK_S)


def _there(at: Sequence[int], ends: Sequence[int]) -> bool:
    return all(reached >= end for reached, end in zip(at, ends, strict=True))


async def _kept(client: Any, settings: Settings, name: str, n: int) -> list[int]:
    """Up to where Redis holds what was made of a topic of the generation's own."""
    keys = Keys(settings.prefix, settings.generation)
    names = [keys.items_checkpoint(p) for p in range(n)] if name == "interactions" else [keys.learned_checkpoint]
    return [0 if value is None else msgspec.json.decode(value)["offset"] for value in await client.mget(names)]
