"""What Redis knows: its memory, how many lists and rows there are, the workers' signs of life, the checkpoints."""

from __future__ import annotations

import json
import time
from typing import Any

from infra.settings import Settings

TIMEOUT_S = 5.0
SCAN_CHUNK = 5_000
SCAN_BUDGET_S = 3.0  # about a million keys; what lies beyond is estimated from the part that was seen


class RedisSide:
    """One connection, kept between looks."""

    def __init__(self, settings: Settings, count_every_s: float) -> None:
        self._settings, self._count_every_s = settings, count_every_s
        self._client: Any = None
        self._counted_s, self._counts = float("-inf"), (0, 0, False)

    async def look(self) -> tuple[dict[str, Any], list[dict[str, Any]], dict[int, int]]:
        """(part of the report, signs of life, offset of the checkpoint by partition)."""
        settings = self._settings
        if self._client is None:
            import redis.asyncio

            args = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, **settings.redis_client_args()}
            self._client = redis.asyncio.from_url(settings.redis_url, **args)
        client = self._client
        info = await client.info()
        about = {"version": info["redis_version"], "memory_bytes": info["used_memory"], "memory_limit_bytes": info.get("maxmemory", 0),
                 "keys": await client.dbsize()}
        live = await client.get(settings.key("live"))
        generation = f"g{live.decode() if live else 1}:"
        names = [name async for name in client.scan_iter(match=settings.key("workers:").encode() + b"*", count=SCAN_CHUNK)]
        signs = [json.loads(text) for text in (await client.mget(sorted(set(names))) if names else []) if text]
        if time.monotonic() - self._counted_s >= self._count_every_s:
            self._counts, self._counted_s = await self._count(generation), time.monotonic()
        lists, rows, estimated = self._counts
        pipe = client.pipeline(transaction=False)
        for p in range(settings.partitions):
            pipe.get(settings.key(f"{generation}{{{p}}}:checkpoint"))
            pipe.hlen(settings.key(f"{generation}{{{p}}}:items"))
        answers = await pipe.execute()
        checkpoints = {p: int(offset) for p, text in enumerate(answers[0::2])
                       if text and (offset := json.loads(text).get("offset")) is not None}
        part = {"redis": about, "lists": lists, "rows": rows, "items": sum(answers[1::2]), "counts_estimated": estimated}
        return part, signs, checkpoints

    async def _count(self, generation: str) -> tuple[int, int, bool]:
        """Lists and user rows by one walk over the keys; estimated if that takes long."""
        client, settings = self._client, self._settings
        list_prefix, row_prefix = settings.key("rec:").encode(), settings.key(generation + "{").encode()
        lists = rows = seen = cursor = 0
        deadline = time.monotonic() + SCAN_BUDGET_S
        while True:
            cursor, keys = await client.scan(cursor, count=SCAN_CHUNK)
            seen += len(keys)
            lists += sum(key.startswith(list_prefix) for key in keys)
            rows += sum(key.startswith(row_prefix) and b"}:u:" in key[:len(row_prefix) + 10] for key in keys)
            if cursor == 0:
                return lists, rows, False
            if time.monotonic() > deadline:
                scale = await client.dbsize() / max(1, seen)
                return round(lists * scale), round(rows * scale), True

    async def close(self) -> None:
        """Close the connection; the next look opens another."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
