"""Parquet files of the log: written whole or not at all, read by column, with a note in the footer of those in `fresh`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumers.event_log.names import LogError
from consumers.event_log.rows import COLUMNS, SINCE_2, arrow, schema
from models.durable import put

if TYPE_CHECKING:
    import pyarrow as pa

#: Footer key of that note: what whoever goes on behind the file must know.
STATE = b"streamrec"
ROW_GROUP = 262_144  # rows: some 20 MB in memory
COMPRESSION = "zstd"
#: Columns in which a value comes again and again: read as dictionaries.
REPEATED = ("user_id", "item_id", "event_type", "session_id")


def write(path: Path, tables: Iterable[pa.Table], state: dict[str, Any] | None = None) -> None:
    """One file of all these rows; tables of a few rows share a row group, so that a day has no more of them than it needs."""
    pa = arrow()
    columns = schema() if state is None else schema().with_metadata({STATE: json.dumps(state)})

    def fill(scratch: Path) -> None:
        with pa.parquet.ParquetWriter(scratch, columns, compression=COMPRESSION) as sink:
            waiting: list[Any] = []
            for table in tables:
                waiting.append(table.replace_schema_metadata(columns.metadata))
                if sum(map(len, waiting)) >= ROW_GROUP:
                    sink.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)
                    waiting = []
            if waiting:
                sink.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)

    put(path, fill)


def read_state(path: Path) -> dict[str, Any]:
    """The note in the footer of a file of `fresh`."""
    pa = arrow()
    try:
        state: dict[str, Any] = json.loads((pa.parquet.read_schema(path).metadata or {})[STATE])
        return {"anchor": state["anchor"], "origins": [int(offset) for offset in state["origins"]]}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise LogError(f"{path} cannot be read ({error}); put it back, or move the folder away so that the log is read anew from "
                       "Kafka") from error


def read(path: Path, columns: Sequence[str], *, encode: bool = True) -> pa.Table:
    """Columns of a file, in this order; encode: texts that repeat as dictionaries."""
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(path, read_dictionary=[name for name in REPEATED if encode and name in columns]) as file:
            # memory_map and threads of Arrow's own gain nothing on files of this size
            table = file.read(columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise LogError(f"{path} cannot be read ({error}); put it back, or move the folder away so that the log is read anew from "
                       "Kafka") from error
    return whole(table, columns)


def whole(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """These columns of what was read, in this order; those that a log of format 1 has not are without values. Raises KeyError."""
    for name in SINCE_2:
        if name in columns and name not in table.column_names:
            field = schema().field(name)
            table = table.append_column(field, arrow().nulls(len(table), field.type))
    return table.replace_schema_metadata(None).select(list(columns))


def row_groups(path: Path) -> Iterable[pa.Table]:
    """All rows of a file, a row group at a time."""
    with arrow().parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield whole(file.read_row_group(group, use_threads=False), COLUMNS)


def n_rows(path: Path) -> int:
    """Rows of a file, from its footer."""
    return int(arrow().parquet.read_metadata(path).num_rows)
