"""Claim `memory`: Redis bytes a user, top-100 list with scores, and row; ids of 8 digits.

A worker writes the rows and lists of all users as it always does, and is stopped. The figure is by how much `used_memory` falls
when exactly these keys are deleted, a user: keys, expiries and the allocator's rounding are in it. Beside it: `MEMORY USAGE` of
both keys, which Redis computes for each.
"""

from __future__ import annotations

import argparse
import sys
import time

import redis

from benchmarks._claims import Claim, Figure, Options, main
from benchmarks._events import Population
from benchmarks._live import begin, sizes
from benchmarks._world import PARTITIONS, World
from streams.keys import Keys

CLAIMS = (Claim(name="memory", unit="bytes", at_most=4_000,
                what="Redis bytes a user, top-100 list with scores, and row; ids of 8 digits"),)
CHUNK = 500
SETTLE_S = 0.5  # tables that became too large are made smaller by a timer of Redis


def options(parser: Options) -> None:
    """Sizes."""
    sizes(parser)


def measure(args: argparse.Namespace) -> list[Figure]:
    """Sum up, delete, look again."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    with World() as world:
        settings, worker = begin(world, population, args.history)
        worker.stop()
        keys = Keys(settings.prefix)
        users = [(user.decode(), int(home)) for user, home in zip(population.users, population.home, strict=True)]
        lists, rows = [keys.list_of(user) for user, _ in users], [keys.user(home, user) for user, home in users]
        with world.client(settings) as client:
            usage = [_usage(client, names) / len(users) for names in (lists, rows)]
            sizes_ = [_sum(client, "strlen", names) / len(users) for names in (lists, rows)]
            items = _items_in_lists(client, lists)
            before = _used(client)
            n_deleted = sum(client.delete(*names[start:start + CHUNK]) for names in (lists, rows)
                            for start in range(0, len(names), CHUNK))
            after = _used(client)
    return [Figure(CLAIMS[0], (before - after) / len(users), {
        "memory_usage_bytes": {"list": usage[0], "row": usage[1], "both": sum(usage)},
        "value_bytes": {"list": sizes_[0], "row": sizes_[1]}, "items_a_list": items, "users": len(users),
        "keys_deleted": n_deleted})]


def _used(client: redis.Redis) -> int:
    """used_memory once it stands still."""
    last = -1
    while (now := int(client.info("memory")["used_memory"]) >> 12) != last:
        last = now
        time.sleep(SETTLE_S)
    return int(client.info("memory")["used_memory"])


def _usage(client: redis.Redis, names: list[str]) -> int:
    return sum(value or 0 for start in range(0, len(names), CHUNK)
               for value in _pipelined(client, [("MEMORY", "USAGE", name) for name in names[start:start + CHUNK]]))


def _sum(client: redis.Redis, command: str, names: list[str]) -> int:
    return sum(value for start in range(0, len(names), CHUNK)
               for value in _pipelined(client, [(command, name) for name in names[start:start + CHUNK]]))


def _pipelined(client: redis.Redis, commands: list[tuple[str, ...]]) -> list[int]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    return list(pipeline.execute())


def _items_in_lists(client: redis.Redis, names: list[str]) -> float:
    """Mean length of a list, over a sample: a short list would be cheap for the wrong reason."""
    import msgspec

    sample = names[:: max(1, len(names) // CHUNK)]
    values = [value for value in client.mget(sample) if value]
    return sum(len(msgspec.json.decode(value)["items"]) for value in values) / max(1, len(values))


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
