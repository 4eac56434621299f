"""The packed message of the `interactions` topic: what one cut of one events partition says about items.

Layout, little-endian: header (`HEADER`), `n_records` records of `models.history.RECORD`, then per item named for the
first time in the message: hash (8 bytes), length (1 byte), id text. All records of one event that concern one
partition lie in one message, in the order of their sources (offsets of the events partition).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from infra.settings import StreamrecError
from models.history import RECORD

VERSION = 1
#: Versions from here on are no versions but bytes of something else.
NEWEST = 100
#: version, source partition, number of records, first and last source offset
HEADER = struct.Struct("<HHIqq")
_NAME = struct.Struct("<QB")
#: Keeps a message under 8 MiB even if every record names a new item with the longest id.
MAX_RECORDS = 40_000


class NewerMessage(StreamrecError):
    """A message of `interactions` was written by a newer version of the worker."""


class ForeignMessage(StreamrecError):
    """A message of `interactions` that no worker has written: cut short, or not ours. All replicas pass it over."""


@dataclass(frozen=True, slots=True)
class Interactions:
    """One decoded message. records (n,) RECORD; `names` maps item hashes to id texts (UTF-8)."""

    source_partition: int
    first_source: int
    last_source: int
    records: np.ndarray
    names: dict[int, bytes]


def pack(source_partition: int, base_offset: int, records: np.ndarray, names: Mapping[int, bytes]) -> Iterable[bytes]:
    """Pack records (n,) RECORD, sources ascending from `base_offset`, into as few messages as their size allows."""
    start = 0
    while start < len(records):
        end = min(start + MAX_RECORDS, len(records))
        if end < len(records):  # never split the records of one source
            source = records["source"][end]
            end = int(np.searchsorted(records["source"], source, side="left"))
            if end <= start:
                end = int(np.searchsorted(records["source"], source, side="right"))
        part = records[start:end]
        touched = np.unique(part["item"][part["other"] == 0]).tolist()
        yield b"".join(
            [
                HEADER.pack(
                    VERSION,
                    source_partition,
                    len(part),
                    base_offset + int(part["source"][0]),
                    base_offset + int(part["source"][-1]),
                ),
                _rebased(part).tobytes(),
                *(_NAME.pack(h, len(names[h])) + names[h] for h in touched),
            ]
        )
        start = end


def _rebased(part: np.ndarray) -> np.ndarray:
    part = part.copy()
    part["source"] -= part["source"][0]
    return part


def unpack(value: bytes | None, partition: int, n_partitions: int) -> Interactions:
    """Decode one message of `partition`; raises `NewerMessage` or `ForeignMessage`."""
    if not value or len(value) < HEADER.size:
        raise ForeignMessage(f"expected at least {HEADER.size} bytes, found {len(value or b'')}")
    version, source_partition, n_records, first, last = HEADER.unpack_from(value)
    if version in range(VERSION + 1, NEWEST):
        raise NewerMessage(
            f"an interactions message has version {version}, this worker reads {VERSION}: upgrade the worker first"
        )
    at = HEADER.size + n_records * RECORD.itemsize
    if version != VERSION or not n_records or at > len(value) or source_partition >= n_partitions or not 0 <= first <= last:
        raise ForeignMessage(f"{len(value)} bytes that begin with {value[:8].hex()} are no interactions message")
    records = np.frombuffer(value, RECORD, n_records, HEADER.size).copy()
    if not records["item"].all() or (records["item"] % np.uint64(n_partitions) != partition).any():
        raise ForeignMessage(f"a message about items of other partitions than {partition}")
    names = {}
    try:
        while at < len(value):
            item, n_bytes = _NAME.unpack_from(value, at)
            at += _NAME.size
            names[item] = value[at : at + n_bytes]
            names[item].decode()
            at += n_bytes
    except (struct.error, UnicodeDecodeError):
        raise ForeignMessage(f"the names of a message of {len(value)} bytes cannot be read") from None
    if not names.keys() <= set(records["item"].tolist()):
        raise ForeignMessage("a message names items that it says nothing of")
    return Interactions(source_partition, first, last, records, names)
