"""From `fresh` into the days: the rows of each event day and partition in few files, and the days past retention gone.

In: the folder, held by its writer. The steps for one partition, each of which may be the last before a crash:

1. for each day that has new rows a file of these, joined with the files before it that are not much larger (so a row is written
   again only when its day has grown by half): these files end behind the mark, and do not count yet;
2. the new mark: now they count, and the files of `fresh` and those that were joined do not;
3. what does not count is removed, unless somebody reads: then the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumers.event_log import parquet
from consumers.event_log.names import DAY_MS, FRESH, Piece, alone, files, folder_of_day, listing
from consumers.event_log.rows import COLUMNS, arrow, by_day
from models.durable import sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

#: An older file is joined with the newer rows while it has at most so many times as many.
JOINED = 2
LONG_AGO = -(1 << 40)

Keep = Callable[["pa.Table"], Any] | None


@dataclass
class Compacted:
    """What was done: rows that came into the days, files written, files removed, files that wait for readers to end, and files that were
    written anew because somebody was erased."""

    rows: int = 0
    written: int = 0
    removed: int = 0
    waiting: int = 0
    forgotten: int = 0


def compact(folder: Path, *, retention_days: int | None, whole: bool, keep: Keep) -> Compacted:
    """See `LogWriter.compact`."""
    done, found = Compacted(), files(listing(folder))
    for piece in found.early:  # of a compaction that was broken off: nobody counts them
        (folder / piece.name).unlink()
    oldest = LONG_AGO
    if retention_days is not None:
        oldest = _newest(folder, list(found.days), [piece for pieces in found.fresh.values() for piece in pieces]) - retention_days + 1
    for partition, pieces in found.fresh.items():
        before = {day: old for (day, p), old in found.days.items() if p == partition}
        _move(folder, partition, pieces, before, oldest, whole, keep, done)
    if whole:
        for (day, partition), old in files(listing(folder)).days.items():
            if day >= oldest and (len(old) > 1 or keep is not None):
                _write(folder, Piece(partition, old[0].first, old[-1].next, day), old, None, keep, done)
                sync_folder(folder_of_day(folder, day))
    sync_folder(folder / FRESH)
    _sweep(folder, oldest, done)
    return done


def _newest(folder: Path, days: list[tuple[int, int]], fresh: list[Piece]) -> int:
    """The newest event day there is: what retention counts from, so that a log of last year can be kept and read."""
    newest = [day for day, _ in days]
    for piece in fresh:
        times = parquet.read(folder / piece.name, ["time_ms"]).column("time_ms").to_numpy()
        newest += [int(times.max()) // DAY_MS] if len(times) else []
    return max(newest, default=LONG_AGO)


def _move(folder: Path, partition: int, pieces: list[Piece], before: dict[int, list[Piece]], oldest: int, whole: bool, keep: Keep,
          done: Compacted) -> None:
    """The rows of all files of a partition in `fresh` into its days, and the mark behind them."""
    rows = arrow().concat_tables([parquet.read(folder / piece.name, COLUMNS, encode=False) for piece in pieces])
    first, end = pieces[0].first, pieces[-1].next
    new = {day: places for day, places in by_day(rows).items() if day >= oldest}
    for day, places in new.items():
        old, joined = before.get(day, []), 0
        n = len(places)
        while joined < len(old):
            size = parquet.n_rows(folder / old[-1 - joined].name)
            if not whole and size > JOINED * n:
                break
            joined, n = joined + 1, n + size
        joining = old[len(old) - joined :]
        folder_of_day(folder, day).mkdir(exist_ok=True)
        _write(folder, Piece(partition, joining[0].first if joining else first, end, day), joining, rows.take(places), keep, done)
        done.rows += len(places)
    for part in [folder, *(folder_of_day(folder, day) for day in new)]:
        sync_folder(part)  # before the mark says that they are there
    parquet.write(folder / Piece(partition, end, end).name, [], parquet.read_state(folder / pieces[-1].name))


def _write(folder: Path, piece: Piece, old: list[Piece], new: pa.Table | None, keep: Keep, done: Compacted) -> None:
    """One file from those before and the new rows, in the order of offsets, a row group in memory at a time."""
    def tables() -> Iterator[pa.Table]:
        for source in old:
            yield from parquet.row_groups(folder / source.name)
        if new is not None:
            yield new

    parquet.write(folder / piece.name,
                  (table if keep is None else table.filter(arrow().array(keep(table))) for table in tables()))
    done.written += 1


def _sweep(folder: Path, oldest: int, done: Compacted) -> None:
    """Remove what no longer counts, and the days before `oldest`, unless somebody reads."""
    found = files(listing(folder))
    # of `fresh` the oldest first: what a crash leaves is without a hole
    gone = sorted(found.obsolete, key=lambda piece: piece.next)
    gone += [piece for (day, _), pieces in found.days.items() if day < oldest for piece in pieces]
    if not gone:
        return
    with alone(folder) as nobody_reads:
        if not nobody_reads:
            done.waiting = len(gone)
            return
        for piece in gone:
            (folder / piece.name).unlink()
    done.removed = len(gone)
    for day in {piece.day for piece in gone if piece.day is not None}:
        try:
            folder_of_day(folder, day).rmdir()
        except OSError:  # there is more in it
            pass
