"""Rows of users who were erased: which there are, and the log without them.

In: the folder of a log, and who was erased. A row is his by his id, from which its partition follows; it goes if it lies before the erase
event. New rows are held against this as they come into their days (`keeper`); when somebody was erased since the last time, the days that
are there already are looked through, and files that hold rows of his are written anew under their own names (`forget`). Which erasures
the days are without says a file beside them: if a crash comes before it is written, the days are looked through once more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.event_log import parquet
from consumers.event_log.names import alone, files, folder_of_day, listing
from consumers.event_log.rows import arrow
from models.durable import put_bytes, sync_folder
from streams.erasures import SLACK_MS, Erasures

if TYPE_CHECKING:
    import pyarrow as pa

NOTE = "erased"
NAMED = ["user_id", "offset", "appended_ms"]


def keeper(erasures: Erasures) -> Callable[[pa.Table], Any] | None:
    """Which rows of a table stay, (n,) bool; None: all."""
    if not erasures.users:
        return None

    def keep(table: pa.Table) -> Any:
        ids = table.column("user_id").combine_chunks().dictionary_encode()
        found = [erasures.of(user) for user in ids.dictionary.to_pylist()]
        if not any(found):
            return np.ones(len(table), bool)
        before = np.array([0 if one is None else one.offset for one in found], np.int64)
        until_ms = np.array([0 if one is None else one.appended_at + SLACK_MS for one in found], np.int64)
        who = ids.indices.to_numpy()
        return (table.column("offset").to_numpy() >= before[who]) | (table.column("appended_ms").to_numpy() > until_ms[who])

    return keep


def forget(folder: Path, erasures: Erasures) -> int:
    """Take rows out of the days; how many files had some."""
    note, digest = folder / NOTE, erasures.digest
    keep = keeper(erasures)
    if keep is None or (note.exists() and note.read_text() == digest):
        return 0
    written = 0
    for pieces in files(listing(folder)).days.values():
        for piece in pieces:
            path = folder / piece.name
            if keep(parquet.read(path, NAMED, encode=False)).all():
                continue
            kept = (table.filter(arrow().array(keep(table))) for table in parquet.row_groups(path))
            parquet.write(path, kept)
            assert piece.day is not None
            sync_folder(folder_of_day(folder, piece.day))
            written += 1
            if not parquet.n_rows(path):
                _remove(folder, path)
    put_bytes(note, digest.encode())
    sync_folder(folder)
    return written


def _remove(folder: Path, path: Path) -> None:
    """A day without rows is none; where somebody reads, it stays as an empty file."""
    with alone(folder) as nobody_reads:
        if nobody_reads:
            path.unlink()
            try:
                path.parent.rmdir()
            except OSError:  # there is more in it
                pass


def rows_of(folder: Path, user: str, offset: int) -> dict[str, int]:
    """Rows of a user below an offset, by the name of the file: also of files that no longer count."""
    found = {}
    for piece in listing(folder):
        table = parquet.read(folder / piece.name, ["user_id", "offset"], encode=False)
        his = np.array(table.column("user_id").to_numpy(zero_copy_only=False) == user) & (table.column("offset").to_numpy() < offset)
        if his.any():
            found[piece.name] = int(his.sum())
    return found
