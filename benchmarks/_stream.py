"""A steady stream of events, open loop, and how soon their lists can be read; a process of its own.

`python -m benchmarks._stream CONFIG` (JSON, see `Config`) waits for a line on stdin, then sends `rate` events a second on a fixed
schedule, one produce request a tick, until the time is over or another line comes. An event counts from the moment at which
its tick was due, so that a late generator makes figures worse, not better. Of a sample of the events the list is asked for,
every half millisecond, until its `as_of` has reached the event. Prints one JSON object at the end; with `tell` also lines
before it: what Kafka has acknowledged, for whoever watches users.
"""

from __future__ import annotations

import gc
import json
import resource
import select
import sys
import time
from typing import Any

import msgspec
import numpy as np

from benchmarks._events import Population
from benchmarks._wire import KafkaSocket, Probe, RedisSocket

TELL_S = 0.05
FIRST_LOOK_S = 0.001
RESOLUTION_S = 0.0005
OLD = 0.05  # a probe that waits long is asked for again after this share of its age
MOST_ASKED = 200  # probes in one round: a system that is behind must not be asked to death


class Config(msgspec.Struct):
    """What to send, for how long, and how many events a second to watch."""

    bootstrap: str
    redis_url: str
    prefix: str
    partitions: int
    rate: float
    seconds: float
    users: int
    items: int
    digits: int
    seed: int
    run: int
    probes_per_s: float = 100.0
    warm_s: float = 2.0  # sent as all, not watched
    grace_s: float = 5.0  # how long after the last event lists are still waited for
    tick_ms: float = 4.0
    tell: bool = False


class Stream:
    """Sends, and watches."""

    def __init__(self, config: Config) -> None:
        self.config = config
        population = Population(config.seed, config.partitions, users=config.users, items=config.items, digits=config.digits)
        self._n = int(config.rate * (config.warm_s + config.seconds))
        self._draw = population.draw(self._n, run=config.run)
        self._population = population
        self._homes = population.home[self._draw.users].tolist()
        self._owners = self._draw.users.tolist()
        self._write = population.writer(self._draw)
        chosen = np.random.default_rng([config.seed, 3, config.run]).random(self._n) < config.probes_per_s / config.rate
        chosen[:int(config.rate * config.warm_s)] = False
        self._chosen = chosen.tolist()
        self._kafka = KafkaSocket(config.bootstrap, config.prefix + "events")
        self._redis = RedisSocket(config.redis_url)
        # by request: when it was due, and of each event (partition, place in its batch, user, whether it is followed)
        self._sent: dict[int, tuple[float, list[tuple[int, int, int, bool]]]] = {}
        self._waiting: list[Probe] = []
        self._said: list[tuple[int, int, int, float]] = []
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        self.unresolved = 0

    def run(self) -> dict[str, Any]:
        """Until all is sent and every probe is answered, or the grace is over."""
        config, tick_s = self.config, self.config.tick_ms / 1000
        began, cpu = time.monotonic(), time.process_time()
        sent, tick, told_s = 0, 1, began
        end_s = None
        sources: list[Any] = [self._kafka.socket, self._redis.socket, sys.stdin]
        while True:
            now = time.monotonic()
            due_s = began + tick * tick_s
            if sent < self._n and now >= due_s:
                until = min(self._n, int(config.rate * tick * tick_s))
                self._send(sent, until, due_s)
                self.late_s.append(time.monotonic() - due_s)
                sent, tick = until, tick + 1
                continue
            if sent == self._n and end_s is None:
                end_s = now
            if end_s is not None and not self._sent and (not self._waiting or now > end_s + config.grace_s):
                break
            if config.tell and now - told_s > TELL_S:
                told_s = now
                self._tell()
            self._look(now)
            next_s = due_s if sent < self._n else now + tick_s
            if not self._redis.asked and self._waiting:
                next_s = min(next_s, min(probe.next_s for probe in self._waiting))
            readable, _, _ = select.select(sources, [], [], max(0.0, next_s - time.monotonic()))
            if sys.stdin in readable:  # told to stop, or nobody is there any more
                self._n, sources = sent, sources[:2]
            if self._kafka.socket in readable:
                self._acknowledged()
            if self._redis.socket in readable:
                self._answered()
        if config.tell:
            self._tell()
        self.unresolved = len(self._waiting)
        seconds = time.monotonic() - began
        return {"sent": sent, "seconds": seconds, "cpu": (time.process_time() - cpu) / seconds, "unresolved": self.unresolved,
                "late_p99_ms": float(np.quantile(self.late_s, 0.99)) * 1000, "latencies_ms": [s * 1000 for s in self.latencies_s],
                "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}

    def _send(self, start: int, end: int, due_s: float) -> None:
        if start == end:
            return
        batches: dict[int, list[tuple[bytes, bytes]]] = {}
        places = []
        users, now_ms = self._population.users, time.time_ns() // 1_000_000  # events happen when they are sent
        for k in range(start, end):
            home, user = self._homes[k], self._owners[k]
            batch = batches.setdefault(home, [])
            places.append((home, len(batch), user, self._chosen[k]))
            batch.append((users[user], self._write(k, now_ms)))
        number = self._kafka.send(batches, now_ms)
        self._sent[number] = (due_s, places)

    def _acknowledged(self) -> None:
        for number, offsets in self._kafka.receive():
            due_s, places = self._sent.pop(number)
            for home, place, user, probe in places:
                if probe:
                    key = self.config.prefix.encode() + b"rec:" + self._population.users[user]
                    self._waiting.append(Probe(key, offsets[home] + place, due_s, due_s + FIRST_LOOK_S))
                if self.config.tell:
                    self._said.append((user, home, offsets[home] + place, due_s))

    def _look(self, now: float) -> None:
        if self._redis.asked or not self._waiting:
            return
        due = [probe for probe in self._waiting if probe.next_s <= now][:MOST_ASKED]
        if due:
            self._redis.ask(due)

    def _answered(self) -> None:
        answers = self._redis.receive()
        now = time.monotonic()
        for probe, offset in answers:
            if offset >= probe.offset:
                self.latencies_s.append(now - probe.since_s)
                self._waiting.remove(probe)
            else:
                probe.next_s = now + max(RESOLUTION_S, OLD * (now - probe.since_s))

    def _tell(self) -> None:
        if self._said:
            print(json.dumps(self._said), flush=True)
            self._said.clear()


def main() -> int:
    """argv: the configuration."""
    stream = Stream(msgspec.json.decode(sys.argv[1], type=Config))
    print("ready", flush=True)
    sys.stdin.readline()  # the go, so that building what is sent is outside of what is measured
    gc.disable()
    print(json.dumps(stream.run()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
