"""Claim `erasures`: what 10,000 erased users cost those who were not: the time of absorb with them, against its time with none.

No server: decode, rows and kernel of `streams.users`, in one process; its processor time, rounds with and without in turn, on the same events; the median of
the rounds' ratios. Each user is met for a first time once, and is in memory then, as most are in life; beside it stands the worst
case, every event of a user who must be looked up (in life his row then comes from Redis, which costs more than all of this and is left out).
"""

from __future__ import annotations

import argparse
import gc
import sys
import time

from benchmarks._claims import Claim, Figure, Options, main, median, say
from benchmarks._events import DAY_MS, Draw, Population
from infra.settings import Settings
from streams.engine import LogRecord
from streams.erasures import Erased
from streams.users import UserSide

CLAIMS = (Claim(name="erasures", unit="%", at_most=2.0, what="time of absorb that 10,000 erased users add for those who were not"),)
BATCH = 2_000
NOW_MS = 1_763_778_821_000


def options(parser: Options) -> None:
    """Sizes and rounds."""
    parser.size("--events", 200_000, 10_000, "events of a round")
    parser.size("--users", 50_000, 2_000, "users that they are of")
    parser.size("--erased", 10_000, 500, "users erased, none of them among these")
    parser.size("--runs", 9, 2, "rounds of each, of which the median counts")


def measure(args: argparse.Namespace) -> list[Figure]:
    """Rounds with and without in turn."""
    settings = Settings(partitions=1, max_users=2 * args.users)
    population = Population(args.seed, 1, users=args.users)
    warm, cold = _records(population, population.draw(args.events, 1)), _records(population, population.each_user_once(2))
    times: dict[str, list[float]] = {"usual": [], "looked up": []}
    absolute: list[float] = []
    _time(settings, 0, warm, cold)  # what is compiled
    for run in range(args.runs):
        found = {}
        for n_erased in ((0, args.erased), (args.erased, 0))[run % 2]:
            found[n_erased] = _time(settings, n_erased, warm, cold)
        for k, name in enumerate(times):
            times[name].append(100 * (found[args.erased][k] / found[0][k] - 1))
        absolute.append(found[0][0])
        say(f"round {run + 1}: {times['usual'][-1]:+.2f}% usual, {times['looked up'][-1]:+.2f}% where each user is looked up")
    return [Figure(CLAIMS[0], median(times["usual"]), {
        "rounds": times["usual"], "every_user_looked_up_percent": median(times["looked up"]), "rounds_looked_up": times["looked up"],
        "us_an_event_without": 1e6 * median(absolute) / len(warm)})]


def _records(population: Population, draw: Draw) -> list[LogRecord]:
    write = population.writer(draw)
    return [LogRecord(k, NOW_MS, write(k, NOW_MS - DAY_MS + k)) for k in range(len(draw))]


def _time(settings: Settings, n_erased: int, warm: list[LogRecord], cold: list[LogRecord]) -> tuple[float, float]:
    """Seconds for all events where each user is met once and then known; and where each is looked up."""
    took = []
    for records in (warm, cold):
        users = UserSide(settings)
        for k in range(n_erased):
            users.erasures.add(0, Erased(f"gone{k}", 10, NOW_MS))
        gc.collect()
        began = time.process_time()
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            decoded = users.decode(0, batch)
            users.admit(0, decoded, [None] * len(decoded.missing))
            users.erase(0, decoded.erased)
            users.absorb(0, decoded, batch[-1].offset + 1)
            users.take_records(0)
            users.take_lessons(0)
        took.append(time.process_time() - began)
    return took[0], took[1]


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
