"""A log whose beginning lies in files: what Kafka has dropped, and what a shadow is to read from there, comes from an event log.

In: `Files`, which the command line gives a worker (Parquet: consumers/event_log/by_offset.py), and what the generation says. Out: for each
partition the offset below which it is read from files, and its way through them. Offsets and records are those of Kafka, so whatever comes
after a fetch - rows, checkpoints, the end of a shadow's stretch - knows no difference. Where the files end and Kafka has not begun yet
there is a hole, and nobody goes on over that: it is refused with both offsets. But where Kafka's partition is empty: what is missing there may
have been the marker of a transaction, which no log ever holds, so that is said, and gone over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from infra.settings import Settings, StreamrecError
from streams.generations import Filed, Generation

log = logging.getLogger(__name__)


class HoleError(StreamrecError):
    """Events lie neither in the files nor in Kafka."""


class Piece(Protocol):
    """Events of one partition, up to the offset `next`; there may be none."""

    @property
    def next(self) -> int: ...

    def __len__(self) -> int: ...

    def records(self, first: int, end: int) -> list[Any]:
        """Those at these places, as a fetch would bring them."""
        ...


class Files(Protocol):
    """An event log. Calls block, and may come from any thread."""

    def range(self, partition: int) -> tuple[int, int]:
        """First offset and end of a partition, as they are now."""
        ...

    def read(self, partition: int, start: int, end: int) -> Piece:
        """Events from `start` on, up to `end` at most."""
        ...


def hole(partition: int, ends: int, first: int, folder: str) -> HoleError:
    """Files end before Kafka begins."""
    return HoleError(f"partition {partition}: the event log in {folder} ends at offset {ends}, Kafka begins at {first}; the events between the two are "
                     "in neither. Give a log that reaches further, or begin behind them (replay: --from)")


def warn_of_hole(partition: int, ends: int, first: int, folder: str) -> None:
    """The same where Kafka's partition is empty. No event tells then whether what it held there was events, or only the marker of a transaction."""
    log.warning("partition %d: the event log in %s ends at offset %d, Kafka's partition begins at %d and is empty, so %d offsets between the two are gone: "
                "markers of transactions and what was aborted, if the log was kept up, else events; going on behind them", partition, folder, ends, first,
                first - ends)


class Earlier:
    """Decides what is read from files. `least`: below these offsets that is all; below where Kafka begins it is too. `until`: where reading ends.

    `open_files` is called when something has to be read, and not before: later the folder may be gone.
    """

    def __init__(self, open_files: Callable[[], Files], folder: str, least: Sequence[int], until: Sequence[int] | None) -> None:
        self._open, self._folder, self._least, self._until = open_files, folder, least, until
        self._files: Files | None = None
        self._bounds: dict[int, int] = {}  # of partitions that are read from files: up to where

    @property
    def files(self) -> Files:
        """Opened when first asked for; raises what that raises."""
        if self._files is None:
            self._files = self._open()
        return self._files

    def begin(self, partition: int, at: int, first: int, end: int | None = None) -> int:
        """Where reading begins of a partition whose next offset is `at`, and whose log in Kafka begins at `first` and ends at `end` (None: there are
        events). Blocks; raises HoleError."""
        needed = max(self._least[partition], first)
        if at >= needed:  # what was read from files before is again, where somebody has to go back
            return at
        if self.is_done(partition, at):
            self._bounds[partition] = at  # not even Kafka is asked for what follows
            return at
        begins, ends = self.files.range(partition)
        if ends < first and (self._until is None or self._until[partition] > ends):
            if end is None or end > first:
                raise hole(partition, ends, first, self._folder)
            warn_of_hole(partition, ends, first, self._folder)
        if at >= min(ends, needed) or (begins > at >= first):
            self._bounds.pop(partition, None)
            return at
        if begins > at:
            log.warning("partition %d: the event log begins at offset %d, so the events from %d on are gone", partition, begins, at)
        self._bounds[partition] = min(ends, needed)
        log.info("partition %d: offsets %d to %d come from the event log in %s", partition, max(at, begins), self._bounds[partition] - 1, self._folder)
        return max(at, begins)

    def is_done(self, partition: int, at: int) -> bool:
        """Whether nothing more is to be read."""
        return self._until is not None and at >= self._until[partition]

    def holds(self, partition: int, at: int) -> bool:
        """Whether what follows an offset is read from files, or not at all."""
        bound = self._bounds.get(partition)
        return bound is not None and (at < bound or self.is_done(partition, at))

    def way(self, partition: int, at: int) -> Way | None:
        """The way on from an offset; None: it lies in Kafka."""
        if not self.holds(partition, at):
            return None
        bound = self._bounds[partition]
        return Way(self, partition, at, bound if self._until is None else min(bound, self._until[partition]))


class OpenFiles(Protocol):
    """How an event log is opened. filed: what is wanted of it; None: everything. topic_id: that of the topic that it must be of, "" where the brokers
    do not tell; by_producer: the topic's times are those of producers."""

    def __call__(self, folder: str, settings: Settings, filed: Filed | None, *, topic_id: str, by_producer: bool) -> Files: ...


def earlier_of(settings: Settings, generation: Generation, is_live: bool, open_files: OpenFiles, topic_id: str, by_producer: bool) -> Earlier | None:
    """What a worker of this generation reads from files: a shadow what its replay was told, in its own folder or, on another machine, in that of the
    settings; any other worker what Kafka has dropped, where the settings name a folder."""
    filed = None if is_live else generation.filed
    folder = filed.folder if filed and (Path(filed.folder).is_dir() or not settings.event_log_folder) else settings.event_log_folder
    if not folder:
        return None
    return Earlier(lambda: open_files(folder, settings, filed, topic_id=topic_id, by_producer=by_producer), folder,
                   filed.ends if filed else [0] * settings.partitions, None if is_live else generation.until)


class Way:
    """One partition's way through files; what follows is read ahead. Everything here belongs to one event loop."""

    def __init__(self, earlier: Earlier, partition: int, start: int, bound: int) -> None:
        self._earlier, self._partition, self._bound = earlier, partition, bound
        self._piece: Piece | None = None
        self._taken, self._read = 0, start
        #: What is being read; to be waited for where nothing can be taken.
        self.reading: asyncio.Task[Piece] | None = None
        self._read_on()

    @property
    def ended(self) -> bool:
        """Whether everything was taken."""
        return self._piece is None and self.reading is None

    def take(self, most: int) -> tuple[list[Any], int] | None:
        """So many records at most, perhaps none, and the offset that follows; None: they are still being read. Raises what reading raised."""
        if self._piece is None:
            if self.reading is None or not self.reading.done():
                return None
            self._piece, self._taken, self.reading = self.reading.result(), 0, None
            self._read = self._piece.next
            self._read_on()
        piece, end = self._piece, min(self._taken + most, len(self._piece))
        records = piece.records(self._taken, end)
        self._taken = end
        if end < len(piece):
            return records, int(records[-1].offset) + 1
        self._piece = None
        return records, piece.next

    def _read_on(self) -> None:
        if self._read < self._bound:
            self.reading = asyncio.ensure_future(asyncio.to_thread(self._earlier.files.read, self._partition, self._read, self._bound))
