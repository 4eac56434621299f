"""The folder of an event log: what the names in it say, which files count, and who may do what at the same time.

    log.json                                     which topic, how many partitions
    fresh/p0003-000000001000-000000002000.parquet   all events of partition 3 with offsets 1000 to 1999, as they came
    day=2026-11-22/p0003-000000000000-000000001000.parquet   the same of offsets 0 to 999, but only of that event day

A file in `fresh` of no offsets (`p0003-1000-1000`) is a mark: all events of partition 3 below 1000 lie in the days. So:

- Of the days count the files that end at the mark or below; one whose offsets lie within another's of the same day and partition
  was compacted into it and counts no more.
- Of `fresh` count the files from the mark on. They follow each other without a hole, and the end of the last is how far the log goes.

Writing a file is a rename, and moving events from `fresh` to the days is the rename of a mark. What counts is never removed, and what
no longer counts is removed only while nobody reads (`readers.lock`); `writer.lock` keeps two writers apart. The system releases both
when their holder dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from infra.only_one import only_one
from infra.settings import StreamrecError
from models.durable import put_bytes, sync_folder

#: 1: of an event that was moved it did not say from where.
FORMAT = 2
FRESH = "fresh"
GAPS = "gaps"
DAY_MS = 86_400_000
_NAME = re.compile(r"p(\d{4})-(\d{12,})-(\d{12,})\.parquet")
_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")
LOOKS, BETWEEN_LOOKS_S = 20, 0.05
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LogError(StreamrecError):
    """The folder holds no event log, or one that does not fit what is asked."""


class LogBusy(StreamrecError):
    """Another process writes this log."""


class About(msgspec.Struct):
    """What `log.json` says. topic_id: what the brokers know the topic by; "": they do not tell."""

    topic: str
    partitions: int
    topic_id: str = ""
    format: int = FORMAT


class Gap(NamedTuple):
    """Offsets [first, next) of a partition that the log lacks."""

    partition: int
    first: int
    next: int


@dataclass(frozen=True, order=True)
class Piece:
    """One file: events of `partition` with offsets in [first, next), of one event day (days since 1970) or, in `fresh`, of any."""

    partition: int
    first: int
    next: int
    day: int | None = None

    @property
    def name(self) -> str:
        """Its path within the log."""
        folder = FRESH if self.day is None else f"day={day_text(self.day)}"
        return f"{folder}/p{self.partition:04d}-{self.first:012d}-{self.next:012d}.parquet"


@dataclass
class Files:
    """The files that count. days: by day and partition, in order of offsets; fresh: by partition; ends: where each partition ends."""

    days: dict[tuple[int, int], list[Piece]]
    fresh: dict[int, list[Piece]]
    marks: dict[int, int]
    ends: dict[int, int]
    obsolete: list[Piece]  # counted once
    early: list[Piece]  # of a compaction that was broken off


class Hole(LogError):
    """A file is missing in `fresh`: removed by somebody, or seen while another was put in its place."""


def day_text(day: int) -> str:
    """2026-11-22 for days since 1970."""
    return date.fromordinal(date(1970, 1, 1).toordinal() + day).isoformat()


def day_number(text: str) -> int:
    """Days since 1970 of 2026-11-22."""
    return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()


def listing(folder: Path) -> Iterator[Piece]:
    """All files of the log. Names of other kinds are not ours: they are passed over.

    `fresh` first, and only then which days there are: a mark that is seen has all its files in days that are looked at later, and files of days
    that came behind a mark not seen do not count. The other way round a compaction meanwhile would hide what it moved.
    """
    yield from _pieces(folder / FRESH, None)
    with os.scandir(folder) as entries:
        parts = [entry.name for entry in entries]
    for part in parts:
        if found := _DAY.fullmatch(part):
            try:
                day = day_number(found[1])
            except ValueError:  # day=2026-13-01
                continue
            yield from _pieces(folder / part, day)


def _pieces(part: Path, day: int | None) -> Iterator[Piece]:
    try:
        names = os.listdir(part)
    except (FileNotFoundError, NotADirectoryError):  # a day that is dropped just now
        return
    for name in names:
        if match := _NAME.fullmatch(name):
            yield Piece(int(match[1]), int(match[2]), int(match[3]), day)


def files(pieces: Iterable[Piece]) -> Files:
    """Which files count; raises Hole."""
    days: dict[tuple[int, int], list[Piece]] = {}
    fresh: dict[int, list[Piece]] = {}
    marks: dict[int, int] = {}
    rest, out = list(pieces), Files(days, fresh, marks, {}, [], [])
    for piece in rest:
        if piece.day is None and piece.first == piece.next:
            marks[piece.partition] = max(piece.first, marks.get(piece.partition, 0))
    # the widest first, so that what lies within another meets it
    for piece in sorted(rest, key=lambda p: (p.partition, p.first, -p.next)):
        p, mark = piece.partition, marks.get(piece.partition, 0)
        if piece.day is None:
            if piece.first == piece.next == mark and p in marks:
                out.ends.setdefault(p, mark)
            elif piece.next <= mark:
                out.obsolete.append(piece)
            else:
                end = out.ends.get(p, mark if p in marks else piece.first)
                if piece.first != end:
                    raise Hole(f"{FRESH} has no file with offset {end} of partition {p}, but one from {piece.first} on; put it back, or "
                               "move the folder away so that the log is read anew from Kafka")
                fresh.setdefault(p, []).append(piece)
                out.ends[p] = piece.next
        elif piece.next > mark:
            out.early.append(piece)
        else:
            same = days.setdefault((piece.day, p), [])
            if same and piece.next <= same[-1].next:
                out.obsolete.append(piece)
            else:
                same.append(piece)
    return out


def listed(folder: Path) -> Files:
    """Which files count now, beside a running writer; raises Hole."""
    for _ in range(LOOKS - 1):
        try:
            return files(listing(folder))
        except Hole:  # a name that came while we looked can be missed, and the one behind it seen
            time.sleep(BETWEEN_LOOKS_S)
    return files(listing(folder))


def read_about(folder: Path) -> About:
    """What `log.json` says; raises LogError."""
    path = folder / "log.json"
    try:
        about = msgspec.json.decode(path.read_bytes(), type=About)
    except FileNotFoundError:
        raise LogError(f"{folder} holds no event log (it has no log.json); `streamrec train` writes one, in the folder that "
                       "STREAMREC_TRAIN_FOLDER names") from None
    except (OSError, msgspec.DecodeError) as error:
        raise LogError(f"{path} cannot be read: {error}; it says which topic the log is of, such as "
                       '{"topic": "events", "partitions": 8, "format": 1}') from error
    if not 1 <= about.format <= FORMAT:
        raise LogError(f"{folder} is an event log of format {about.format}, this version reads 1 to {FORMAT}; use the version that wrote it")
    return about


def read_gaps(folder: Path) -> list[Gap]:
    """What Kafka had dropped before it was read, by partition and offset; raises LogError."""
    try:
        return sorted(msgspec.json.decode((folder / GAPS).read_bytes(), type=list[Gap]))
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise LogError(f"{folder / GAPS} cannot be read: {error}; it says which events the log lacks; put it back") from error


def write_gap(folder: Path, gap: Gap) -> None:
    """Note one; again, where it was met before."""
    found = {(one.partition, one.first): one for one in [*read_gaps(folder), gap]}
    put_bytes(folder / GAPS, msgspec.json.encode(sorted(found.values())) + b"\n")
    sync_folder(folder)


def folder_of_day(folder: Path, day: int) -> Path:
    """Where the events of a day lie."""
    return folder / f"day={day_text(day)}"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only writer; raises LogBusy, which says who is."""
    with only_one(folder / "writer.lock", lambda who: LogBusy(
            f"the event log in {folder} is being written by {who}; one trainer at a time, this one has to wait")):
        yield


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """While this holds nothing is removed."""
    with (folder / "readers.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether nobody reads, and nobody begins to while this holds."""
    with (folder / "readers.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def write_about(folder: Path, about: About) -> None:
    """Note which topic the log is of."""
    put_bytes(folder / "log.json", msgspec.json.encode(about) + b"\n")
    sync_folder(folder)
