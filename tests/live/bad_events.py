"""Every way in which an event can be bad that we could think of, with the reason that its dead letter must give."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

NOW_MS = 1_763_778_821_000
#: Kinds whose messages are so large that a few must do.
LARGE_EVERY = 1_000


def _with(**changes: Any) -> bytes:
    """A good event but for these fields; None leaves a field out."""
    event = {"event_id": "e", "user_id": "bad-user", "item_id": "i1", "event_type": "view", "timestamp": NOW_MS, **changes}
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


def _raw(field: str, text: str) -> bytes:
    """A good event with `text` as the JSON of one field."""
    return _with(**{field: "@@"}).replace(b'"@@"', text.encode("utf-8", "surrogatepass"))


def kinds(chance: random.Random) -> list[tuple[str, bytes | None]]:
    """(reason, value) of one of each kind; what is random in them is drawn anew at each call."""
    noise = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 200)))
    return [
        ("empty", None),
        ("empty", b""),
        # broken JSON
        ("json", b"{"),
        ("json", b"not json"),
        ("json", _with()[: chance.randrange(1, 60)]),
        ("json", _with() + b"}"),
        ("json", _with().replace(b":", b"=", 1)),
        ("json", b"\xff\xfe" + noise),
        ("json", b"\x00" + noise),
        ("json", _with().replace(b"bad-user", b"bad\xffuser")),
        ("json", _with().replace(b"bad-user", b"bad\x07user")),  # a control character must be escaped in JSON
        ("json", _raw("user_id", '"\ud800"')),  # a surrogate in UTF-8 is none
        ("json", _raw("user_id", '"bad\\ud800user"')),  # nor is half a pair of escapes
        ("json", _raw("timestamp", "NaN")),
        ("json", _raw("value", "NaN")),
        ("json", _raw("value", "-Infinity")),
        ("json", _raw("properties", '{"a":' * 40_000 + "1" + "}" * 40_000)),
        ("json", b'{"a":' * 20_000),
        ("schema", b"[" * 200_000),
        # wrong types, missing fields
        ("schema", b"[]"),
        ("schema", b"null"),
        ("schema", b"17"),
        ("schema", b'"text"'),
        ("schema", b"{}"),
        *[("schema", _with(**{field: None})) for field in ("event_id", "user_id", "item_id", "event_type", "timestamp")],
        *[("schema", _raw(field, text)) for field in ("event_id", "user_id", "item_id") for text in ("17", "null", "[]", "true", "1.5")],
        *[("schema", _raw("timestamp", text)) for text in ("null", "true", "[]", "{}", f"{NOW_MS}.5")],
        *[("schema", _raw("value", text)) for text in ('"1"', "[]", "true")],
        ("schema", _raw("properties", '"text"')),
        ("schema", _raw("schema_version", '"1"')),
        ("schema", _raw("session_id", "17")),
        # what a type cannot be
        ("event_type", _with(event_type="buy")),
        ("event_type", _with(event_type="")),
        ("event_type", _with(event_type="VIEW")),
        # ids
        *[("id", _with(**{field: text})) for field in ("event_id", "user_id", "item_id")
          for text in ("", "x" * 10_000, "x" * 129, "ä" * 65, "a\x00b", "a\nb", "a\x7fb", "\x85")],
        # times in the far future and past, and what is none
        *[("timestamp", _with(timestamp=at)) for at in (
            0, -1, 1_763_778_821, 631_151_999_999, 4_102_444_800_000, 10**15, -(10**15), 2**62,
            "", "yesterday", "1969-12-31", "1989-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2025-02-30",
            "9999-12-31T23:59:59-23:59", "1763778821000", "2025-11-22T25:00:00Z")],
        # numbers
        *[("value", _raw("value", text)) for text in ("1e13", "-1e13", "1" + "0" * 300)],
        # a newer producer
        ("version", _with(schema_version=2)),
        ("version", _with(schema_version=-1)),
    ]


def large(chance: random.Random) -> list[tuple[str, bytes]]:
    """The same of kinds that are megabytes large."""
    return [
        ("too_large", _with(properties={"text": "x" * 5_000_000})),
        ("too_large", bytes(chance.randrange(256) for _ in range(1000)) * 5_000),
        ("too_large", _with(properties={"text": "x" * (256 * 1024)})),
    ]


def bad_events(n: int, seed: int) -> Iterator[tuple[str, bytes | None]]:
    """`n` bad events, all kinds in turn."""
    chance, made = random.Random(seed), 0
    while made < n:
        batch = kinds(chance)
        if made == 0 or made // LARGE_EVERY != (made - len(batch)) // LARGE_EVERY:
            batch += large(chance)
        chance.shuffle(batch)
        for one in batch[: n - made]:
            made += 1
            yield one
