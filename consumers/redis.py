"""A client of Redis for commands: it waits so long and no longer, and is closed after them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as aioredis

from infra.settings import Settings

SOCKET_TIMEOUT_S = 10.0


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Any]:
    """A client that returns bytes."""
    client = aioredis.from_url(settings.redis_url, protocol=2, socket_timeout=SOCKET_TIMEOUT_S, socket_connect_timeout=SOCKET_TIMEOUT_S,
                               **settings.redis_client_args())
    try:
        yield client
    finally:
        await client.aclose()
