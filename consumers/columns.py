"""From a table's columns to the fields of our messages: which column is which, what a time or an id in it means.

Producers send the contract's names; only here are other people's names understood, since files are as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.settings import StreamrecError
from streams.events import EVENT_TYPES, InvalidEvent

#: Role -> names by which it is found when it is not given; compared without case, spaces, _ and -, first one wins.
EVENT_ROLES: dict[str, tuple[str, ...]] = {
    "user": ("userid", "user", "uid", "customerid", "customer", "visitorid", "clientid", "memberid"),
    "item": ("itemid", "item", "iid", "productid", "product", "articleid", "article", "sku"),
    "time": ("timestamp", "time", "ts", "eventtime", "datetime", "date", "createdat"),
    "type": ("eventtype", "type", "event", "action", "behavior", "behaviour"),
    "value": ("value", "rating", "score"),
    "event_id": ("eventid", "uuid"),
    "session": ("sessionid", "session"),
    "request": ("requestid", "request"),
    "properties": ("properties",),
}
ITEM_ROLES: dict[str, tuple[str, ...]] = {
    "item": EVENT_ROLES["item"],
    "title": ("title", "name", "productname", "itemname", "description"),
    "category": ("category", "categoryid", "productcategory", "genre", "genres"),
    "hidden": ("hidden",),
    "expires_at": ("expiresat", "expires", "expiry"),
    "properties": ("properties",),
}
REQUIRED = {"events": ("user", "item", "time"), "items": ("item",)}
#: What other systems call our types.
TYPE_ALIASES = {"buy": "purchase", "bought": "purchase", "order": "purchase", "transaction": "purchase", "cart": "add_to_cart",
                "addtocart": "add_to_cart", "pageview": "view", "pv": "view", "rate": "rating", "favorite": "like", "fav": "like"}
_TYPES = {name: name for name in EVENT_TYPES} | TYPE_ALIASES
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class ColumnError(StreamrecError):
    """A column that is needed is not there."""


def choose_columns(names: Sequence[str], given: Mapping[str, str | None], kind: str) -> dict[str, str]:
    """Column name by role, from what was given and else by alias; raises ColumnError.

    >>> choose_columns(["userId", "product_id", "ts", "price"], {"value": "price"}, "events")
    {'user': 'userId', 'item': 'product_id', 'time': 'ts', 'value': 'price'}
    """
    roles = EVENT_ROLES if kind == "events" else ITEM_ROLES
    wanted = {role: column for role, column in given.items() if column}
    if unknown := wanted.keys() - roles.keys():
        raise ColumnError(f"{', '.join(sorted(unknown))} is no column of an import of {kind}; there are {', '.join(roles)}")
    for role, name in wanted.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ColumnError(f"the file has no column {name!r} (for {role})"
                              f"{f', did you mean {near[0]!r}' if near else ''}? It has {', '.join(names)}")
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(names)}
    taken = set(wanted.values())
    chosen: dict[str, str] = {}
    for role, aliases in roles.items():
        column: str | None = wanted.get(role) or next((plain[a] for a in aliases if a in plain and plain[a] not in taken), None)
        if column:
            chosen[role] = column
            taken.add(column)
        elif role in REQUIRED[kind]:
            raise ColumnError(f"no column for {role}; the file has {', '.join(names) or 'none'}. "
                              f"Say which it is (--{role} NAME), or name it {aliases[0]}")
    return chosen


def time_ms(value: Any) -> int | str:
    """Event time in epoch ms from ISO-8601 (without a zone: UTC) or an epoch number; what is neither stays as it is.

    A number's unit is told by its size: below 1e11 seconds (to the year 5138), below 1e14 milliseconds (from 1973 on),
    below 1e17 microseconds, else nanoseconds. Text that is no time is left for the check to refuse, with its reason.
    """
    if isinstance(value, str):
        text = value.strip()
        # Numbers first: 1710110542000 also parses as a time of day in 1710. Eight digits are a date, as seconds they
        # would lie in the 1970s.
        value = None if len(text) == 8 and text.isdecimal() else _numeric(text)
        if value is None:
            try:
                when = datetime.fromisoformat(text)
                return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
            except (ValueError, OverflowError):
                return str(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        return str(value)
    size = abs(value)
    if size < 1e11:
        return int(round(value * 1000))
    if size < 1e14:
        return int(round(value))
    return int(value // 1000 if size < 1e17 else value // 1_000_000)


def _numeric(text: str) -> int | float | None:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return None


def id_text(value: Any) -> str:
    """An id as text; tables hold ids as numbers too, and with gaps even as floats. Nothing becomes '' (refused later)."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def event_type(value: Any, default: str) -> str:
    """One of our event types; the default where nothing is said; raises InvalidEvent for what is none."""
    found = _TYPES.get(value) if isinstance(value, str) else None
    if found:
        return found
    if value is None or value != value or value == "":
        return default
    found = _TYPES.get(str(value).strip().lower().replace("-", "_").replace(" ", "_"))
    if found:
        return found
    raise InvalidEvent("event_type", f"{str(value)[:40]!r} is none of {', '.join(EVENT_TYPES)}")


def number(value: Any) -> float | None:
    """A value, or None where nothing is said; raises InvalidEvent for what is no number."""
    if value is None or value == "" or value != value:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidEvent("value", f"{str(value)[:40]!r} is no number") from None


def flag(value: Any) -> bool:
    """True or false as tables write it; raises InvalidEvent for anything else."""
    text = str("" if value is None or value != value else value).strip().lower()
    if text in ("", "0", "0.0", "false", "f", "no", "n"):
        return False
    if text in ("1", "1.0", "true", "t", "yes", "y"):
        return True
    raise InvalidEvent("schema", f"hidden is {text[:40]!r}, expected true or false")
