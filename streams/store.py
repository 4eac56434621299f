"""Rows, checkpoints and lists in Redis: what is read from it, and the commands by which it is written.

Reading waits until Redis is there and never raises for a Redis that is gone. Writing goes through the fence
(`streams.fence`). The order within a write is the order that crash safety needs: rows first, the checkpoint last.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis.asyncio as aioredis
import redis.exceptions

from infra.settings import Settings
from streams.fence import Fence
from streams.generations import Generation, LiveMoved, RefusedRedis, admitted, open_generation
from streams.keys import Keys
from streams.patience import until_there
from streams.resp import command, set_expiring
from streams.user_table import is_blank

log = logging.getLogger(__name__)
#: A Redis that accepts connections but does not answer for this long counts as gone.
SOCKET_TIMEOUT_S = 10.0
#: Of checkpoints, whatever they are of.
VERSION = 1
#: Fields in one HSET or HMGET of item rows.
FIELDS = 200


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where absorb goes on: every event of the partition before `offset` is in rows, lists and interactions.

    `token` is that of the fence; `origins` (n,) is, per events partition, the highest offset that came here as a copy before `offset`; `shown` the
    highest offset from which anything was published, -1 for none.
    """

    token: str
    offset: int
    origins: tuple[int, ...] | None
    shown: int


@dataclass(frozen=True, slots=True)
class ItemsCheckpoint:
    """Up to where a partition's item rows hold the interactions log, and the highest source per events partition.

    `topic` is that log's id: one made anew under the same name has another. "": not known.
    """

    offset: int
    highest: tuple[int, ...]
    clock_ms: int
    topic: str = ""


@dataclass(frozen=True, slots=True)
class LearnedCheckpoint:
    """Up to where what was learned holds the lessons, the highest source per events partition, and where it lies."""

    offset: int
    highest: tuple[int, ...]
    name: str
    pieces: int
    checksum: int  # xxh3 of all pieces
    topic: str = ""  # id of the log of lessons


