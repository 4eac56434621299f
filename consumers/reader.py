"""Read lists from Redis in an application: `Reader` (sync) and `AsyncReader` (asyncio), the same calls.

In: a user or item id. Out: a typed `RecommendationList`; a user without a list gets the popular one, marked
`fallback`; hidden items are dropped. Errors: `ReaderError` and below (consumers.lists draws the tree).

    with Reader(Settings.load()) as reader:
        for item in reader.get("u42"):
            ...

One `get` is one round trip. To use your own client (Redis Cluster, Sentinel, a pool shared with others) pass it as
`client`; it must return bytes (`decode_responses=False`) and stays yours to close.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from consumers.aside import CLIENT_ERRORS, Aside, RedisUnreachable, Staleness
from consumers.lists import CorruptList, ReaderError, RecommendationList, UnknownVersion, decode_list
from infra.settings import Settings

__all__ = ["AsyncReader", "CorruptList", "Reader", "ReaderError", "RecommendationList", "RedisUnreachable", "Staleness",
           "UnknownVersion"]

DEFAULT_CONNECTIONS = 8
#: A page waits for its list, so give up early; one retry at once heals connections that a restarted Redis left dead.
DEFAULT_TIMEOUT_S = 1.0
RETRIES = 1
SCAN_COUNT = 10_000  # keys looked at a step: 2 ms of the server's time
SCAN_TIMEOUT_S = 30.0


class Reader:
    """Blocking client; share one among threads, it keeps at most `connections` connections."""

    def __init__(self, settings: Settings | None = None, *, connections: int = DEFAULT_CONNECTIONS,
                 timeout_s: float = DEFAULT_TIMEOUT_S, client: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        settings = settings or Settings.load()
        self._aside = Aside(settings, clock)
        self._owned = client is None
        self._client: Any = client or redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(
            settings.redis_url, max_connections=connections, timeout=timeout_s, socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), RETRIES), **settings.redis_client_args()))

    def get(self, user: str) -> RecommendationList:
        """The user's list, or the popular one (`fallback` is true) where he has none."""
        aside = self._aside
        key = aside.list_prefix + user
        value = self._get_with_hidden(key) if aside.hidden_due() else self._call(self._client.get, key)
        if value is not None:
            return decode_list(value, key).without(aside.hidden)
        self._renew_popular()
        return aside.fallback(user)

    def get_many(self, users: Iterable[str]) -> dict[str, RecommendationList]:
        """Lists by user, in one round trip (one MGET)."""
        users = list(dict.fromkeys(users))
        if not users:
            return {}
        aside = self._aside
        keys = [aside.list_prefix + user for user in users]
        due = aside.hidden_due()
        values = self._call(_many(self._client), keys + [aside.hidden_key] if due else keys)
        if due:
            aside.keep_hidden(values.pop())
        if None in values:
            self._renew_popular()
        return aside.answers(users, values)

    def similar(self, item: str) -> RecommendationList:
        """The items that go with this one, best first; empty where none are known."""
        key = self._aside.similar_prefix + item
        value = self._get_with_hidden(key) if self._aside.hidden_due() else self._call(self._client.get, key)
        return self._aside.similar(item, value)

    def staleness(self) -> Staleness:
        """Whether lists follow events. Scans the keyspace for the workers' heartbeats: for health pages, not per request."""
        keys = self._call(lambda pattern: list(self._client.scan_iter(pattern, count=SCAN_COUNT)), self._aside.workers_prefix + "*")
        return self._aside.staleness(self._call(_many(self._client), keys) if keys else ())

    def close(self) -> None:
        """Close the connections (not those of a client that was passed in)."""
        if self._owned:
            self._client.close()
            self._client.connection_pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, command: Callable[..., Any], *args: Any) -> Any:
        try:
            return command(*args)
        except CLIENT_ERRORS as error:
            raise self._aside.failure(error) from error

    def _get_with_hidden(self, key: str) -> bytes | None:
        replies: list[bytes | None] = self._call(_many(self._client), [key, self._aside.hidden_key])
        self._aside.keep_hidden(replies[1])
        return replies[0]

    def _renew_popular(self) -> None:
        if self._aside.popular_due():
            self._aside.keep_popular(self._call(self._client.get, self._aside.popular_key))


