"""Parts that run beside each other as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


#: A part that was cancelled may close its connections meanwhile.
CANCEL_AGAIN_S = 2.0


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel these and wait until they have ended, however they do.

    Said again to those that go on: libraries swallow a cancellation here and there (Python 3.11's `asyncio.wait_for` where it comes
    as the result does, which is why we use `asyncio.timeout`), and whoever waited for such a task would wait for ever.
    """
    going = {task for task in tasks if not task.done()}
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)  # so that no exception is left unlooked at


async def until_one_ends(*parts: Awaitable[object]) -> None:
    """Run all; when one ends, or this is cancelled, cancel the others and wait for them. Raises what the one raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancelled(*tasks)
