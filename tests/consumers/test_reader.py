"""Both readers over a Redis made of a dict that counts round trips: fallback, hidden items, caching, errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis.exceptions

from consumers.reader import AsyncReader, CorruptList, Reader, ReaderError, RedisUnreachable, UnknownVersion
from infra.settings import Settings

SETTINGS = Settings.load(env={"STREAMREC_HOME": "/nonexistent"}, prefix="shop.", redis_url="redis://:hunter2@10.1.2.3:6390/4")


class FakeRedis:
    """The few commands a reader uses; `trips` counts how often a server would have been asked."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.trips = 0
        self.broken: Exception | None = None

    def put(self, key: str, items: list[str], **more: Any) -> None:
        self.data["shop." + key] = json.dumps({"v": 1, "items": items, **more}).encode()

    def _trip(self) -> None:
        self.trips += 1
        if self.broken:
            raise self.broken

    def get(self, key: str) -> bytes | None:
        self._trip()
        return self.data.get(key)

    def mget(self, keys: list[str | bytes]) -> list[bytes | None]:
        self._trip()
        return [self.data.get(key if isinstance(key, str) else key.decode()) for key in keys]

    def scan_iter(self, pattern: str, count: int) -> list[bytes]:
        self._trip()
        return [key.encode() for key in self.data if key.startswith(pattern.rstrip("*"))]