class Store:
    """State in Redis under one prefix and generation."""

    def __init__(self, settings: Settings, waiting: Callable[[], AbstractContextManager[Any]]) -> None:
        self.settings = settings
        self.waiting = waiting
        #: replies are bytes; redis-py's types cannot say so, hence Any
        self.client: Any = aioredis.from_url(
            settings.redis_url,
            protocol=2,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            **settings.redis_client_args(),
        )
        self.keys = Keys(settings.prefix)
        self.generation: Generation | None = None  # what `open` has found
        self.fence = Fence(self.client, self.keys, waiting)
        self._row_ttl = b"%d" % settings.retention_s
        self._list_ttl = b"%d" % settings.list_ttl_s

    async def open(self) -> None:
        """Check that Redis will do and find the generation; raises `RefusedRedis`, and `LiveMoved` where it is not what it was."""

        async def check() -> None:
            try:
                await check_all()
            except redis.exceptions.AuthenticationError as error:  # a ConnectionError to redis-py: would be waited for
                raise RefusedRedis(
                    f"Redis refused user or password ({error}); see STREAMREC_REDIS_USER and STREAMREC_REDIS_PASSWORD"
                ) from error

        async def check_all() -> None:
            if (await self.client.info("cluster")).get("cluster_enabled"):
                raise RefusedRedis(
                    "this is a Redis Cluster; a worker's transactions span partitions, so it needs one Redis or Valkey"
                    " (replicas are fine). Readers may read from a cluster"
                )
            memory = await self.client.info("memory")
            policy = memory.get("maxmemory_policy", "noeviction")
            if policy != "noeviction":
                raise RefusedRedis(
                    f"Redis has maxmemory-policy {policy}, which throws rows away when it is full; set it to"
                    " noeviction (redis-cli CONFIG SET maxmemory-policy noeviction)"
                )
            known = None if self.generation is None else (self.keys, self.generation)
            try:
                self.keys, self.generation = await open_generation(self.client, self.settings, known)
            except LiveMoved:
                self.fence.moved = True
                raise
            self.fence.keys = self.keys

        await until_there(check, self.waiting)

    async def takeover(self, partitions: Iterable[int]) -> dict[int, Checkpoint]:
        """Take the fences, and only then read where the last owner stood. Raises `RefusedRedis` where this worker may not build on that."""
        wanted = sorted(partitions)
        while True:
            tokens = await self.fence.take(wanted)
            # looked at behind the fence: who empties Redis, or puts a backup back, after it has taken the fence away
            if await until_there(lambda: admitted(self.client, self.keys), self.waiting):
                break
            await self.open()

        async def read() -> dict[int, Checkpoint]:
            names = [name for p in wanted for name in (self.keys.checkpoint(p), self.keys.shown(p))]
            values = await self.client.mget(names) if names else []
            start = self.generation.start if self.generation is not None else []
            return {
                p: _checkpoint(tokens[p], values[2 * i], values[2 * i + 1], start[p] if start else 0)
                for i, p in enumerate(wanted)
            }

        return await until_there(read, self.waiting)

    async def load_users(self, partition: int, users: Sequence[str]) -> list[bytes | None]:
        """Rows of users, None for those that have none."""
        if not users:
            return []
        names = [self.keys.user(partition, user) for user in users]
        return await until_there(lambda: self.client.mget(names), self.waiting)

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Values of any keys."""
        if not names:
            return []
        return await until_there(lambda: self.client.mget(names), self.waiting)

    async def load_items(self, partition: int) -> tuple[ItemsCheckpoint | None, list[bytes]]:
        """Checkpoint and rows of one partition's items; rows may be newer than the checkpoint, never older."""

        async def read() -> tuple[ItemsCheckpoint | None, list[bytes]]:
            checkpoint = await self.items_checkpoint(partition)
            if checkpoint is None:  # rows without one are of a write that was cut off: fold from the beginning
                return None, []
            rows: list[bytes] = []
            cursor: int | None = None
            while cursor != 0:
                cursor, found = await self.client.hscan(self.keys.items(partition), cursor or 0, count=2_000)
                rows.extend(found.values())
            return checkpoint, rows

        return await until_there(read, self.waiting)

    async def items_checkpoint(self, partition: int) -> ItemsCheckpoint | None:
        """What the keeper of a partition's item rows noted last."""
        value = await until_there(lambda: self.client.get(self.keys.items_checkpoint(partition)), self.waiting)
        if value is None:
            return None
        found = _versioned(value, "items checkpoint", "offset", "highest", "clock_ms")
        return ItemsCheckpoint(found["offset"], tuple(found["highest"]), found["clock_ms"], found.get("topic", ""))

    async def load_learned(self) -> tuple[LearnedCheckpoint, bytes] | None:
        """What was learned, as the owner of partition 0 kept it last; missing pieces are left out."""
        while (checkpoint := await self.learned_checkpoint()) is not None:
            names = [self.keys.learned(checkpoint.name, k) for k in range(checkpoint.pieces)]
            pieces = [(await self.read([name.encode()]))[0] for name in names]
            # an owner may have written the next but one meanwhile, over the pieces that we read
            if await self.learned_checkpoint() == checkpoint:
                return checkpoint, b"".join(piece or b"" for piece in pieces)
        return None

    async def learned_checkpoint(self) -> LearnedCheckpoint | None:
        """Where what was learned lies, None where there is none."""
        value = await until_there(lambda: self.client.get(self.keys.learned_checkpoint), self.waiting)
        if value is None:
            return None
        found = _versioned(value, "checkpoint of what was learned", "offset", "highest", "name", "pieces", "checksum")
        return LearnedCheckpoint(
            found["offset"],
            tuple(found["highest"]),
            found["name"],
            found["pieces"],
            found["checksum"],
            found.get("topic", ""),
        )

    def save_learned(self, name: str, piece: int, data: bytes) -> bytes:
        """Command that writes one piece of what was learned."""
        return command(b"SET", self.keys.learned(name, piece).encode(), data)

    def save_learned_checkpoint(self, checkpoint: LearnedCheckpoint) -> bytes:
        """Command that makes the pieces under a name the ones that count."""
        body = {
            "v": VERSION,
            "offset": checkpoint.offset,
            "highest": list(checkpoint.highest),
            "name": checkpoint.name,
            "pieces": checkpoint.pieces,
            "checksum": checkpoint.checksum,
            "topic": checkpoint.topic,
        }
        return command(b"SET", self.keys.learned_checkpoint.encode(), json.dumps(body).encode())

    def drop_learned(self, name: str, pieces: int) -> bytes:
        """Command that removes pieces that no checkpoint names."""
        return command(b"UNLINK", *(self.keys.learned(name, k).encode() for k in range(pieces)))

    def save_users(self, partition: int, users: Sequence[str], rows: np.ndarray) -> list[bytes]:
        """Commands that write rows (n,) USER_ROW."""
        start = self.keys.user(partition, "").encode()
        ttl, size, data = self._row_ttl, rows.dtype.itemsize, rows.tobytes()
        commands = [
            set_expiring(start + user.encode(), data[k * size : (k + 1) * size], ttl) for k, user in enumerate(users)
        ]
        for k in np.flatnonzero(is_blank(rows)).tolist():  # erased: he has no row
            commands[k] = command(b"DEL", start + users[k].encode())
        return commands

    def save_checkpoint(self, partition: int, offset: int, origins: Iterable[int]) -> bytes:
        """Command that moves the low-water mark."""
        body = json.dumps({"v": VERSION, "offset": offset, "origins": [int(o) for o in origins]}).encode()
        return command(b"SET", self.keys.checkpoint(partition).encode(), body)

    def save_items(self, partition: int, rows: np.ndarray) -> list[bytes]:
        """Commands that write item rows (n,) ITEM_ROW."""
        key, size, data = self.keys.items(partition).encode(), rows.dtype.itemsize, rows.tobytes()
        hashes = rows["hash"].tolist()
        commands = []
        for start in range(0, len(hashes), FIELDS):
            parts = [b"HSET", key]
            for k in range(start, min(start + FIELDS, len(hashes))):
                parts += (b"%016x" % hashes[k], data[k * size : (k + 1) * size])
            commands.append(command(*parts))
        return commands

    def save_items_checkpoint(self, partition: int, checkpoint: ItemsCheckpoint) -> bytes:
        """Command that notes up to where the item rows hold the log."""
        body = {
            "v": VERSION,
            "offset": checkpoint.offset,
            "highest": list(checkpoint.highest),
            "clock_ms": checkpoint.clock_ms,
            "topic": checkpoint.topic,
        }
        return command(b"SET", self.keys.items_checkpoint(partition).encode(), json.dumps(body).encode())

    def publish_user(self, user: str, body: bytes) -> bytes:
        """Command that overwrites a user's list."""
        return set_expiring(self.keys.list_of(user).encode(), body, self._list_ttl)

    def publish_embedding(self, user: str, body: bytes) -> bytes:
        """Command that overwrites a user's vector."""
        return set_expiring(self.keys.embedding(user).encode(), body, self._list_ttl)

    def unpublish_user(self, user: str) -> bytes:
        """Command that removes what is public of a user."""
        return command(b"DEL", self.keys.list_of(user).encode(), self.keys.embedding(user).encode())

    def publish(self, key: str, body: bytes) -> bytes:
        """Command that overwrites another public list."""
        return set_expiring(key.encode(), body, self._list_ttl)

    def save_shown(self, partition: int, offset: int) -> bytes:
        """Command that notes the highest offset from which anything was published."""
        return command(b"SET", self.keys.shown(partition).encode(), b"%d" % offset)

    async def close(self) -> None:
        """Close all connections."""
        await self.fence.close()
        await self.client.aclose()


