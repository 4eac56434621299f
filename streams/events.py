"""The event as producers send it, and every rule that decides whether it is one.

In: the bytes of one Kafka message. Out: an `Event`, or an `InvalidEvent` whose `reason` is one of `REASONS`.
The producer client checks with the same functions before it sends, so that both ends agree by construction.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec

from infra.settings import Settings, StreamrecError

EventType = Literal[
    "view", "click", "add_to_cart", "like", "purchase", "rating", "dislike", "remove", "impression"
]
#: The position of a type is its code in rows: append, never reorder.
EVENT_TYPES: tuple[str, ...] = EventType.__args__  # type: ignore[attr-defined]
TYPE_CODES: dict[str, int] = {name: code for code, name in enumerate(EVENT_TYPES)}
NEGATIVE_TYPES = frozenset({"dislike", "remove"})

MAX_ID_BYTES = 128
#: Larger messages are not decoded at all: a flood of them must not hold up good events.
MAX_EVENT_BYTES = 256 * 1024
SCHEMA_VERSION = 1
#: Before this an epoch in seconds was almost surely taken for milliseconds (1,763,778,821 ms is 1970-01-21).
EARLIEST_MS = 631_152_000_000  # 1990-01-01
#: How far a producer's clock may run ahead of the time at which Kafka appended the event.
MAX_AHEAD_MS = 86_400_000
MAX_VALUE = 1e12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

REASONS: dict[str, str] = {
    "empty": "the message has no value",
    "too_large": f"the message is larger than {MAX_EVENT_BYTES} bytes",
    "json": "not valid JSON in UTF-8",
    "schema": "a field is missing or of the wrong type",
    "event_type": f"event_type is none of {', '.join(EVENT_TYPES)}",
    "id": f"an id is empty, longer than {MAX_ID_BYTES} bytes, or holds control characters",
    "timestamp": "timestamp is neither ISO-8601 nor epoch milliseconds from 1990 to a day after arrival",
    "value": f"value is not a finite number within ±{MAX_VALUE:g}, or that of a rating lies beyond the scale",
    "version": f"schema_version is newer than {SCHEMA_VERSION}",
    "partition": "still in the wrong partition after it was produced again to the right one",
    "crash": "a worker stopped at this event three times",
}


class InvalidEvent(StreamrecError):
    """One event that will not be absorbed; `reason` is a key of `REASONS`, the message says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RatingScale(NamedTuple):
    """What a rating counts for: see the setting `rating_scale`.

    >>> [RatingScale(1, 3, 5).share(value) for value in (1, 3, 4)]
    [-1.0, 0.0, 0.5]
    """

    low: float
    neutral: float
    high: float

    def share(self, value: float) -> float:
        """How much of its type's weight a rating counts, -1 to 1; raises `InvalidEvent('value')` beyond the scale.

        Refused rather than bent: either all ratings are on another scale than the settings say, or 0 stands for none.
        """
        if not self.low <= value <= self.high:
            raise InvalidEvent("value", f"a rating of {value:g} on a scale of {self.low:g} to {self.high:g};"
                                        " the setting rating_scale says which scale it is")
        reach = self.high - self.neutral if value >= self.neutral else self.neutral - self.low
        return (value - self.neutral) / reach


class Event(msgspec.Struct, gc=False, omit_defaults=True):
    """One behaviour event; see docs/contract.md. `timestamp` is ISO-8601 or epoch milliseconds, event time."""

    event_id: str
    user_id: str
    item_id: str
    event_type: EventType
    timestamp: int | str
    value: float | None = None
    session_id: str | None = None
    request_id: str | None = None
    properties: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION


class EraseEvent(msgspec.Struct, gc=False):
    """Asks that a user be forgotten; see docs/erasure.md. Not among `EVENT_TYPES`: it has no item and no weight."""

    user_id: str
    event_type: Literal["erase"]
    schema_version: int = SCHEMA_VERSION


_decode = msgspec.json.Decoder(Event).decode
_decode_erase = msgspec.json.Decoder(EraseEvent).decode


