"""What a training learns from and what it is judged on: events of the log as sequences of users.

In: a snapshot of the event log. Out: a `Window` - sequences up to a moment, and tests behind it, each a history and the item that
came next. The newest days are taken whole; of the days before, all events of some users, so that what comes once a year
is not forgotten (exemplars, as ADER keeps them; Mi et al. 2020). Only events count whose type speaks for an item.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from consumers.event_log.names import DAY_MS, day_number
from consumers.trainer.surroundings import Moment
from infra.settings import StreamrecError
from models.durable import put
from models.hashing import stable_hash
from streams.events import EVENT_TYPES

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("user_id", "item_id", "event_type", "time_ms", "value")
#: Events behind this share of the window's, by time, are what a candidate is judged on.
LEARNED = 0.95
#: Tests are made of at most so many events, and of so many of one user: more would tell no more, and cost minutes.
MOST_TESTS, MOST_OF_A_USER = 10_000, 20
#: Below this there is nothing to learn, or nobody to tell one model from another by.
FEWEST_USERS, FEWEST_ITEMS, FEWEST_TESTS = 20, 10, 10
RATING = EVENT_TYPES.index("rating")
#: Events of a history from which its last distinct items are taken.
HISTORY = 200


class TooLittle(StreamrecError):
    """The log does not hold enough to train on."""


@dataclass(frozen=True)
class Window:
    """keys (n_items,) uint64: `models.hashing.stable_hash` of each item's id.

    Learned, user k's events are [ends[k - 1], ends[k]), oldest first: items (n,) int32, types (n,) uint8, times_ms (n,) int64,
    ends (u,) int64. Tests: of test k the history is [test_ends[k - 1], test_ends[k]) of test_items (m,) uint64 keys, test_types,
    test_times_ms; targets (t,) uint64 keys; testers (t,) int64: a number for each user. recent (n_items,) int64: events of the last
    learned week by item. texts (n_items, n_text) float32: what the items are by what is said of them (n_text 0: nothing is looked
    at); more_keys (m,) uint64, more_texts (m, n_text): the same of items that nobody has taken.
    """

    keys: np.ndarray
    items: np.ndarray
    types: np.ndarray
    times_ms: np.ndarray
    ends: np.ndarray
    recent: np.ndarray
    test_items: np.ndarray
    test_types: np.ndarray
    test_times_ms: np.ndarray
    test_ends: np.ndarray
    targets: np.ndarray
    testers: np.ndarray
    texts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    more_keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    more_texts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def save(self, path: Path) -> None:
        """One .npz file, there whole or not at all."""
        def write(scratch: Path) -> None:
            with scratch.open("wb") as file:
                np.savez(file, allow_pickle=False, **{one.name: getattr(self, one.name) for one in dataclasses.fields(self)})

        put(path, write)

    @classmethod
    def load(cls, path: Path) -> Window:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{one.name: file[one.name] for one in dataclasses.fields(cls)})

    @property
    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {"n_events": len(self.items), "n_users": len(self.ends), "n_items": len(self.keys), "n_text_items": len(self.more_keys), "n_tests": len(self.targets),
                "first_time_ms": int(self.times_ms.min()), "last_time_ms": int(self.times_ms.max())}


def places_in(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Place of each key (k,) in `known` (n,), which holds each key once in any order; -1 where it is not there. (k,) int64."""
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
    return np.where(known[order[at]] == keys, order[at], -1)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is taken: window_days, exemplars and type_weights as the settings have them; neutral: the value above which a rating
    speaks for an item, None: values are not read; seed: of what is drawn."""

    window_days: int
    exemplars: float
    type_weights: dict[str, float]
    neutral: float | None
    seed: int


def make_window(log: Moment, ends: Mapping[int, int], last_day: str, choice: Choice) -> Window:
    """The window as of the offsets `ends` and the event day `last_day`: a function of the log up to there and of the choice.

    Raises TooLittle.
    """
    offsets = {p: (0, end) for p, end in ends.items()}
    days = [day for day in log.days() if day <= last_day]
    if not days:
        raise TooLittle("the event log is empty, there is nothing to train on; are events being sent?")
    first = str(np.datetime64(days[-1]) - choice.window_days + 1)
    events = _Events(choice)
    for part in log.parts(COLUMNS, days=(first, days[-1]), offsets=offsets):
        events.add(part.partition, part.table)
    before = [day for day in days if day < first]
    n_before = log.n_rows((before[0], before[-1])) if before and choice.exemplars > 0 else 0
    if n_before:
        share = min(1.0, choice.exemplars * events.n / n_before)
        for part in log.parts(COLUMNS, days=(before[0], before[-1]), offsets=offsets):
            events.add(part.partition, part.table, share=share, seed=choice.seed)
    return events.window(choice.seed, day_number(first) * DAY_MS)


class _Events:
    """Events gathered part by part; users and items numbered as they come."""

    def __init__(self, choice: Choice) -> None:
        self._positive = np.array([choice.type_weights[kind] > 0 for kind in EVENT_TYPES])
        self._neutral = choice.neutral
        self.users: dict[tuple[int, str], int] = {}
        self.items: dict[str, int] = {}
        self.n = 0
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, partition: int, table: pa.Table, *, share: float = 1.0, seed: int = 0) -> None:
        """Events of one partition; share: only of so many users, drawn by a hash of their ids."""
        users, user_ids = _codes(table, "user_id")
        items, item_ids = _codes(table, "item_id")
        kinds, names = _codes(table, "event_type")
        types = np.array([EVENT_TYPES.index(name) for name in names], np.uint8)[kinds] if len(names) else np.empty(0, np.uint8)
        kept = self._positive[types]
        if self._neutral is not None:
            values = table.column("value").to_numpy()  # NaN where there is none, and that is no low rating
            kept &= (types != RATING) | ~(values <= self._neutral)
        if share < 1:
            chosen = [xxhash.xxh3_64_intdigest(user.encode(), seed) < share * 2**64 for user in user_ids]
            kept &= np.array(chosen, bool)[users]
        # a dictionary may name what no kept event has: only what occurs gets a number
        users, items, types = users[kept], items[kept], types[kept]
        users = _renumbered(users, [(partition, user) for user in user_ids], self.users)
        items = _renumbered(items, item_ids, self.items)
        self._parts.append((users, items, types, table.column("time_ms").to_numpy()[kept]))
        self.n += len(users)

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """users int64, items int64, types uint8, times_ms int64, as they came."""
        if not self._parts:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64)
        users, items, types, times = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        return users, items, types, times

    def window(self, seed: int, since_ms: int) -> Window:
        """Sequences and tests; what was before `since_ms` is exemplars, by which the time of tests is not told."""
        users, items, types, times = self.columns()
        if len(self.users) < FEWEST_USERS or len(self.items) < FEWEST_ITEMS:
            raise TooLittle(f"the event log holds {len(users):,} events of {len(self.users):,} users and {len(self.items):,} items in the window; a "
                            f"training needs {FEWEST_USERS} users and {FEWEST_ITEMS} items, so it waits for more events")
        order = np.lexsort((times, users))  # equal times stay as they came
        users, items, types, times = users[order], items[order], types[order], times[order]
        cut = int(np.quantile(times[times >= since_ms], LEARNED, method="lower"))
        learned = times <= cut
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        first = np.repeat(starts, np.diff(starts, append=len(users)))  # of the user's events
        tests = _drawn(np.flatnonzero(~learned & (np.arange(len(users)) > first)), users, seed)
        if len(np.unique(users[tests])) < FEWEST_TESTS:
            raise TooLittle(f"of the newest events only {len(tests)} follow on others of the same user, from {len(np.unique(users[tests]))} users; a "
                            f"candidate can be judged by {FEWEST_TESTS} users or more, so the training waits for more events")
        keys = np.array([stable_hash(item) for item in self.items], np.uint64)
        # an item that is only met later is none that could be learned
        known, place = np.unique(items[learned], return_inverse=True)
        sizes = np.minimum(tests - first[tests], HISTORY)
        ends = np.cumsum(sizes)
        rows = np.repeat(tests - ends, sizes) + np.arange(int(ends[-1]))
        return Window(
            keys=keys[known], items=place.astype(np.int32), types=types[learned], times_ms=times[learned],
            ends=np.cumsum(np.unique(users[learned], return_counts=True)[1]).astype(np.int64),
            recent=np.bincount(place[times[learned] > cut - 7 * DAY_MS], minlength=len(known)),
            test_items=keys[items[rows]], test_types=types[rows], test_times_ms=times[rows], test_ends=ends.astype(np.int64),
            targets=keys[items[tests]], testers=users[tests])


def _drawn(tests: np.ndarray, users: np.ndarray, seed: int) -> np.ndarray:
    """Of these places the first few of each user, of users in any order, until there are enough."""
    if not len(tests):
        return tests
    of = users[tests]
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    nth = np.arange(len(of)) - np.repeat(starts, np.diff(starts, append=len(of)))
    tests = tests[nth < MOST_OF_A_USER]
    of = users[tests]
    order = np.random.default_rng(seed).permutation(len(np.unique(of)))
    rank = order[np.unique(of, return_inverse=True)[1]]
    return np.sort(tests[np.argsort(rank, kind="stable")[:MOST_TESTS]])


def _codes(table: pa.Table, column: str) -> tuple[np.ndarray, list[str]]:
    """Numbers (n,) int64 of the values of a dictionary column, and the values."""
    array = table.column(column).combine_chunks()
    return array.indices.to_numpy().astype(np.int64), array.dictionary.to_pylist()


def _renumbered(codes: np.ndarray, names: Sequence[Any], known: dict[Any, int]) -> np.ndarray:
    """The same by the numbers of `known`, which grows; only names that occur get one."""
    table = np.full(len(names), -1, np.int64)
    for code in np.unique(codes).tolist():
        table[code] = known.setdefault(names[code], len(known))
    found: np.ndarray = table[codes]
    return found
