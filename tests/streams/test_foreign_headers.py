"""Batches as a consumer takes them that reads headers of any name: all that aiokafka's fetcher asks of one is there."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from streams.foreign_headers import read_foreign_headers

ABORTED, CONTROL = 0, 0x20


def batch(first: int, values: list[bytes], *, producer: int = -1, marker: bool = False) -> bytes:
    """As a broker writes it."""
    builder = DefaultRecordBatchBuilder(2, 0, int(producer >= 0), producer, 0, 0, 1 << 20)
    for k, value in enumerate(values):
        builder.append(k, timestamp=1, key=struct.pack(">hh", 0, ABORTED) if marker else None, value=value, headers=[])
    block = bytearray(builder.build())
    block[0:8] = first.to_bytes(8, "big")
    block[22] |= CONTROL * marker
    block[17:21] = calc_crc32c(memoryview(block)[21:]).to_bytes(4, "big")
    return bytes(block)


def test_an_aborted_transaction_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    read_foreign_headers()
    data = batch(0, [b"a"]) + batch(1, [b"no", b"no"], producer=7) + batch(3, [b""], producer=7, marker=True) + batch(4, [b"b"], producer=7)
    found: Any = fetcher.PartitionRecords(TopicPartition("t", 0), fetcher.MemoryRecords(data), [(7, 1)], 0, None, None, True, fetcher.READ_COMMITTED)
    assert [(record.offset, record.value) for record in found] == [(0, b"a"), (4, b"b")] and found.next_fetch_offset == 5
