"""Rows of a file, whatever its format: CSV, JSON lines, Parquet; the first two also gzipped.

In: a path. Out: the names of its columns, then tuples of the chosen columns in chunks, from any row on. A row that cannot
be read is a str that says why, in its place, so that row numbers are a fact of the file and of nothing else.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import msgspec

from infra.settings import StreamrecError

Row = tuple[Any, ...] | str
BLANK = ""  # a row of nothing: it has its number, and is neither accepted nor rejected
CHUNK_ROWS = 10_000  # about 1.5 MB of events: one batch a partition, and four chunks a second keep a progress bar moving
FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
           ".parquet": "parquet", ".pq": "parquet"}
PEEK_LINES = 100  # JSON objects may leave fields out: these many are looked at for names
MAX_FIELD_BYTES = 1 << 20
HASH_BLOCK = 1 << 20


class TableError(StreamrecError):
    """The file cannot be read as a table."""


class Table:
    """One file. `fraction()` says how much of it has been read (0 to 1)."""

    def __init__(self, path: str | Path, format: str | None = None) -> None:
        self.path = Path(path)
        self.format = format or self._guess()
        if self.format not in ("csv", "jsonl", "parquet"):
            raise TableError(f"format is {self.format!r}; expected csv, jsonl or parquet")
        if not self.path.is_file():
            raise TableError(f"{self.path} is not a file that can be read; give the path of a CSV, JSON lines or Parquet file")
        self._size = max(1, self.path.stat().st_size)
        self._raw: IO[bytes] | None = None
        self._rows_read = self._rows_total = 0
        try:
            self.names: list[str] = {"csv": self._csv_names, "jsonl": self._json_names, "parquet": self._parquet_names}[self.format]()
        except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
            raise TableError(f"{self.path} cannot be read as {self.format}: {error}") from error
        self._raw = None  # what was opened for the names is no reading yet
        if not self.names:
            wanted = "an object in each line" if self.format == "jsonl" else "a first line with the names of its columns"
            raise TableError(f"{self.path} has no columns ({'there are no lines' if self._size == 1 else 'its first lines hold none'}); "
                             f"expected {wanted}, or another --format")

    def content_hash(self) -> str:
        """Hash of the whole content: the same file under another name is the same file, one changed byte is another."""
        digest = hashlib.blake2b(digest_size=16)
        with self.path.open("rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def read(self, columns: Sequence[str], first_row: int = 0) -> Iterator[list[Row]]:
        """Chunks of rows from `first_row` on (0 is the first after a header)."""
        rows = {"csv": self._csv_rows, "jsonl": self._json_rows, "parquet": self._parquet_rows}[self.format]
        return rows(columns, first_row)

    def fraction(self) -> float:
        """How much of the file has been read."""
        if self._rows_total:
            return self._rows_read / self._rows_total
        if self._raw is None:
            return 0.0
        return 1.0 if self._raw.closed else min(1.0, self._raw.tell() / self._size)

    def _guess(self) -> str:
        suffixes = [suffix.lower() for suffix in self.path.suffixes if suffix.lower() != ".gz"]
        found = FORMATS.get(suffixes[-1] if suffixes else "")
        if found is None:
            raise TableError(f"{self.path.name} does not end in {', '.join(FORMATS)}; say --format csv, jsonl or parquet")
        return found

    def _open(self) -> IO[bytes]:
        self._raw = self.path.open("rb")
        return gzip.open(self._raw) if self.path.suffix.lower() == ".gz" else self._raw  # type: ignore[return-value]

    # CSV: a header, and the delimiter that is most frequent in it. Bytes that are no UTF-8 become lone surrogates, which
    # cost their own row (ids are checked) and not the file.

    def _text(self) -> IO[str]:
        return io.TextIOWrapper(self._open(), encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _csv_names(self) -> list[str]:
        csv.field_size_limit(MAX_FIELD_BYTES)
        with self._text() as text:
            header = text.readline(MAX_FIELD_BYTES)
            self._delimiter = max(",;\t|", key=header.count)
            return next(csv.reader([header], delimiter=self._delimiter), [])

    def _csv_rows(self, columns: Sequence[str], first_row: int) -> Iterator[list[Row]]:
        take = _getter([self.names.index(column) for column in columns])
        with self._text() as text:
            reader = csv.reader(text, delimiter=self._delimiter)
            next(reader, None)
            yield from _chunks(_each(reader), first_row, take, f"fewer fields than the header's {len(self.names)}")

    def _json_names(self) -> list[str]:
        names: dict[str, None] = {}
        with self._open() as lines:
            for _, line in zip(range(PEEK_LINES), lines, strict=False):
                found = _json(line)
                if isinstance(found, dict):
                    names |= dict.fromkeys(found)
        return list(names)

    def _json_rows(self, columns: Sequence[str], first_row: int) -> Iterator[list[Row]]:
        def take(line: bytes) -> Row:
            found = _json(line)
            if type(found) is not dict:
                return found if isinstance(found, str) else "expected one object a line"
            return tuple([found.get(column) for column in columns])

        with self._open() as lines:
            yield from _chunks(iter(lines), first_row, take, "")

    def _parquet_names(self) -> list[str]:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise TableError("reading Parquet needs pyarrow, which is not installed: pip install 'streamrec[parquet]', "
                             "or give the file as CSV or JSON lines") from None
        try:
            self._parquet = parquet.ParquetFile(self.path)
        except pyarrow.ArrowException as error:
            raise TableError(f"{self.path} cannot be read as parquet: {error}") from error
        self._rows_total = self._parquet.metadata.num_rows
        return [str(name) for name in self._parquet.schema_arrow.names]

    def _parquet_rows(self, columns: Sequence[str], first_row: int) -> Iterator[list[Row]]:
        metadata = self._parquet.metadata
        group, skipped = 0, 0
        while group < metadata.num_row_groups and skipped + metadata.row_group(group).num_rows <= first_row:
            skipped += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        rest = first_row - skipped
        for batch in self._parquet.iter_batches(CHUNK_ROWS, row_groups=groups, columns=list(dict.fromkeys(columns))) if groups else ():
            self._rows_read = skipped = skipped + batch.num_rows
            values = {name: _plain(batch.column(name)) for name in batch.schema.names}
            rows: list[Row] = list(zip(*(values[column] for column in columns), strict=True))
            yield rows[rest:] if rest < len(rows) else []
            rest = max(0, rest - len(rows))


def _plain(column: Any) -> list[Any]:
    """Python values of an Arrow column; times become epoch ms in one go rather than one datetime each."""
    import pyarrow.types as kinds

    if kinds.is_timestamp(column.type) or kinds.is_date(column.type):
        column = column.cast("timestamp[ms]", safe=False).cast("int64")
    return column.to_pylist()  # type: ignore[no-any-return]


def _json(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line) if not line.isspace() else BLANK
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"not valid JSON: {error}"


def _getter(places: list[int]) -> Callable[[Sequence[Any]], Row]:
    if len(places) == 1:
        return lambda row: (row[places[0]],)
    return itemgetter(*places)


def _each(reader: Iterator[list[str]]) -> Iterator[Any]:
    """The reader's rows; a row that it chokes on is a str, and it goes on behind."""
    while True:
        try:
            yield from reader
            return
        except csv.Error as error:
            yield f"not valid CSV: {error}"


def _chunks(rows: Iterator[Any], first_row: int, take: Callable[[Any], Row], short: str) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for number, row in enumerate(rows):
        if number < first_row:
            continue
        if not row:
            chunk.append(BLANK)
        elif type(row) is str:
            chunk.append(row)
        else:
            try:
                chunk.append(take(row))
            except IndexError:
                chunk.append(short)
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
