"""Fenced writes: a worker writes a partition only while Redis says that it owns it and has lost nothing of it.

`{p}:owner` holds `token:number`. Every transaction names the owners it relies on by WATCH, adds its commands, and
counts their numbers up. So three things abort a write before it happens, by one comparison: another worker has taken
the partition (foreign token), Redis was flushed (no token), Redis came back without its last second (an old number).
Beside the owners lies `live`, which says whether the generation is the one that readers see: when that changes, nothing more
is written by workers that began before (`streams.generations`).

The watch for the next transaction is sent behind the EXEC of the last one: one round trip a transaction.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.connection import AbstractConnection

from streams.generations import LiveMoved
from streams.keys import Keys
from streams.patience import GONE, RedisRefuses, until_there
from streams.resp import command

#: Keys in one transaction: a few ms of the loop's time and less of Redis', so that lists and readers wait no longer.
MAX_KEYS = 250
#: A Redis that accepts a transaction but does not answer for this long counts as gone.
ANSWER_S = 10.0


class FenceLost(Exception):
    """Partitions that this worker may not write. Not an error: the owner has changed, or Redis lost data.

    `foreign` are those that another worker has taken; of the rest Redis has lost something.
    """

    def __init__(self, partitions: Iterable[int], foreign: Iterable[int] = ()) -> None:
        self.partitions = frozenset(partitions)
        self.foreign = frozenset(foreign)
        super().__init__(f"partitions {sorted(self.partitions)} are not ours to write")


#: Commands of one partition, to be written in order.
Part = tuple[int, Sequence[bytes]]


def transactions(commands: Mapping[int, Sequence[bytes]]) -> Iterator[list[Part]]:
    """Cut commands into transactions of at most `MAX_KEYS`, each partition's in their order; small ones share one."""
    parts: list[Part] = []
    room = MAX_KEYS
    for p, some in commands.items():
        start = 0
        while True:
            part = some[start : start + room]
            parts.append((p, part))
            start += len(part)
            room -= len(part)
            if room == 0:
                yield parts
                parts, room = [], MAX_KEYS
            if start >= len(some):
                break
    if parts:
        yield parts


