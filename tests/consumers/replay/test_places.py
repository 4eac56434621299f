"""What `--from` and `--to` say."""

from __future__ import annotations

import time

import pytest

from consumers.replay.places import Place, PlaceError, parse_place


@pytest.mark.parametrize(("text", "place"), [
    ("earliest", Place(earliest=True)),
    ("latest", Place()),
    ("ts=2026-11-15T00:00:00Z", Place(appended_ms=1_794_700_800_000)),
    ("ts=2026-11-15T01:00:00+01:00", Place(appended_ms=1_794_700_800_000)),
    ("ts=2026-11-15", Place(appended_ms=1_794_700_800_000)),  # no zone means UTC
    ("ts=1794700800", Place(appended_ms=1_794_700_800_000)),
    ("ts=1794700800123", Place(appended_ms=1_794_700_800_123)),
    ("offset=0:5,3:17", Place(offsets={0: 5, 3: 17})),
])
def test_places(text: str, place: Place) -> None:
    assert parse_place("--from", text) == place


@pytest.mark.parametrize(("text", "ms"), [("last=7d", 7 * 86_400_000), ("last=1.5h", 5_400_000), ("last=30s", 30_000), ("last=2w", 14 * 86_400_000)])
def test_spans_end_now(text: str, ms: int) -> None:
    found = parse_place("--from", text).appended_ms
    assert found is not None and abs(time.time_ns() // 1_000_000 - ms - found) < 5_000


@pytest.mark.parametrize("text", ["", "yesterday", "last=7", "last=d", "last=.d", "ts=", "ts=soon", "offset=", "offset=1", "offset=1:x", "earliest=1"])
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(PlaceError, match="expected earliest, latest"):
        parse_place("--from", text)
