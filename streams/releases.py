"""Releases in a worker: hears what is announced, loads and verifies it beside the one that is served, and swaps.

Loading runs in a thread; the loop goes on with the old release meanwhile, and the swap is one assignment between two lists.
One release is loaded at a time, and only the newest announcement counts; so there are never more than two in memory. One that is
damaged, missing, or does not fit is refused: a log line, a metric and the sign of life say so, and the old one stays. A store that does
not answer is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar, cast

import numpy as np

from models.recall import Recall
from models.release import BadRelease, read
from streams.announcements import KEY, Announcement, decode
from streams.shared_logs import compacted
from streams.state import State
from streams.tasks import until_one_ends

log = logging.getLogger(__name__)

MESSAGES = 1_000
#: A store that does not answer is asked again after so long, and then ever later.
RETRY_S, RETRY_MOST_S = 1.0, 30.0
#: How often is looked whether the items have outgrown what was indexed.
LOOK_S = 5.0
#: What a worker that starts waits for its first release. After that it begins without, and swaps when it has come.
START_S = 30.0
T = TypeVar("T")


class ReleaseFollower:
    """Serves what is announced. `settled` is set once the first announcement has been dealt with, or there is none."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.settled = asyncio.Event()
        self._wanted: Announcement | None = None
        self._whole = asyncio.Event()  # the topic has been read
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Follow for ever."""
        await until_one_ends(self._listen(), self._serve())

    async def _listen(self) -> None:
        state = self._state
        async with aclosing(compacted(state.settings, state.settings.topic("models"), MESSAGES, lambda: state.waiting("kafka"))) as arriving:
            async for records, whole in arriving:
                said = [record.value for record in records if record.key == KEY]
                if said:
                    self._hear(said[-1])
                if whole:  # before, an older announcement may be all that was heard
                    self._whole.set()

    def _hear(self, value: bytes | None) -> None:
        try:
            self._wanted = decode(value)
        except BadRelease as error:
            self._refuse("", error)
        else:
            self._news.set()

    async def _serve(self) -> None:
        await self._whole.wait()
        done: Announcement | None = None
        pause_s = RETRY_S
        while True:
            self._news.clear()
            wanted, wait_s = self._wanted, LOOK_S
            if wanted is not done or self._outgrown():
                try:
                    await self._change(wanted)
                    done, pause_s = wanted, RETRY_S
                except BadRelease as error:
                    assert wanted is not None
                    self._refuse(wanted.version, error)
                    done, pause_s = wanted, RETRY_S
                except OSError as error:
                    log.warning("the store of releases does not answer, it is asked again in %.0f s: %s", pause_s, error)
                    wait_s, pause_s = pause_s, min(2 * pause_s, RETRY_MOST_S)
            self.settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    def _outgrown(self) -> bool:
        model = self._state.refresher.transformer.model
        return model is not None and model.outgrown

    def _is_served(self, wanted: Announcement) -> bool:
        model = self._state.refresher.transformer.model
        return model is not None and model.version == wanted.version and not model.outgrown

    async def _change(self, wanted: Announcement | None) -> None:
        """Serve this one. Raises BadRelease, OSError; then everything is as before."""
        state, refresher = self._state, self._state.refresher
        if wanted is None:
            refresher.serve(None)
        elif not self._is_served(wanted):  # no name for the old model here: the frame of a failure would keep it in memory
            log.info("loading release %s from %s", wanted.version, wanted.store)
            rows = state.items.rows[: state.items.n_items]
            with state.metrics.stage.labels("load_release").time():
                model = await in_thread(lambda: _load(wanted, rows))
            if self._wanted is not wanted:  # a newer one has been announced meanwhile: this one would be served for a moment
                return
            refresher.serve(model)
        state.release = None if wanted is None else wanted.version
        state.release_refused = None
        state.metrics.release_swaps.inc()
        log.info("lists are made %s", "without a release" if wanted is None else f"with release {wanted.version}")

    def _refuse(self, version: str, error: BadRelease) -> None:
        state = self._state
        state.release_refused = version, str(error)
        state.metrics.releases_refused.inc()
        stays = "no release is served" if state.release is None else f"release {state.release} stays"
        log.error("release %s is refused, %s: %s", version or "?", stays, error)


def _load(wanted: Announcement, item_rows: np.ndarray) -> Recall:
    try:
        model = Recall(read(wanted.store, wanted.version), item_rows)
        model.candidates(np.zeros((1, model.shape.d), np.float32), 1)  # the first call of what is compiled
        return model
    except (BadRelease, OSError) as error:
        error.__context__ = error.__cause__ = None  # their frames hold the arrays, which would be a third model's memory
        raise error.with_traceback(None)


async def in_thread(work: Callable[[], T]) -> T:
    """What `asyncio.to_thread` does, in a thread that does not hold up the end of the process: nothing is lost with it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(T, result))

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = work(), None
        except BaseException as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="release", daemon=True).start()
    return await done
