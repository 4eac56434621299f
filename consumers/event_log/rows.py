"""From Kafka records to rows of the log: valid events as the workers see them, with their texts.

In: records of one partition. Out: an Arrow table in the order of offsets, and what became of the others. Which records are events,
and which of several copies of a misplaced one counts, is decided by the workers' own decoder (streams/decode.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from consumers.event_log.names import DAY_MS
from infra.settings import StreamrecError
from streams.decode import Decoder, Record, appended_of
from streams.erasures import Erasures
from streams.events import EVENT_TYPES, RatingScale

if TYPE_CHECKING:
    import pyarrow as pa

#: Users known by name; beyond, all are forgotten and met again.
MAX_USERS = 1_000_000


class ArrowMissing(StreamrecError):
    """pyarrow is not installed."""


def arrow() -> Any:
    """pyarrow, which comes with an extra."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ArrowMissing('the event log is made of Parquet files, which needs pyarrow: pip install "streamrec[parquet]"') from None
    return pyarrow


def schema() -> pa.Schema:
    """Columns of a file. `properties` is the JSON text that the producer sent, `origin` the header of an event that was moved."""
    pa = arrow()
    return pa.schema([
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("appended_ms", pa.int64(), nullable=False),
        pa.field("time_ms", pa.int64(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("session_id", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("properties", pa.string()),
        *(pa.field(name, kind) for name, kind in zip(SINCE_2, (pa.string(), pa.int64()), strict=True)),
    ])


#: Columns that a log of format 1 has not.
SINCE_2 = ("origin", "origin_ms")
COLUMNS = ("offset", "appended_ms", "time_ms", "user_id", "item_id", "event_type", "event_id", "value", "session_id", "request_id",
           "properties", *SINCE_2)


class _Texts(msgspec.Struct, gc=False):
    """What the decoder of the workers leaves out."""

    event_id: str
    value: float | None = None
    session_id: str | None = None
    request_id: str | None = None
    properties: msgspec.Raw = msgspec.Raw()


class Rows:
    """Makes rows of all partitions; `origins` (P, P) as the decoder keeps them, `rejected` counts by reason."""

    def __init__(self, n_partitions: int, scale: RatingScale | None = None, erasures: Erasures | None = None) -> None:
        self.origins = np.full((n_partitions, n_partitions), -1, np.int64)
        self.rejected: Counter[str] = Counter()
        self.n_misplaced = 0  # to be moved by a worker; the copy is the row
        self._decoder = Decoder(n_partitions, scale, erasures)
        self._texts = msgspec.json.Decoder(_Texts).decode
        self._codes: list[dict[str, int]] = [{} for _ in range(n_partitions)]
        self._users: list[list[str]] = [[] for _ in range(n_partitions)]  # by code

    def table(self, partition: int, records: Sequence[Record]) -> pa.Table:
        """The valid events among these records."""
        pa, codes, users = arrow(), self._codes[partition], self._users[partition]
        if len(users) > MAX_USERS // len(self._users):
            codes.clear()
            users.clear()
        found = self._decoder.decode(partition, records, codes, self.origins[partition])
        self.rejected.update(rejected.reason for rejected in found.rejected)
        self.n_misplaced += len(found.misplaced)
        for user, places in found.missing.items():
            code = codes[user] = len(users)
            users.append(user)
            for place in places:
                found.slots[place] = code
        names = self._decoder.names
        accepted = set(found.offsets)
        kept = [record for record in records if record.offset in accepted]
        texts = [self._texts(record.value or b"") for record in kept]
        origins = {offset: f"{source}/{place}" for offset, source, place in found.origins}
        columns = {
            "offset": found.offsets,
            "appended_ms": found.appended_ms,
            "time_ms": found.times_ms,
            "user_id": [users[slot] for slot in found.slots],
            "item_id": [names[item].decode() for item in found.items],
            "event_type": [EVENT_TYPES[code] for code in found.types],
            "event_id": [text.event_id for text in texts],
            "value": [text.value for text in texts],
            "session_id": [_utf8(text.session_id) for text in texts],
            "request_id": [_utf8(text.request_id) for text in texts],
            "properties": [_properties(text.properties) for text in texts],
            "origin": [origins.get(record.offset) for record in kept],
            "origin_ms": [appended_of(record) if record.offset in origins else None for record in kept],
        }
        return pa.table(columns, schema=schema())


def _utf8(text: str | None) -> str | None:
    """A lone surrogate has no bytes; of these fields nobody checks that, and nobody reads them."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def _properties(raw: msgspec.Raw) -> str | None:
    return None if len(data := bytes(raw)) == 0 or data == b"null" else data.decode("utf-8", "replace")


def by_day(rows: pa.Table | None) -> dict[int, np.ndarray]:
    """Places of rows by event day (days since 1970, oldest first), those of a day in their order."""
    if rows is None or not len(rows):
        return {}
    days = rows.column("time_ms").to_numpy() // DAY_MS
    order = np.argsort(days, kind="stable")
    there, starts = np.unique(days[order], return_index=True)
    return dict(zip(there.tolist(), np.split(order, starts[1:]), strict=True))
