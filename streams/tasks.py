"""Parts that run beside each other as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def until_one_ends(*parts: Awaitable[object]) -> None:
    """Run all; when one ends, or this is cancelled, cancel the others and wait for them. Raises what the one raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
