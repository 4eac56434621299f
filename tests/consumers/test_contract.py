"""docs/contract.md and its schemas against the code: examples, generated events, and what our own writers write."""

from __future__ import annotations

import json
import re
import struct
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from consumers.dead_letters import Note
from consumers.lists import decode_hidden, decode_list
from consumers.messages import erase_message, event_message, item_message
from models.history import RECORD
from streams.catalogue import decode_item
from streams.erasures import Erased, Erasures
from streams.events import EVENT_TYPES, MAX_ID_BYTES, MAX_VALUE, REASONS, InvalidEvent, check, decode_erase, decode_event
from streams.interactions import HEADER, SECTION, VERSION
from streams.lists import ListWriter
from streams.outbox import dead_letter
from streams.partitioner import partition_of

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in sorted((DOCS / "schemas").glob("*.json"))}
VALIDATORS = {name: Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
PAGE = (DOCS / "contract.md").read_text()
BLOCKS = re.findall(r"<!-- schema: (\w+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
NOW = 1_763_778_821_123


def accepted(value: bytes) -> bool:
    try:
        check(decode_event(value), NOW)
    except InvalidEvent:
        return False
    return True


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas_and_their_examples_follow_them(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["examples"]
    for shown in SCHEMAS[name]["examples"]:
        VALIDATORS[name].validate(shown)
    assert f"schemas/{name}.json" in PAGE


@pytest.mark.parametrize(("name", "text"), BLOCKS)
def test_examples_on_the_page_follow_the_schemas_and_are_read(name: str, text: str) -> None:
    VALIDATORS[name].validate(json.loads(text))
    if name == "event":
        assert accepted(text.encode())
    elif name == "item":
        decode_item(json.loads(text)["item_id"].encode(), text.encode())
    elif name == "list":
        assert len(decode_list(text.encode())) == 2
    elif name == "hidden":
        assert decode_hidden(text.encode()) == {"i8"}


def test_the_page_shows_each_form() -> None:
    assert {name for name, _ in BLOCKS} == SCHEMAS.keys() - {"worker"}
    for reason in REASONS:
        assert f"| `{reason}` |" in PAGE
    for kind in EVENT_TYPES:
        assert f"`{kind}`" in PAGE
    for user, partition in (("21", 4), ("foobar", 6), ("u42", 7), ("Ærøskøbing", 7)):
        assert partition_of(user, 8) == partition
    assert "user `21` belongs in 4, `foobar` in 6, `u42` in 7, `Ærøskøbing` in 7" in PAGE


def test_the_schemas_name_what_the_code_knows() -> None:
    event = SCHEMAS["event"]["properties"]
    assert tuple(event["event_type"]["enum"]) == EVENT_TYPES
    assert event["user_id"]["maxLength"] == MAX_ID_BYTES and event["value"]["anyOf"][0]["maximum"] == MAX_VALUE
    assert set(SCHEMAS["dead_letter"]["properties"]["reason"]["enum"]) == REASONS.keys()


ids = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["x" * 128, "x" * 129, "a\nb", "a\n", "\x85", "", 7, None])
times = (st.integers(0, NOW) | st.datetimes(min_value=datetime(1990, 1, 2), max_value=datetime(2025, 1, 1)).map(datetime.isoformat)
         | st.sampled_from(["never", "", None, True, 1.5, "2025-01-01", "2025-01-01T00:00:00Z", "2025-01-01 00:00:00+0200"]))
texts = st.none() | st.text(max_size=3) | st.integers(0, 3)
GOOD = {"event_id": "e", "user_id": "u", "item_id": "i", "event_type": "view", "timestamp": NOW}


@given(st.fixed_dictionaries({}, optional={
    "event_id": ids, "user_id": ids, "item_id": ids, "event_type": st.sampled_from([*EVENT_TYPES, "stare", None, 1]), "timestamp": times,
    "value": st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-10**13, 10**13) | st.text(max_size=2),
    "session_id": texts, "request_id": texts, "properties": st.none() | st.dictionaries(st.text(max_size=2), st.integers()) | st.lists(st.integers()),
    "schema_version": st.sampled_from([1, 0, 2, "1", None]), "colour": st.integers()}),
    st.sets(st.sampled_from(sorted(GOOD)), max_size=1))
@example({"value": 1e12}, set())
@example({"value": -1.1e12}, set())
@example({"event_id": "a\n"}, set())
def test_events_the_schema_and_the_worker_agree(changes: dict[str, Any], missing: set[str]) -> None:
    event = {name: value for name, value in {**GOOD, **changes}.items() if name not in missing}
    assert VALIDATORS["event"].is_valid(event) == accepted(json.dumps(event).encode()), event


def test_where_a_schema_cannot_follow() -> None:
    long_in_bytes = {**GOOD, "user_id": "ü" * 100}  # a schema counts characters
    tomorrow = {**GOOD, "timestamp": NOW + 2 * 86_400_000}  # and has no clock
    for event in (long_in_bytes, tomorrow):
        assert VALIDATORS["event"].is_valid(event) and not accepted(json.dumps(event).encode())


@given(st.fixed_dictionaries({"item_id": ids | st.just("i")}, optional={
    "title": texts, "category": texts, "hidden": st.sampled_from([True, False, None, "yes"]),
    "expires_at": st.sampled_from([NOW, "2026-01-01", None, 1.5, []]), "properties": st.none() | st.just({}) | st.just([])}))
def test_items_the_schema_and_the_worker_agree(item: dict[str, Any]) -> None:
    try:
        decode_item((item["item_id"] if isinstance(item["item_id"], str) else "i").encode() or b"i", json.dumps(item).encode())
        read = True
    except InvalidEvent:
        read = False
    assert VALIDATORS["item"].is_valid(item) == read, item


def test_what_the_clients_send_follows_the_schemas() -> None:
    VALIDATORS["event"].validate(json.loads(event_message(user_id="u", item_id="i", event_type="view", value=2).value or b""))
    VALIDATORS["item"].validate(json.loads(item_message(item_id="i", title="T", hidden=True, expires_at=NOW).value or b""))


@pytest.mark.parametrize("user", ["u42", 'ü"\\', None])
def test_what_workers_write_follows_the_schema_and_is_read(user: str | None) -> None:
    as_of = None if user is None else (3, 12345, NOW)
    body = ListWriter(["repeat", "popular"], "fusion-1").write(
        user, [b'"i7"', '"ü"'.encode(), b'"i9"'], np.array([8.0, 3.0, 0.001], np.float32), np.array([0, 1, 1], np.uint8), NOW, as_of)
    VALIDATORS["list"].validate(json.loads(body))
    lst = decode_list(body)
    assert (lst.user, lst.items, lst.scores[0], lst.reason(1), lst.generated_at) == (user, ("i7", "ü", "i9"), 1, "popular", NOW)
    assert (lst.as_of is None) == (user is None)


@pytest.mark.parametrize("value", [b"{broken", b"\xff\xfe", b"", b"x" * 100_000])
def test_dead_letters_follow_the_schema(value: bytes) -> None:
    record = SimpleNamespace(offset=17, timestamp=NOW, value=value, headers=())
    message = dead_letter("events.dlq", "events", 3, record, "json", "no JSON")
    letter = json.loads(message.value)
    VALIDATORS["dead_letter"].validate(letter)
    assert message.key == b"events/3/17" and letter["payload_bytes"] == len(value)


def test_erasures_follow_their_schemas() -> None:
    message = erase_message("ü42")
    VALIDATORS["erase"].validate(json.loads(message.value or b""))
    assert decode_erase(message.value) == "ü42" and not VALIDATORS["event"].is_valid(json.loads(message.value or b""))
    erasures = Erasures("key")
    erasures.add(3, Erased("ü42", 12345, NOW))
    key, value = erasures.to_tell("ü42") or (b"", b"")
    VALIDATORS["erasure"].validate(json.loads(value))
    assert re.fullmatch(rb"user/[0-9a-f]{32}", key)


def test_notes_of_redriven_letters_follow_the_schema() -> None:
    for offset in (None, 124):
        note = Note(letter_appended_at=NOW, topic="events", partition=3, first=120, offset=offset, at=NOW)
        VALIDATORS["redriven"].validate(json.loads(msgspec.json.encode(note)))


def test_interactions_have_the_layout_on_the_page() -> None:
    assert (HEADER.format, HEADER.size, VERSION) == ("<HHI", 8, 2)
    assert (SECTION.format, SECTION.size) == ("<HxxIqq", 24)
    assert RECORD.itemsize == 32 == struct.calcsize("<QQqiI")
    assert [(name, RECORD[name].str) for name in RECORD.names or ()] == [
        ("item", "<u8"), ("other", "<u8"), ("time_ms", "<i8"), ("weight", "<i4"), ("source", "<u4")]
