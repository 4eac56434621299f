"""Has a user erased: one erase event in `events`, then waits for what workers make of it, and takes his dead letters away.

In: settings and a user id. Out: a `Done`. Everything hangs on the one event: once Kafka has acknowledged it, workers do the rest, now or
when they run again, whatever becomes of this process. Only the dead letters are its own work: letters know no owner. So whoever was
killed here calls it again; `consumers/remains.py` looks whether anything is left.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from consumers.dead_letters import Letter, read_box
from consumers.kafka import start_kafka, stop_kafka
from consumers.messages import erase_message
from consumers.redis import connected
from infra.settings import Settings, StreamrecError
from streams.erasures import Erasures
from streams.generations import live_generation
from streams.keys import Keys, literal
from streams.partitioner import partition_of
from streams.shared_logs import compacted

POLL_S = 0.1
MESSAGES = 5_000
SCAN_COUNT = 5_000
WAIT_S = 60.0


class NotYetErased(StreamrecError):
    """The erase event lies in Kafka, and workers have not dealt with it in time."""


@dataclass(frozen=True)
class Done:
    """Where the erase event lies, whether there was a row of his, and how many dead letters went."""

    partition: int
    offset: int
    known: bool
    n_letters: int


async def erase(settings: Settings, user: str, *, wait_s: float = WAIT_S) -> Done:
    """Raises InvalidEvent (no id), KafkaUnreachable, KafkaError, ForeignErasures, and NotYetErased when `wait_s` have passed."""
    message = erase_message(user)
    kafka = await start_kafka(settings, topics=("events", "erasures", "events.dlq"), request_timeout_ms=settings.request_timeout_ms)
    try:
        known = await _has_row(settings, user)
        sent = await kafka.send_and_wait(settings.topic("events"), message.value, key=message.key, partition=partition_of(user, settings.partitions))
        where = f"the erase event lies in {sent.topic}/{sent.partition}/{sent.offset}"
        try:
            async with asyncio.timeout(wait_s):
                heard = await _in_topic(settings, user, sent.offset)
                await _known_to_workers(settings, heard)
                n_letters = await forget_letters(settings, kafka, user, sent.timestamp)
                await _gone(settings, user, sent.offset)
        except TimeoutError:
            raise NotYetErased(f"{where}, but no worker has dealt with it within {wait_s:g} s; it is done as soon as one has come so far "
                               "(`streamrec status`). Then call it again for the dead letters, and with --verify") from None
        return Done(sent.partition, sent.offset, known, n_letters)
    finally:
        await stop_kafka(kafka, 0.5)


async def _has_row(settings: Settings, user: str) -> bool:
    async with connected(settings) as client:
        live = await live_generation(client, settings.prefix)
        return live is not None and bool(await client.exists(Keys(settings.prefix, live).user(partition_of(user, settings.partitions), user)))


async def read_erasures(settings: Settings, erasures: Erasures) -> None:
    """Hear the whole topic, up to where it ends now. Raises ForeignErasures, LogMissing, KafkaError."""
    await _hear(settings, erasures, lambda whole: whole)


async def _hear(settings: Settings, erasures: Erasures, enough: Callable[[bool], bool]) -> None:
    """Hears the topic until it is enough; `enough` is told whether all has been heard that lay in it at the start."""
    async with aclosing(compacted(settings, settings.topic("erasures"), MESSAGES)) as hearing:
        async for records, whole in hearing:
            for record in records:
                erasures.hear(record.key, record.value, record.offset)
            if enough(whole):
                return


async def _in_topic(settings: Settings, user: str, offset: int) -> int:
    """Until `erasures` tells of this erase event, or of a later one; how many messages it has then."""
    erasures = Erasures(settings.erasure_key)

    def told(whole: bool) -> bool:
        found = erasures.of(user)
        return found is not None and found.offset >= offset

    await _hear(settings, erasures, told)
    return erasures.position


async def _known_to_workers(settings: Settings, position: int) -> None:
    """Until every worker that is there has heard of it: then none writes a dead letter of his any more."""
    async with connected(settings) as client:
        while True:
            names = [name async for name in client.scan_iter(match=settings.key("workers:*"), count=SCAN_COUNT)]
            signs = [json.loads(value) for value in (await client.mget(names) if names else []) if value]
            if all(sign.get("erasures", 0) >= position for sign in signs):
                return
            await asyncio.sleep(POLL_S)


async def forget_letters(settings: Settings, kafka: AIOKafkaProducer, user: str, until_ms: int) -> int:
    """Take the dead letters away that speak of him and came until then; how many there were."""
    speaks = letter_speaks_of(user)
    box = await read_box(settings, Letter, lambda _, letter: letter.appended_at <= until_ms and speaks(letter))
    topic = settings.topic("events.dlq")
    for sent in [await kafka.send(topic, None, key=key.encode(), partition=0) for key in box.letters]:
        await sent
    return len(box.letters)


def speaks_of(user: str) -> Callable[[bytes], bool]:
    """Whether a message is his, or names him: by its `user_id` where it says one, else by his id as a JSON text in it; in bytes that are no
    JSON his id as a word of its own will do."""
    written = {json.dumps(user).encode(), msgspec.json.encode(user)}
    ids = sorted({user.encode(), *(one[1:-1] for one in written)})
    word = re.compile(rb"(?<![\w\x80-\xff])(?:" + b"|".join(map(re.escape, ids)) + rb")(?![\w\x80-\xff])").search

    def speaks(data: bytes) -> bool:
        if not any(one in data for one in ids) and b"\\u" not in data:
            return False
        try:
            said = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return word(data) is not None
        if isinstance(said, dict) and said.get("user_id") is not None:
            return str(said["user_id"]) == user
        return msgspec.json.encode(user) in msgspec.json.encode(said)

    return speaks


def letter_speaks_of(user: str) -> Callable[[Letter], bool]:
    """The same of a dead letter: what was rejected, and why, where it quotes him."""
    speaks, quoted = speaks_of(user), (repr(user), f'"{user}"')
    return lambda letter: speaks(letter.data) or any(one in letter.detail for one in quoted)


async def keys_of(client: Any, settings: Settings, user: str) -> list[bytes]:
    """Names of all keys that are about a user, in all generations."""
    own = re.compile(re.escape(settings.prefix.encode()) + rb"(?:g[^:]+:)?(?:\{\d+\}:u:|rec:|emb:)" + re.escape(user.encode()))
    pattern = literal(settings.prefix) + "*:" + literal(user)
    found = [name async for name in client.scan_iter(match=pattern, count=SCAN_COUNT)] + [
        settings.key(kind + user).encode() for kind in ("rec:", "emb:")]
    there = [name for name in dict.fromkeys(found) if own.fullmatch(name)]
    return [name for name in there if await client.exists(name)]


async def is_since(client: Any, name: bytes, offset: int) -> bool:
    """Whether what lies under a key of a user is of a time after that offset: he has come back."""
    from models.row_formats import UnknownRow, read
    from models.user_row import FORMAT

    value = await client.get(name)
    if value is None:
        return True
    if b"}:u:" in name:
        try:
            return int(read([value], FORMAT)["as_of"][0]) > offset
        except UnknownRow:
            return False
    if b"emb:" in name:
        return int.from_bytes(value[8:16], "little", signed=True) > offset
    try:
        return int(json.loads(value)["as_of"]["offset"]) > offset
    except (ValueError, KeyError, TypeError):
        return False


async def _gone(settings: Settings, user: str, offset: int) -> None:
    """Until nothing of before is left in Redis. What lies in a generation that nobody runs is removed here; others remove their own."""
    async with connected(settings) as client:
        began_s = time.monotonic()
        while left := [name for name in await keys_of(client, settings, user) if not await is_since(client, name, offset)]:
            live = ((await client.get(settings.key("live"))) or b"").split(b">")
            shadows = [name for name in left if (found := re.match(re.escape(settings.prefix.encode()) + rb"g([^:]+):", name)) and found[1] not in live]
            if shadows and time.monotonic() - began_s > 1.0:
                await client.unlink(*shadows)
            await asyncio.sleep(POLL_S)
