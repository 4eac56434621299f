"""The catalogue: what the `items` topic says of items, and which of them must not be shown.

Hidden, deleted and expired items are invisible. Visibility is kept as one byte an item in the item table, where the
fusion's filter reads it; here lies why, since when, and what readers are told until every list has been swept.
"""

from __future__ import annotations

import heapq
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from streams.events import InvalidEvent, check_id, event_time_ms

if TYPE_CHECKING:  # readers of the topic need no kernels, and these take a second to import
    from streams.items import ItemTable

#: Readers are told of an item for this long after it was hidden: by far longer than a sweep over all lists takes.
ANNOUNCED_MS = 86_400_000
MAX_ATTRIBUTES_BYTES = 256 * 1024


class ItemAttributes(msgspec.Struct, gc=False, omit_defaults=True):
    """One message of the `items` topic; see docs/contract.md."""

    item_id: str | None = None
    title: str | None = None
    category: str | None = None
    hidden: bool = False
    expires_at: int | str | None = None
    properties: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(ItemAttributes).decode


def decode_item(key: bytes | None, value: bytes | None) -> tuple[str, ItemAttributes | None]:
    """Item id and attributes (None: deleted) of one message; raises `InvalidEvent`. The key names the item."""
    try:
        item_id = key.decode() if key else ""
        attributes = None
        if value:
            if len(value) > MAX_ATTRIBUTES_BYTES:
                raise InvalidEvent("too_large", f"{len(value)} bytes, at most {MAX_ATTRIBUTES_BYTES} are accepted")
            attributes = _decode(value)
    except msgspec.ValidationError as error:
        raise InvalidEvent("schema", str(error)) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidEvent("json", str(error)) from None
    if attributes is not None and attributes.item_id is not None:
        if item_id and item_id != attributes.item_id:
            raise InvalidEvent("id", f"the key says {item_id[:40]!r}, item_id says {attributes.item_id[:40]!r}")
        item_id = attributes.item_id
    check_id("item_id", item_id)
    return item_id, attributes


class Catalogue:
    """Attributes of items and what follows from them. Times are wall clock, epoch ms: expiry is about readers' now."""

    def __init__(self, items: ItemTable) -> None:
        self._items = items
        self.attributes: dict[str, ItemAttributes] = {}
        self.hidden_since: dict[str, int] = {}
        self.to_sweep: set[str] = set()
        self.n_hidden = 0  # rises whenever something becomes invisible
        self._expires_ms: dict[str, int] = {}  # the last word on items that are shown until then
        self._expiries: list[tuple[int, str]] = []

    def apply(self, item_id: str, attributes: ItemAttributes | None, appended_ms: int, now_ms: int) -> None:
        """Take one message in; raises `InvalidEvent` for an expiry that is no time."""
        expires_ms = expiry_ms(attributes)
        slot = self._items.add(item_id)
        if expires_ms != self._expires_ms.get(item_id):
            self._expires_ms.pop(item_id, None)
        if attributes is None:
            self.attributes.pop(item_id, None)
        else:
            self.attributes[item_id] = attributes
        if attributes is None or attributes.hidden or (expires_ms is not None and expires_ms <= now_ms):
            self._hide(item_id, slot, appended_ms)
            return
        self._items.visible[slot] = 1
        self.hidden_since.pop(item_id, None)
        self.to_sweep.discard(item_id)
        if expires_ms is not None and self._expires_ms.get(item_id) != expires_ms:
            heapq.heappush(self._expiries, (expires_ms, item_id))
            self._expires_ms[item_id] = expires_ms

    def expire(self, now_ms: int) -> None:
        """Hide what has expired since the last call."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            expires_ms, item_id = heapq.heappop(self._expiries)
            if self._expires_ms.get(item_id) != expires_ms:
                continue  # said otherwise since
            del self._expires_ms[item_id]
            self._hide(item_id, self._items.add(item_id), expires_ms)

    def _hide(self, item_id: str, slot: int, since_ms: int) -> None:
        if item_id not in self.hidden_since:
            self.to_sweep.add(item_id)
            self.n_hidden += 1
        self.hidden_since[item_id] = since_ms  # the last word, which is all that a worker reads that starts later
        self._items.visible[slot] = 0

    def announced(self, now_ms: int) -> list[str]:
        """Items that readers drop, because lists published before may still name them."""
        return sorted(i for i, since in self.hidden_since.items() if since > now_ms - ANNOUNCED_MS)


def expiry_ms(attributes: ItemAttributes | None) -> int | None:
    """When an item expires, epoch ms; None: never. Raises `InvalidEvent` for an expiry that is no time."""
    if attributes is None or attributes.expires_at is None:
        return None
    # any future is fine here, unlike for events
    return event_time_ms(attributes.expires_at, 2**62) if not _is_past(attributes.expires_at) else 0


def _is_past(expires_at: int | str) -> bool:
    """Times before 1990, which no event may have, but an expiry may."""
    if isinstance(expires_at, int):
        return expires_at < 0
    try:
        return datetime.fromisoformat(expires_at).year < 1990
    except ValueError:
        return False
