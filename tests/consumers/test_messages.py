"""Whatever the producer lets through, a worker accepts; whatever it refuses has the reason of the dead letter."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.messages import Event, InvalidEvent, Item, event_message, item_message, item_removal
from infra.settings import Settings
from streams.catalogue import Catalogue, ItemAttributes, decode_item
from streams.events import EVENT_TYPES, MAX_AHEAD_MS, REASONS, RatingScale, check, decode_event
from streams.items import ItemTable

NOW = 1_763_778_821_123
GOOD: dict[str, Any] = {"user_id": "u42", "item_id": "i7", "event_type": "view"}


def test_fills_in_id_and_time() -> None:
    before = time.time_ns() // 1_000_000
    one, other = event_message(**GOOD), event_message(**GOOD)
    assert one.id != other.id and one.key == b"u42"
    event = decode_event(one.value)
    assert event.event_id == one.id and before <= int(event.timestamp) <= time.time_ns() // 1_000_000


def test_an_event_and_its_fields_make_the_same_message() -> None:
    fields = {**GOOD, "event_id": "e1", "timestamp": "2025-11-22T02:33:41Z", "value": 2.0, "request_id": "r", "properties": {"a": [1]}}
    assert event_message(Event(**fields), now_ms=NOW) == event_message(**fields, now_ms=NOW)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"user_id": ""}, "id"),
    ({"user_id": "u" * 129}, "id"),
    ({"item_id": "ü" * 65}, "id"),
    ({"item_id": "a\nb"}, "id"),
    ({"user_id": "\ud800"}, "json"),
    ({"user_id": 42}, "schema"),
    ({"item_id": None}, "schema"),
    ({"event_type": "buy"}, "event_type"),
    ({"timestamp": 1_763_778_821}, "timestamp"),
    ({"timestamp": "yesterday"}, "timestamp"),
    ({"timestamp": NOW + MAX_AHEAD_MS + 1}, "timestamp"),
    ({"value": math.nan}, "value"),
    ({"value": -math.inf}, "value"),
    ({"value": 1e300}, "value"),
    ({"value": "1"}, "schema"),
    ({"properties": {"a": object()}}, "json"),
    ({"properties": {"a": "x" * 300_000}}, "too_large"),
    ({"schema_version": 2}, "version"),
    ({"userId": "u42"}, "schema"),
])
def test_refuses_at_once_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        event_message(**{**GOOD, **changes}, now_ms=NOW)
    assert caught.value.reason == reason and reason in REASONS


def test_an_event_made_by_hand_is_checked_as_well() -> None:
    for wrong in (Event("e", 7, "i", "view", NOW), Event("e", "u", "i", "view", NOW, value=math.nan)):  # type: ignore[arg-type]
        with pytest.raises(InvalidEvent):
            event_message(wrong, now_ms=NOW)


def test_a_rating_beyond_the_scale_is_refused_before_it_is_sent() -> None:
    fields = {**GOOD, "event_type": "rating", "value": 7}
    with pytest.raises(InvalidEvent, match="scale of 1 to 5"):
        event_message(**fields, scale=RatingScale(1, 3, 5), now_ms=NOW)
    for good in ({"scale": None}, {"scale": RatingScale(0, 5, 10)}, {"scale": RatingScale(1, 3, 5), "event_type": "purchase"}):
        assert event_message(**{**fields, **good}, now_ms=NOW).value


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=140), st.dictionaries(st.text(max_size=3), st.integers()))


@given(st.fixed_dictionaries({}, optional={
    "user_id": anything, "item_id": st.text(max_size=140) | anything, "event_type": st.sampled_from(EVENT_TYPES) | anything,
    "timestamp": st.integers(0, 2 * NOW) | st.datetimes().map(str) | anything, "value": anything, "event_id": anything,
    "session_id": anything, "properties": anything, "schema_version": anything}))
def test_what_goes_out_is_accepted(fields: dict[str, Any]) -> None:
    try:
        message = event_message(**{**GOOD, **fields}, now_ms=NOW)
    except InvalidEvent as error:
        assert error.reason in REASONS
    else:
        event = decode_event(message.value)
        check(event, NOW)
        assert (message.key, message.id) == (event.user_id.encode(), event.event_id)


def test_items() -> None:
    message = item_message(item_id="i7", title="Coffee", hidden=True)
    assert message.key == b"i7" and message.value == b'{"item_id":"i7","title":"Coffee","hidden":true}'
    assert item_message(Item("i7", title="Coffee", hidden=True)) == message
    assert item_removal("i7") == (b"i7", None, "i7")
    for wrong in ({"item_id": ""}, {"item_id": 3}, {"item_id": "i", "hidden": "yes"}, {"item_id": "i", "title": "\ud800"},
                  {"item_id": "i", "colour": "red"}, {"item_id": "i", "expires_at": "soon"}):
        with pytest.raises(InvalidEvent):
            item_message(**wrong)


@given(st.fixed_dictionaries({"item_id": st.text(max_size=140)}, optional={
    "title": anything, "category": anything, "hidden": anything, "properties": anything,
    "expires_at": st.integers(0, 2 * NOW) | st.datetimes().map(str) | anything}))
def test_what_goes_out_of_an_item_is_accepted(fields: dict[str, Any]) -> None:
    try:
        message = item_message(**fields)
    except InvalidEvent as error:
        assert error.reason in REASONS
    else:
        item_id, attributes = decode_item(message.key, message.value)
        assert (item_id, attributes.hidden) == (message.id, fields.get("hidden", False))
        Catalogue(ItemTable(Settings.load(env={"STREAMREC_HOME": "/nonexistent"}))).apply(item_id, attributes, NOW, NOW)


def test_items_have_the_fields_that_the_workers_read() -> None:
    assert Item.__struct_fields__ == ItemAttributes.__struct_fields__