def _foreign(value: bytes, what: str) -> RefusedRedis:
    return RefusedRedis(
        f"a {what} in Redis is {value[:60]!r}, which no worker has written: something else writes to our keys;"
        " use a prefix of your own, or rebuild (docs/operations.md)"
    )


def _versioned(value: bytes, what: str, *needed: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
        version = int(found.get("v", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _foreign(value, what) from None
    if version > VERSION:
        raise RefusedRedis(f"a {what} of version {version} lies in Redis, this worker reads {VERSION}: upgrade it")
    if any(name not in found for name in needed):
        raise _foreign(value, what)
    return dict(found)


def _checkpoint(token: str, value: bytes | None, shown: bytes | None, start: int = 0) -> Checkpoint:
    try:
        highest = -1 if shown is None else int(shown)
    except ValueError:
        raise _foreign(shown or b"", "highest offset shown") from None
    if value is None:
        return Checkpoint(token, start, None, highest)
    found = _versioned(value, "checkpoint", "offset", "origins")
    return Checkpoint(token, found["offset"], tuple(found["origins"]), highest)


async def at_generation(settings: Settings) -> Settings:
    """The settings of a worker of the generation that these name, or of the live one: the generation's own among them."""
    store = Store(settings, nullcontext)
    try:
        await store.open()
        assert store.generation is not None
        return settings.with_own(store.keys.generation, store.generation.own)
    finally:
        await store.close()
