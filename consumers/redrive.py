"""Sends what was rejected once more, corrected or as it is, and once only.

In: keys of dead letters, each with a corrected message or none. Out: messages in `events` (or `items`), notes in `events.dlq`, an `Outcome`.
A worker knows a repeated event only among its user's last 64, so that it comes once is seen to here:

1. Only one process redrives at a time (consumers/lease.py); a second one is told.
2. A note that a message is about to be sent, and where the log ends now, is acknowledged before the message goes out.
3. The message bears the letter's key as a header. When it is acknowledged, the note gets its offset.
4. A letter whose note has an offset is passed over. Where the note has none, somebody was killed between 2 and 3: the log is read from the
   noted end on. If the header is found, the message was sent and the note is completed; else it is sent now.

A killed process is noticed after `SESSION_MS`; nothing of it is on its way to the broker then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from consumers.dead_letters import NOTE, POLL_MS, Box, Letter, Note, read_box
from consumers.deliveries import DeliveryError
from consumers.kafka import start_kafka, stop_kafka
from consumers.lease import Lease
from infra.settings import Settings, StreamrecError
from streams.catalogue import decode_item, expiry_ms
from streams.events import InvalidEvent, check, decode_erase, decode_event, rating_scale
from streams.foreign_headers import read_foreign_headers
from streams.partitioner import partition_of
from streams.shared_logs import at_end

HEADER = "streamrec-redriven"
CHUNK = 200  # letters for which one round of notes, messages, notes is enough
SESSION_MS = 6_000  # the shortest that brokers allow


class RedriveBusy(StreamrecError):
    """Another process is at it."""


class NoLetter(StreamrecError):
    """There is no dead letter under this key."""


@dataclass
class Outcome:
    """By key of the letter: where what was sent lies ("events/3/17"), also where an earlier call had sent it; why one was refused."""

    sent: dict[str, str] = field(default_factory=dict)
    already: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    key: str
    letter: Letter
    topic: str
    partition: int
    message_key: bytes
    value: bytes

    @property
    def mark(self) -> bytes:
        return mark_of(self.key, self.letter.appended_at)


def mark_of(key: str, appended_at: int) -> bytes:
    """Value of the header that what is sent in place of a letter bears."""
    return f"{key}@{appended_at}".encode()


def _place(note: Note) -> str:
    return f"{note.topic}/{note.partition}/{note.offset}"


async def redrive(settings: Settings, wanted: Mapping[str, bytes | None]) -> Outcome:
    """Send these; None: as the letter has it. Raises NoLetter, RedriveBusy (nothing was sent), KafkaUnreachable and DeliveryError (call again)."""
    async with Lease(settings, "redrive", "events.dlq", session_ms=SESSION_MS) as lease:
        if not await lease.decided():
            raise RedriveBusy(f"another process is redriving dead letters of this system (group {settings.prefix}redrive); wait until it has ended")
        box = await read_box(settings, Letter, lambda key, _: key in wanted)
        if missing := [key for key in wanted if key not in box.letters]:
            raise NoLetter(f"there is no dead letter {missing[0]!r}{f' ({len(missing)} are missing)' if len(missing) > 1 else ''}; `streamrec dlq "
                           "show` prints the keys of those there are")
        kafka = await start_kafka(settings, topics=("events", "items", "events.dlq"), request_timeout_ms=settings.request_timeout_ms,
                                  max_request_size=8 * 1024 * 1024)
        try:
            return await _Redrive(settings, kafka, lease, box).run(wanted)
        finally:
            await stop_kafka(kafka, 0.5)


class _Redrive:
    """One call."""

    def __init__(self, settings: Settings, kafka: AIOKafkaProducer, lease: Lease, box: Box[Letter]) -> None:
        self._settings, self._kafka, self._lease, self._box = settings, kafka, lease, box
        self._scale = rating_scale(settings)
        self.out = Outcome()

    async def run(self, wanted: Mapping[str, bytes | None]) -> Outcome:
        begun: dict[str, Note] = {}
        jobs: list[_Job] = []
        for key, value in wanted.items():
            note = self._box.note_of(key)
            if note is not None and note.offset is not None:
                self.out.already[key] = _place(note)
                continue
            if note is not None:
                begun[key] = note
            try:
                jobs.append(self._job(key, value))
            except InvalidEvent as error:
                self.out.refused[key] = str(error)
        if begun:
            await self._finish(begun)
            jobs = [job for job in jobs if job.key not in self.out.already and job.key not in self.out.refused]
        for start in range(0, len(jobs), CHUNK):
            await self._chunk(jobs[start : start + CHUNK])
        return self.out

    def _job(self, key: str, value: bytes | None) -> _Job:
        """What to send, checked by the workers' own rules; raises InvalidEvent."""
        letter, settings = self._box.letters[key], self._settings
        if value is None and letter.is_cut:
            raise InvalidEvent("too_large", "the letter holds only the beginning of the message; give a corrected one")
        value = letter.data if value is None else value
        if letter.topic == settings.topic("items"):
            item, attributes = decode_item(None, value)
            expiry_ms(attributes)
            return _Job(key, letter, letter.topic, 0, item.encode(), value)
        user = decode_erase(value)
        if user is None:
            event = decode_event(value)
            check(event, time.time_ns() // 1_000_000, self._scale)
            user = event.user_id
        return _Job(key, letter, settings.topic("events"), partition_of(user, settings.partitions), user.encode(), value)

    async def _chunk(self, jobs: Sequence[_Job]) -> None:
        if not self._lease.held:
            raise RedriveBusy("another process has begun to redrive, this one was silent for too long; call it again: what was sent is noted")
        places = {TopicPartition(job.topic, job.partition) for job in jobs}
        async with _reader(self._settings) as reader:
            ends = await reader.end_offsets(list(places))
        now_ms = time.time_ns() // 1_000_000
        notes = {job.key: Note(job.letter.appended_at, job.topic, job.partition, ends[TopicPartition(job.topic, job.partition)], None, now_ms)
                 for job in jobs}
        await self._note(notes)
        offsets = await self._send(jobs)
        notes = {job.key: _completed(notes[job.key], offset) for job, offset in zip(jobs, offsets, strict=True)}
        await self._note(notes)
        self.out.sent |= {key: _place(note) for key, note in notes.items()}

    async def _send(self, jobs: Sequence[_Job]) -> list[int]:
        return await self._acknowledged([
            await self._kafka.send(job.topic, job.value, key=job.message_key, partition=job.partition, headers=[(HEADER, job.mark)])
            for job in jobs])

    async def _note(self, notes: Mapping[str, Note]) -> None:
        topic = self._settings.topic("events.dlq")
        await self._acknowledged([await self._kafka.send(topic, msgspec.json.encode(note), key=(NOTE + key).encode(), partition=0)
                                  for key, note in notes.items()])

    async def _acknowledged(self, sent: Sequence[Any]) -> list[int]:
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                return [(await future).offset for future in sent]
        except (TimeoutError, KafkaError) as error:
            raise DeliveryError(f"Kafka at {self._settings.kafka_bootstrap} did not take the dead letters' messages ({error or type(error).__name__}); "
                                "call it again: what was taken is not sent twice") from error

    async def _finish(self, begun: Mapping[str, Note]) -> None:
        """Which of those that somebody was about to send lie in the log."""
        marks = {mark_of(key, note.letter_appended_at): key for key, note in begun.items()}
        places: dict[TopicPartition, int] = {}
        for note in begun.values():
            place = TopicPartition(note.topic, note.partition)
            places[place] = min(note.first, places.get(place, note.first))
        found: dict[str, Note] = {}
        async with _reader(self._settings) as reader:
            reader.assign(list(places))
            starts, ends = await reader.beginning_offsets(list(places)), await reader.end_offsets(list(places))
            for place, first in places.items():
                reader.seek(place, max(first, starts[place]))
            while not await at_end(reader, ends):
                for records in (await reader.getmany(timeout_ms=POLL_MS)).values():
                    for record in records:
                        key = next((marks[value] for name, value in record.headers if name == HEADER and value in marks), None)
                        if key is not None:
                            found[key] = _completed(begun[key], record.offset)
            for key, note in begun.items():
                if key not in found and starts[TopicPartition(note.topic, note.partition)] > note.first:
                    self.out.refused[key] = ("somebody was about to send it, and what came then was deleted by retention: nobody can tell whether it"
                                             " came; if it is missing, send it as a new event")
        await self._note(found)
        self.out.already |= {key: _place(note) for key, note in found.items()}


def _completed(note: Note, offset: int) -> Note:
    """The same, completed."""
    return msgspec.structs.replace(note, offset=offset)


class _reader:  # noqa: N801 - used as a verb
    """A consumer outside any group."""

    def __init__(self, settings: Settings) -> None:
        read_foreign_headers()
        self._consumer = AIOKafkaConsumer(**settings.kafka_client_args(), client_id="streamrec-redrive", enable_auto_commit=False)

    async def __aenter__(self) -> AIOKafkaConsumer:
        await self._consumer.start()
        return self._consumer

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
