"""What Redis knows: its memory, the workers' signs of life, the checkpoints, and by one walk over all keys how many lists and rows there are."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from infra.settings import Settings

TIMEOUT_S = 5.0
SCAN_CHUNK = 5_000
SCAN_BUDGET_S = 3.0  # about a million keys; what lies beyond is estimated from the part that was seen


@dataclass
class Walk:
    """What a walk over all keys has found."""

    at_s: float = float("-inf")
    lists: int = 0
    rows: int = 0
    estimated: bool = False
    workers: set[bytes] = field(default_factory=set)
    shadows: set[str] = field(default_factory=set)


class RedisSide:
    """One connection, kept between looks."""

    def __init__(self, settings: Settings, count_every_s: float) -> None:
        self._settings, self._count_every_s = settings, count_every_s
        self._client: Any = None
        self._walked = Walk()

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
        name = live.decode().partition(">")[0] if live else "1"  # `old>new` for the moment of a switch
        generation = f"g{name}:"
        if time.monotonic() - self._walked.at_s >= self._count_every_s:
            self._walked = await self._walk(name)
        walk = self._walked
        signs = [json.loads(text) for text in (await client.mget(sorted(walk.workers)) if walk.workers else []) if text]
        pipe = client.pipeline(transaction=False)
        for p in range(settings.partitions):
            pipe.get(settings.key(f"{generation}{{{p}}}:checkpoint"))
            pipe.hlen(settings.key(f"{generation}{{{p}}}:items"))
        answers = await pipe.execute()
        checkpoints = {p: int(offset) for p, text in enumerate(answers[0::2])
                       if text and (offset := json.loads(text).get("offset")) is not None}
        part = {"redis": about, "lists": walk.lists, "rows": walk.rows, "items": sum(answers[1::2]), "counts_estimated": walk.estimated,
                "shadows": sorted(walk.shadows)}
        return part, signs, checkpoints

    async def _walk(self, name: str) -> Walk:
        """Lists, rows, workers and shadows beside the generation of this name; lists and rows estimated if that takes long."""
        client, settings, found = self._client, self._settings, Walk(time.monotonic())
        lists, rows, workers = (settings.key(start).encode() for start in ("rec:", f"g{name}:{{", "workers:"))
        shadow = re.compile(re.escape(settings.key("g")).encode() + rb"([a-z0-9-]+):meta")
        seen = cursor = 0
        while True:
            # beyond the budget only workers are looked for, by the server
            cursor, keys = await client.scan(cursor, count=SCAN_CHUNK, match=workers + b"*" if found.estimated else None)
            for key in keys:
                if key.startswith(workers):
                    found.workers.add(key)
                elif key.startswith(lists):
                    found.lists += 1
                elif key.startswith(rows):
                    found.rows += b"}:u:" in key[:len(rows) + 10]
                elif match := shadow.fullmatch(key):
                    found.shadows.add(match.group(1).decode())
            if cursor == 0:
                found.shadows.discard(name)
                return found
            seen += len(keys)
            if not found.estimated and time.monotonic() - found.at_s > SCAN_BUDGET_S:
                scale = await client.dbsize() / max(1, seen)
                found.lists, found.rows, found.estimated = round(found.lists * scale), round(found.rows * scale), True

    async def close(self) -> None:
        """Close the connection; the next look opens another."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
