"""What other people's producers may do to a fetch: it costs them their event, never us the worker."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from streams.decode import ORIGIN_HEADER, Decoded, Decoder
from streams.events import MAX_AHEAD_MS
from streams.partitioner import partition_of
from tests.fetched import FetchedRecord

N = 4
NOW_MS = 1_763_778_821_000
USER = "u42"
HOME = partition_of(USER, N)


def value(time_ms: int = NOW_MS, user: str = USER) -> bytes:
    return json.dumps({"event_id": "e1", "user_id": user, "item_id": "i", "event_type": "view", "timestamp": time_ms}).encode()


def decode(record: FetchedRecord, seen: np.ndarray | None = None, partition: int = HOME) -> Decoded:
    return Decoder(N).decode(partition, [record], {}, np.full(N, -1, np.int64) if seen is None else seen)


@pytest.mark.parametrize("header", [b"9" * 5_000 + b"/1", b"1/" + b"9" * 5_000, b"9" * 5_000 + b"/" + b"9" * 5_000,
                                    b"999999/1", b"4/1", b"1/9999999999999999999", b"x/1", b"1/", b"/1", b"", b"\xff\xfe/1", b"1/1/1"])
def test_a_foreign_origin_is_none(header: bytes) -> None:
    seen = np.full(N, -1, np.int64)
    found = decode(FetchedRecord(7, NOW_MS, value(), [(ORIGIN_HEADER, header)]), seen)
    assert found.offsets == [7] and not found.origins and not found.rejected  # an event like any other
    assert (seen == -1).all()
    elsewhere = (HOME + 1) % N  # one that is still to be moved must not count as moved already
    assert decode(FetchedRecord(7, NOW_MS, value(), [(ORIGIN_HEADER, header)]), seen, elsewhere).misplaced


def test_our_own_origin_counts_once() -> None:
    seen, largest = np.full(N, -1, np.int64), 10**18 - 1
    first = decode(FetchedRecord(7, NOW_MS, value(), [(ORIGIN_HEADER, b"3/%d" % largest)]), seen)
    assert first.origins == [(7, 3, largest)] and seen[3] == largest
    second = decode(FetchedRecord(8, NOW_MS, value(), [(ORIGIN_HEADER, b"3/%d" % largest)]), seen)
    assert not second.offsets and not second.rejected


def test_a_producers_time_bounds_nothing() -> None:
    now_ms = time.time_ns() // 1_000_000
    far_ms = now_ms + 10 * 365 * MAX_AHEAD_MS
    found = decode(FetchedRecord(0, far_ms, value(far_ms), timestamp_type=0))
    assert [rejected.reason for rejected in found.rejected] == ["timestamp"] and not found.offsets
    found = decode(FetchedRecord(0, far_ms, value(now_ms), timestamp_type=0))
    assert found.offsets == [0] and now_ms <= found.appended_ms[0] < now_ms + 60_000  # freshness is told from it
    found = decode(FetchedRecord(0, NOW_MS, value(NOW_MS), timestamp_type=0))  # an import with times of its own
    assert found.appended_ms == [NOW_MS]
    # the broker's time is believed, so that a replay years later decides alike
    assert decode(FetchedRecord(0, far_ms, value(far_ms))).offsets == [0]
