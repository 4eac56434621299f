"""From rows of a table to batches of messages, one chunk at a time: the hot loop of the import.

In: tuples of columns. Out: `Prepared` - a batch builder or more for each partition, counts, and why rows were left out.
No Kafka connection here; `new_batch` makes an empty aiokafka batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from consumers.columns import event_type, flag, id_text, number, time_ms
from consumers.messages import item_message
from consumers.tables import BLANK, Row
from streams.events import MAX_EVENT_BYTES, Event, InvalidEvent, RatingScale, check
from streams.partitioner import partition_of

MAX_REMEMBERED = 1_000_000  # users whose partition is remembered; beyond, it is computed again
EXAMPLE_CHARS = 200


@dataclass(slots=True)
class Prepared:
    """One chunk, ready to send. `batches`: (partition, aiokafka BatchBuilder), in order."""

    n_rows: int
    accepted: int = 0
    already_sent: int = 0
    rejected: dict[str, list[str]] = field(default_factory=dict)  # reason -> what was wrong, one a row
    batches: list[tuple[int, Any]] = field(default_factory=list)
    last_ids: dict[int, str] = field(default_factory=dict)  # event id of the last record by partition

    def reject(self, row: int, reason: str, detail: str) -> None:
        """Leave a row out; rows are counted from 1 for people."""
        self.rejected.setdefault(reason, []).append(f"row {row + 1}: {detail[:EXAMPLE_CHARS]}")


class _Batches:
    """Open batches by partition; a full one makes room for the next, so order within a partition stays."""

    def __init__(self, out: Prepared, new_batch: Callable[[], Any]) -> None:
        self._out = out
        self._new_batch = new_batch
        self._open: dict[int, Any] = {}

    def add(self, partition: int, key: bytes, value: bytes | None, now_ms: int) -> None:
        batch = self._open.get(partition)
        if batch is not None and batch.append(key=key, value=value, timestamp=now_ms) is not None:
            return
        batch = self._open[partition] = self._new_batch()
        batch.append(key=key, value=value, timestamp=now_ms)  # fits: a message is at most half of a batch
        self._out.batches.append((partition, batch))


class EventRows:
    """Rows of events. `roles` says what each column of a row is; scale: that of ratings, if their values are read."""

    def __init__(self, fingerprint: str, roles: Sequence[str], default_type: str, scale: RatingScale | None = None) -> None:
        self.default_type = event_type(default_type or "none given", "")
        self.id_prefix = "" if "event_id" in roles else f"{fingerprint}:"
        self._fingerprint, self._scale = fingerprint, scale
        order = ("user", "item", "time", "type", "value", "event_id", "session", "request", "properties")
        self._places = [roles.index(role) if role in roles else len(roles) for role in order]  # past the end: always None
        self._partitions: dict[str, int] = {}
        self._encode = msgspec.json.Encoder().encode

    def prepare(self, rows: Sequence[Row], first: int, sent: set[str], n_partitions: int,
                new_batch: Callable[[], Any]) -> Prepared:
        """Messages of these rows, of which the first has number `first`; those whose event id is in `sent` are passed over."""
        out = Prepared(len(rows))
        batches = _Batches(out, new_batch)
        now_ms = time.time_ns() // 1_000_000
        for number_, row in enumerate(rows, first):
            if isinstance(row, str):
                if row != BLANK:
                    out.reject(number_, "json" if "JSON" in row else "schema", row)
                continue
            try:
                event = self._event(row, number_)
                check(event, now_ms, self._scale)
                if event.event_id in sent:
                    out.already_sent += 1
                    out.accepted += 1
                    continue
                value = self._encode(event)
                if len(value) > MAX_EVENT_BYTES:
                    raise InvalidEvent("too_large", f"{len(value)} bytes, at most {MAX_EVENT_BYTES} are accepted")
                user = event.user_id
                partition = self._partitions.get(user)
                if partition is None:
                    partition = self._remember(user, n_partitions)
                batches.add(partition, user.encode(), value, now_ms)
            except InvalidEvent as error:
                out.reject(number_, error.reason, error.detail)
            except UnicodeEncodeError:
                out.reject(number_, "json", "text that UTF-8 cannot carry (a lone surrogate)")
            else:
                out.accepted += 1
                out.last_ids[partition] = event.event_id
        return out

    def _event(self, row: tuple[Any, ...], row_number: int) -> Event:
        u, i, t, y, v, e, s, r, p = self._places
        row = (*row, None)
        user, item = row[u], row[i]
        event = Event(
            id_text(row[e]) or f"{self._fingerprint}:{row_number}",
            user if type(user) is str else id_text(user),
            item if type(item) is str else id_text(item),
            event_type(row[y], self.default_type),  # type: ignore[arg-type]  # it is one of them, or raised
            time_ms(row[t]),
        )
        if row[v] is not None:
            event.value = number(row[v])
        if row[s] is not None:
            event.session_id = id_text(row[s]) or None
        if row[r] is not None:
            event.request_id = id_text(row[r]) or None
        if type(row[p]) is dict:
            event.properties = row[p]
        return event

    def _remember(self, user: str, n_partitions: int) -> int:
        if len(self._partitions) >= MAX_REMEMBERED:
            self._partitions.clear()
        partition = self._partitions[user] = partition_of(user, n_partitions)
        return partition


class ItemRows:
    """Rows of items."""

    id_prefix = ""

    def __init__(self, roles: Sequence[str]) -> None:
        self._roles = list(roles)

    def prepare(self, rows: Sequence[Row], first: int, sent: set[str], n_partitions: int,
                new_batch: Callable[[], Any]) -> Prepared:
        """Messages of these rows; `sent` is of no use here, saying an item twice is saying it once."""
        out = Prepared(len(rows))
        batches = _Batches(out, new_batch)
        now_ms = time.time_ns() // 1_000_000
        for number_, row in enumerate(rows, first):
            if isinstance(row, str):
                if row != BLANK:
                    out.reject(number_, "json" if "JSON" in row else "schema", row)
                continue
            try:
                message = item_message(**self._fields(dict(zip(self._roles, row, strict=True))))
                batches.add(partition_of(message.id, n_partitions), message.key, message.value, now_ms)
            except InvalidEvent as error:
                out.reject(number_, error.reason, error.detail)
            else:
                out.accepted += 1
                out.last_ids[partition_of(message.id, n_partitions)] = message.id
        return out

    def _fields(self, row: dict[str, Any]) -> dict[str, Any]:
        expires = row.get("expires_at")
        properties = row.get("properties")
        return {
            "item_id": id_text(row["item"]),
            "title": id_text(row.get("title")) or None,
            "category": id_text(row.get("category")) or None,
            "hidden": flag(row.get("hidden")),
            "expires_at": None if expires is None or expires == "" or expires != expires else time_ms(expires),
            "properties": properties if type(properties) is dict else None,
        }
