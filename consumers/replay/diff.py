"""How the lists of one generation differ from those of another: what readers would see, and what the judge says of each.

In: two names, `live` for the one that is. Out: a `Difference`, over all users who have a list in either. Lists are read as they stand;
where one of the two has read further, that is said, since newer events make other lists too.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumers.lists import RecommendationList, decode_list
from consumers.replay.shadows import ShadowError, checkpoints
from consumers.redis import connected
from infra.settings import Settings
from streams.generations import Generation, generation_of, live_generation
from streams.keys import Keys, literal
from streams.lessons import ForeignLessons, unpack

LIVE = "live"
TOP = 10
SCAN_COUNT = 1_000
#: Users and items named that moved most.
NAMED = 10
FETCH_MS = 200


class Side(msgspec.Struct, frozen=True):
    """One of the two. `position`: events read; `coverage`: share of its items that stand among the first ten of any list."""

    name: str
    users: int
    items: int
    coverage: float
    position: int
    baskets: int
    hit_rate: float | None  # of baskets that the judge looked at while both had read the same stretch; None: none


class Moved(msgspec.Struct, frozen=True):
    """A user or an item, and how much it moved: overlap of a user's lists, in how many more of them an item stands."""

    id: str
    change: float


class Difference(msgspec.Struct, frozen=True):
    """`overlap`: mean share of the first ten in common; `correlation`: mean rank correlation (Spearman) of what both lists hold."""

    one: Side
    other: Side
    compared: int
    differing: int  # users whose first ten are others, or in another order
    newer: int  # of those compared: one list knows later events than the other
    overlap: float | None
    correlation: float | None
    users: list[Moved]
    items: list[Moved]


async def difference(settings: Settings, one: str, other: str) -> Difference:
    """Compare two generations; raises `ShadowError` where one is not there."""
    async with connected(settings) as client:
        live = await live_generation(client, settings.prefix)
        both = [(live or "" if name == LIVE else name) for name in (one, other)]
        if both[0] == both[1]:
            raise ShadowError(f"{one} and {other} are the same generation; name two")
        metas = [await generation_of(client, settings.prefix, name) for name in both]
        keys = [Keys(settings.prefix, name, is_live=name == live) for name in both]
        found = _Compared()
        async for user, bodies in _lists(client, keys):
            found.add(user, bodies)
        judged = await _judged(settings, both, metas)
        sides = []
        for k, name in enumerate(both):
            n_items = sum([await client.hlen(keys[k].items(p)) for p in range(settings.partitions)])
            at = await checkpoints(client, settings, name, metas[k])
            baskets, hits = judged[k]
            sides.append(Side(name, found.n_users[k], n_items, len(found.shown[k]) / max(1, n_items), sum(at), baskets, hits / baskets if baskets else None))
    return found.report(*sides)


class _Compared:
    """What has been seen of lists so far."""

    def __init__(self) -> None:
        self.n_users = [0, 0]
        self.shown: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self.n = self.differing = self.newer = 0
        self.overlap = self.correlation = 0.0
        self.n_correlated = 0
        self.farthest: list[tuple[float, str]] = []  # a heap of the users whose lists have least in common

    def add(self, user: str, bodies: tuple[RecommendationList | None, RecommendationList | None]) -> None:
        for k, body in enumerate(bodies):
            if body is not None:
                self.n_users[k] += 1
                self.shown[k].update(body.items[:TOP])
        one, other = bodies
        if one is None or other is None:
            return
        self.n += 1
        first, second = one.items[:TOP], other.items[:TOP]
        self.differing += first != second
        self.newer += one.as_of is not None and other.as_of is not None and one.as_of.offset != other.as_of.offset
        shared = len(set(first) & set(second)) / max(1, min(TOP, max(len(first), len(second))))
        self.overlap += shared
        if (rho := correlation(one.items, other.items)) is not None:
            self.correlation += rho
            self.n_correlated += 1
        heapq.heappush(self.farthest, (-shared, user))
        if len(self.farthest) > NAMED:
            heapq.heappop(self.farthest)

    def report(self, one: Side, other: Side) -> Difference:
        first, second = self.shown
        items = sorted(({*first, *second}), key=lambda item: (-abs(second[item] - first[item]), item))[:NAMED]
        return Difference(
            one, other, self.n, self.differing, self.newer,
            self.overlap / self.n if self.n else None, self.correlation / self.n_correlated if self.n_correlated else None,
            [Moved(user, -shared) for shared, user in sorted(self.farthest, reverse=True)],
            [Moved(item, second[item] - first[item]) for item in items if second[item] != first[item]])


