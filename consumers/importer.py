"""Import a file of events or items into Kafka: `run_import`, which `streamrec import` calls.

In: a CSV, JSON lines or Parquet file. Out: messages in `events` (or `items`) and an `ImportReport`. Rows that are not
valid are counted by reason, with the first few as examples, and left out. Killed at any moment and started again with
the same arguments it goes on where it was, and every row is in Kafka once; consumers/progress.py says how.

A row without an event id of its own gets `<fingerprint>:<row number>`, where the fingerprint is a hash of the file's
content and of the columns chosen: the same for the same file under any name.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumers.columns import choose_columns
from consumers.deliveries import DeliveryError
from consumers.kafka import start_kafka, stop_kafka
from consumers.progress import Note, NoteFile, ends_now, sent_beyond
from consumers.row_messages import EventRows, ItemRows, Prepared
from consumers.tables import Row, Table, TableError
from infra.settings import Settings
from streams.events import rating_scale

MAX_BATCH_BYTES = 512 * 1024  # a chunk's share of a partition fits in one; half of a broker's usual limit, twice our largest message
IN_FLIGHT = 3  # chunks sent and not yet acknowledged: enough to keep the broker busy while the next one is read
EXAMPLES = 3  # rejected rows shown for each reason


class ImportProgress(msgspec.Struct, frozen=True):
    """What `progress` is called with after each chunk; `fraction` of the file, 0 to 1."""

    rows: int
    accepted: int
    rejected: int
    fraction: float


class ImportReport(msgspec.Struct, frozen=True):
    """What became of a file. Counts are of the whole file, also where this run only did the rest of it."""

    file: str
    kind: str  #: events or items
    columns: dict[str, str]  #: role -> column
    rows: int
    accepted: int
    rejected: dict[str, int]  #: by reason
    examples: dict[str, list[str]]  #: the first few by reason
    resumed_from: int  #: rows that earlier runs had done
    already_sent: int  #: rows beyond these that a killed run had sent
    seconds: float  #: of this run
    rows_per_s: float  #: of this run


class Source(NamedTuple):
    """A file, opened: what its columns are, and what makes messages of its rows; `fingerprint` names content and choice of columns."""

    table: Table
    columns: dict[str, str]
    rows: EventRows | ItemRows
    fingerprint: str


def open_source(settings: Settings, path: str | Path, *, columns: Mapping[str, str | None] | None, kind: str, format: str | None,
                event_type_default: str) -> Source:
    """See `run_import` for what these are and what is raised."""
    if kind not in ("events", "items"):
        raise TableError(f"kind is {kind!r}; expected events or items")
    table = Table(path, format)
    chosen = choose_columns(table.names, columns or {}, kind)
    options = msgspec.json.encode([kind, sorted(chosen.items()), table.format, event_type_default if kind == "events" else ""])
    fingerprint = hashlib.blake2b(table.content_hash().encode() + options, digest_size=8).hexdigest()
    rows: EventRows | ItemRows = ItemRows(list(chosen))
    if kind == "events":
        rows = EventRows(fingerprint, list(chosen), event_type_default, rating_scale(settings))
    return Source(table, chosen, rows, fingerprint)


def run_import(settings: Settings, path: str | Path, *, columns: Mapping[str, str | None] | None = None, kind: str = "events",
               format: str | None = None, event_type_default: str = "purchase", limit: int | None = None, resume: bool = True,
               progress: Callable[[ImportProgress], None] | None = None, home: Path | None = None) -> ImportReport:
    """Import a file; blocks until Kafka has acknowledged all of it.

    columns: column by role where aliases do not find it (events: user, item, time, type, value, event_id, session, request,
    properties; items: item, title, category, hidden, expires_at, properties); format: csv, jsonl, parquet (default: by the
    file's name, .gz allowed for the first two); event_type_default: type of rows that name none; limit: only the first so
    many rows; resume=False: from the first row again, whatever was done before (rows keep their event ids); home: folder
    of the notes (default: the stack's).

    Raises TableError, ColumnError, InvalidEvent (a default type that is none), ImportBusy, KafkaUnreachable, DeliveryError.
    """
    source = open_source(settings, path, columns=columns, kind=kind, format=format, event_type_default=event_type_default)
    file = NoteFile(source.fingerprint, settings.topic(kind), home)
    with file.locked():
        run = _Run(settings, source, kind, file, progress)
        return asyncio.run(run.run(limit, resume))


class _Run:
    """One run over one file: read and prepare in a thread, send, note what is acknowledged."""

    def __init__(self, settings: Settings, source: Source, kind: str, file: NoteFile,
                 progress: Callable[[ImportProgress], None] | None) -> None:
        self._settings, self._kind, self._file, self._progress = settings, kind, file, progress
        self._table, self._chosen, self._rows, _ = source
        self._topic = settings.topic(kind)
        self._already_sent = 0

    async def run(self, limit: int | None, resume: bool) -> ImportReport:
        began = time.perf_counter()
        kafka = await start_kafka(self._settings, topics=(self._kind,), max_batch_size=MAX_BATCH_BYTES,
                                  request_timeout_ms=self._settings.request_timeout_ms)
        try:
            note, sent = await self._begin(resume)
            resumed_from = note.rows
            if not note.done:
                await self._send_all(kafka, note, sent, limit)
        finally:
            await stop_kafka(kafka, 0.5)  # nothing is in flight, except after an error
        seconds = time.perf_counter() - began
        return ImportReport(
            file=str(self._table.path), kind=self._kind, columns=self._chosen, rows=note.rows, accepted=note.accepted,
            rejected=note.rejected, examples=note.examples, resumed_from=resumed_from, already_sent=self._already_sent,
            seconds=seconds, rows_per_s=(note.rows - resumed_from) / seconds)

    async def _begin(self, resume: bool) -> tuple[Note, set[str]]:
        """The note to go on from, and the event ids that an earlier run sent beyond it."""
        note = self._file.load() if resume else None
        if self._kind == "items":
            return note or Note(file=self._table.path.name), set()
        if note is not None:
            sent = await sent_beyond(self._settings, note, self._rows.id_prefix)
            if sent is not None:
                return note, sent
        note = Note(file=self._table.path.name, marks=await ends_now(self._settings))
        self._file.save(note)  # before anything is sent: whoever resumes must know where to look
        return note, set()

    async def _send_all(self, kafka: AIOKafkaProducer, note: Note, sent: set[str], limit: int | None) -> None:
        n_partitions = len(await kafka.partitions_for(self._topic))
        chunks = self._table.read(list(self._chosen.values()), note.rows)
        in_flight: deque[tuple[Prepared, list[tuple[int, int, asyncio.Future[Any]]]]] = deque()
        first = note.rows
        while limit is None or first < limit:
            # In a thread, so that sockets are served meanwhile: reading and preparing take nearly all of the time.
            prepared = await asyncio.to_thread(self._prepare, chunks, first, limit, sent, n_partitions, kafka)
            if prepared is None:
                break
            first += prepared.n_rows
            in_flight.append((prepared, [await self._send(kafka, p, batch) for p, batch in prepared.batches]))
            while len(in_flight) >= IN_FLIGHT:
                await self._acknowledged(note, *in_flight.popleft())
        while in_flight:
            await self._acknowledged(note, *in_flight.popleft())
        note.done = limit is None
        self._file.save(note)

    def _prepare(self, chunks: Iterator[list[Row]], first: int, limit: int | None, sent: set[str], n_partitions: int,
                 kafka: AIOKafkaProducer) -> Prepared | None:
        try:
            rows = next(chunks, None)
        except (OSError, EOFError, ValueError) as error:  # a cut-off gzip; pyarrow's errors are ValueErrors or OSErrors
            raise TableError(f"{self._table.path} cannot be read on behind row {first}: {error}; "
                             "what came before is imported") from error
        if rows is None:
            return None
        if limit is not None:
            rows = rows[: limit - first]
        return self._rows.prepare(rows, first, sent, n_partitions, kafka.create_batch)

    async def _send(self, kafka: AIOKafkaProducer, partition: int, batch: Any) -> tuple[int, int, asyncio.Future[Any]]:
        n = batch.record_count()
        try:
            return partition, n, await kafka.send_batch(batch, self._topic, partition=partition)
        except KafkaError as error:
            raise self._failed(error) from error

    async def _acknowledged(self, note: Note, prepared: Prepared, batches: list[tuple[int, int, asyncio.Future[Any]]]) -> None:
        """Wait for one chunk, then note it down."""
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                for partition, n, future in batches:
                    last = (await future).offset + n - 1
                    note.marks[partition] = (last, prepared.last_ids[partition])
        except (TimeoutError, KafkaError) as error:
            raise self._failed(error) from error
        note.rows += prepared.n_rows
        note.accepted += prepared.accepted
        self._already_sent += prepared.already_sent
        for reason, examples in prepared.rejected.items():
            note.rejected[reason] = note.rejected.get(reason, 0) + len(examples)
            shown = note.examples.setdefault(reason, [])
            shown += examples[: EXAMPLES - len(shown)]
        self._file.save(note)
        if self._progress:
            self._progress(ImportProgress(note.rows, note.accepted, sum(note.rejected.values()), self._table.fraction()))

    def _failed(self, error: BaseException) -> DeliveryError:
        return DeliveryError(f"Kafka at {self._settings.kafka_bootstrap} did not take more of {self._table.path.name} "
                             f"({error if str(error) else type(error).__name__}); what was taken is noted in {self._file.path}: "
                             "import the file again to go on from there")
