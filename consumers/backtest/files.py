"""A log from any file: CSV, JSON lines or Parquet, with columns found by name or given. Read as `streamrec import` reads it.

In: a path and columns. Out: a `DataSet`. Rows that are no event are counted by reason and left out, as import does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from consumers.backtest.datasets import MADE_UP_MS, DataSet
from consumers.backtest.log import LogError, make_log
from consumers.columns import EVENT_ROLES, choose_columns, event_type, id_text, number, time_ms
from consumers.tables import BLANK, Row, Table
from streams.events import EARLIEST_MS, TYPE_CODES, InvalidEvent, RatingScale, check_id, check_value

#: A column of one of these names says which events lie in one basket. A session is none unless it is named: people look at one
#: thing after another in it, and what came last is what tells the next.
BASKET_NAMES = ("basketid", "basket", "orderid", "order", "invoice", "invoiceno", "transactionid", "ticketid")
CATEGORY_NAMES = ("category", "categoryid", "productcategory", "genre")
#: Files without a time are taken in their order.
STEP_MS = 1_000


def load_file(
    path: str | Path,
    columns: Mapping[str, str | None],
    *,
    format: str | None = None,
    default_type: str = "purchase",
    limit: int | None = None,
    scale: RatingScale | None = None,
) -> DataSet:
    """A log from a file. columns: user, item, time, type, value, basket, category -> name in the file, where it is not the usual one. scale:
    that of ratings, if their values are read.

    Raises TableError, ColumnError, InvalidEvent (a default type that is none), LogError (no row is an event).
    """
    table = Table(path, format)
    notes = []
    names = list(table.names)
    wanted = dict(columns)
    for role, usual in (("basket", BASKET_NAMES), ("category", CATEGORY_NAMES)):
        wanted[role] = wanted.get(role) or next((n for u in usual for n in names if _plain(n) == u), None)
    clocked = bool(wanted.get("time")) or any(_plain(name) in EVENT_ROLES["time"] for name in names)
    if not clocked:
        notes.append("no column tells the time: rows are taken in their order, one a second")
    roles = {role: wanted.get(role) for role in ("user", "item", "time", "type", "value")}
    roles["session"] = wanted["basket"]  # checked with the others
    chosen = choose_columns(names if clocked else [*names, "timestamp"], roles, "events")
    chosen = {role: chosen[role] for role in ("user", "item", "time", "type", "value", "session") if role in chosen}
    use: dict[str, str] = {role: name for role, name in chosen.items() if role != "session" and (clocked or role != "time")}
    if wanted["basket"]:
        use["basket"] = chosen["session"]
    if wanted["category"]:
        if wanted["category"] not in names:
            raise LogError(f"the file has no column {wanted['category']!r} (for category); it has {', '.join(names)}")
        use["category"] = wanted["category"]
    rows = _Rows(list(use), event_type(default_type, ""), scale)
    for chunk in table.read(list(use.values())):
        rows.add(chunk if limit is None else chunk[: limit - rows.n_rows])
        if limit is not None and rows.n_rows >= limit:
            break
    return rows.data_set(Path(path).name, notes, use)


class _Rows:
    """Columns as they are gathered."""

    def __init__(self, roles: list[str], default_type: str, scale: RatingScale | None) -> None:
        self._place = {role: k for k, role in enumerate(roles)}
        self._default, self._scale = default_type, scale
        self.n_rows = 0
        self.users: list[str] = []
        self.items: list[str] = []
        self.times: list[int] = []
        self.types: list[int] = []
        self.values: list[float] = []  # NaN: none
        self.baskets: list[str] = []
        self.categories: dict[str, str] = {}
        self.rejected: Counter[str] = Counter()
        self.example = ""

    def add(self, rows: list[Row]) -> None:
        place = self._place
        t, y, v, b, c = (place.get(role, -1) for role in ("time", "type", "value", "basket", "category"))
        for row in rows:
            self.n_rows += 1
            if isinstance(row, str):
                if row != BLANK:
                    self._reject("schema", row)
                continue
            try:
                user, item = id_text(row[place["user"]]), id_text(row[place["item"]])
                check_id("user_id", user)
                check_id("item_id", item)
                when = time_ms(row[t]) if t >= 0 else MADE_UP_MS + self.n_rows * STEP_MS
                if not isinstance(when, int) or when < EARLIEST_MS:
                    raise InvalidEvent("timestamp", f"{str(row[t])[:40]!r} is no time from 1990 on")
                kind = event_type(row[y] if y >= 0 else None, self._default)
                value = number(row[v]) if v >= 0 else None
                check_value(kind, value, self._scale)
            except InvalidEvent as error:
                self._reject(error.reason, error.detail)
                continue
            self.users.append(user)
            self.items.append(item)
            self.times.append(when)
            self.types.append(TYPE_CODES[kind])
            self.values.append(float("nan") if value is None else value)
            if b >= 0:
                # what stands in no basket is one of its own
                self.baskets.append(id_text(row[b]) or f"\0{self.n_rows}")
            if c >= 0 and (category := id_text(row[c])):
                self.categories[item] = category

    def _reject(self, reason: str, detail: str) -> None:
        self.rejected[reason] += 1
        self.example = self.example or f"row {self.n_rows}: {detail[:120]}"

    def data_set(self, name: str, notes: list[str], use: dict[str, str]) -> DataSet:
        n_rejected = sum(self.rejected.values())
        if not self.users:
            raise LogError(f"none of the {self.n_rows:,} rows of {name} is an event ({self.example or 'the file is empty'}); "
                           f"columns taken: {', '.join(f'{role}={column}' for role, column in use.items())}")
        notes.append("columns: " + ", ".join(f"{role}={column}" for role, column in use.items()))
        if n_rejected:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.most_common())
            notes.append(f"{n_rejected:,} of {self.n_rows:,} rows are no events ({reasons}; {self.example})")
        log = make_log(
            name, self.users, self.items, np.array(self.times, np.int64), np.array(self.types, np.uint8),
            baskets=self.baskets or None, values=np.array(self.values) if "value" in self._place else None,
            categories=self.categories or None,
        )
        return DataSet(log, notes=tuple(notes))


def _plain(name: str) -> str:
    return "".join(ch for ch in name.lower() if ch.isalnum())