def decode_event(value: bytes | None) -> Event:
    """Decode one message value. Types are checked here, ranges in `check`; raises `InvalidEvent`."""
    if not value:
        raise InvalidEvent("empty", "expected one JSON object, found no value")
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidEvent("too_large", f"{len(value)} bytes, at most {MAX_EVENT_BYTES} are accepted")
    try:
        return _decode(value)
    except msgspec.ValidationError as error:
        reason = "event_type" if "`$.event_type`" in str(error) and "Invalid enum" in str(error) else "schema"
        raise InvalidEvent(reason, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidEvent("json", str(error)) from None


def decode_erase(value: bytes | None) -> str | None:
    """The user whom a message asks to erase, None where it asks nothing of the kind; raises `InvalidEvent`."""
    if not value or len(value) > MAX_EVENT_BYTES:
        return None
    try:
        event = _decode_erase(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    check_id("user_id", event.user_id)
    if event.schema_version != SCHEMA_VERSION:
        raise InvalidEvent("version", f"schema_version {event.schema_version}, this worker reads {SCHEMA_VERSION}")
    return event.user_id


def check_id(name: str, text: str) -> None:
    """Raise `InvalidEvent('id')` unless `text` is 1 to `MAX_ID_BYTES` bytes of printable UTF-8."""
    try:
        n_bytes = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidEvent("id", f"{name} holds a lone surrogate") from None
    if not 0 < n_bytes <= MAX_ID_BYTES:
        raise InvalidEvent("id", f"{name} has {n_bytes} bytes, expected 1 to {MAX_ID_BYTES}")
    if not text.isprintable() and any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        raise InvalidEvent("id", f"{name} holds a control character: {text[:40]!r}")


def event_time_ms(timestamp: int | str, append_time_ms: int) -> int:
    """Event time in epoch ms, or `InvalidEvent('timestamp')`. A time without a zone is UTC.

    The bound ahead is taken from the time of appending, not from the wall clock, so that a replay of the log years
    later accepts and rejects exactly the same events.
    """
    if isinstance(timestamp, int):
        time_ms = timestamp
    else:
        try:
            if timestamp.isdecimal() and len(timestamp) > len("20251122"):  # Python would read epoch digits as a year
                raise ValueError
            parsed = datetime.fromisoformat(timestamp)
            parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            time_ms = (parsed - _EPOCH) // _MILLISECOND
        except (ValueError, OverflowError):
            raise InvalidEvent("timestamp", f"{timestamp[:40]!r} is not an ISO-8601 time") from None
    if not EARLIEST_MS <= time_ms <= append_time_ms + MAX_AHEAD_MS:
        raise InvalidEvent(
            "timestamp",
            f"{str(timestamp)[:40]} lies outside 1990-01-01 to one day after its arrival"
            " (integers are epoch milliseconds)",
        )
    return time_ms


def check(event: Event, append_time_ms: int, scale: RatingScale | None = None) -> int:
    """Check what types cannot say; returns the event time in epoch ms, raises `InvalidEvent`. scale: that of ratings, if read."""
    check_id("event_id", event.event_id)
    check_id("user_id", event.user_id)
    check_id("item_id", event.item_id)
    check_rest(event, scale)
    return event_time_ms(event.timestamp, append_time_ms)


def check_rest(event: Event, scale: RatingScale | None) -> float:
    """The checks beside ids and time, apart because absorb remembers ids that it has checked before. Returns the share of
    its type's weight that the event counts: 1, but for ratings with a value."""
    share = check_value(event.event_type, event.value, scale)
    if event.schema_version != SCHEMA_VERSION:
        raise InvalidEvent("version", f"schema_version {event.schema_version}, this worker reads {SCHEMA_VERSION}")
    return share


def check_value(event_type: str, value: float | None, scale: RatingScale | None) -> float:
    """Checks what an event carries; returns the share of its type's weight that it counts."""
    if value is None:
        return 1.0
    if not (math.isfinite(value) and abs(value) <= MAX_VALUE):
        raise InvalidEvent("value", f"{value!r} is not a finite number within ±{MAX_VALUE:g}")
    return scale.share(value) if scale is not None and event_type == "rating" else 1.0


def rating_scale(settings: Settings) -> RatingScale | None:
    """The scale of ratings, None if their values are not read."""
    points = settings.rating_points()
    return RatingScale(*points) if points else None