class Fence:
    """The partitions that this worker owns, and the one connection by which it writes them."""

    def __init__(
        self, client: aioredis.Redis, keys: Keys, waiting: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._client = client
        self.keys = keys
        self._waiting = waiting
        self._numbers: dict[int, int] = {}  # number of the last acknowledged write
        self._tokens: dict[int, str] = {}
        self._connection: AbstractConnection | None = None
        self._watched: frozenset[int] = frozenset()
        self._turn = asyncio.Lock()
        self.moved = False  # another generation is live than when the worker began

    @property
    def owned(self) -> frozenset[int]:
        """Partitions whose fence is ours, as far as we know."""
        return frozenset(self._tokens)

    async def take(self, partitions: Iterable[int]) -> dict[int, str]:
        """Become the owner: from here on every other worker's writes of these partitions fail. Returns the tokens."""
        taken = {}
        async with self._turn:
            for p in sorted(partitions):
                token = taken[p] = uuid.uuid4().hex
                await until_there(partial(self._client.set, self.keys.owner(p), f"{token}:0"), self._waiting)
                self._tokens[p], self._numbers[p] = token, 0
            self._watched = frozenset()
        return taken

    def holds(self, partition: int, token: str) -> bool:
        """Whether this token is ours still, as far as we know."""
        return self._tokens.get(partition) == token

    def check(self, live: str) -> None:
        """Raises `LiveMoved` where the key `live` does not hold what it held when the worker began."""
        if not self.keys.agree(live):
            self.moved = True
            raise LiveMoved(f"generation {live} is live now: this worker of {self.keys.generation} starts again")

    def release(self, partitions: Iterable[int]) -> None:
        """Stop counting on these partitions; the next owner overwrites their token."""
        for p in partitions:
            self._tokens.pop(p, None)
            self._numbers.pop(p, None)

    def _expected(self, p: int, ahead: int = 0) -> bytes:
        return b"%b:%d" % (self._tokens[p].encode(), self._numbers[p] + ahead)

    async def write(self, commands: Mapping[int, Sequence[bytes]], tokens: Mapping[int, str]) -> None:
        """Apply packed commands, grouped by the partition that fences them, in order, `MAX_KEYS` a transaction.

        tokens: under which the commands of each partition were made. What was made under a token that we have given up
        since is void, and left out: it must not be written in a later tenure of ours. A partition without a command is
        only verified. Waits while Redis is gone or full. Raises `FenceLost` for any partition of ours that Redis says is
        not; what came before in this call is written, and the whole call may be repeated.
        """
        for parts in transactions(commands):
            async with self._turn:  # lists and rows take turns, so that a large commit does not hold up lists
                await self._transaction(parts, tokens)

    async def _transaction(self, parts: Sequence[Part], tokens: Mapping[int, str]) -> None:
        sent: list[int] = []

        def ours(partitions: Iterable[int]) -> list[int]:
            return sorted({p for p in partitions if self._tokens.get(p) == tokens[p]})

        async def attempt() -> None:
            nonlocal sent
            try:
                if sent and ours(sent):  # the connection broke after EXEC went out: was it applied?
                    found = await self._watch()
                    waiting = ours(sent)
                    if all(found[p] == self._expected(p, ahead=1) for p in waiting):
                        self._advance(waiting)
                        return
                    self._compare(found)
                sent = []
                if ours(p for p, _ in parts) and self._watched != self.owned:
                    self._compare(await self._watch())
                touched = ours(p for p, _ in parts)  # only now: a partition may be given up at any await
                if not touched:
                    return
                sent = touched
                async with asyncio.timeout(ANSWER_S):  # one for all replies: one for each costs as much as the replies
                    await self._execute(touched, [one for p, some in parts if p in touched for one in some])
            except (FenceLost, RedisRefuses):
                raise
            except BaseException:  # cancelled too: replies that nobody read would be taken for the next ones
                await self._drop_connection()
                raise

        await until_there(attempt, self._waiting)

    def _advance(self, touched: list[int]) -> None:
        for p in touched:
            if p in self._numbers:  # given up while the reply was on its way
                self._numbers[p] += 1

    def _compare(self, found: Mapping[int, bytes | None]) -> None:
        lost = [p for p, value in found.items() if p in self._tokens and value != self._expected(p)]
        if lost:
            self._watched = frozenset()
            taken = [p for p in lost if (value := found[p]) and not value.startswith(self._tokens[p].encode())]
            raise FenceLost(lost, taken)

    async def _watch(self) -> dict[int, bytes | None]:
        """Watch all owners; returns what they hold."""
        async with asyncio.timeout(ANSWER_S):
            return await self._watch_on_connection()

    async def _watch_on_connection(self) -> dict[int, bytes | None]:
        if self._connection is None:
            self._connection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            await self._connection.connect()
        owned = sorted(self.owned)
        if not owned:  # given up while we connected; WATCH without a key is an error
            return {}
        await self._connection.send_packed_command([command(b"UNWATCH"), *self._watch_commands(owned)])
        await self._reply()
        return await self._watch_replies(owned)

    def _watch_commands(self, owned: list[int]) -> list[bytes]:
        owners = [self.keys.live.encode(), *(self.keys.owner(p).encode() for p in owned)]
        return [command(b"WATCH", *owners), command(b"MGET", *owners)]

    async def _watch_replies(self, owned: list[int]) -> dict[int, bytes | None]:
        await self._reply()
        live, *values = await self._reply()
        if live is None:  # forgotten with all else
            values = [None] * len(owned)
        else:
            self.check(live.decode())
        self._watched = frozenset(owned)
        return dict(zip(owned, values, strict=True))

    async def _execute(self, touched: list[int], body: list[bytes]) -> None:
        connection = self._connection
        assert connection is not None
        owned = sorted(self.owned)
        numbers = [
            command(b"SET", self.keys.owner(p).encode(), self._expected(p, ahead=1)) for p in touched
        ]
        await connection.send_packed_command(
            [command(b"MULTI"), *body, *numbers, command(b"EXEC"), *self._watch_commands(owned)]
        )
        refusal: Exception | None = None
        for _ in range(1 + len(body) + len(numbers)):
            try:
                await self._reply()
            except redis.exceptions.ResponseError as error:  # all replies are read, or the next would be taken for ours
                refusal = refusal or error
        executed = None
        try:
            executed = await self._reply()
        except redis.exceptions.ResponseError as error:
            refusal = refusal or error
        found = await self._watch_replies(owned)
        if refusal is not None:
            self._watched = frozenset()
            raise RedisRefuses(f"Redis takes no writes ({refusal}); nothing is lost, they wait") from refusal
        if executed is not None:
            failed = [reply for reply in executed if isinstance(reply, Exception)]
            if failed:
                raise failed[0]
            self._advance(touched)
            return
        self._compare(found)
        raise redis.exceptions.ConnectionError("a watched owner was written without a change")  # again

    async def _reply(self) -> Any:
        assert self._connection is not None
        return await self._connection.read_response(disable_decoding=True, timeout=math.inf)

    async def _drop_connection(self) -> None:
        connection, self._connection, self._watched = self._connection, None, frozenset()
        if connection is not None:
            try:
                await connection.disconnect(nowait=True)
            except GONE:
                pass

    async def close(self) -> None:
        """Close the connection."""
        await self._drop_connection()
