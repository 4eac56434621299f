"""Reading an event log: one moment of it as tables, while its writer goes on.

    with EventLog(folder).snapshot() as log:
        for part in log.parts(["user_id", "item_id", "time_ms"], days=("2026-11-01", "2026-11-21")):
            part.partition, part.day, part.table

A snapshot is what the names said when it was taken: each event once, those of a partition up to some offset. Nothing that it
names is removed while it is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from consumers.event_log import parquet
from consumers.event_log.names import Files, LogError, day_number, day_text, listed, read_about, reading
from consumers.event_log.rows import COLUMNS, arrow, by_day, schema

if TYPE_CHECKING:
    import pyarrow as pa

Offsets = Mapping[int, tuple[int, int]]


class Part(NamedTuple):
    """Events of one partition and event day ("2026-11-22"), in the order of their offsets."""

    partition: int
    day: str
    table: pa.Table


class EventLog:
    """An event log to read; raises LogError where the folder holds none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        arrow()
        about = read_about(self.folder)
        self.topic, self.n_partitions = about.topic, about.partitions

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """What is in the log now; while it is open files wait to be removed, so let it be short."""
        with reading(self.folder):
            yield Snapshot(self.folder, listed(self.folder))

    def read(self, columns: Sequence[str] = COLUMNS, *, days: tuple[str, str] | None = None, offsets: Offsets | None = None,
             unique: bool = True) -> pa.Table:
        """Everything of a range as one table, partition after partition, day after day; see `Snapshot.parts`."""
        with self.snapshot() as log:
            tables = [part.table for part in log.parts(columns, days=days, offsets=offsets, unique=unique)]
        return arrow().concat_tables(tables).unify_dictionaries() if tables else schema().empty_table().select(list(columns))


class Snapshot:
    """One moment of a log. `ends`: offset behind the last event that is there, by partition."""

    def __init__(self, folder: Path, found: Files) -> None:
        self._folder, self._files = folder, found
        self.ends: dict[int, int] = dict(found.ends)

    def days(self) -> list[str]:
        """Event days that have events, oldest first."""
        days = {day for day, _ in self._files.days}
        for p in self.ends:
            days |= set(by_day(self._fresh(p, ["time_ms"])))
        return [day_text(day) for day in sorted(days)]

    def n_rows(self, days: tuple[str, str] | None = None) -> int:
        """Rows that lie in the log, or in these days (first and last, both included), events that were sent again among them."""
        first, last = _range(days)
        n = sum(parquet.n_rows(self._folder / piece.name) for (day, _), pieces in self._files.days.items() if first <= day <= last for piece in pieces)
        for p in self._files.fresh:
            n += sum(len(places) for day, places in by_day(self._fresh(p, ["time_ms"])).items() if first <= day <= last)
        return n

    def parts(self, columns: Sequence[str] = COLUMNS, *, days: tuple[str, str] | None = None, offsets: Offsets | None = None,
              unique: bool = True) -> Iterator[Part]:
        """Events by partition and event day; texts that come again and again (users, items) are dictionary-encoded.

        days: first and last, both included; offsets: [first, next) by partition, other partitions are left out; unique: of events
        of one user and one day with the same `event_id` only the first of the range.
        """
        if unknown := set(columns) - set(COLUMNS):
            raise LogError(f"{', '.join(sorted(unknown))} is no column of the event log; there are {', '.join(COLUMNS)}")
        first, last = _range(days)
        # what the choice of rows asks for, and what tells the day
        wanted = list(dict.fromkeys([*columns, "time_ms", *(["offset"] if offsets is not None else []),
                                     *(["user_id", "event_id"] if unique else [])]))
        for partition in sorted(self.ends if offsets is None else self.ends.keys() & offsets.keys()):
            old = {day: pieces for (day, p), pieces in self._files.days.items() if p == partition and first <= day <= last}
            fresh = self._fresh(partition, wanted)
            new = {day: places for day, places in by_day(fresh).items() if first <= day <= last}
            for day in sorted(old.keys() | new.keys()):
                tables = [parquet.read(self._folder / piece.name, wanted) for piece in old.get(day, [])]
                if fresh is not None and day in new:
                    tables.append(fresh.take(new[day]))
                table = _chosen(tables, offsets[partition] if offsets is not None else None, unique)
                if len(table):
                    yield Part(partition, day_text(day), table.select(list(columns)))

    def _fresh(self, partition: int, columns: Sequence[str]) -> pa.Table | None:
        tables = [parquet.read(self._folder / piece.name, columns) for piece in self._files.fresh.get(partition, [])]
        return arrow().concat_tables(tables).unify_dictionaries() if tables else None


def _range(days: tuple[str, str] | None) -> tuple[int, int]:
    return (day_number(days[0]), day_number(days[1])) if days else (-(1 << 40), 1 << 40)


def _chosen(tables: list[Any], offsets: tuple[int, int] | None, unique: bool) -> Any:
    pa = arrow()
    table = pa.concat_tables(tables).unify_dictionaries()
    if offsets is not None:
        at = table.column("offset").to_numpy()
        table = table.filter(pa.array((at >= offsets[0]) & (at < offsets[1])))
    if not unique or not len(table):
        return table
    ids = table.column("event_id").combine_chunks().dictionary_encode()
    if len(ids.dictionary) == len(table):
        return table
    users = table.column("user_id").combine_chunks().indices.to_numpy().astype(np.int64)
    _, kept = np.unique(users * len(ids.dictionary) + ids.indices.to_numpy(), return_index=True)
    return table.take(np.sort(kept))
