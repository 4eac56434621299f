"""Claim `failover`: kill -9 one of two workers under 1,000 events/s: until all of its users are fresh again.

Fresh again is the first moment at which every user who had an event in the killed worker's partitions, from a second before
the kill until a tenth of a second ago, has a list in Redis that reflects his last one. Every such user is looked at, not a
sample: while the partitions have no owner one event of each after the kill is asked for, and when these are answered, all.
The median of several kills; the killed worker is replaced before the next.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time

import redis

from benchmarks._claims import BenchmarkError, Claim, Figure, Options, main, median, say
from benchmarks._events import Population
from benchmarks._live import Streaming, begin, sizes
from benchmarks._wire import TAIL_BYTES, offset_in
from benchmarks._world import PARTITIONS, Worker, World, wait_until
from infra.settings import Settings

CLAIMS = (Claim(name="failover", unit="s", at_most=15,
                what="kill -9 one of two workers under 1,000 events/s: until all of its users are fresh again"),)
BEFORE_S = 1.0  # events that were in the killed worker's hands
RECENT_S = 0.1  # what came later may still be on its way, as it may in a healthy system
LOOK_S = 0.02
CHUNK = 500
DEADLINE_S, LONGEST_S = 60.0, 400.0


def options(parser: Options) -> None:
    """Sizes, rate, kills."""
    sizes(parser)
    parser.size("--rate", 1_000.0, 500.0, "events/s")
    parser.size("--runs", 3, 1, "kills, of which the median counts")


def measure(args: argparse.Namespace) -> list[Figure]:
    """The kills."""
    population = Population(args.seed, PARTITIONS, users=args.users, items=args.items)
    with World() as world:
        settings, first = begin(world, population, args.history)
        workers = [first, world.start_worker(settings, wait=False)]
        _wait_shared(workers)
        with Streaming(settings, population, rate=args.rate, seconds=LONGEST_S, run=1, tell=True) as streaming:
            streaming.go()
            watch = _Watch(streaming)
            with world.client(settings) as client:
                rounds = []
                for run in range(args.runs):
                    rounds.append(_kill(settings, population, client, watch, workers[0]))
                    workers = [workers[1], world.start_worker(settings, wait=False)]
                    if run < args.runs - 1:
                        _wait_shared(workers)
    return [Figure(CLAIMS[0], median([all_s for all_s, _, _ in rounds]), {
        "runs": [all_s for all_s, _, _ in rounds], "first_fresh_list_s": median([first_s for _, first_s, _ in rounds]),
        "users_looked_at": [n for _, _, n in rounds], "session_timeout_s": settings.session_timeout_ms / 1000})]


class _Watch:
    """What Kafka has acknowledged, gathered from the stream: (user, partition, offset, due)."""

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming
        self._news: queue.SimpleQueue[list[tuple[int, int, int, float]]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while (told := self._streaming.told()) is not None:
                self._news.put(told)
        except BenchmarkError:
            return  # the stream was ended

    def take(self) -> list[tuple[int, int, int, float]]:
        """All that came since the last call."""
        found = []
        while not self._news.empty():
            found += self._news.get()
        return found


def _wait_shared(workers: list[Worker]) -> None:
    """Until each worker has its half, and both have had it for a moment."""
    share = workers[0].settings.partitions // len(workers)

    def shared() -> bool:
        for worker in workers:
            worker.must_live()
        return all(len(worker.partitions()) == share for worker in workers)

    wait_until(shared, DEADLINE_S, "both workers have their half of the partitions")
    time.sleep(2 * BEFORE_S)


def _kill(settings: Settings, population: Population, client: redis.Redis, watch: _Watch,
          victim: Worker) -> tuple[float, float, int]:
    """(s until all users are fresh, s until the first list of a later event, users looked at)."""
    partitions = set(victim.partitions())
    watch.take()
    time.sleep(BEFORE_S)
    names = population.users
    killed = time.monotonic()
    victim.kill()
    last: dict[int, tuple[int, float]] = {}  # of each user the offset and time of his last event
    latest: dict[int, tuple[int, int]] = {}  # of each partition an event after the kill: user, offset
    checked: dict[int, int] = {}  # offset up to which a user was seen to be fresh
    first_s = 0.0
    while True:
        time.sleep(LOOK_S)
        for user, partition, offset, due_s in watch.take():
            if partition in partitions:
                last[user] = (offset, due_s)
                if due_s > killed:
                    latest.setdefault(partition, (user, offset))
        now = time.monotonic()
        if now - killed > DEADLINE_S:
            raise BenchmarkError(f"users of the killed worker are not fresh after {DEADLINE_S:g} s")
        if len(latest) < len(partitions):
            continue
        canaries = _offsets(client, settings, [names[user] for user, _ in latest.values()])
        there = [found >= offset for found, (_, offset) in zip(canaries, latest.values(), strict=True)]
        first_s = first_s or (now - killed if any(there) else 0.0)
        if not all(there):
            continue
        due = [(user, offset) for user, (offset, due_s) in last.items()
               if due_s < now - RECENT_S and checked.get(user, -1) < offset]
        found_now = _offsets(client, settings, [names[user] for user, _ in due])
        stale = 0
        for (user, offset), found in zip(due, found_now, strict=True):
            if found >= offset:
                checked[user] = found
            else:
                stale += 1
        if not stale:
            say(f"killed the owner of {sorted(partitions)}: all of {len(last):,} users fresh after {now - killed:.2f} s")
            return now - killed, first_s, len(last)


def _offsets(client: redis.Redis, settings: Settings, users: list[bytes]) -> list[int]:
    """What each user's list reflects."""
    found: list[int] = []
    for start in range(0, len(users), CHUNK):
        pipeline = client.pipeline(transaction=False)
        for user in users[start:start + CHUNK]:
            pipeline.getrange(settings.key("rec:" + user.decode()), -TAIL_BYTES, -1)
        found += [offset_in(tail) for tail in pipeline.execute()]
    return found


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
