"""An event at which workers stop is found and given up; kills that have nothing to do with it give up none."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, cast

import numpy as np

from infra.settings import Settings
from streams import attempts as module
from streams.attempts import CAREFUL_AFTER, GIVE_UP_AFTER, Attempts
from streams.engine import LogRecord
from streams.fence import FenceLost
from streams.keys import Keys
from streams.state import State, Tenure
from streams.store import Store

SETTINGS = Settings(partitions=1)
POISON = 37
N = 100


class Crash(Exception):
    """The worker is gone."""


class Notes:
    """Stands for Redis: keeps what is written under the fence."""

    def __init__(self) -> None:
        self.keys, self.waiting, self.fence, self.client = Keys(""), contextlib.nullcontext, self, self
        self.values: dict[str, bytes] = {}
        self.n_writes = 0
        self.lost = False

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def write(self, commands: dict[int, list[bytes]], tokens: dict[int, str]) -> None:
        if self.lost:
            raise FenceLost(commands)
        for [packed] in commands.values():
            _, _, _, _, key, _, value, _ = packed.split(b"\r\n")
            self.values[key.decode()] = value
            self.n_writes += 1

    def note(self) -> dict[str, Any]:
        return dict(json.loads(self.values[self.keys.attempts(0)]))


class Life:
    """One worker's tenure of the partition, from its takeover at a checkpoint."""

    def __init__(self, notes: Notes, checkpoint: int = 0) -> None:
        self.state = State(SETTINGS)
        self.attempts = Attempts(self.state, cast(Store, notes))
        self.tenure = Tenure(0, "token", -1, checkpoint, np.full(1, -1, np.int64))
        self.state.tenures[0] = self.tenure
        self.absorbed: list[int] = []
        self.sizes: list[int] = []

    async def begin(self) -> Life:
        await self.attempts.begin(self.tenure)
        return self

    async def take(self, first: int, end: int, poison: int | None = POISON) -> None:
        """One batch, as intake takes it."""
        records = [LogRecord(offset, 0, b"x") for offset in range(first, end)]
        for part in self.attempts.split(self.tenure, list(records)):
            self.sizes.append(len(part))
            for record in await self.attempts.before(self.tenure, part):
                if record.offset == poison:
                    raise Crash
                self.absorbed.append(record.offset)
        await self.attempts.after(self.tenure)

    @property
    def given_up(self) -> list[int]:
        return [json.loads(message.value)["offset"] for message in self.tenure.outgoing]


def live(notes: Notes, checkpoint: int = 0, *, end: int = N, poison: int | None = POISON) -> Life:
    """A life that takes everything up to `end`, or crashes."""
    life = Life(notes, checkpoint)

    async def run() -> None:
        await life.begin()
        with contextlib.suppress(Crash):
            await life.take(checkpoint, end, poison)

    asyncio.run(run())
    return life


def test_the_event_that_kills_is_given_up() -> None:
    notes = Notes()
    lives = [live(notes) for _ in range(CAREFUL_AFTER + GIVE_UP_AFTER + 1)]
    assert [life.sizes[0] for life in lives] == [N] * CAREFUL_AFTER + [1] * (len(lives) - CAREFUL_AFTER)
    assert [life.given_up for life in lives] == [[]] * (len(lives) - 1) + [[POISON]]
    assert lives[-1].absorbed == [offset for offset in range(N) if offset != POISON]
    [letter] = lives[-1].tenure.outgoing
    assert json.loads(letter.value)["reason"] == "crash" and letter.topic == SETTINGS.topic("events.dlq")
    assert lives[-1].state.metrics.events_rejected.labels("crash")._value.get() == 1


def test_after_giving_up_care_ends(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "CAREFUL_EVENTS", 50)
    notes = Notes()
    for _ in range(CAREFUL_AFTER + GIVE_UP_AFTER):
        live(notes)
    life = live(notes)
    assert life.given_up == [POISON] and life.sizes == [1] * 50 + [50]
    assert live(notes, N, end=2 * N).sizes == [N]  # and its successor strides from the start


def test_kills_elsewhere_give_up_nothing() -> None:
    """Kills that hit another event each time, such as a machine that reboots."""
    notes = Notes()
    for k in range(12):
        assert live(notes, poison=10 + k).given_up == []
    assert live(notes, poison=None).absorbed == list(range(N))


def test_progress_starts_the_count_again() -> None:
    notes = Notes()
    for checkpoint in range(8):
        assert live(notes, checkpoint, poison=90).sizes == [N - checkpoint]


def test_a_suspect_that_was_absorbed_is_none() -> None:
    notes = Notes()
    for _ in range(CAREFUL_AFTER + GIVE_UP_AFTER):
        live(notes)
    assert notes.note()["suspect"] == POISON
    life = live(notes, POISON + 1, end=2 * N)
    assert life.given_up == [] and life.sizes == [2 * N - POISON - 1]


def test_workers_that_end_at_rest_do_not_count() -> None:
    notes = Notes()
    for _ in range(9):
        asyncio.run(Life(notes).begin())  # killed before any event came
    assert notes.n_writes == 0 and live(notes, poison=None).sizes == [N]


def test_orderly_ends_do_not_count() -> None:
    notes = Notes()

    async def orderly() -> Life:
        life = await Life(notes).begin()
        await life.take(0, 5, None)
        await life.attempts.end(life.tenure)
        return life

    for _ in range(9):  # none has moved the checkpoint: a list was not out yet each time
        assert asyncio.run(orderly()).sizes == [5]
    assert notes.note()["starts"] == 0


def test_a_kill_between_batches_suspects_nobody() -> None:
    notes = Notes()
    for _ in range(CAREFUL_AFTER):
        live(notes)

    async def careful() -> None:
        life = await Life(notes).begin()
        await life.take(0, 10)
        assert life.sizes == [1] * 10

    for _ in range(5):
        asyncio.run(careful())  # killed after its batch, while it commits
        assert notes.note()["trying"] == notes.note()["suspect"] == -1


def test_one_write_a_start_while_all_is_well() -> None:
    notes = Notes()

    async def run() -> None:
        life = await Life(notes).begin()
        for k in range(10):
            await life.take(10 * k, 10 * k + 10, None)

    asyncio.run(run())
    assert notes.n_writes == 1


def test_a_tenure_that_has_ended_notes_nothing() -> None:
    """The batch goes on to where intake finds it stale; the care that the next tenure takes must not be touched."""
    notes = Notes()

    async def run() -> None:
        life = await Life(notes).begin()
        old, life.tenure = life.tenure, Tenure(0, "other", -1, 0, np.full(1, -1, np.int64))
        del life.state.tenures[0]
        records = [LogRecord(0, 0, b"x")]
        assert await life.attempts.before(old, records) == records and notes.n_writes == 0
        life.state.tenures[0] = life.tenure
        await life.begin()
        assert await life.attempts.before(old, records) == records and notes.n_writes == 0
        await life.take(0, 5, None)
        assert notes.note()["starts"] == 1

    asyncio.run(run())


def test_a_fence_lost_while_noting_is_told() -> None:
    notes, told = Notes(), []
    notes.lost = True

    async def run() -> None:
        life = await Life(notes).begin()
        life.state.lost = told.append
        await life.take(0, 5, None)

    asyncio.run(run())
    assert [sorted(lost.partitions) for lost in told] == [[0]]
