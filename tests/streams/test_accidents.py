"""What foreign keys, dead letters that pile up, and a lost server do to the parts of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from infra.settings import Settings
from streams import intake, ownership
from streams.intake import Intake
from streams.keys import Keys
from streams.outbox import Message
from streams.ownership import Ownership
from streams.state import State, Tenure
from streams.sweep import Sweeper

SETTINGS = Settings(partitions=1)
WAIT_S = 5.0


def tenure() -> Tenure:
    return Tenure(0, "token", -1, 0, np.full(1, -1, np.int64))


def test_the_sweep_passes_keys_that_are_not_text() -> None:
    bodies = {b"rec:\xff\xfe": b'{"items":["gone"]}', b"rec:u": b'{"items":["gone"]}', b"rec:v": b'{"items":["\xff"]}'}
    rewritten: list[str] = []

    async def scan(cursor: int, match: str, count: int) -> tuple[int, list[bytes]]:
        return 0, list(bodies) if match.startswith("rec:") else []

    async def read(names: list[bytes]) -> list[bytes]:
        return [bodies[name] for name in names]

    async def rewrite(users: list[str]) -> None:
        rewritten.extend(users)

    store = SimpleNamespace(keys=Keys(""), client=SimpleNamespace(scan=scan), read=read)

    async def run() -> None:
        sweeper = Sweeper(State(SETTINGS), cast(Any, store), cast(Any, None), asyncio.Lock())
        sweeper._rewrite_users = rewrite  # type: ignore[method-assign, assignment]
        await sweeper.sweep({"gone"})

    asyncio.run(run())
    assert rewritten == ["\ufffd\ufffd", "u"]


def test_intake_waits_while_dead_letters_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_OUTGOING", 3)
    state, ours, taken = State(SETTINGS), tenure(), asyncio.Event()
    state.tenures[0] = ours
    ours.outgoing = [Message("t", None, None, b"")] * 4

    def split(*_: Any) -> list[Any]:
        taken.set()
        return []

    async def after(*_: Any) -> None:
        pass

    async def whole(batch: Any) -> AsyncIterator[tuple[list[Any], int]]:
        yield batch.records, 1

    part = SimpleNamespace(split=split, after=after, parts=whole, absorbed=lambda: None, wake=lambda: None)

    async def run() -> None:
        parts = [cast(Any, part)] * 7
        task = asyncio.ensure_future(Intake(state, *parts).absorb(cast(Any, SimpleNamespace(partition=0, records=[None]))))
        await asyncio.sleep(0.1)
        assert not taken.is_set()
        ours.outgoing = []  # a commit cycle has sent them
        await asyncio.wait_for(task, WAIT_S)
        assert taken.is_set()

    asyncio.run(run())


def test_a_worker_cut_off_from_kafka_takes_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "TAKE_AGAIN_S", 0.01)
    state, opened = State(SETTINGS), asyncio.Event()

    async def open_() -> None:
        opened.set()

    store = SimpleNamespace(open=open_)
    app = SimpleNamespace(owns=lambda _: False)  # the group has given them to another meanwhile

    async def run() -> None:
        own = Ownership(state, cast(Any, store), *[cast(Any, None)] * 4)
        own.app = cast(Any, app)
        state.gone("kafka", True)
        task = asyncio.ensure_future(own._recover({0}, 0.0))
        await asyncio.sleep(0.1)
        assert not opened.is_set() and not task.done()
        state.gone("kafka", False)
        await asyncio.wait_for(opened.wait(), WAIT_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
