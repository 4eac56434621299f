"""Parts that end together, those included that do not hear the first time."""

from __future__ import annotations

import asyncio

import pytest

from streams import tasks
from streams.tasks import cancelled, until_one_ends


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)


class Deaf:
    """Swallows so many cancellations."""

    def __init__(self, n: int) -> None:
        self.left, self.closed = n, False

    async def run(self) -> None:
        try:
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    if not self.left:
                        raise
                    self.left -= 1
        finally:
            await asyncio.sleep(0)
            self.closed = True


async def failing() -> None:
    await asyncio.sleep(0)
    raise KeyError("the part that failed")


def test_a_swallowed_cancellation_is_said_again() -> None:
    async def main() -> Deaf:
        deaf = Deaf(3)
        task = asyncio.ensure_future(deaf.run())
        await asyncio.sleep(0)
        async with asyncio.timeout(5.0):
            await cancelled(task)
        assert task.cancelled()
        return deaf

    deaf = asyncio.run(main())
    assert deaf.left == 0 and deaf.closed


def test_one_that_fails_ends_all_and_is_told() -> None:
    async def main() -> list[Deaf]:
        deaf = [Deaf(0), Deaf(1)]
        with pytest.raises(KeyError, match="the part that failed"):
            async with asyncio.timeout(5.0):
                await until_one_ends(*(d.run() for d in deaf), failing())
        return deaf

    assert all(d.closed for d in asyncio.run(main()))


def test_what_has_ended_already_is_left_as_it_is() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(failing())
        await asyncio.wait([task])
        await cancelled(task)
        await cancelled()
        assert isinstance(task.exception(), KeyError)

    asyncio.run(main())
