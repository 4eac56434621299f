"""Compares what lies in Redis with what the lockstep engine makes of the same log, and watches readers' side meanwhile.

`wait_drained` returns when the checkpoints stand at the log's end; `check_equal` does that, then compares: user rows byte
by byte; item rows in every field except `as_of` (offsets of `interactions`, which hold what was sent twice) and the order of
successors; lists by the offset they are as of. `AsOfWatcher` reads lists all the time and notes any that goes back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import redis
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.settings import Settings
from models.item_rows import ITEM_ROW, N_SUCCESSORS
from models.user_row import USER_ROW
from streams.engine import Engine
from streams.keys import Keys, literal
from tests.live.reading import read_all

DRAIN_S = 90.0  # two busy cores, a takeover after a kill included
BATCH = 1_000
POLL_S = 0.1


def read_log(settings: Settings, name: str = "events") -> dict[int, list[Any]]:
    """All records of a topic by partition, in order."""
    log: dict[int, list[Any]] = {p: [] for p in range(settings.partitions)}
    for record in asyncio.run(read_all(settings, name)):
        log[record.partition].append(record)
    return {p: sorted(records, key=lambda record: record.offset) for p, records in log.items()}


def lockstep(settings: Settings, log: dict[int, list[Any]], *, batch: int = BATCH) -> Engine:
    """The engine after all of this log."""
    engine = Engine(dataclasses.replace(settings, max_users=10_000_000))  # without Redis it cannot load what it evicts
    for p, records in log.items():
        for start in range(0, len(records), batch):
            engine.absorb(p, records[start : start + batch])
    return engine


def user_rows(engine: Engine) -> list[dict[str, bytes]]:
    """Per partition the rows by user; who was erased has none."""
    table = engine.state.users.table
    return [{user: table.rows[slot].tobytes() for user, slot in users.items() if not table.blank([slot])[0]} for users in table.slots]


def item_rows(rows: np.ndarray) -> dict[int, tuple[Any, ...]]:
    """What must be equal of item rows (n,) ITEM_ROW, by hash; successors as a mapping from hash to counts."""
    found = {}
    for row in rows:
        n = int(row["n_successors"])
        successors = {int(other): counts for other, counts in zip(row["successors"][:n], row["followed"][:n].tolist(), strict=True)}
        plain = {
            name: row[name].tobytes()
            for name in ITEM_ROW.names or ()
            if name not in ("as_of", "successors", "followed")
        }
        found[int(row["hash"])] = (plain, successors)
    return found


def fullest(rows: dict[int, tuple[Any, ...]]) -> int:
    """Most successors of one item: with fewer than `N_SUCCESSORS` the interleaving of partitions cannot matter."""
    return max((len(successors) for _, successors in rows.values()), default=0)


class Redis:
    """What a test reads of one system's state."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix)
        self.client = redis.from_url(settings.redis_url, **settings.redis_client_args())

    def checkpoints(self) -> dict[int, int | None]:
        return self._offsets([self.keys.checkpoint(p) for p in range(self.settings.partitions)])

    def item_checkpoints(self) -> dict[int, int | None]:
        return self._offsets([self.keys.items_checkpoint(p) for p in range(self.settings.partitions)])

    def _offsets(self, names: Sequence[str]) -> dict[int, int | None]:
        values: list[Any] = self.client.mget(names)  # type: ignore[assignment]
        return {p: None if value is None else json.loads(value)["offset"] for p, value in enumerate(values)}

    def owners(self) -> dict[int, str]:
        """Token of each partition's owner."""
        values: list[Any] = self.client.mget([self.keys.owner(p) for p in range(self.settings.partitions)])  # type: ignore[assignment]
        return {p: (value or b"").decode().partition(":")[0] for p, value in enumerate(values)}

    def all_under(self, start: str) -> dict[str, bytes]:
        """Values of all string keys that begin with `start`, by what follows it."""
        names = sorted(self.client.scan_iter(match=literal(start) + "*", count=1000))
        found: dict[str, bytes] = {}
        for i in range(0, len(names), 500):
            values: list[Any] = self.client.mget(names[i : i + 500])  # type: ignore[assignment]
            for name, value in zip(names[i : i + 500], values, strict=True):
                if value is not None:
                    found[name.decode()[len(start) :]] = value
        return found

    def user_rows(self, p: int) -> dict[str, bytes]:
        return self.all_under(self.keys.user(p, ""))

    def item_rows(self, p: int) -> np.ndarray:
        rows: dict[bytes, bytes] = self.client.hgetall(self.keys.items(p))  # type: ignore[assignment]
        return np.frombuffer(b"".join(rows.values()), ITEM_ROW)

    def lists(self) -> dict[str, dict[str, Any]]:
        return {user: json.loads(body) for user, body in self.all_under(self.keys.list_of("")).items()}