def correlation(one: Iterable[str], other: Iterable[str]) -> float | None:
    """Spearman's rank correlation of what both lists hold; None for less than two items in common.

    >>> correlation(["a", "b", "c"], ["c", "b", "a"])
    -1.0
    """
    place = {item: k for k, item in enumerate(other)}
    second = np.array([place[item] for item in one if item in place])
    n = len(second)
    if n < 2:
        return None
    ranks = np.argsort(np.argsort(second))
    return float(1 - 6 * np.sum((np.arange(n) - ranks) ** 2) / (n * (n**2 - 1)))


async def _lists(client: Any, keys: list[Keys]) -> AsyncIterator[tuple[str, tuple[RecommendationList | None, RecommendationList | None]]]:
    """Users who have a list in either, each once, with both."""
    for k, (mine, theirs) in enumerate((keys, keys[::-1])):
        begins, cursor, done = mine.list_of(""), 0, False
        while not done:
            cursor, names = await client.scan(cursor, match=literal(begins) + "*", count=SCAN_COUNT)
            done = cursor == 0
            users = [name.decode()[len(begins) :] for name in dict.fromkeys(names)]
            if not users:
                continue
            here = await client.mget([mine.list_of(user) for user in users])
            there = await client.mget([theirs.list_of(user) for user in users])
            for user, *bodies in zip(users, here, there, strict=True):
                first, second = (None if body is None else decode_list(body) for body in bodies)
                if k == 0:
                    yield user, (first, second)
                elif second is None:  # the others came with the first scan
                    yield user, (None, first)


async def _judged(settings: Settings, names: list[str], metas: list[Generation]) -> list[tuple[int, int]]:
    """Baskets that the judge of each has looked at, and hits among the first ten, in events that both have read."""
    start = [max(offsets) for offsets in zip(*(meta.start or [0] * settings.partitions for meta in metas), strict=True)]
    said = [[one async for one in _lessons(settings.with_own(name, {}))] for name in names]
    ends = {p: min(max((source for at, source, *_ in found if at == p), default=-1) for found in said) for p in range(settings.partitions)}
    counted = []
    for found in said:
        within = [(n, hits) for p, source, n, hits in found if start[p] <= source <= ends[p]]
        counted.append((sum(n for n, _ in within), sum(hits for _, hits in within)))
    return counted


async def _lessons(settings: Settings) -> AsyncIterator[tuple[int, int, int, int]]:
    """Events partition, offset, baskets and hits of each lesson of the fusion, once."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="earliest", **settings.kafka_client_args())
    await consumer.start()
    try:
        tp = TopicPartition(settings.topic("lessons"), 0)
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        highest: dict[int, int] = {}
        while await consumer.position(tp) < end:
            for record in (await consumer.getmany(timeout_ms=FETCH_MS)).get(tp, []):
                try:
                    noted = unpack(record.value, settings.partitions)
                except ForeignLessons:
                    continue
                for part in noted:
                    known = highest.get(part.partition, -1)
                    for source, lesson in part.judged:
                        if source > known:
                            yield part.partition, source, lesson.n, lesson.n_hits
                    highest[part.partition] = max(known, part.sources[1])
    finally:
        await consumer.stop()


def as_table(found: Difference) -> list[tuple[str, str, str]]:
    """The figures of both sides, for people."""
    sides: Mapping[str, Any] = {
        "users with a list": lambda side: f"{side.users:,}",
        "items": lambda side: f"{side.items:,}",
        f"coverage by the first {TOP}": lambda side: f"{side.coverage:.1%}",
        "events read": lambda side: f"{side.position:,}",
        "baskets judged": lambda side: f"{side.baskets:,}",
        f"hit rate of the first {TOP}": lambda side: "" if side.hit_rate is None else f"{side.hit_rate:.4f} ± {_error(side):.4f}",
    }
    return [(name, show(found.one), show(found.other)) for name, show in sides.items()]


def _error(side: Side) -> float:
    rate = side.hit_rate or 0.0
    return float(np.sqrt(rate * (1 - rate) / max(1, side.baskets)))
