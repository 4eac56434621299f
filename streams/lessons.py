"""Lessons on their way: the packed message of the `lessons` topic, and what a worker has learned from it.

One partition, so that there is one order in which all workers learn: what a step of the factors reads and writes lies all
over the catalogue, and with several partitions no two workers would read the same. Nothing else waits for it: where
learning is slower than absorbing, it lags behind, as lists do.

Two kinds of lessons travel together: those of the factors, one an event, and those of the fusion, a gradient for some baskets
of which it was asked what it would have shown.

Layout, little-endian: a header; one section for each events partition (its number, how many lessons of either kind are its,
its first and last source); the heads of all lessons, section after section, each section's in the order of their sources; then
the items of all contexts, then their shares; then the fusion's lessons, section after section, and their gradients.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from infra.settings import StreamrecError
from models.fusion import Lesson, fresh, learn
from models.hit_rate import HitRate
from models.lessons import LESSON, N_BACK, N_CONTEXT, Lessons
from models.mf import MatrixFactors, size_of_dump
from models.records import stacked

log = logging.getLogger(__name__)

VERSION = 1
NEWEST = 100  # versions from here on are bytes of something else
#: version, number of sections, of lessons, of context entries, of the fusion's lessons, of parameters in each
HEADER = struct.Struct("<HHIIII")
#: events partition, number of lessons, of the fusion's lessons, first and last source offset
SECTION = struct.Struct("<HxxIIxxxxqq")
#: A lesson of the fusion but for its gradient; `source` is that of the last event that it was made of.
JUDGED = np.dtype(
    [("source", "<u4"), ("n", "<u4"), ("n_items", "<u4"), ("n_found", "<u4"), ("n_hits", "<u4"), ("loss", "<f4")]
)
#: Keeps a message under 8 MiB with the longest contexts.
MAX_LESSONS = 25_000
#: Room that one of the fusion takes, in lessons: about 3 kB.
JUDGED_SIZE = 12


class NewerLessons(StreamrecError):
    """A message of `lessons` was written by a newer version of the worker."""


class ForeignLessons(StreamrecError):
    """A message of `lessons` that no worker has written. All replicas pass it over."""


class Noted(NamedTuple):
    """Lessons from events of one partition, `source` ascending, counted from offset `base`. `judged`: those of the fusion,
    with the offset of the last event that each was made of, ascending."""

    partition: int
    base: int
    lessons: Lessons
    judged: Sequence[tuple[int, Lesson]] = ()

    @property
    def sources(self) -> tuple[int, int]:
        """Offsets of the first and of the last event that is spoken of."""
        heads = self.lessons.heads["source"]
        said = [self.base + int(source) for source in (heads[0], heads[-1])] if len(heads) else []
        said += [self.judged[0][0], self.judged[-1][0]] if self.judged else []
        return min(said), max(said)


def no_lessons() -> Lessons:
    """None at all."""
    return Lessons(np.empty(0, LESSON), np.empty(0, np.uint64), np.empty(0, np.uint8))


def joined(parts: Sequence[Lessons]) -> Lessons:
    """Several in a row as one."""
    if not parts:
        return no_lessons()
    if len(parts) == 1:
        return parts[0]
    heads, items, shares = zip(*parts, strict=True)
    return Lessons(stacked(heads, LESSON), np.concatenate(items), np.concatenate(shares))


def _cut(lessons: Lessons, first: int, last: int) -> Lessons:
    """Lessons [first, last) with their contexts."""
    ends = np.cumsum(lessons.heads["n_context"], dtype=np.int64)
    start = int(ends[first - 1]) if first else 0
    end = int(ends[last - 1]) if last else 0
    return Lessons(lessons.heads[first:last], lessons.items[start:end], lessons.shares[start:end])


def pack(noted: Iterable[Noted]) -> Iterator[bytes]:
    """Pack lessons into as few messages as their size allows."""
    gathered: list[Noted] = []
    room = MAX_LESSONS
    for whole in noted:
        for piece in _pieces(whole):
            size = len(piece.lessons.heads) + JUDGED_SIZE * len(piece.judged)
            if gathered and size > room:
                yield _message(gathered)
                gathered, room = [], MAX_LESSONS
            gathered.append(piece)
            room -= size
    if gathered:
        yield _message(gathered)


def _pieces(whole: Noted) -> Iterator[Noted]:
    """Cut what is too large for one message; what one event has said stays together."""
    partition, base, lessons, judged = whole
    n, start, told = len(lessons.heads), 0, 0
    while start < n or told < len(judged):
        end = min(start + MAX_LESSONS, n)
        until = base + int(lessons.heads["source"][end - 1]) if start < end < n else None
        last = told
        while last < len(judged) and (until is None or judged[last][0] <= until):
            last += 1
        yield Noted(partition, base, _cut(lessons, start, end), judged[told:last])
        start, told = end, last


def _message(noted: list[Noted]) -> bytes:
    whole = joined([part.lessons for part in noted])
    judged = [one for part in noted for one in part.judged]
    heads, told = whole.heads.copy(), np.zeros(len(judged), JUDGED)
    n_parameters = len(judged[0][1].gradient) if judged else 0
    parts = [HEADER.pack(VERSION, len(noted), len(heads), len(whole.items), len(judged), n_parameters)]
    start = k = 0
    for part in noted:
        n, (first, last) = len(part.lessons.heads), part.sources
        parts.append(SECTION.pack(part.partition, n, len(part.judged), first, last))
        heads["source"][start : start + n] += np.uint32((part.base - first) % 2**32)
        start += n
        for source, lesson in part.judged:
            told[k] = (source - first, lesson.n, lesson.n_items, lesson.n_found, lesson.n_hits, lesson.loss)
            k += 1
    gradients = [lesson.gradient.astype("<f4").tobytes() for _, lesson in judged]
    return b"".join([*parts, heads.tobytes(), whole.items.tobytes(), whole.shares.tobytes(), told.tobytes(), *gradients])


def unpack(value: bytes | None, n_partitions: int) -> list[Noted]:
    """Decode one message; raises `NewerLessons` or `ForeignLessons`."""
    try:
        return _unpack(value or b"", n_partitions)
    except (struct.error, ValueError, IndexError) as error:
        raise ForeignLessons(f"{len(value or b'')} bytes that begin with {(value or b'')[:8].hex()}: {error}") from None


def _unpack(value: bytes, n_partitions: int) -> list[Noted]:
    version, n_sections, n, n_context, n_judged, n_parameters = HEADER.unpack_from(value)
    if version in range(VERSION + 1, NEWEST):
        raise NewerLessons(f"a lessons message has version {version}, this worker reads {VERSION}: upgrade the worker first")
    at = HEADER.size + n_sections * SECTION.size
    size = at + n * LESSON.itemsize + n_context * 9 + n_judged * (JUDGED.itemsize + 4 * n_parameters)
    if version != VERSION or not n_sections or len(value) != size:
        raise ValueError("no lessons message")
    # copied: kernels are compiled for arrays that may be written
    heads = np.frombuffer(value, LESSON, n, at).copy()
    at += heads.nbytes
    items = np.frombuffer(value, "<u8", n_context, at).copy()
    at += items.nbytes
    shares = np.frombuffer(value, "u1", n_context, at).copy()
    at += shares.nbytes
    told = np.frombuffer(value, JUDGED, n_judged, at)
    gradients = np.frombuffer(value, "<f4", n_judged * n_parameters, at + told.nbytes).copy().reshape(n_judged, n_parameters)
    _check(heads, items, shares)
    if (told["n_hits"] > told["n"]).any() or (told["n_found"] > told["n_items"]).any():
        raise ValueError("more hits than baskets")
    whole, noted, start, k = Lessons(heads, items, shares), [], 0, 0
    for s in range(n_sections):
        partition, n_its, n_told, first, last = SECTION.unpack_from(value, HEADER.size + s * SECTION.size)
        end, stop = start + n_its, k + n_told
        if not n_its + n_told or end > n or stop > n_judged or partition >= n_partitions or first < 0:
            raise ValueError("a section does not fit its lessons")
        judged = [
            (first + source, Lesson(gradients[k + j], *rest))
            for j, (source, *rest) in enumerate(told[k:stop].tolist())
        ]
        part = Noted(partition, first, _cut(whole, start, end), judged)
        in_order = all((np.diff(sources.astype(np.int64)) >= 0).all() for sources in (heads["source"][start:end], told["source"][k:stop]))
        if part.sources[1] != last or not in_order:
            raise ValueError("sources are not in order")
        noted.append(part)
        start, k = end, stop
    if start != n or k != n_judged:
        raise ValueError("lessons without a section")
    return noted


def _check(heads: np.ndarray, items: np.ndarray, shares: np.ndarray) -> None:
    sizes = heads["n_context"].astype(np.int64)
    if sizes.sum() != len(items) or sizes.min(initial=1) < 1 or sizes.max(initial=1) > N_CONTEXT or not shares.all():
        raise ValueError("contexts do not fit their lessons")
    if not heads["item"].all() or not items.all() or (heads["n_back"] > np.minimum(sizes, N_BACK)).any() or (heads["again"] > 1).any():
        raise ValueError("items that are none")
    if (heads["n_before"] < sizes).any() or heads["n_before"].max(initial=0) > N_CONTEXT:
        raise ValueError("more or fewer items before them than a row holds")
    if not np.isfinite(heads["weight"]).all() or not heads["weight"].all():
        raise ValueError("weights that no event has")


class Learner:
    """What has been learned up to an offset of the log: a replica like any other. `fusion`: the state that fusion ranks by."""

    def __init__(self, n_partitions: int, factors: MatrixFactors, fusion: np.ndarray) -> None:
        self.n_partitions = n_partitions
        self.position = 0  # next offset
        self.highest = np.full(n_partitions, -1, np.int64)  # last source learned, per events partition
        self.factors, self.fusion = factors, fusion
        self.hit_rate = HitRate()
        self.n_foreign = 0  # messages that no worker has written

    def take(self, offset: int, value: bytes | None) -> list[Noted]:
        """What a message says that none has said before; counts it as said. Empty for messages that were read before."""
        if offset < self.position:
            return []
        try:
            noted = unpack(value, self.n_partitions)
        except ForeignLessons as error:
            self.pass_over(offset, str(error))
            return []
        self.position = offset + 1
        return [self._beyond_highest(part) for part in noted]

    def pass_over(self, offset: int, why: str) -> None:
        """A message that no worker has written."""
        if offset >= self.position:
            self.position = offset + 1
            self.n_foreign += 1
            log.warning("lessons offset %d is passed over: %s", offset, why)

    def _beyond_highest(self, noted: Noted) -> Noted:
        partition, base, lessons, judged = noted
        highest = int(self.highest[partition])
        self.highest[partition] = max(highest, noted.sources[1])
        if base > highest:
            return noted
        sources = lessons.heads["source"]
        first = int(np.searchsorted(sources, highest - base, side="right"))
        return Noted(partition, base, _cut(lessons, first, len(sources)), [one for one in judged if one[0] > highest])

    def learn(self, noted: Sequence[Noted]) -> int:
        """Learn what was taken; returns from how many events. Touches nothing but the models: may run in a thread, while
        what it moves is being read."""
        lessons = joined([part.lessons for part in noted])
        if len(lessons.heads):
            self.factors.teach(lessons)
        for part in noted:
            for _, lesson in part.judged:
                learn(self.fusion, lesson)
                self.hit_rate.add(lesson.n_hits, lesson.n)
        return len(lessons.heads)

    @property
    def n_taught(self) -> int:
        """Lessons of the factors learned so far, of those that count once."""
        return self.factors.n_taught

    @property
    def n_bytes(self) -> int:
        """Size of `dump`."""
        return self.fusion.nbytes + size_of_dump(self.factors.n_items)

    def dump(self) -> bytearray:
        """All that was learned, without position and sources. May run in a thread: others go on meanwhile."""
        data = bytearray(self.n_bytes)
        out, n = np.frombuffer(data, np.uint8), self.fusion.nbytes
        out[:n] = self.fusion.reshape(1).view(np.uint8)
        self.factors.dump_into(out[n:])
        return data

    def forget(self) -> None:
        """Begin anew, at the beginning of the log."""
        nothing = Learner(self.n_partitions, MatrixFactors(), fresh(int(self.fusion["n_features"])))
        self.load(nothing.dump(), 0, [-1] * self.n_partitions)

    def load(self, data: bytes | bytearray, position: int, highest: Sequence[int]) -> None:
        """Take what another replica has dumped at `position`; raises ValueError for bytes that are none."""
        fusion = np.frombuffer(data[: self.fusion.nbytes], self.fusion.dtype) if len(data) > self.fusion.nbytes else None
        if fusion is None or any(fusion[0][name] != self.fusion[name] for name in ("version", "n_features", "n_hidden")):
            raise ValueError(f"{len(data)} bytes are no factors behind a fusion of this version")
        self.factors.load(data[self.fusion.nbytes :])
        self.fusion[...] = fusion[0]
        self.position = position
        self.highest[:] = highest
