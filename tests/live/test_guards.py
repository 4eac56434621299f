"""What each guard is for: the same accident ends as in the engine with it, and differs without it.

The worker's real parts on real servers, driven step by step (`tests.live.parts`), so that each accident happens exactly
where it hurts. A guard is taken out by a patch; the product has no switch for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infra.settings import Settings
from streams.commit import Committer
from streams.fence import Fence
from streams.items import ItemTable
from streams.resp import command
from streams.users import UserSide
from tests.live.equality import Redis, compare, lockstep
from tests.live.load import Events, send
from tests.live.parts import world

World = SimpleNamespace
Accident = Callable[[Settings, World], Awaitable[None]]
USERS, EVENTS = 4, 1_200  # so that a redelivery lies beyond the event ids that a row remembers


class Killed(Exception):
    """Where a worker dies."""


# the accidents

async def redelivery(settings: Settings, w: World) -> None:
    """Rows are written, and the checkpoint behind them is not: the next owner reads their events again."""
    first = await w.parts()
    await first.absorb(EVENTS // 2)
    state = Redis(settings)
    before = [state.client.get(state.keys.checkpoint(p)) for p in range(settings.partitions)]
    await first.drain()
    for p, value in enumerate(before):
        state.client.delete(state.keys.checkpoint(p)) if value is None else state.client.set(state.keys.checkpoint(p), value)
    await (await w.parts()).drain()


async def sent_and_not_written(settings: Settings, w: World) -> None:
    """Interactions are acknowledged and the worker dies before its rows are written: they are sent again."""
    first = await w.parts()

    async def write(_: Any) -> None:
        raise Killed

    first.worker.committer._write = write
    await first.absorb()
    with pytest.raises(Killed):
        await first.commit()
    await (await w.parts()).drain()


async def frozen(settings: Settings, w: World) -> None:
    """A worker stops with rows in hand, another takes over and goes on, the first one wakes and writes."""
    first = await w.parts()
    await first.absorb(50)
    await (await w.parts()).drain()
    for step in (first.commit, first.publish, first.save_items):
        await step()


async def killed_before_lists(settings: Settings, w: World) -> None:
    """Rows are written, and the worker dies before the lists of their users are."""
    first = await w.parts()
    await first.absorb()
    await first.commit()
    await first.fold()
    await first.save_items()
    await (await w.parts()).drain()


async def killed_before_acknowledgement(settings: Settings, w: World) -> None:
    """The worker dies while it sends what its events say about items."""
    first = await w.parts()

    async def send(_: Any) -> None:
        raise Killed

    first.worker.outbox.send = send
    await first.absorb()
    with pytest.raises(Killed):
        await first.commit()
    await (await w.parts()).drain()


# the guards, and how each is taken out

def no_row_guard(patch: pytest.MonkeyPatch) -> None:
    absorb = UserSide.absorb

    def forgetful(self: UserSide, partition: int, decoded: Any, end_offset: int) -> Any:
        self.table.rows["as_of"][decoded.slots] = -1
        return absorb(self, partition, decoded, end_offset)

    patch.setattr(UserSide, "absorb", forgetful)


def no_source_guard(patch: pytest.MonkeyPatch) -> None:
    fold = ItemTable.fold

    def forgetful(self: ItemTable, partition: int, offset: int, value: bytes | None) -> Any:
        self.highest[partition] = -1
        return fold(self, partition, offset, value)

    patch.setattr(ItemTable, "fold", forgetful)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    async def as_expected(self: Fence, owned: list[int]) -> dict[int, bytes | None]:
        """Read the replies of WATCH and MGET, and believe that nothing has changed."""
        await self._reply()
        await self._reply()
        self._watched = frozenset(owned)
        return {p: self._expected(p) for p in owned if p in self._tokens}

    patch.setattr(Fence, "_watch_replies", as_expected)
    patch.setattr(Fence, "_watch_commands", lambda self, owned: [command(b"PING"), command(b"PING")])


def no_low_water_mark(patch: pytest.MonkeyPatch) -> None:
    def nobody_waits(self: Committer) -> np.ndarray:
        return np.full(self._state.settings.partitions, np.iinfo(np.int64).max, np.int64)

    patch.setattr(Committer, "_oldest_waiting", nobody_waits)


def rows_before_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    async def rows_first(self: Committer) -> None:
        cuts, messages = self._cut(list(self._state.tenures.values()))
        await self._write(cuts)
        await self._outbox.send(messages)

    patch.setattr(Committer, "commit", rows_first)


GUARDS: list[tuple[Callable[[pytest.MonkeyPatch], None], Accident]] = [
    (no_row_guard, redelivery),
    (no_source_guard, sent_and_not_written),
    (no_fence, frozen),
    (no_low_water_mark, killed_before_lists),
    (rows_before_acknowledgement, killed_before_acknowledgement),
]


@pytest.mark.parametrize(("take_out", "accident"), GUARDS, ids=[guard.__name__ for guard, _ in GUARDS])
def test_a_guard_makes_the_difference(take_out: Callable[[pytest.MonkeyPatch], None], accident: Accident,
                                      namespace: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    for guarded in (True, False):
        settings = namespace(partitions=2)
        send(settings, Events(settings, seed=11, users=USERS), EVENTS)

        async def run(settings: Settings = settings) -> dict[int, list[Any]]:
            async with world(settings) as w:
                await accident(settings, w)
                return dict(await w.log())

        with monkeypatch.context() as patch:
            if not guarded:
                take_out(patch)
            log = asyncio.run(run())
        with nullcontext() if guarded else pytest.raises(AssertionError, match="differences to the engine"):
            compare(settings, lockstep(settings, log))