class AsyncFace:
    """The same fake as an asyncio client."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def get(self, key: str) -> Any:
        return self.inner.get(key)

    async def mget(self, keys: list[str]) -> Any:
        return self.inner.mget(keys)

    async def scan_iter(self, pattern: str, count: int) -> Any:
        for key in self.inner.scan_iter(pattern, count):
            yield key


class Bench:
    """One reader, sync or async, called the same way; its clock stands until it is moved."""

    def __init__(self, kind: str) -> None:
        self.server = FakeRedis()
        self.now = 100.0
        if kind == "sync":
            self.reader: Any = Reader(SETTINGS, client=self.server, clock=lambda: self.now)
        else:
            self.reader = AsyncReader(SETTINGS, client=AsyncFace(self.server), clock=lambda: self.now)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            answer = getattr(self.reader, name)(*args)
            return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer

        return call


@pytest.fixture(params=["sync", "async"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def test_one_round_trip_a_list_also_when_hidden_items_are_due(bench: Bench) -> None:
    bench.server.put("rec:u1", ["a", "b"])
    for step in (0.0, 0.5, 0.6, 60.0):
        bench.now += step
        trips = bench.server.trips
        assert list(bench.get("u1")) == ["a", "b"]
        assert bench.server.trips == trips + 1


def test_hidden_items_vanish_within_a_second(bench: Bench) -> None:
    for key in ("rec:u1", "popular:all", "similar:a"):
        bench.server.put(key, ["a", "b", "c"], scores=[3, 2, 1])
    assert list(bench.get("u1")) == ["a", "b", "c"]
    bench.server.put("hidden:all", ["b"])
    bench.now += 1.0
    assert list(bench.get("u1")) == ["a", "c"] and bench.get("u1").scores == (3, 1)
    assert list(bench.get("nobody")) == list(bench.similar("a")) == list(bench.get_many(["u1"])["u1"]) == ["a", "c"]
    del bench.server.data["shop.hidden:all"]
    bench.now += 1.0
    assert list(bench.get_many(["u1"])["u1"]) == ["a", "b", "c"]


def test_a_user_without_a_list_gets_the_popular_one(bench: Bench) -> None:
    bench.server.put("popular:all", ["p", "q"])
    lst = bench.get("nobody")
    assert (lst.user, list(lst), lst.fallback) == ("nobody", ["p", "q"], True)
    trips = bench.server.trips
    bench.get("nobody else")
    assert bench.server.trips == trips + 1  # the popular list is kept for a second
    bench.server.put("popular:all", ["r"])
    assert list(bench.get("nobody")) == ["p", "q"]
    bench.now += 1.0
    assert list(bench.get("nobody")) == ["r"]


def test_an_empty_system_answers_with_an_empty_list(bench: Bench) -> None:
    assert list(bench.get("u1")) == [] and bench.get("u1").fallback
    assert list(bench.similar("a")) == []


def test_many_in_one_round_trip(bench: Bench) -> None:
    bench.server.put("popular:all", ["p"])
    bench.get("nobody")
    bench.server.put("rec:u1", ["a"])
    bench.server.put("rec:u2", ["b"])
    trips = bench.server.trips
    lists = bench.get_many(["u2", "nobody", "u1", "u2"])
    assert {user: (list(lst), lst.fallback) for user, lst in lists.items()} == {
        "u2": (["b"], False), "nobody": (["p"], True), "u1": (["a"], False)}
    assert bench.server.trips == trips + 1
    assert bench.get_many([]) == {} and bench.server.trips == trips + 1


def test_staleness_sums_the_workers(bench: Bench) -> None:
    assert bench.staleness().workers == 0
    bench.server.data["shop.workers:w1"] = b'{"lag":{"0":5,"1":2},"oldest_dirty_ms":12.5,"ready":true,"rows":7}'
    bench.server.data["shop.workers:w2"] = b'{"lag":{"2":1},"oldest_dirty_ms":null,"ready":false}'
    told = bench.staleness()
    assert (told.workers, told.ready, told.lag, told.oldest_dirty_ms) == (2, 1, 8, 12)


def test_only_one_of_many_calls_renews_the_hidden_items() -> None:
    bench = Bench("sync")
    aside = bench.reader._aside
    bench.get("u1")
    bench.now += 1.0
    assert aside.hidden_due() and not aside.hidden_due()  # the second leaves it to the first, and trusts the old ones
    bench.now += 1.5
    assert aside.hidden_due() and aside.hidden_due()  # older than anyone may trust: each asks for itself


@pytest.mark.parametrize(("raised", "kind", "says"), [
    (redis.exceptions.ConnectionError("refused"), RedisUnreachable, "at 10.1.2.3:6390/4 did not answer .refused"),
    (redis.exceptions.TimeoutError(""), RedisUnreachable, "did not answer"),
    (redis.exceptions.AuthenticationError("WRONGPASS"), RedisUnreachable, "refused the login"),
    (redis.exceptions.ResponseError("WRONGTYPE"), ReaderError, "answered with an error: WRONGTYPE"),
])
def test_errors_are_ours_and_carry_no_password(bench: Bench, raised: Exception, kind: type, says: str) -> None:
    bench.server.broken = raised
    for call in (bench.get, bench.similar, lambda user: bench.get_many([user])):
        with pytest.raises(kind, match=says) as caught:
            call("u1")
        assert "hunter2" not in str(caught.value)


def test_what_cannot_be_read_names_its_key(bench: Bench) -> None:
    bench.server.data["shop.rec:u1"] = b"nonsense"
    with pytest.raises(CorruptList, match="shop.rec:u1"):
        bench.get("u1")
    bench.server.put("rec:u2", ["a"], v=3)
    with pytest.raises(UnknownVersion, match="shop.rec:u2 has version 3"):
        bench.get_many(["u2"])


def test_a_server_that_is_not_there_is_one_clear_sentence() -> None:
    nowhere = Settings.load(env={"STREAMREC_HOME": "/nonexistent"}, redis_url="redis://:hunter2@127.0.0.1:1/0")
    with pytest.raises(RedisUnreachable, match="127.0.0.1:1/0 did not answer"):
        Reader(nowhere).get("u1")

    async def ask() -> None:
        async with AsyncReader(nowhere) as reader:
            await reader.get("u1")

    with pytest.raises(RedisUnreachable, match="127.0.0.1:1/0 did not answer"):
        asyncio.run(ask())


def test_an_id_that_is_no_text_is_refused() -> None:
    with pytest.raises(ReaderError, match="lone surrogate"), Reader(SETTINGS) as reader:
        reader._call("\ud800".encode)
