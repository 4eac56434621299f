"""Whose a dead letter is: erasing somebody takes his, and nobody else's."""

from __future__ import annotations

import msgspec
import pytest

from consumers.dead_letters import Head, Letter, read_value
from consumers.erasing import letter_speaks_of, speaks_of

OTHERS = b'{"event_id":"e","user_id":"u2","item_id":"1","schema_version":1,"properties":{"at":"12:00:41"}}'


@pytest.mark.parametrize(("user", "data", "is_his"), [
    ("1", OTHERS, False),
    ("41", OTHERS, False),
    ("u2", OTHERS, True),
    ("item_id", OTHERS, False),
    ("1", b'{"user_id":1,"item_id":"i"}', True),  # rejected for just that
    ("1", b'{"item_id":"1"}', True),  # it does not say whose it is: his id stands in it
    ("1", b'{"schema_version":1}', False),
    ("u4", rb'{"user_id":"u\u0034"}', True),
    ("u4", b'["u4"]', True),
    ("u4", b'{"user_id":"u4","item_id":"i', True),  # cut short
    ("u4", b"u4,i7,view", True),
    ("u4", b"u42,i7,view", False),
    ("ü", '{"user_id":"ü"}'.encode(), True),
    ("u4", b"\xff\xfe u4", True),
])
def test_whose_a_message_is(user: str, data: bytes, is_his: bool) -> None:
    assert speaks_of(user)(data) is is_his


@pytest.mark.parametrize(("user", "detail", "is_his"), [
    ("1", "a rating of 8 on a scale of 1 to 5", False),
    ("128", "user_id has 0 bytes, expected 1 to 128", False),
    ("u4", "no user 'u4'", True),
])
def test_a_reason_names_only_whom_it_quotes(user: str, detail: str, is_his: bool) -> None:
    assert letter_speaks_of(user)(Letter("r", detail, "events", 0, 1, 2, payload="{}")) is is_his


@pytest.mark.parametrize("value", [
    b'{"reason":"r","detail":"d","topic":"t","partition":0,"offset":1,"appended_at":2,"payload":"abc","encoding":"base64"}', b"{}", b"\xff"])
def test_what_is_no_letter_is_passed_over(value: bytes) -> None:
    assert read_value(value, Letter) is None


def test_a_head_is_read_without_its_payload() -> None:
    head = read_value(msgspec.json.encode(Letter("r", "d", "t", 0, 1, 2, payload="x")), Head)
    assert head is not None and head.reason == "r"
