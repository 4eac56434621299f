"""What is to be seen: the backlog as fast as it goes, then the last week live, with the workers watched all the while.

In: a stage that is set. Out: figures, and a board that the screen shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import redis.asyncio

from consumers.demo import stage
from consumers.demo.board import Board
from consumers.demo.gauges import Gauges, flow
from consumers.demo.live import LiveWeek
from consumers.demo.purchases import Basket, Purchases
from consumers.demo.quality import PlainPopularity
from consumers.demo.renewal import Renewal
from consumers.demo.scale import Scale
from consumers.demo.screen import Screen
from consumers.demo.stage import DemoError
from consumers.demo.summary import Figures
from consumers.importer import ImportProgress, run_import
from consumers.producer import Producer
from consumers.progress import ends_now
from consumers.reader import AsyncReader
from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.keys import Keys
from streams.tasks import until_one_ends

LOOK_S = 1.0  # how often the workers are asked how they are
FRAME_S = 0.25
CHECKPOINT_S = 0.1
STUCK_S = 60.0  # without progress
SETTLE_DEADLINE_S = 15.0
BACKLOG, SETTLING, LIVE = "backlog", "settling", "live"


class BrokenOff(Exception):
    """Ends the import's thread when the demo ends before it."""


class _Checkpoint(msgspec.Struct):
    offset: int = 0


class Show:
    """One run of the demo over a stage that is set."""

    def __init__(self, settings: Settings, purchases: Purchases, running: Sequence[WorkerProcess], ports: Sequence[int],
                 board: Board, screen: Screen, folder: Path, scale: Scale, renewal: Renewal | None) -> None:
        self.figures = Figures()
        self.baskets: list[Basket] = []
        self._settings, self._purchases, self._folder, self._scale = settings, purchases, folder, scale
        self._running, self._gauges = list(running), Gauges(ports)
        self._board, self._screen, self._renewal = board, screen, renewal
        self._broken_off = False

    async def run(self) -> None:
        """All of it; ends early where a worker ends, or what watches fails."""
        async with aiohttp.ClientSession() as session:
            self._session = session
            await self._look()
            try:
                await until_one_ends(*self._parts())
            finally:
                self._broken_off = True

    def _parts(self) -> list[Coroutine[Any, Any, None]]:
        return [self._acts(), self._look_for_ever(), self._draw_for_ever()]

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            stage.check_alive(self._running)
            await self._look()

    async def _draw_for_ever(self) -> None:
        while True:
            self._screen.show()
            await asyncio.sleep(FRAME_S)

    async def _look(self) -> None:
        board = self._board
        board.seen(await self._gauges.look(self._session))
        if board.phase == BACKLOG:
            board.done = board.sample.absorbed / max(1, self._purchases.n_backlog)
        if self._renewal is not None and (said := self._renewal.look()):
            self._screen.say(f"release: {said}")

    async def _acts(self) -> None:
        board, figures = self._board, self.figures
        began_s = time.monotonic()
        board.enter(BACKLOG, f"of {self._purchases.n_backlog:,}")
        await self._backlog(began_s)
        figures.seconds["backlog"] = time.monotonic() - began_s
        await self._look()
        figures.backlog = board.sample
        self._screen.say(f"the backlog is worked off after {figures.seconds['backlog']:.1f} s: "
                         f"{self._purchases.n_backlog / figures.seconds['backlog']:,.0f} events/s, all rows and lists in Redis")

        if self._renewal is not None:
            self._screen.say("a release of the Transformer is trained beside what follows, on one thread of the lowest priority")
            self._renewal.start()
        board.enter(SETTLING, "until both workers know all items alike")
        self.baskets = await asyncio.to_thread(self._purchases.live_baskets)
        half_life_ms = self._settings.popularity_half_life_s * 1000.0
        plain = PlainPopularity(*await asyncio.to_thread(self._purchases.bought_before), half_life_ms)
        await self._settled()

        board.enter(LIVE, f"{self._scale.speed_up:,.0f} times as fast as it was")
        self._screen.say(f"the last week, live, at {self._scale.speed_up:,.0f} times its own speed")
        began_s = time.monotonic()
        async with Producer(self._settings) as producer, AsyncReader(self._settings) as reader:
            await self._look()
            board.phase_from = board.sample
            week = LiveWeek(board, producer, reader, plain, self._scale.speed_up)
            await week.play(self.baskets)
        await self._look()
        figures.seconds["live"] = time.monotonic() - began_s
        figures.live, figures.worst_late_s = flow(board.phase_from, board.sample), week.worst_late_s
        await self._release()
        async with redis.asyncio.from_url(self._settings.redis_url, **self._settings.redis_client_args()) as client:
            figures.redis_bytes = int((await client.info("memory"))["used_memory"])

    async def _release(self) -> None:
        """Wait a little for one that is nearly ready: its swap is to be seen."""
        deadline = time.monotonic() + self._scale.patience_s
        while self._renewal is not None and self._renewal.pending and time.monotonic() < deadline:
            await asyncio.sleep(FRAME_S)

    async def _backlog(self, began_s: float) -> None:
        """Send it, and wait until the checkpoints stand at its end: every row and every list lies in Redis."""
        await asyncio.to_thread(run_import, self._settings, self._purchases.backlog, resume=False, home=self._folder,
                                progress=self._sent)
        self.figures.seconds["import"] = time.monotonic() - began_s
        ends = {p: end for p, (end, _) in (await ends_now(self._settings)).items()}
        keys = Keys(self._settings.prefix)
        decode = msgspec.json.Decoder(_Checkpoint).decode
        last, moved_s = -1, time.monotonic()
        async with redis.asyncio.from_url(self._settings.redis_url, **self._settings.redis_client_args()) as client:
            while True:
                texts = await client.mget([keys.checkpoint(p) for p in ends])
                stands = [decode(text).offset if text else 0 for text in texts]
                if all(offset >= end for offset, end in zip(stands, ends.values(), strict=True)):
                    return
                if sum(stands) != last:
                    last, moved_s = sum(stands), time.monotonic()
                elif time.monotonic() - moved_s > STUCK_S:
                    raise DemoError(f"the workers' checkpoints stand at {last:,} of {sum(ends.values()):,} events and have not moved for "
                                    f"{STUCK_S:.0f} s; their logs: {', '.join(str(worker.log_file) for worker in self._running)}")
                await asyncio.sleep(CHECKPOINT_S)

    def _sent(self, progress: ImportProgress) -> None:
        """Called by the import, in its thread."""
        if self._broken_off:
            raise BrokenOff
        self._board.n_sent = progress.accepted

    async def _settled(self) -> None:
        """Wait until nothing more is folded: what users buy after one another, and what is popular, is then known to both."""
        folded, deadline = -1, time.monotonic() + SETTLE_DEADLINE_S
        while folded != self._board.sample.folded and time.monotonic() < deadline:
            folded = self._board.sample.folded
            await asyncio.sleep(2 * LOOK_S)
