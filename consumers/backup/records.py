"""Files of records: key, field of a hash (empty: none) and value, packed and compressed a block at a time; written once, read in order.

A block is two sizes, packed and unpacked, and a zlib stream, which has a checksum of its own; the manifest has one of the whole file.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec
import xxhash

from infra.settings import StreamrecError

#: Lengths of key, field and value.
HEAD = struct.Struct("<III")
BLOCK = struct.Struct("<II")
BLOCK_BYTES = 1 << 20
#: Stands for a value that is none: a message that takes back what was said before.
NO_VALUE = 2**32 - 1
#: Rows are mostly zeros: the quickest level packs them nearly as well as the best.
LEVEL = 1
READ_BYTES = 1 << 22


class BackupError(StreamrecError):
    """A backup cannot be taken, or is none that can be put back here."""


class Record(NamedTuple):
    """One of them."""

    key: bytes
    field: bytes
    value: bytes | None


class File(msgspec.Struct, frozen=True):
    """What the manifest says of a file."""

    bytes: int
    records: int
    xxh3: str


class RecordFile:
    """A file that is being written; on the disk when it is closed. Its calls may be made in threads, one at a time."""

    def __init__(self, path: Path) -> None:
        self._file, self._hash = path.open("xb"), xxhash.xxh3_64()
        self._block: list[bytes] = []
        self._room = BLOCK_BYTES
        self._n_bytes = self._n_records = 0

    def add(self, records: Iterable[Record]) -> None:
        """Append these."""
        for key, field, value in records:
            self._block += (HEAD.pack(len(key), len(field), NO_VALUE if value is None else len(value)), key, field, value or b"")
            self._room -= HEAD.size + len(key) + len(field) + len(value or b"")
            self._n_records += 1
            if self._room <= 0:
                self._write()

    def _write(self) -> None:
        raw = b"".join(self._block)
        packed = zlib.compress(raw, LEVEL)
        for part in (BLOCK.pack(len(packed), len(raw)), packed):
            self._file.write(part)
            self._hash.update(part)
            self._n_bytes += len(part)
        self._block, self._room = [], BLOCK_BYTES

    def close(self) -> File:
        """All of it is on the disk; what it is."""
        if self._block:
            self._write()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return File(self._n_bytes, self._n_records, self._hash.hexdigest())

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def verify(path: Path, said: File) -> None:
    """Raises `BackupError` unless the file is byte by byte the one that was written."""
    try:
        size, seen = path.stat().st_size, xxhash.xxh3_64()
        if size != said.bytes:
            raise BackupError(f"{path} is damaged: {size:,} bytes, the manifest says {said.bytes:,}")
        with path.open("rb") as file:
            while data := file.read(READ_BYTES):
                seen.update(data)
    except FileNotFoundError:
        raise BackupError(f"{path} is missing, which the manifest names") from None
    if seen.hexdigest() != said.xxh3:
        raise BackupError(f"{path} is damaged: its checksum is {seen.hexdigest()}, the manifest says {said.xxh3}; take another backup")


def read(path: Path) -> Iterator[list[Record]]:
    """The records of a file, a block at a time; raises `BackupError` where it is damaged."""
    with path.open("rb") as file:
        while head := file.read(BLOCK.size):
            try:
                n_packed, n_raw = BLOCK.unpack(head)
                raw = zlib.decompress(file.read(n_packed))
                if len(raw) != n_raw:
                    raise ValueError(f"a block of {len(raw)} bytes instead of {n_raw}")
                yield list(_records(raw))
            except (struct.error, zlib.error, ValueError) as error:
                raise BackupError(f"{path} is damaged: {error}") from None


def _records(raw: bytes) -> Iterator[Record]:
    at = 0
    while at < len(raw):
        n_key, n_field, n_value = HEAD.unpack_from(raw, at)
        at += HEAD.size
        ends = at + n_key, at + n_key + n_field, at + n_key + n_field + (0 if n_value == NO_VALUE else n_value)
        if ends[2] > len(raw):
            raise ValueError("a record reaches beyond its block")
        yield Record(raw[at : ends[0]], raw[ends[0] : ends[1]], None if n_value == NO_VALUE else raw[ends[1] : ends[2]])
        at = ends[2]
