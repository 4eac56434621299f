"""A log by partition and offset, as a worker reads it that needs what Kafka has dropped.

In: the folder of a log. Out: stretches of a partition, each of so many offsets, as records (`records.py`). The days lie beside each other, so
a stretch takes from each file the row groups that reach into it; what of a group lies further on is kept, as far as memory allows.
Beside a writer: while a stretch is read nothing is removed, and between two it may be.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from consumers.event_log.names import Files, LogError, Piece, listed, read_about, reading
from consumers.event_log.parquet import whole
from consumers.event_log.records import APPEND_TIME, COLUMNS, PRODUCER_TIME, Stretch
from consumers.event_log.rows import arrow, schema
from infra.settings import Settings
from streams.generations import Filed

if TYPE_CHECKING:
    import pyarrow as pa

#: Offsets of a piece; more where few events are chosen.
STEP, LONGEST_STEP = 65_536, 1 << 20  # the longest may turn out to be full of chosen events, which then lie in memory
FEW = 8_192
#: A listing serves for so long: of a year in eight partitions (6,000 files) it takes 40 ms.
LISTED_S = 5.0
#: Rows read and not yet due, of all partitions.
KEPT_BYTES = 256 * 1024 * 1024
_BEYOND = 1 << 62
T = TypeVar("T")


class Choice(NamedTuple):
    """Events of an event time in [first_ms, next_ms), as far as they lie below an offset of their partition; what is above is not asked."""

    first_ms: int | None
    next_ms: int | None
    below: Sequence[int]

    def meets(self, group: Group) -> bool:
        """Whether a row group may hold any."""
        first_ms, next_ms = self.bounds
        return group.last >= self.below[group.partition] or (group.first_ms < next_ms and group.last_ms >= first_ms)

    def of(self, partition: int, offsets: np.ndarray, times_ms: np.ndarray) -> np.ndarray:
        """Which rows (n,) are chosen."""
        first_ms, next_ms = self.bounds
        chosen: np.ndarray = ((times_ms >= first_ms) & (times_ms < next_ms)) | (offsets >= self.below[partition])
        return chosen

    @property
    def bounds(self) -> tuple[int, int]:
        """First and next event time."""
        return (-_BEYOND if self.first_ms is None else self.first_ms, _BEYOND if self.next_ms is None else self.next_ms)


class Group(NamedTuple):
    """A row group of a file, and what its footer says of it: first and last offset, event time and append time."""

    piece: Piece
    number: int
    first: int
    last: int
    first_ms: int
    last_ms: int
    first_appended_ms: int
    last_appended_ms: int

    @property
    def partition(self) -> int:
        """Its partition."""
        return self.piece.partition


class FiledRecords:
    """The events of a log, by partition and offset; implements `streams.earlier.Files`. Calls block, and may come from any thread.

    topic, partitions: whose log it must be, topic_id likewise ("": not known); choice: which events, None: all; by_producer: the topic's
    times are those of producers. Raises LogError, ArrowMissing.
    """

    def __init__(self, folder: str | Path, *, topic: str, partitions: int, topic_id: str = "", choice: Choice | None = None,
                 by_producer: bool = False) -> None:
        self.folder, self.choice = Path(folder), choice
        arrow()
        about = read_about(self.folder)
        if (about.topic, about.partitions) != (topic, partitions):
            raise LogError(f"{folder} is the log of topic {about.topic} with {about.partitions} partitions, the settings say {topic} with "
                           f"{partitions}; name the folder of this system's log")
        if topic_id and about.topic_id and about.topic_id != topic_id:
            raise LogError(f"{folder} is the log of another topic {topic}: of one with the id {about.topic_id}, the brokers know it by {topic_id}; it was "
                           "made anew since, or is that of another system, and offsets of the one mean nothing in the other")
        self._kind = PRODUCER_TIME if by_producer else APPEND_TIME
        self._listed: tuple[float, Files, dict[int, list[Piece]]] | None = None
        self._footers: dict[Piece, tuple[tuple[int, int], list[Group]]] = {}
        self._kept: dict[tuple[Group, tuple[int, int]], tuple[int, pa.Table]] = {}  # an offset, and the rows of a group from there on
        self._steps: dict[int, int] = {}
        self._turn = threading.Lock()

    def range(self, partition: int) -> tuple[int, int]:
        """Where the events of a partition begin and end; (0, 0) where there are none."""
        self._listed = None
        found, pieces = self._beside_a_writer(self._files)
        end = found.ends.get(partition, 0)
        return min([end, *(piece.first for piece in pieces.get(partition, []))]), end

    def groups(self, partition: int) -> list[Group]:
        """All row groups of a partition; the footers of its files are read."""
        return self._beside_a_writer(lambda: [group for piece in self._files()[1].get(partition, []) for group in self._groups(piece)[1]])

    def columns(self, group: Group, names: Sequence[str]) -> list[np.ndarray]:
        """Columns of integers of a row group, each (n,) int64."""
        return self._beside_a_writer(lambda: [column.to_numpy() for column in self._read(group, names).columns])

    def read(self, partition: int, start: int, end: int) -> Stretch:
        """The events from `start` on, up to `end` at most; raises LogError where the log ends before `start`."""
        step = self._steps.get(partition, STEP)
        found = self._beside_a_writer(lambda: self._stretch(partition, start, min(end, start + step)))
        if step > STEP and len(found) > FEW:
            self._steps[partition] = STEP
        elif len(found) < FEW:
            self._steps[partition] = min(2 * step, LONGEST_STEP)
        return found

    def _stretch(self, partition: int, start: int, end: int) -> Stretch:
        found, pieces = self._files()
        log_end = found.ends.get(partition, 0)
        if log_end <= start:
            raise LogError(f"the event log in {self.folder} ends at offset {log_end} of partition {partition}, what follows {start} is asked for")
        end, tables = min(end, log_end), []
        for piece in pieces.get(partition, []):
            if piece.next <= start or piece.first >= end:
                continue
            mark, groups = self._groups(piece)
            for group in groups:
                if group.last >= start and group.first < end and (self.choice is None or self.choice.meets(group)):
                    tables.append(self._rows(group, mark, start, end))
        pa = arrow()
        table = pa.concat_tables(tables) if tables else schema().empty_table().select(list(COLUMNS))
        offsets = table.column("offset").to_numpy()
        if len(offsets) and not (offsets[1:] > offsets[:-1]).all():
            table = table.take(np.argsort(offsets))
        return Stretch(table, end, self._kind)

    def _rows(self, group: Group, mark: tuple[int, int], start: int, end: int) -> pa.Table:
        """The chosen rows of a group in [start, end); those behind are kept, in the order in which groups are met."""
        begins, table = self._kept.pop((group, mark), (end, None))
        if table is None or start < begins:  # whoever reads goes back, too
            table = self._read(group, COLUMNS)
            if self.choice is not None:
                chosen = self.choice.of(group.partition, *(table.column(name).to_numpy() for name in ("offset", "time_ms")))
                table = table.filter(arrow().array(chosen))
        first, last = np.searchsorted(table.column("offset").to_numpy(), [start, end])
        behind = table.slice(last)
        if len(behind):
            # a slice holds all of what it was cut from; once most of that is read, the rest is copied
            self._kept[group, mark] = end, behind.take(np.arange(len(behind))) if 4 * len(behind) < group.last - group.first else behind
            while sum(rows.nbytes for _, rows in self._kept.values()) > KEPT_BYTES:
                del self._kept[next(iter(self._kept))]
        return table.slice(first, last - first)

    def _read(self, group: Group, names: Sequence[str]) -> pa.Table:
        path, pa = self.folder / group.piece.name, arrow()
        try:
            with pa.parquet.ParquetFile(path) as file:
                return whole(file.read_row_group(group.number, columns=list(names), use_threads=False), names).combine_chunks()
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _damaged(path, error) from error

    def _groups(self, piece: Piece) -> tuple[tuple[int, int], list[Group]]:
        """What the footer of a file says, and what tells it from one that was written anew under its name."""
        path, pa = self.folder / piece.name, arrow()
        about = path.stat()
        mark = (about.st_ino, about.st_mtime_ns)
        known = self._footers.get(piece)
        if known is not None and known[0] == mark:
            return known
        try:
            footer = pa.parquet.read_metadata(path)
            names = {footer.schema.column(k).name: k for k in range(footer.num_columns)}
            groups = []
            for number in range(footer.num_row_groups):
                said = [footer.row_group(number).column(names[name]).statistics for name in ("offset", "time_ms", "appended_ms")]
                if footer.row_group(number).num_rows:
                    groups.append(Group(piece, number, *(bound for one in said for bound in (one.min, one.max))))
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
            raise _damaged(path, error) from error
        self._footers[piece] = mark, groups
        return mark, groups

    def _files(self) -> tuple[Files, dict[int, list[Piece]]]:
        """Which files count, and those of each partition in the order of offsets."""
        if self._listed is None or time.monotonic() - self._listed[0] > LISTED_S:
            found = listed(self.folder)
            by_partition: dict[int, list[Piece]] = {p: list(pieces) for p, pieces in found.fresh.items()}
            for (_, p), pieces in found.days.items():
                by_partition.setdefault(p, []).extend(pieces)
            for pieces in by_partition.values():
                pieces.sort(key=lambda piece: (piece.first, piece.next, piece.day or 0))
            there = {piece for pieces in by_partition.values() for piece in pieces}
            self._footers = {piece: known for piece, known in self._footers.items() if piece in there}
            self._kept = {key: rows for key, rows in self._kept.items() if key[0].piece in there}
            self._listed = time.monotonic(), found, by_partition
        return self._listed[1], self._listed[2]

    def _beside_a_writer(self, ask: Callable[[], T]) -> T:
        """What counted when it was listed may have been joined into another file, and be gone: then it is listed anew."""
        with self._turn, reading(self.folder):
            try:
                return ask()
            except FileNotFoundError:
                self._listed = None
                return ask()


def open_files(folder: str, settings: Settings, filed: Filed | None = None, *, topic_id: str = "", by_producer: bool = False) -> FiledRecords:
    """What a worker reads; see `streams.earlier.OpenFiles`."""
    choice = Choice(filed.first_ms, filed.next_ms, filed.ends) if filed is not None and filed.by_time else None
    return FiledRecords(folder, topic=settings.topic("events"), partitions=settings.partitions, topic_id=topic_id, choice=choice, by_producer=by_producer)


def _damaged(path: Path, error: Exception) -> LogError:
    return LogError(f"{path} cannot be read ({error}): it is damaged, or no file of an event log; put it back, or export the topic anew as far as Kafka "
                    "holds it")
