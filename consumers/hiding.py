"""Hides items from all lists, or shows them again: one message each in `items`, then waits until readers are told.

In: settings and item ids. Out: nothing, or `NotYetHidden`. What else is said of an item stays as it is; with `delete` it goes. Everything
hangs on the messages: once Kafka has acknowledged them, workers do the rest, now or when they run again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from consumers.kafka import start_kafka, stop_kafka
from consumers.messages import Message, item_removal
from consumers.redis import connected
from infra.settings import Settings, StreamrecError
from streams.catalogue import ItemAttributes, decode_item, expiry_ms
from streams.events import InvalidEvent
from streams.shared_logs import compacted

MESSAGES = 10_000
POLL_S = 0.1


class NotYetHidden(StreamrecError):
    """The messages lie in Kafka, and no worker has told readers in time."""


async def hide(settings: Settings, items: Sequence[str], *, undo: bool, delete: bool, wait_s: float) -> None:
    """Raises InvalidEvent (no id), KafkaUnreachable, KafkaError, LogMissing, and NotYetHidden when `wait_s` have passed."""
    bare = {item: item_removal(item) for item in items}  # checks the ids before anything is sent
    kafka = await start_kafka(settings, topics=("items",), request_timeout_ms=settings.request_timeout_ms)
    try:
        known = {} if delete else await _said_of(settings, set(items))
        for item in bare:
            message = bare[item] if delete else _message(item, _unexpired(known.get(item, {})) if undo else known.get(item, {}), hidden=not undo)
            await kafka.send_and_wait(settings.topic("items"), message.value, key=message.key, partition=0)
    finally:
        await stop_kafka(kafka, 0.5)
    try:
        async with asyncio.timeout(wait_s):
            await _told(settings, set(items), hidden=not undo)
    except TimeoutError:
        raise NotYetHidden(f"the messages lie in {settings.topic('items')}, but within {wait_s:g} s no worker has told readers; it is done as soon as one "
                           "runs (`streamrec status`)") from None


def _unexpired(said: dict[str, Any]) -> dict[str, Any]:
    """Without an expiry that has passed: it would go on hiding the item."""
    expires_ms = expiry_ms(msgspec.convert(said, ItemAttributes))
    return said if expires_ms is None or expires_ms > time.time_ns() // 1_000_000 else {name: value for name, value in said.items() if name != "expires_at"}


def _message(item: str, said: dict[str, Any], *, hidden: bool) -> Message:
    return Message(item.encode(), msgspec.json.encode({**said, "item_id": item, "hidden": hidden}), item)


async def _said_of(settings: Settings, items: set[str]) -> dict[str, dict[str, Any]]:
    """The last message that workers take of each of these items, fields that they do not know included."""
    said: dict[str, dict[str, Any]] = {}
    async with aclosing(compacted(settings, settings.topic("items"), MESSAGES)) as reading:
        async for records, whole in reading:
            for record in records:
                try:
                    item, attributes = decode_item(record.key, record.value)
                    expiry_ms(attributes)
                except InvalidEvent:
                    continue
                if item in items:
                    said[item] = {} if attributes is None else msgspec.json.decode(record.value)
            if whole:
                return said
    raise AssertionError("it goes on for ever")


async def _told(settings: Settings, items: set[str], *, hidden: bool) -> None:
    """Until the key that readers look at names all of these items, or none."""
    async with connected(settings) as client:
        while True:
            named = items & set(json.loads(await client.get(settings.key("hidden:all")) or b'{"items": []}')["items"])
            if named == (items if hidden else set()):
                return
            await asyncio.sleep(POLL_S)
