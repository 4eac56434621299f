"""How far an import has come, and what is already in Kafka beyond that: so that a killed one goes on and counts once.

A worker recognises a repeated `event_id` only among its user's last 64 events. Sending a stretch of the file again is
therefore harmless only where no user has more than 64 events in it, which nobody can promise. So:

1. The note says up to which row everything is acknowledged, and for each partition the offset of the last record of
   that. It is written after the acknowledgements, chunk by chunk, in order; it may be older than the truth, never newer.
2. What an interrupted import had sent beyond the note lies in Kafka behind those offsets. A resuming import first reads
   each partition from there to its end and leaves out the rows whose event ids it finds. That is exact for any age of
   the note, and costs the reading of what others sent meanwhile.
3. The record at each noted offset must be the noted event. If it is not, the topic was made anew, and so is the import.
4. Bytes of a killed process may reach the broker after its death: the ends are read again after a moment.
5. A lock (released by the system when its holder dies) keeps two imports of one file apart.

Items need none of this: saying the same of an item twice is saying it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.only_one import only_one
from infra.settings import Settings, StreamrecError, stack_home
from models.durable import put_bytes
from streams.shared_logs import at_end

SETTLE_S = 0.5  # far longer than loopback or a local network keeps a dead process's last packets
FETCH_MS = 200
READ_DEADLINE_S = 600.0


class ImportBusy(StreamrecError):
    """The same file is being imported by another process."""


class Note(msgspec.Struct):
    """What is written down of one import: `rows` are done, all of them acknowledged."""

    file: str
    rows: int = 0
    accepted: int = 0
    rejected: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    #: Partition -> offset and event id of the last record of `rows` in it; id None: nothing yet, the offset is where it began.
    marks: dict[int, tuple[int, str | None]] = {}
    done: bool = False
    v: int = 1


class _EventId(msgspec.Struct):
    event_id: str = ""


_event_id = msgspec.json.Decoder(_EventId).decode


class NoteFile:
    """The note of one import into one topic, under the stack's folder."""

    def __init__(self, fingerprint: str, topic: str, home: Path | None = None) -> None:
        folder = (home or stack_home()) / "imports"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{fingerprint}.{topic}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises ImportBusy while another process holds it."""
        with only_one(self.path.with_suffix(".lock"), lambda who: ImportBusy(f"this file is being imported by another process ({who}); wait for it, or end it")):
            yield

    def load(self) -> Note | None:
        """The note, or None where there is none that can be read (then the import begins anew, as it would without)."""
        try:
            note = msgspec.json.decode(self.path.read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError):
            return None
        return note if note.v == 1 else None

    def save(self, note: Note) -> None:
        """Replace the note at once: a reader sees the old or the new one."""
        put_bytes(self.path, msgspec.json.encode(note))


async def ends_now(settings: Settings) -> dict[int, tuple[int, str | None]]:
    """Marks for an import that begins: the end of each partition of `events`."""
    async with _consumer(settings) as (_, _, ends):
        return {place.partition: (end, None) for place, end in ends.items()}


async def sent_beyond(settings: Settings, note: Note, id_prefix: str) -> set[str] | None:
    """Event ids (those that begin with `id_prefix`) that lie in `events` behind the note's marks.

    None: the topic is not the one of the note, it was made anew.
    """
    found: set[str] = set()
    async with _consumer(settings) as (consumer, starts, ends):
        expected: dict[TopicPartition, str] = {}
        for place, end in ends.items():
            offset, event_id = note.marks.get(place.partition, (0, None))
            if offset + (event_id is not None) > end:
                return None
            if event_id is not None and offset >= starts[place]:
                expected[place] = event_id
            consumer.seek(place, max(offset, starts[place]))
        places = list(ends)
        for settled in (note.done, True):  # what is done left nothing on its way
            async with asyncio.timeout(READ_DEADLINE_S):
                while not await at_end(consumer, ends):
                    for place, records in (await consumer.getmany(timeout_ms=FETCH_MS)).items():
                        for record in records:
                            event_id = _id_in(record.value)
                            if place in expected:
                                if expected.pop(place) != event_id:
                                    return None
                            elif event_id is not None and event_id.startswith(id_prefix):
                                found.add(event_id)
            if settled:
                break
            await asyncio.sleep(SETTLE_S)
            ends = await consumer.end_offsets(places)
    return found


def _id_in(value: bytes | None) -> str | None:
    try:
        return _event_id(value or b"").event_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # not one of ours, whatever it is


class _consumer:  # noqa: N801 - used as a verb: `async with _consumer(settings) as ...`
    """A consumer that is assigned all of `events`, with the partitions' starts and ends."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic("events")
        self._consumer = AIOKafkaConsumer(self._topic, enable_auto_commit=False, **settings.kafka_client_args())

    async def __aenter__(self) -> tuple[AIOKafkaConsumer, dict[TopicPartition, int], dict[TopicPartition, int]]:
        await self._consumer.start()
        places = list(self._consumer.assignment())
        return self._consumer, await self._consumer.beginning_offsets(places), await self._consumer.end_offsets(places)

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
