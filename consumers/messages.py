"""What goes into Kafka, checked before it goes: events and item attributes as bytes.

In: an `Event`, or fields. Out: key and value of one message, proven to be what a worker will accept, because the proof
is the workers' own: the bytes are decoded and checked by the code of `streams.events` before anyone sends them.
No Kafka here.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple

import msgspec

from streams.events import Event, InvalidEvent, RatingScale, check, check_id, decode_event, event_time_ms

MAX_ITEM_BYTES = 256 * 1024  # streams.catalogue reads no more
_FAR_AHEAD_MS = 2**62  # an expiry may lie as far ahead as it likes, an event's time may not
_encode = msgspec.json.Encoder().encode
_EVENT_FIELDS = frozenset(Event.__struct_fields__)


class Message(NamedTuple):
    """Key and value of one Kafka message, and the id by which a receipt names it."""

    key: bytes
    value: bytes | None
    id: str


class Item(msgspec.Struct, omit_defaults=True):
    """What is known of an item; see docs/contract.md. A message replaces all that was said of the item before.

    The same fields as streams.catalogue.ItemAttributes (a test holds them together), without numba behind it: an
    application that only sends must not load a compiler.
    """

    item_id: str
    title: str | None = None
    category: str | None = None
    hidden: bool = False
    expires_at: int | str | None = None  #: ISO-8601 or epoch ms; from then on the item is in no list
    properties: dict[str, Any] | None = None


_ITEM_FIELDS = frozenset(Item.__struct_fields__)
_decode_item = msgspec.json.Decoder(Item).decode


def event_message(event: Event | None = None, *, now_ms: int | None = None, scale: RatingScale | None = None, **fields: Any) -> Message:
    """One event, given whole or by its fields; a missing `event_id` is drawn, a missing `timestamp` is now. scale: of ratings.

    Raises InvalidEvent, with the reason that the dead letter would carry, for what a worker would not accept.

    >>> event_message(user_id="u42", item_id="i7", event_type="view", event_id="e1", timestamp=1763778821123).key
    b'u42'
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    if event is None:
        if unknown := fields.keys() - _EVENT_FIELDS:
            raise InvalidEvent("schema", f"an event has no {', '.join(sorted(unknown))}; it has {', '.join(Event.__struct_fields__)}")
        if fields.get("event_id") is None:
            fields["event_id"] = uuid.uuid4().hex
        if fields.get("timestamp") is None:
            fields["timestamp"] = now_ms
        try:
            event = msgspec.convert(fields, Event)
        except msgspec.ValidationError as error:
            raise InvalidEvent("event_type" if "`$.event_type`" in str(error) else "schema", str(error)) from None
    elif fields:
        raise TypeError("give an Event or fields, not both")
    value = _encoded(event)
    # Decoding what was just encoded costs half a microsecond, and nothing is sent that was not seen to be readable:
    # msgspec checks types when it decodes, not when an Event is made. The event itself is checked, not its bytes, in
    # which NaN has become null.
    checked = decode_event(value)
    check(event, now_ms, scale)
    return Message(checked.user_id.encode(), value, checked.event_id)


def item_message(item: Item | None = None, **fields: Any) -> Message:
    """Attributes of one item, given whole or by their fields; raises InvalidEvent for what a worker would not accept."""
    if item is None:
        if unknown := fields.keys() - _ITEM_FIELDS:
            raise InvalidEvent("schema", f"an item has no {', '.join(sorted(unknown))}; it has {', '.join(Item.__struct_fields__)}")
        item = Item(**fields)
    value = _encoded(item)
    if len(value) > MAX_ITEM_BYTES:
        raise InvalidEvent("too_large", f"{len(value)} bytes, at most {MAX_ITEM_BYTES} are accepted")
    try:
        checked = _decode_item(value)
    except msgspec.ValidationError as error:
        raise InvalidEvent("schema", str(error)) from None
    if checked.expires_at is not None:
        event_time_ms(checked.expires_at, _FAR_AHEAD_MS)
    check_id("item_id", checked.item_id)
    return Message(checked.item_id.encode(), value, checked.item_id)


def erase_message(user_id: str) -> Message:
    """The event that has a user erased; raises InvalidEvent."""
    check_id("user_id", user_id)
    body = {"event_id": uuid.uuid4().hex, "event_type": "erase", "user_id": user_id, "timestamp": time.time_ns() // 1_000_000}
    return Message(user_id.encode(), _encode(body), body["event_id"])  # type: ignore[arg-type]


def item_removal(item_id: str) -> Message:
    """The message that deletes an item: its key and no value."""
    check_id("item_id", item_id)
    return Message(item_id.encode(), None, item_id)


def _encoded(thing: Any) -> bytes:
    try:
        return _encode(thing)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidEvent("json", f"{error}; expected what JSON can carry") from None
