"""Lessons on their way: the packed message of the `lessons` topic, and what a worker has learned from it.

One partition, so that there is one order in which all workers learn: what a step of the factors reads and writes lies all
over the catalogue, and with several partitions no two workers would read the same. Nothing else waits for it: where
learning is slower than absorbing, it lags behind, as lists do.

Layout, little-endian: a header; one section for each events partition (its number, how many lessons are its, its first and
last source); the heads of all lessons, section after section, each section's in the order of their sources; then the items
of all contexts, then their shares.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from infra.settings import StreamrecError
from models.lessons import LESSON, N_BACK, N_CONTEXT, Lessons
from models.mf import MatrixFactors, size_of_dump

log = logging.getLogger(__name__)

VERSION = 1
NEWEST = 100  # versions from here on are bytes of something else
#: version, number of sections, of lessons, of context entries
HEADER = struct.Struct("<HHII")
#: events partition, number of lessons, first and last source offset
SECTION = struct.Struct("<HxxIqq")
#: Keeps a message under 8 MiB with the longest contexts.
MAX_LESSONS = 25_000


class NewerLessons(StreamrecError):
    """A message of `lessons` was written by a newer version of the worker."""


class ForeignLessons(StreamrecError):
    """A message of `lessons` that no worker has written. All replicas pass it over."""


class Noted(NamedTuple):
    """Lessons from events of one partition, `source` ascending, counted from offset `base`."""

    partition: int
    base: int
    lessons: Lessons


def no_lessons() -> Lessons:
    """None at all."""
    return Lessons(np.empty(0, LESSON), np.empty(0, np.uint64), np.empty(0, np.uint8))


def joined(parts: Sequence[Lessons]) -> Lessons:
    """Several in a row as one."""
    if not parts:
        return no_lessons()
    return parts[0] if len(parts) == 1 else Lessons(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


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
    for partition, base, lessons in noted:
        n = len(lessons.heads)
        for start in range(0, n, MAX_LESSONS):
            piece = _cut(lessons, start, min(start + MAX_LESSONS, n))
            if gathered and len(piece.heads) > room:
                yield _message(gathered)
                gathered, room = [], MAX_LESSONS
            gathered.append(Noted(partition, base, piece))
            room -= len(piece.heads)
    if gathered:
        yield _message(gathered)


def _message(noted: list[Noted]) -> bytes:
    whole = joined([part.lessons for part in noted])
    heads = whole.heads.copy()
    parts, start = [HEADER.pack(VERSION, len(noted), len(heads), len(whole.items))], 0
    for partition, base, lessons in noted:
        n, first, last = len(lessons.heads), int(lessons.heads["source"][0]), int(lessons.heads["source"][-1])
        parts.append(SECTION.pack(partition, n, base + first, base + last))
        heads["source"][start : start + n] -= first
        start += n
    return b"".join([*parts, heads.tobytes(), whole.items.tobytes(), whole.shares.tobytes()])


def unpack(value: bytes | None, n_partitions: int) -> list[Noted]:
    """Decode one message; raises `NewerLessons` or `ForeignLessons`."""
    try:
        return _unpack(value or b"", n_partitions)
    except (struct.error, ValueError, IndexError) as error:
        raise ForeignLessons(f"{len(value or b'')} bytes that begin with {(value or b'')[:8].hex()}: {error}") from None


def _unpack(value: bytes, n_partitions: int) -> list[Noted]:
    version, n_sections, n, n_context = HEADER.unpack_from(value)
    if version in range(VERSION + 1, NEWEST):
        raise NewerLessons(f"a lessons message has version {version}, this worker reads {VERSION}: upgrade the worker first")
    at = HEADER.size + n_sections * SECTION.size
    if version != VERSION or not n_sections or not n or len(value) != at + n * LESSON.itemsize + n_context * 9:
        raise ValueError("no lessons message")
    # copied: kernels are compiled for arrays that may be written
    heads = np.frombuffer(value, LESSON, n, at).copy()
    items = np.frombuffer(value, "<u8", n_context, at + heads.nbytes).copy()
    shares = np.frombuffer(value, "u1", n_context, at + heads.nbytes + items.nbytes).copy()
    sizes = heads["n_context"].astype(np.int64)
    if sizes.sum() != n_context or sizes.min() < 1 or sizes.max() > N_CONTEXT or not shares.all():
        raise ValueError("contexts do not fit their lessons")
    if not heads["item"].all() or not items.all() or (heads["n_back"] > np.minimum(sizes, N_BACK)).any():
        raise ValueError("items that are none")
    if not np.isfinite(heads["weight"]).all() or not heads["weight"].all():
        raise ValueError("weights that no event has")
    whole, noted, start = Lessons(heads, items, shares), [], 0
    for k in range(n_sections):
        partition, n_its, first, last = SECTION.unpack_from(value, HEADER.size + k * SECTION.size)
        end = start + n_its
        if not n_its or end > n or partition >= n_partitions or first < 0:
            raise ValueError("a section does not fit its lessons")
        sources = heads["source"][start:end].astype(np.int64)
        if first + int(sources[-1]) != last or (np.diff(sources) < 0).any():
            raise ValueError("sources are not in order")
        noted.append(Noted(partition, first, _cut(whole, start, end)))
        start = end
    if start != n:
        raise ValueError("lessons without a section")
    return noted


class Learner:
    """What has been learned up to an offset of the log: a replica like any other."""

    def __init__(self, n_partitions: int) -> None:
        self.n_partitions = n_partitions
        self.position = 0  # next offset
        self.highest = np.full(n_partitions, -1, np.int64)  # last source learned, per events partition
        self.factors = MatrixFactors()

    def take(self, offset: int, value: bytes | None) -> Lessons:
        """What a message says that none has said before; counts it as said. Empty for messages that were read before."""
        if offset < self.position:
            return no_lessons()
        self.position = offset + 1
        try:
            noted = unpack(value, self.n_partitions)
        except ForeignLessons as error:
            log.warning("lessons offset %d is passed over: %s", offset, error)
            return no_lessons()
        return joined([part for part in map(self._beyond_highest, noted) if len(part.heads)])

    def _beyond_highest(self, noted: Noted) -> Lessons:
        partition, base, lessons = noted
        highest = int(self.highest[partition])
        sources = lessons.heads["source"]
        self.highest[partition] = max(highest, base + int(sources[-1]))
        if base > highest:
            return lessons
        return _cut(lessons, int(np.searchsorted(sources, max(0, highest - base), side="right")), len(sources))

    def learn(self, lessons: Lessons) -> None:
        """Learn what was taken. Touches nothing but the model: may run in a thread, while what it moves is being read."""
        if len(lessons.heads):
            self.factors.teach(lessons)

    @property
    def n_taught(self) -> int:
        """Lessons learned so far, of those that count once."""
        return self.factors.n_taught

    @property
    def n_bytes(self) -> int:
        """Size of `dump`."""
        return size_of_dump(self.factors.n_items)

    def dump(self) -> bytes:
        """All that was learned, without position and sources."""
        return self.factors.dump()

    def load(self, data: bytes, position: int, highest: Sequence[int]) -> None:
        """Take what another replica has dumped at `position`; raises ValueError for bytes that are none."""
        self.factors.load(data)
        self.position = position
        self.highest[:] = highest
