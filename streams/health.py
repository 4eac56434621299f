"""How a worker tells that it is well: /health/live, /health/ready, /metrics, a sign of life in Redis, the watchdog.

Ready: item rows and attributes are loaded. Live: there is no lag, or there is progress, or we wait for a server that is
gone and say so. Without either the watchdog ends the process, whose restart resumes from the checkpoint. The watchdog
is a thread of its own: a loop that hangs cannot be trusted to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable

from aiohttp import web
from redis.exceptions import ResponseError

from infra.metrics import CONTENT_TYPE
from infra.settings import StreamrecError
from models.marks import CLEAN
from streams.patience import GONE
from streams.pulse import Pulse
from streams.state import State
from streams.store import Store

log = logging.getLogger(__name__)

SIGN_S = 2.0
SIGN_TTL_S = 10
#: What leaving the register may take: a sign that stays goes by itself.
LEAVE_S = 0.5
WATCH_S = 1.0
#: Exit code of a worker that its watchdog ended (EX_SOFTWARE).
STUCK = 70


class PortTaken(StreamrecError):
    """The web port is not free."""


class Health:
    """Serves the pages, signs the register, and watches. `advances` returns numbers that rise with progress."""

    def __init__(self, state: State, store: Store, advances: Callable[[], tuple[int, ...]]) -> None:
        self._state, self._store, self._advances = state, store, advances
        self.ready = False
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.port = 0
        self._started_ms = state.clock_ms()
        self._runner: web.AppRunner | None = None
        self._beat_s = time.monotonic()
        self._progress: tuple[int, ...] = ()
        self._progress_s = time.monotonic()
        self._evicted = 0
        self._pulse = Pulse(state)
        self._stop = threading.Event()

    async def start(self) -> None:
        """Listen; raises `PortTaken`."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        settings = self._state.settings
        try:
            site = web.TCPSite(self._runner, settings.web_host, settings.web_port)
            await site.start()
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {settings.web_host}:{settings.web_port} ({error.strerror}); set STREAMREC_WEB_PORT to"
                " a free port, or to 0 for any"
            ) from error
        self.port = self._runner.addresses[0][1]
        log.info("metrics and health on http://%s:%d", settings.web_host, self.port)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    async def stop(self) -> None:
        """Stop listening and leave the register."""
        self._stop.set()
        with contextlib.suppress(*GONE, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._store.client.delete(self._store.keys.worker(self.id))
        if self._runner is not None:
            await self._runner.cleanup()

    async def run(self) -> None:
        """Sign the register for ever."""
        while True:
            self._observe()
            self._pulse.look()
            try:
                self._pulse.memory(await self._store.client.info("memory"))  # first: a full Redis takes no sign
                sign = json.dumps(self.describe())
                await self._store.client.set(self._store.keys.worker(self.id), sign, ex=SIGN_TTL_S)
                self._state.gone("redis", False)
            except (*GONE, ResponseError):
                self._state.gone("redis", True)
            self._state.gone("kafka", not await self._kafka_answers())
            for _ in range(int(SIGN_S / 0.25)):
                await asyncio.sleep(0.25)
                self._beat_s = time.monotonic()
                self._observe()

    async def _kafka_answers(self) -> bool:
        """Whether any broker accepts a connection: at rest no client of ours would notice that Kafka is gone."""
        for address in self._state.settings.kafka_bootstrap.split(","):
            host, _, port = address.rpartition(":")
            try:
                async with asyncio.timeout(SIGN_S):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except (OSError, ValueError):
                continue
            writer.close()
            return True
        return False

    def _observe(self) -> None:
        """Bring gauges and the watchdog's view up to date."""
        state, metrics = self._state, self._state.metrics
        users = state.users
        lag = self._state.lag_by_partition()
        for p, n in lag.items():
            metrics.lag.labels(str(p)).set(n)
        waiting = sum(len(queue) for queue in users.queues)
        metrics.users_dirty.set(waiting)
        metrics.oldest_dirty.set(self._oldest_dirty_ms() / 1000)
        metrics.rows.set(len(users.table))
        metrics.rows_evicted.inc(users.table.n_evicted - self._evicted)
        self._evicted = users.table.n_evicted
        metrics.items.set(state.items.n_items)
        self._pulse.observe()
        progress = (
            int(users.position.sum()),
            *self._advances(),
            *(t.checkpoint for t in state.tenures.values()),
        )
        idle = not waiting and not sum(lag.values())
        if idle or state.waits_for or progress != self._progress:
            self._progress, self._progress_s = progress, time.monotonic()

    def _oldest_dirty_ms(self) -> int:
        table = self._state.users.table
        since = table.produced_ms[(table.waiting_since != CLEAN) & (table.produced_ms > 0)]
        return max(0, self._state.clock_ms() - int(since.min())) if len(since) else 0

    def describe(self) -> dict[str, object]:
        """The sign of life, as `streamrec status` reads it."""
        state = self._state
        return {
            "id": self.id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "web_port": self.port,
            "partitions": sorted(state.tenures),
            "started_at": self._started_ms,
            "lag": {str(p): n for p, n in self._state.lag_by_partition().items()},
            "rows": len(state.users.table),
            "dirty_users": sum(len(queue) for queue in state.users.queues),
            "oldest_dirty_ms": self._oldest_dirty_ms(),
            "items": state.items.n_items,
            "ready": self.ready,
            "release": state.release,
            "erasures": state.users.erasures.position,
            **self._pulse.describe(),
            "release_refused": state.release_refused and dict(zip(("version", "why"), state.release_refused, strict=True)),
            "state": f"waiting for {' and '.join(state.waits_for)}" if state.waits_for else "running",
        }

    def stuck_for_s(self) -> float:
        """Seconds without progress while there is something to do."""
        now = time.monotonic()
        return max(now - self._progress_s, now - self._beat_s if self.ready else 0.0)

    def _watch(self) -> None:
        limit_s = self._state.settings.watchdog_s
        while not self._stop.wait(WATCH_S):
            if self.ready and self.stuck_for_s() > limit_s:
                log.critical("no progress for %d s although there is work; the worker ends itself", limit_s)
                os._exit(STUCK)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._state.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _live(self, _: web.Request) -> web.Response:
        stuck_s = self.stuck_for_s()
        live = stuck_s <= self._state.settings.watchdog_s
        return web.json_response(
            {"live": live, "waiting_for": self._state.waits_for, "without_progress_s": round(stuck_s, 1)},
            status=200 if live else 503,
        )

    async def _ready(self, _: web.Request) -> web.Response:
        ready = self.ready
        return web.json_response(
            {"ready": ready, "waiting_for": self._state.waits_for, "partitions": sorted(self._state.tenures)},
            status=200 if ready else 503,
        )
