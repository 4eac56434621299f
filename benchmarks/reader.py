"""Claims `reader` and `reader p99`: the async client gives a user's list, decoded and typed, nearly as fast as a bare GET.

8 connections, closed loop, one process. Beside it, same run: a bare `GET` of the same keys by the same client library
(redis-py's asyncio client), which returns undecoded bytes. Both take turns in short slices, so that what else the
machine does falls on both; the figures are medians over the slices' ratios. Redis is alone in this world: no Kafka, no worker.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import redis
import redis.asyncio

from benchmarks._claims import Claim, Figure, Options, main
from consumers.reader import AsyncReader
from infra.settings import Settings
from infra.stack import RedisServer

CONNECTIONS = 8
N_ITEMS = 20_000
LIST_SIZE = 100
N_HIDDEN = 50  # so that the hidden items are looked for, as they are in life
CLAIMS = (Claim(name="reader", unit="x bare GET", at_least=0.8,
                what="reader client (async, one process), one user's list decoded and typed, 8 connections: throughput"),
          Claim(name="reader p99", unit="x bare GET", at_most=1.5, what="the same, p99"))

Get = Callable[[str], Awaitable[Any]]


def fill(settings: Settings, n_users: int, rng: random.Random) -> None:
    """Lists as workers write them: 100 items with ids of 8 digits, three-digit scores."""
    items = [f"{rng.randrange(10**8):08d}" for _ in range(N_ITEMS)]
    with redis.from_url(settings.redis_url) as client:
        pipeline = client.pipeline(transaction=False)
        for user in range(n_users):
            scores = sorted((rng.randrange(1000) / 1000 for _ in range(LIST_SIZE)), reverse=True)
            pipeline.set(settings.key(f"rec:{user:08d}"), msgspec.json.encode({
                "v": 1, "user": f"{user:08d}", "items": rng.sample(items, LIST_SIZE), "scores": scores,
                "channels": ["repeat", "covisitation", "popular"], "why": [rng.randrange(3) for _ in range(LIST_SIZE)],
                "model": "fusion-1", "generated_at": 1763778821123,
                "as_of": {"partition": 3, "offset": 12345, "time": 1763778821100}}))
        pipeline.set(settings.key("hidden:all"), msgspec.json.encode({"v": 1, "items": [f"hidden-{i}" for i in range(N_HIDDEN)]}))
        pipeline.execute()


async def slice_of(get: Get, n_calls: int, n_users: int, seed: int) -> tuple[float, float, float]:
    """Calls/s, p50 and p99 in ms of `n_calls` calls over 8 closed loops."""
    latencies: list[float] = []

    async def loop(number: int) -> None:
        rng = random.Random(seed * CONNECTIONS + number)
        users = [f"{rng.randrange(n_users):08d}" for _ in range(n_calls // CONNECTIONS)]
        for user in users:
            began = time.perf_counter()
            await get(user)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(loop(number) for number in range(CONNECTIONS)))
    seconds = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies) / seconds, cuts[49] * 1000, cuts[98] * 1000


async def measure(settings: Settings, args: argparse.Namespace) -> dict[str, list[tuple[float, float, float]]]:
    """Slices by name, in turn; which of the two begins alternates."""
    bare = redis.asyncio.Redis.from_url(settings.redis_url, max_connections=CONNECTIONS)
    prefix = settings.key("rec:")
    slices: dict[str, list[tuple[float, float, float]]] = {"reader": [], "bare": []}
    async with AsyncReader(settings, connections=CONNECTIONS) as reader:
        if (await reader.get(f"{0:08d}")).fallback:
            raise SystemExit("the lists are not in Redis: the benchmark would measure misses")
        calls: dict[str, Get] = {"reader": reader.get, "bare": lambda user: bare.get(prefix + user)}
        for number in range(-2, args.slices):  # two to warm up
            for name in ("reader", "bare") if number % 2 else ("bare", "reader"):
                result = await slice_of(calls[name], args.slice_calls, args.users, args.seed + number)
                if number >= 0:
                    slices[name].append(result)
    await bare.aclose()
    return slices


def options(parser: Options) -> None:
    """Sizes."""
    parser.size("--users", 5_000, 500, "users whose lists are read")
    parser.size("--slices", 30, 4, "turns of each of the two")
    parser.size("--slice-calls", 4_000, 800, "calls a turn")


def run(args: argparse.Namespace) -> list[Figure]:
    """A Redis of its own, filled, and both clients in turn."""
    with tempfile.TemporaryDirectory(prefix="streamrec-bench-") as folder:
        server = RedisServer(Path(folder) / "redis", die_with_parent=True)
        server.start()
        try:
            settings = Settings.load(env={"STREAMREC_HOME": folder}, redis_url=server.url)
            fill(settings, args.users, random.Random(args.seed))
            slices = asyncio.run(measure(settings, args))
        finally:
            server.stop()
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in slices.items()}
    pairs = list(zip(slices["reader"], slices["bare"], strict=True))
    return [
        Figure(CLAIMS[0], statistics.median(mine[0] / bare[0] for mine, bare in pairs),
               {"reader_calls_per_s": middle["reader"][0], "bare_GET_calls_per_s": middle["bare"][0]}),
        Figure(CLAIMS[1], statistics.median(mine[2] / bare[2] for mine, bare in pairs),
               {"reader_p50_ms": middle["reader"][1], "bare_GET_p50_ms": middle["bare"][1],
                "reader_p99_ms": middle["reader"][2], "bare_GET_p99_ms": middle["bare"][2]})]


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, run))