async def ends_of(settings: Settings, name: str) -> dict[int, int]:
    """Where the log of a topic ends, by partition."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **settings.kafka_client_args())
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(settings.topic(name), p) for p in range(settings.partitions)])
        return {tp.partition: end for tp, end in ends.items()}
    finally:
        await consumer.stop()


def wait_drained(settings: Settings, deadline_s: float = DRAIN_S, *, alive: Callable[[], None] = lambda: None) -> None:
    """Wait until both sides' checkpoints stand at the ends of the log and nothing is appended any more."""
    state, deadline = Redis(settings), time.monotonic() + deadline_s
    while True:
        alive()
        wanted = asyncio.run(ends_of(settings, "events")), asyncio.run(ends_of(settings, "interactions"))
        found: tuple[Any, Any] = ({}, {})
        pause = time.monotonic() + 2.0  # then look whether the log has grown: a moved event is one more
        while time.monotonic() < pause:
            try:
                found = ({p: at or 0 for p, at in state.checkpoints().items()}, {p: at or 0 for p, at in state.item_checkpoints().items()})
            except redis.exceptions.ConnectionError:
                pass
            if found == wanted:
                if (asyncio.run(ends_of(settings, "events")), asyncio.run(ends_of(settings, "interactions"))) == wanted:
                    return
                break
            time.sleep(POLL_S)
        if time.monotonic() > deadline:
            raise AssertionError(f"not drained within {deadline_s:g} s: the logs end at {wanted}, checkpoints stand at {found}")


def check_equal(settings: Settings, deadline_s: float = DRAIN_S, *, exact: bool = True, alive: Callable[[], None] = lambda: None) -> Engine:
    """Wait until all is drained, then compare Redis with the engine; returns the engine.

    exact: no item's row may be full, and successors are compared too.
    """
    wait_drained(settings, deadline_s, alive=alive)
    engine = lockstep(settings, read_log(settings))
    compare(settings, engine, exact=exact)
    return engine


def compare(settings: Settings, engine: Engine, *, exact: bool = True) -> None:
    """Compare what lies in Redis now with the engine."""
    problems = [*_compare_users(settings, engine), *_compare_items(settings, engine, exact)]
    assert not problems, f"{len(problems)} differences to the engine, the first: " + "\n".join(problems[:8])


def _compare_users(settings: Settings, engine: Engine) -> list[str]:
    state, problems = Redis(settings), []
    lists = state.lists()
    for p, wanted in enumerate(user_rows(engine)):
        found = state.user_rows(p)
        problems += [f"a row of {user} in partition {p} that the engine has not" for user in found.keys() - wanted.keys()]
        for user, row in wanted.items():
            if user not in found:
                problems.append(f"no row of {user} in partition {p}")
                continue
            if found[user] != row:
                problems.append(f"row of {user} in partition {p}: {_difference(found[user], row, USER_ROW)}")
            entry, as_of = lists.get(user), int(np.frombuffer(row, USER_ROW)[0]["as_of"])
            if entry is None:
                problems.append(f"no list of {user}")
            elif (entry["as_of"]["partition"], entry["as_of"]["offset"]) != (p, as_of):
                problems.append(f"list of {user}: as of {entry['as_of']}, his last event is {p}/{as_of}")
    known = {user for rows in user_rows(engine) for user in rows}
    return problems + [f"a list of {user}, who has no event" for user in lists.keys() - known]


