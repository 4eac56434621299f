"""The one writer of an event log: gathers rows, makes files of them, and knows where each partition goes on.

    with LogWriter(folder, topic="events", partitions=8) as log:
        log.add(3, records)                    # again and again, until log.n_waiting says it is enough
        log.flush()                            # now they are in the log
        log.compact(retention_days=365)        # from `fresh` into the days

What has no name yet does not exist: a flush or a compaction that is broken off is done anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import xxhash

from consumers.event_log import parquet
from consumers.event_log.compaction import Compacted, Keep, compact
from consumers.event_log.erasing import forget, keeper
from consumers.event_log.names import (
    FORMAT,
    FRESH,
    NO_ROOM,
    About,
    Gap,
    LogError,
    Piece,
    files,
    listing,
    read_about,
    write_about,
    write_gap,
    writing,
)
from consumers.event_log.rows import Rows, arrow
from infra.settings import StreamrecError
from models.durable import SCRATCH, sync_folder
from streams.decode import Record
from streams.erasures import Erasures
from streams.events import RatingScale

if TYPE_CHECKING:
    import pyarrow as pa


class NoRoom(StreamrecError):
    """The disk is full. Nothing is lost: what was to be written waits."""


@dataclass(frozen=True)
class Anchor:
    """The last record that was read of a partition: if the topic holds another one there, it is another topic."""

    offset: int
    appended_ms: int
    digest: int

    @staticmethod
    def of(record: Record) -> Anchor:
        """What is kept of a record."""
        return Anchor(record.offset, record.timestamp, xxhash.xxh3_64_intdigest(record.value or b""))


class LogWriter:
    """Holds the folder while it lives. Raises LogBusy, and LogError where the folder holds another topic's log.

    scale: that of ratings, as for the workers: one beyond it is no valid event; erasures: who was erased, whose rows go at a compaction.
    """

    def __init__(self, folder: str | Path, *, topic: str, partitions: int, scale: RatingScale | None = None,
                 erasures: Erasures | None = None) -> None:
        self.folder, self.topic, self.n_partitions = Path(folder), topic, partitions
        arrow()
        self.erasures = Erasures() if erasures is None else erasures
        self.rows = Rows(partitions, scale, self.erasures)
        self.anchors: dict[int, Anchor] = {}
        #: Where each partition goes on, once what waits is written; a partition of which nothing is known is not there.
        self.next: dict[int, int] = {}
        self.n_waiting = self.bytes_waiting = self.n_added = 0
        self._written: dict[int, int] = {}
        self._compacting = threading.Lock()  # two at a time would write the same files
        self._waiting: dict[int, list[pa.Table]] = {p: [] for p in range(partitions)}
        (self.folder / FRESH).mkdir(parents=True, exist_ok=True)
        self._holds = ExitStack()
        self._holds.enter_context(writing(self.folder))
        try:
            self._open()
        except BaseException:
            self._holds.close()
            raise

    def _open(self) -> None:
        if not (self.folder / "log.json").exists():
            with _room(self.folder):
                write_about(self.folder, About(self.topic, self.n_partitions))
        self._about = about = read_about(self.folder)
        if (about.topic, about.partitions) != (self.topic, self.n_partitions):
            raise LogError(f"{self.folder} is the log of topic {about.topic} with {about.partitions} partitions, the settings say "
                           f"{self.topic} with {self.n_partitions}; give the log another folder")
        if about.format < FORMAT:  # what is added is of the new one, which older versions must not join with theirs
            with _room(self.folder):
                self._about = msgspec.structs.replace(about, format=FORMAT)
                write_about(self.folder, self._about)
        for left in self.folder.glob(f"*/*.parquet{SCRATCH}"):
            left.unlink()
        found = files(listing(self.folder))
        for p, end in found.ends.items():
            self.next[p] = self._written[p] = end
            last = found.fresh[p][-1] if p in found.fresh else Piece(p, end, end)
            state = parquet.read_state(self.folder / last.name)
            self.rows.origins[p] = state["origins"]
            if state["anchor"]:
                self.anchors[p] = Anchor(*state["anchor"])

    def is_of(self, topic_id: str) -> bool:
        """Whether the log was read from the topic with this id; the first one that is told is noted."""
        if topic_id and not self._about.topic_id:
            about = About(self.topic, self.n_partitions, topic_id)
            with suppress(NoRoom), _room(self.folder):  # it is told again
                write_about(self.folder, about)
                self._about = about
        return not (topic_id and self._about.topic_id) or topic_id == self._about.topic_id

    def lacks(self, partition: int, first: int, end: int) -> None:
        """Note that offsets [first, end) were gone before they could be read, for whoever reads the log."""
        with suppress(NoRoom), _room(self.folder):  # it was said, and the rows matter more
            write_gap(self.folder, Gap(partition, first, end))

    @property
    def ends(self) -> dict[int, int]:
        """Offset behind the last one that is in the log, by partition."""
        return dict(self._written)

    def add(self, partition: int, records: Sequence[Record]) -> None:
        """Take records that follow those before."""
        if not records:
            return
        self._written.setdefault(partition, records[0].offset)
        table = self.rows.table(partition, records)
        self._waiting[partition].append(table)
        self.n_waiting += len(table)
        self.n_added += len(table)
        self.bytes_waiting += table.nbytes
        self.anchors[partition] = Anchor.of(records[-1])
        self.next[partition] = records[-1].offset + 1

    def flush(self) -> None:
        """Put what waits into the log. Raises NoRoom, and may be called again then."""
        for p, end in self.next.items():
            if self._written[p] == end:
                continue
            tables = self._waiting[p]
            anchor = self.anchors.get(p)
            state = {"anchor": astuple(anchor) if anchor else None, "origins": self.rows.origins[p].tolist()}
            with _room(self.folder):
                parquet.write(self.folder / Piece(p, self._written[p], end).name, tables, state)
            self._written[p], self._waiting[p] = end, []
            self.n_waiting -= sum(map(len, tables))
            self.bytes_waiting -= sum(table.nbytes for table in tables)
        sync_folder(self.folder / FRESH)

    def compact(self, *, retention_days: int | None = None, whole: bool = False,
                keep: Callable[[pa.Table], Any] | None = None) -> Compacted:
        """Move what lies in `fresh` into the days, and join small files of a day; what waits for a flush stays where it is.

        retention_days: how many event days are kept, counted back from the newest; whole: all files of a day and partition become
        one, whatever that costs; keep: asked of each table that is written which rows stay, (n,) bool; with `whole` that is every
        row that is not waiting. Raises NoRoom: then nothing has changed. May run beside `add` and `flush`.
        """
        with self._compacting, _room(self.folder):
            done = compact(self.folder, retention_days=retention_days, whole=whole, keep=_both(keeper(self.erasures), keep))
            done.forgotten = forget(self.folder, self.erasures)
            return done

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._holds.close()


def _both(one: Keep, other: Keep) -> Keep:
    if one is None or other is None:
        return one or other
    return lambda table: one(table) & other(table)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """The system's word for a full disk becomes ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoRoom(f"there is no room for the event log in {folder} ({error.strerror}); free some: nothing is lost meanwhile, events "
                     "wait in Kafka") from error
