"""Claim `erasures`: what 10,000 erased users cost those who were not, where absorb reads an old log again.

No server: decode, rows and kernel of `streams.users` in one process. The same events with nobody erased and with 10,000 others erased
behind the end of the log, so that everybody who comes has to be looked for; in turn, and of each batch the least time of several rounds: what
others do on the machine only adds. Beside it: the live log, beyond all erase events; and the worst case, a log in which
every event is a user's first (in life his row then comes from Redis, which costs more than all of this and is left out).
"""

from __future__ import annotations

import argparse
import gc
import sys
import time

import numpy as np

from benchmarks._claims import Claim, Figure, Options, main, say
from benchmarks._events import DAY_MS, Draw, Population
from infra.settings import Settings
from streams.engine import LogRecord
from streams.erasures import Erased
from streams.users import UserSide

CLAIMS = (Claim(name="erasures", unit="%", at_most=2.0, what="time that 10,000 erased users add to absorb for the others, an old log read again"),)
BATCH = 500  # shorter than what the system gives a process at a time
NOW_MS = 1_763_778_821_000
Kind = tuple[str, int]  # name, users erased


def options(parser: Options) -> None:
    """Sizes and rounds."""
    parser.size("--events", 100_000, 10_000, "events of a round")
    parser.size("--users", 5_000, 500, "users that they are of")
    parser.size("--erased", 10_000, 500, "users erased, none of them among these")
    parser.size("--runs", 15, 2, "rounds of each")


def measure(args: argparse.Namespace) -> list[Figure]:
    """Rounds of each kind in turn."""
    settings = Settings(partitions=1, max_users=1 << 20)
    population = Population(args.seed, 1, users=args.users)
    log = _records(population, population.draw(args.events, 1))
    everybody = Population(args.seed, 1, users=args.events // 5)
    first = _records(everybody, everybody.each_user_once(2))
    # name: log, offset of the erase events
    kinds = {"again": (log, len(log)), "live": (log, 1), "first": (first, len(first))}
    times: dict[Kind, np.ndarray] = {}
    _time(settings, 0, 0, log)  # what is compiled
    for run in range(args.runs):
        for name, (records, offset) in kinds.items():
            for n_erased in (0, args.erased):
                found = _time(settings, n_erased, offset, records)
                times[name, n_erased] = np.minimum(times.get((name, n_erased), found), found)
        say(f"round {run + 1} of {args.runs}: " + ", ".join(f"{name} {_added(times, name, args.erased):+.2f}%" for name in kinds))
    return [Figure(CLAIMS[0], _added(times, "again", args.erased), {
        "live_log_percent": _added(times, "live", args.erased), "every_event_a_users_first_percent": _added(times, "first", args.erased),
        "us_an_event_without": 1e6 * float(times["again", 0].sum()) / len(log), "events_a_user": args.events / args.users})]


def _added(times: dict[Kind, np.ndarray], name: str, n_erased: int) -> float:
    return 100 * float(times[name, n_erased].sum() / times[name, 0].sum() - 1)


def _records(population: Population, draw: Draw) -> list[LogRecord]:
    write = population.writer(draw)
    return [LogRecord(k, NOW_MS, write(k, NOW_MS - DAY_MS + k)) for k in range(len(draw))]


def _time(settings: Settings, n_erased: int, offset: int, records: list[LogRecord]) -> np.ndarray:
    """Seconds of each batch."""
    users = UserSide(settings)
    for k in range(n_erased):
        users.erasures.add(0, Erased(f"gone{k}", offset, NOW_MS))
    gc.collect()
    took = []
    for start in range(0, len(records), BATCH):
        batch, began = records[start : start + BATCH], time.perf_counter()
        decoded = users.decode(0, batch)
        users.admit(0, decoded, [None] * len(decoded.missing))
        users.erase(0, decoded.erased)
        users.absorb(0, decoded, batch[-1].offset + 1)
        users.take_records(0)
        users.take_lessons(0)
        took.append(time.perf_counter() - began)
    return np.array(took)


if __name__ == "__main__":
    sys.exit(main(__doc__, CLAIMS, options, measure))