def _compare_items(settings: Settings, engine: Engine, exact: bool) -> list[str]:
    state, problems = Redis(settings), []
    table = engine.state.items
    rows = table.rows[: table.n_items]
    wanted = item_rows(rows[rows["as_of"] >= 0])
    found = item_rows(np.concatenate([state.item_rows(p) for p in range(settings.partitions)]))
    if exact:
        assert fullest(wanted) < N_SUCCESSORS, "the test's catalogue is too large to be exact: a row is full"
    problems += [f"item {h:016x} is in one and not in the other" for h in wanted.keys() ^ found.keys()]
    for h in wanted.keys() & found.keys():
        (plain, successors), (found_plain, found_successors) = wanted[h], found[h]
        problems += [
            f"item {h:016x} {name}: {np.frombuffer(found_plain[name], ITEM_ROW[name].base).tolist()},"
            f" wanted {np.frombuffer(plain[name], ITEM_ROW[name].base).tolist()}"
            for name in plain
            if plain[name] != found_plain[name]
        ]
        if exact and successors != found_successors:
            others = {o for o in successors.keys() | found_successors.keys() if successors.get(o) != found_successors.get(o)}
            problems.append(f"item {h:016x}: {len(others)} successors differ, such as {[(found_successors.get(o), successors.get(o)) for o in others][:3]}")
    return problems


def _difference(found: bytes, wanted: bytes, dtype: np.dtype) -> str:
    one, other = np.frombuffer(found, dtype)[0], np.frombuffer(wanted, dtype)[0]
    named = [f"{name} {one[name].tolist()}, wanted {other[name].tolist()}" for name in dtype.names or () if one[name].tobytes() != other[name].tobytes()]
    return "; ".join(named)[:400] or "only the padding differs"


class AsOfWatcher:
    """Reads lists of random users all the time, as an application would, and notes every step back.

    `forget()` where Redis itself went back in time (its file was cut off) or is emptied: what it serves then is the new
    past. With `gaps=True` a list may be missing for a while (Redis was flushed), but must not come back older.
    """

    def __init__(self, settings: Settings, users: Sequence[str], seed: int = 0) -> None:
        self.problems: list[str] = []
        self.n_read = 0
        self.n_changed = 0  # lists that were newer than when they were last read
        self.gaps = False
        self._settings, self._users = settings, list(users)
        self._seen: dict[str, tuple[int, int]] = {}
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="as-of-watcher", daemon=True)

    def __enter__(self) -> AsOfWatcher:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()
        if failure[0] is None:
            assert not self.problems, f"readers saw {len(self.problems)} lists go back: {self.problems[:5]}"
            assert self.n_read, "the watcher has read no list"

    def forget(self) -> None:
        """Begin again: what is seen next is what counts."""
        with self._lock:
            self._seen.clear()

    def _run(self) -> None:
        keys = Keys(self._settings.prefix)
        client = redis.from_url(self._settings.redis_url, socket_timeout=2.0, **self._settings.redis_client_args())
        while not self._stop.wait(0.005):
            users = self._random.sample(self._users, min(20, len(self._users)))
            with self._lock:
                try:
                    bodies: list[Any] = client.mget([keys.list_of(user) for user in users])  # type: ignore[assignment]
                except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                    time.sleep(0.05)
                    continue
                for user, body in zip(users, bodies, strict=True):
                    self._look(user, body)

    def _look(self, user: str, body: bytes | None) -> None:
        before = self._seen.get(user)
        if body is None:
            if before is not None and not self.gaps:
                self.problems.append(f"the list of {user}, seen as of {before}, is gone")
                del self._seen[user]
            return
        self.n_read += 1
        as_of = json.loads(body)["as_of"]
        now = (as_of["partition"], as_of["offset"])
        if before is not None and now < before:
            self.problems.append(f"the list of {user} went back from {before} to {now}")
        self.n_changed += now != before
        self._seen[user] = now
