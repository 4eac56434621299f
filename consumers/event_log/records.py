"""Rows back to what Kafka would bring: records that carry all that rows of users are made of; docs/event_log.md says what they lack.

In: a table of rows in the order of offsets. Out: records with their own offsets and times, so many at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from consumers.event_log.rows import SINCE_2
from streams.decode import APPENDED_HEADER, ORIGIN_HEADER
from streams.events import Event

if TYPE_CHECKING:
    import pyarrow as pa

#: What workers read of an event.
COLUMNS = ("offset", "appended_ms", "time_ms", "user_id", "item_id", "event_type", "event_id", "value", *SINCE_2)
APPEND_TIME, PRODUCER_TIME = 1, 0


class Record(NamedTuple):
    """As aiokafka has it."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes
    timestamp_type: int
    headers: Sequence[tuple[str, bytes]]


class Stretch:
    """Events of one partition, those with offsets from where it was asked for up to `next`."""

    def __init__(self, table: pa.Table, next_offset: int, kind: int) -> None:
        self.next = next_offset
        self._table, self._kind = table, kind

    def __len__(self) -> int:
        return len(self._table)

    def records(self, first: int, end: int) -> list[Record]:
        """Those at these places."""
        table, encode = self._table.slice(first, end - first), msgspec.json.Encoder().encode
        found = []
        for offset, at_ms, time_ms, user, item, kind, event_id, value, origin, origin_ms in zip(
                *(column.to_pylist() for column in table.columns), strict=True):
            headers: Any = ()
            if origin is not None:
                headers = ((ORIGIN_HEADER, origin.encode()),)
                if origin_ms is not None:
                    headers += ((APPENDED_HEADER, b"%d" % origin_ms),)
            found.append(Record(offset, at_ms, user.encode(), encode(Event(event_id, user, item, kind, time_ms, value)), self._kind, headers))
        return found