class AsyncReader:
    """The same for asyncio; one per event loop, any number of tasks. Calls beyond `connections` wait their turn."""

    def __init__(self, settings: Settings | None = None, *, connections: int = DEFAULT_CONNECTIONS,
                 timeout_s: float = DEFAULT_TIMEOUT_S, client: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        settings = settings or Settings.load()
        self._aside = Aside(settings, clock)
        self._owned = client is None
        # One client a connection: a call on it goes straight to its connection, while the library's pool takes 15 µs of
        # the 50 that a GET costs. One timeout around the call bounds waiting and retrying too, and is cheaper than the
        # library's own, which makes a task for every write (Python 3.11).
        self._free: list[Any] = [client or redis.asyncio.Redis.from_url(
            settings.redis_url, single_connection_client=True, socket_timeout=None, socket_connect_timeout=timeout_s,
            retry=AsyncRetry(NoBackoff(), RETRIES), **settings.redis_client_args()) for _ in range(connections)]
        self._clients = tuple(self._free)
        self._timeout_s = timeout_s
        self._turn = asyncio.Semaphore(connections)

    async def get(self, user: str) -> RecommendationList:
        """The user's list, or the popular one (`fallback` is true) where he has none."""
        aside = self._aside
        key = aside.list_prefix + user
        if aside.hidden_due():
            value = await self._get_with_hidden(key)
        else:
            value = await self._call("get", key)
        if value is not None:
            return decode_list(value, key).without(aside.hidden)
        await self._renew_popular()
        return aside.fallback(user)

    async def get_many(self, users: Iterable[str]) -> dict[str, RecommendationList]:
        """Lists by user, in one round trip (one MGET)."""
        users = list(dict.fromkeys(users))
        if not users:
            return {}
        aside = self._aside
        keys = [aside.list_prefix + user for user in users]
        due = aside.hidden_due()
        values = await self._call("mget", keys + [aside.hidden_key] if due else keys)
        if due:
            aside.keep_hidden(values.pop())
        if None in values:
            await self._renew_popular()
        return aside.answers(users, values)

    async def similar(self, item: str) -> RecommendationList:
        """The items that go with this one, best first; empty where none are known."""
        key = self._aside.similar_prefix + item
        value = await (self._get_with_hidden(key) if self._aside.hidden_due() else self._call("get", key))
        return self._aside.similar(item, value)

    async def staleness(self) -> Staleness:
        """Whether lists follow events. Scans the keyspace for the workers' heartbeats: for health pages, not per request."""
        keys = await self._call("scan", self._aside.workers_prefix + "*")
        return self._aside.staleness(await self._call("mget", keys) if keys else ())

    async def close(self) -> None:
        """Close the connections (not those of a client that was passed in)."""
        if self._owned:
            for client in self._clients:
                await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, command: str, argument: Any) -> Any:
        try:
            async with asyncio.timeout(SCAN_TIMEOUT_S if command == "scan" else self._timeout_s), self._turn:
                client = self._free.pop()  # there is one: the semaphore counts them
                try:
                    if command == "get":
                        return await client.get(argument)
                    if command == "mget":
                        return await _many(client)(argument)
                    return [key async for key in client.scan_iter(argument, count=SCAN_COUNT)]
                finally:
                    self._free.append(client)
        except CLIENT_ERRORS as error:
            raise self._aside.failure(error) from error

    async def _get_with_hidden(self, key: str) -> bytes | None:
        replies: list[bytes | None] = await self._call("mget", [key, self._aside.hidden_key])
        self._aside.keep_hidden(replies[1])
        return replies[0]

    async def _renew_popular(self) -> None:
        if self._aside.popular_due():
            self._aside.keep_popular(await self._call("get", self._aside.popular_key))


def _many(client: Any) -> Callable[..., Any]:
    """MGET; a Cluster's keys lie in many slots, its client then asks each node once."""
    return getattr(client, "mget_nonatomic", None) or client.mget  # type: ignore[no-any-return]
