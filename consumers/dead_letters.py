"""Dead letters as they lie in `events.dlq`: what was rejected, why and when, and what became of it since.

The topic is compacted. Under `topic/partition/offset` lies the letter of what was rejected there; under `redriven/topic/partition/offset` a
note that an event was sent in its place, or is about to be (consumers/redrive.py). Notes have keys of their own because a worker that
reads the log again writes its letters again: in the letter a note would be lost.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.settings import Settings

NOTE = "redriven/"
POLL_MS, FETCH_BYTES = 500, 8 * 1024 * 1024


class Head(msgspec.Struct, frozen=True):
    """A letter without its payload: enough to count by."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    appended_at: int
    payload_bytes: int = 0


class Letter(Head, frozen=True):
    """A letter."""

    payload: str = ""
    encoding: str = "utf-8"

    @property
    def data(self) -> bytes:
        """The message that was rejected, or its beginning."""
        return self.payload.encode() if self.encoding == "utf-8" else base64.b64decode(self.payload)

    @property
    def is_cut(self) -> bool:
        """Whether it is only the beginning."""
        return len(self.data) < self.payload_bytes


class Note(msgspec.Struct, frozen=True):
    """What was sent in place of a letter: to `topic` and `partition`, not before the offset `first`; it lies at `offset`, None: it was about to
    be sent. letter_appended_at tells a letter of another record under the same key, of a topic that was made anew, from this one."""

    letter_appended_at: int
    topic: str
    partition: int
    first: int
    offset: int | None
    at: int
    v: int = 1


H = TypeVar("H", bound=Head)
T = TypeVar("T")


class Box(Generic[H]):
    """All letters and notes by the letter's key, as read last."""

    def __init__(self) -> None:
        self.letters: dict[str, H] = {}
        self.notes: dict[str, Note] = {}

    def note_of(self, key: str) -> Note | None:
        """What was sent, or about to be, in place of this letter."""
        note, letter = self.notes.get(key), self.letters[key]
        return note if note is not None and note.letter_appended_at == letter.appended_at else None

    def is_redriven(self, key: str) -> bool:
        """Whether it lies in the log."""
        return (note := self.note_of(key)) is not None and note.offset is not None


async def read_box(settings: Settings, kind: type[H], wanted: Callable[[str, H], bool] = lambda key, letter: True) -> Box[H]:
    """What lies in the topic now; of letters only those that are wanted. Values that are no letters are passed over."""
    box: Box[H] = Box()
    async for key, value in messages(settings):
        is_note = key.startswith(NOTE)
        name = key.removeprefix(NOTE)
        held: dict[str, Any] = box.notes if is_note else box.letters
        held.pop(name, None)
        if value is None:
            continue
        found: Any = read_value(value, Note if is_note else kind)
        if found is not None and (is_note or wanted(name, found)):
            held[name] = found
    return box


def read_value(value: bytes, kind: type[T]) -> T | None:
    """A letter or note; None for what is none."""
    try:
        found = msgspec.json.decode(value, type=kind)
        if isinstance(found, Letter):
            found.data  # noqa: B018 - raises where the payload is none
    except (msgspec.DecodeError, ValueError):
        return None
    return found


async def all_letters(settings: Settings) -> AsyncIterator[tuple[str, Letter]]:
    """Every letter that the topic still holds, those that were replaced or removed since among them."""
    async for key, value in messages(settings):
        letter = None if value is None or key.startswith(NOTE) else read_value(value, Letter)
        if letter is not None:
            yield key, letter


async def messages(settings: Settings) -> AsyncIterator[tuple[str, bytes | None]]:
    """Key and value of every message of the topic up to its end now; a later one of the same key replaces an earlier one."""
    place = TopicPartition(settings.topic("events.dlq"), 0)
    consumer = AIOKafkaConsumer(**settings.kafka_client_args(), client_id="streamrec-letters", enable_auto_commit=False,
                                auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH_BYTES)
    await consumer.start()
    try:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(place, timeout_ms=POLL_MS)).values():
                for record in records:
                    if record.key is not None:
                        yield record.key.decode("utf-8", "replace"), record.value
    finally:
        await consumer.stop()
