"""From the records of one fetch to the columns that absorb takes, and to what goes elsewhere.

In: Kafka records of one events partition. Out: `Decoded` - columns in offset order, the user ids whose rows must be
loaded first, and the records that are rejected or belong into another partition. One bad message costs itself only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np

from models.hashing import stable_hash
from streams.erasures import Erased, Erasures, users_named
from streams.events import (
    EARLIEST_MS,
    MAX_AHEAD_MS,
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    SCHEMA_VERSION,
    TYPE_CODES,
    Event,
    InvalidEvent,
    RatingScale,
    check_id,
    check_rest,
    decode_erase,
    decode_event,
    event_time_ms,
)
from streams.partitioner import partition_of

#: Names the place of an event that was produced again to its user's partition: b"partition/offset".
ORIGIN_HEADER = "streamrec-origin"
#: When that event came there, epoch ms.
APPENDED_HEADER = "streamrec-appended"


class Record(Protocol):
    """What is read of a Kafka record (aiokafka's ConsumerRecord has it). `timestamp`: append time, epoch ms."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that will not be absorbed, and why."""

    record: Record
    reason: str
    detail: str


@dataclass(slots=True)
class Decoded:
    """One fetch, decoded. Columns are lists of equal length in offset order; `slots` says which row is whose, -1 for
    the users in `missing` (per user the positions of his events), whose rows must be loaded first."""

    slots: list[int] = field(default_factory=list)
    missing: dict[str, list[int]] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    event_ids: list[int] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    shares: dict[int, float] = field(default_factory=dict)  # by position, of ratings: what part of the type's weight they count
    appended_ms: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    misplaced: list[tuple[Record, int]] = field(default_factory=list)  # with the partition it belongs to
    origins: list[tuple[int, int, int]] = field(default_factory=list)  # offset here, partition and offset there
    erased: list[Erased] = field(default_factory=list)  # users to be forgotten before the events above are applied
    n_erased: int = 0  # records passed over because their user was erased behind them

    def leave_out(self, positions: set[int]) -> None:
        """Take events out again."""
        kept = [k for k in range(len(self.slots)) if k not in positions]
        for column in (self.slots, self.offsets, self.items, self.event_ids, self.times_ms, self.types, self.appended_ms):
            column[:] = [column[k] for k in kept]  # in place: a fetch is still being decoded
        place = {k: new for new, k in enumerate(kept)}
        self.shares = {place[k]: share for k, share in self.shares.items() if k in place}
        for there in self.missing.values():
            there[:] = [place[k] for k in there if k in place]
        self.n_erased += len(positions)


class Decoder:
    """Decodes fetches; remembers the hashes and texts of the items that it has met. scale: that of ratings, if read; erasures: who was
    erased, to which erase events are added as they are met."""

    def __init__(self, n_partitions: int, scale: RatingScale | None = None, erasures: Erasures | None = None) -> None:
        self.n_partitions = n_partitions
        self.erasures = Erasures() if erasures is None else erasures
        self._scale = scale
        self.names: dict[int, bytes] = {}
        self._hashes: dict[str, int] = {}
        self._decode = msgspec.json.Decoder(Event).decode

    def _item(self, item_id: str) -> int:
        check_id("item_id", item_id)
        item = self._hashes[item_id] = stable_hash(item_id)
        self.names[item] = item_id.encode()
        return item

    def decode(
        self, partition: int, records: Sequence[Record], known: dict[str, int], seen_origins: np.ndarray
    ) -> Decoded:
        """Decode one fetch of `partition`.

        known: users of this partition whose rows are in memory (their ids and place are not checked again);
        seen_origins (n_partitions,) int64: per partition the highest offset from which a copy came here; updated.
        """
        out = Decoded()
        decode, hashes, type_codes = self._decode, self._hashes, TYPE_CODES
        add_slot, add_offset, add_item = out.slots.append, out.offsets.append, out.items.append
        missing, slot_of = out.missing, known.get
        add_id, add_time, add_type = out.event_ids.append, out.times_ms.append, out.types.append
        add_appended = out.appended_ms.append
        # a topic that was not made by us may carry the producer's time, which bounds nothing
        by_producer = bool(records) and getattr(records[0], "timestamp_type", 1) == 0  # none are left of a batch given up
        latest_ms = time.time_ns() // 1_000_000 if by_producer else 1 << 62
        erased_below = self.erasures.below(partition)
        for record in records:
            value = record.value
            appended_ms = min(record.timestamp, latest_ms)
            try:
                if value is None or len(value) > MAX_EVENT_BYTES:
                    event = decode_event(value)
                else:
                    try:
                        event = decode(value)
                    except (ValueError, RecursionError):  # the slow path names the reason
                        event = decode_event(value)
                user = event.user_id
                slot = slot_of(user, -1)
                if slot < 0:
                    check_id("user_id", user)
                if slot < 0 or record.headers:
                    if not self._belongs_here(partition, record, user, seen_origins, out):
                        continue
                    # of users whose rows are in memory nothing is ahead that an erasure behind it could have erased before they came
                    if (record.offset < erased_below or record.headers) and self._was_erased(user, record, 0 if by_producer else appended_ms):
                        out.n_erased += 1
                        continue
                item = hashes.get(event.item_id) or self._item(event.item_id)
                event_id = event.event_id
                if not (0 < len(event_id) <= MAX_ID_BYTES and event_id.isascii() and event_id.isprintable()):
                    check_id("event_id", event_id)
                time_ms = event.timestamp
                if type(time_ms) is not int or not EARLIEST_MS <= time_ms <= appended_ms + MAX_AHEAD_MS:
                    time_ms = event_time_ms(time_ms, appended_ms)
                if event.value is not None or event.schema_version != SCHEMA_VERSION:
                    share = check_rest(event, self._scale)
                    if share != 1.0:
                        out.shares[len(out.slots)] = share
            except InvalidEvent as error:
                self._no_event(partition, record, 0 if by_producer else appended_ms, error, known, seen_origins, out)
                continue
            if slot < 0:
                missing.setdefault(user, []).append(len(out.slots))
            add_slot(slot)
            add_offset(record.offset)
            add_item(item)
            add_id(stable_hash(event_id))
            add_time(time_ms)
            add_type(type_codes[event.event_type])
            add_appended(appended_ms)
        return out

    def _was_erased(self, user: str, record: Record, appended_ms: int) -> bool:
        """Whether the user, in whose partition this record lies, was erased behind it."""
        found = self.erasures.of(user)
        if found is None:
            return False
        original_ms = appended_of(record)
        if original_ms is not None and origin_of(record, self.n_partitions) is not None and found.takes_original(original_ms):
            return True
        return found.takes(record.offset, appended_ms)

    def _is_of_erased(self, user: str, partition: int, record: Record, appended_ms: int) -> bool:
        """The same of a record that speaks of him, wherever it lies."""
        if partition == partition_of(user, self.n_partitions):
            return self._was_erased(user, record, appended_ms)
        return (found := self.erasures.of(user)) is not None and found.takes_original(appended_ms)

    def _no_event(
        self, partition: int, record: Record, appended_ms: int, error: InvalidEvent, known: dict[str, int], seen_origins: np.ndarray, out: Decoded
    ) -> None:
        """What is not an event: asks to erase somebody, or is rejected; not even that where it speaks of somebody who was erased."""
        try:
            user = decode_erase(record.value)
            if user is not None:
                if self._belongs_here(partition, record, user, seen_origins, out) and not self._was_erased(user, record, appended_ms):
                    # a producer's clock that is ahead would erase what is yet to come
                    erased_ms = appended_ms or min(record.timestamp, time.time_ns() // 1_000_000)
                    self._erase(partition, Erased(user, record.offset, erased_ms), known, out)
                return
        except InvalidEvent as invalid:
            error = invalid
        if self.erasures.users and any(self._is_of_erased(user, partition, record, appended_ms) for user in users_named(record.value)):
            out.n_erased += 1
            return
        out.rejected.append(Rejected(record, error.reason, error.detail))

    def _erase(self, partition: int, erased: Erased, known: dict[str, int], out: Decoded) -> None:
        """From here on he is a new user; what this fetch has brought of him is left out."""
        self.erasures.add(partition, erased)
        slot = known.get(erased.user)
        if slot is None:
            before = set(out.missing.setdefault(erased.user, []))
        else:
            before = {k for k, other in enumerate(out.slots) if other == slot}
        if before:
            out.leave_out(before)
        out.erased.append(erased)

    def _belongs_here(
        self, partition: int, record: Record, user: str, seen_origins: np.ndarray, out: Decoded
    ) -> bool:
        """Whether the record is to be absorbed here: in its user's partition, and not the second copy of a misplaced one."""
        origin = origin_of(record, self.n_partitions)
        home = partition_of(user, self.n_partitions)
        if home != partition:
            if origin is not None:
                raise InvalidEvent("partition", f"belongs into partition {home}, came to {partition} a second time")
            out.misplaced.append((record, home))
            return False
        if origin is not None:
            source, offset = origin
            if offset <= seen_origins[source]:
                return False
            seen_origins[source] = offset
            out.origins.append((record.offset, source, offset))
        return True


def appended_of(record: Record) -> int | None:
    """When the original of a copy came, epoch ms; None: not known, or it is no copy."""
    for name, value in record.headers or ():
        if name == APPENDED_HEADER and value is not None and value.isdigit() and len(value) < 19:
            return int(value)
    return None


def origin_of(record: Record, n_partitions: int) -> tuple[int, int] | None:
    """Where a copy came from, or None for an ordinary record (or a header that is not of our making)."""
    for name, value in record.headers or ():
        if name == ORIGIN_HEADER and value is not None:
            source, _, offset = value.decode("ascii", "replace").partition("/")
            if not (source.isdecimal() and offset.isdecimal() and len(source) < 6 and len(offset) < 19):
                return None
            if int(source) < n_partitions:
                return int(source), int(offset)
    return None
