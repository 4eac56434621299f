"""The packed message of the `interactions` topic: what events of several partitions say about items of one partition.

Layout, little-endian: a header; one section for each events partition (its number, how many records are its, its first
and last source); all records, section after section, each section's in the order of their sources (offsets in its events
partition); then, for each item that is touched, hash, length and id text. All records of one source that concern one
items' partition lie in one message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from infra.settings import StreamrecError
from models.hashing import stable_hash
from models.history import RECORD
from models.item_rows import MAX_ID_BYTES, is_touch
from models.records import stacked
from models.user_row import EPOCH_MS

VERSION = 2
#: Versions from here on are no versions but bytes of something else.
NEWEST = 100
#: version, number of sections, number of records
HEADER = struct.Struct("<HHI")
#: events partition, number of records, first and last source offset
SECTION = struct.Struct("<HxxIqq")
NAME = struct.Struct("<QB")
#: Year 2126, where the times in user rows end.
LATEST_MS = EPOCH_MS + 2**32 * 1000
#: Keeps a message under 8 MiB even if every record names a new item with the longest id.
MAX_RECORDS = 40_000


class NewerMessage(StreamrecError):
    """A message of `interactions` was written by a newer version of the worker."""


class ForeignMessage(StreamrecError):
    """A message of `interactions` that no worker has written: cut short, or not ours. All replicas pass it over."""


class Section(NamedTuple):
    """What events of one partition say: records (n,) RECORD, `source` ascending, counted from offset `base`."""

    partition: int
    base: int
    records: np.ndarray


@dataclass(frozen=True, slots=True)
class Interactions:
    """One decoded message; `names` maps item hashes to id texts (UTF-8)."""

    sections: list[Section]
    names: dict[int, bytes]


def pack(sections: Iterable[Section], names: Mapping[int, bytes]) -> Iterator[bytes]:
    """Pack sections into as few messages as their size allows."""
    gathered: list[Section] = []
    room = MAX_RECORDS
    for section in sections:
        for piece in _pieces(section):
            if gathered and len(piece.records) > room:
                yield _message(gathered, names)
                gathered, room = [], MAX_RECORDS
            gathered.append(piece)
            room -= len(piece.records)
    if gathered:
        yield _message(gathered, names)


def _pieces(section: Section) -> Iterator[Section]:
    """Cut a section that is too large for one message, never between the records of one source."""
    records, start = section.records, 0
    while start < len(records):
        end = min(start + MAX_RECORDS, len(records))
        if end < len(records):
            source = records["source"][end]
            end = int(np.searchsorted(records["source"], source, side="left"))
            if end <= start:
                end = int(np.searchsorted(records["source"], source, side="right"))
        yield Section(section.partition, section.base, records[start:end])
        start = end


def _message(sections: list[Section], names: Mapping[int, bytes]) -> bytes:
    records = stacked([section.records for section in sections], RECORD)
    parts, start = [HEADER.pack(VERSION, len(sections), len(records))], 0
    for section in sections:
        n, first = len(section.records), int(section.records["source"][0])
        last = int(section.records["source"][-1])
        parts.append(SECTION.pack(section.partition, n, section.base + first, section.base + last))
        records["source"][start : start + n] -= first
        start += n
    touched = np.unique(records["item"][is_touch(records["other"])]).tolist()
    return b"".join([*parts, records.tobytes(), *(NAME.pack(h, len(names[h])) + names[h] for h in touched)])


def unpack(value: bytes | None, partition: int, n_partitions: int) -> Interactions:
    """Decode one message of `partition`; raises `NewerMessage` or `ForeignMessage`."""
    try:
        return _unpack(value or b"", partition, n_partitions)
    except (struct.error, ValueError) as error:  # a UnicodeDecodeError is one
        raise ForeignMessage(f"{len(value or b'')} bytes that begin with {(value or b'')[:8].hex()}: {error}") from None


def _unpack(value: bytes, partition: int, n_partitions: int) -> Interactions:
    version, n_sections, n_records = HEADER.unpack_from(value)
    if version in range(VERSION + 1, NEWEST):
        raise NewerMessage(
            f"an interactions message has version {version}, this worker reads {VERSION}: upgrade the worker first"
        )
    at = HEADER.size + n_sections * SECTION.size
    if version != VERSION or not n_sections or not n_records:
        raise ValueError("no interactions message")
    records = np.frombuffer(value, RECORD, n_records, at).copy()
    if not records["item"].all() or (records["item"] % np.uint64(n_partitions) != partition).any():
        raise ValueError(f"about items of other partitions than {partition}")
    if records["time_ms"].min() < 0 or records["time_ms"].max() > LATEST_MS:
        raise ValueError("times that no event has")
    sections, start = [], 0
    for k in range(n_sections):
        source, n, first, last = SECTION.unpack_from(value, HEADER.size + k * SECTION.size)
        part = records[start : start + n]
        start += n
        if not n or start > n_records or source >= n_partitions or first < 0 or first + int(part["source"][-1]) != last:
            raise ValueError("a section does not fit its records")
        if (np.diff(part["source"].astype(np.int64)) < 0).any():
            raise ValueError("sources are not in order")
        sections.append(Section(source, first, part))
    if start != n_records:
        raise ValueError("records without a section")
    return Interactions(sections, _names(value, at + records.nbytes))


def _names(value: bytes, at: int) -> dict[int, bytes]:
    names = {}
    while at < len(value):
        item, n_bytes = NAME.unpack_from(value, at)
        at += NAME.size
        names[item] = value[at : at + n_bytes]
        if not 0 < n_bytes <= MAX_ID_BYTES or stable_hash(names[item].decode()) != item:
            raise ValueError("a name is not that of its item")
        at += n_bytes
    return names
