"""Generations made, listed and removed, each by one command at a time.

What there is of them is what Redis says: there is no register that could say otherwise. A generation begins with its `meta` and ends
with it, so a removal that is killed is there to be gone on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import redis.exceptions
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.admin import DeleteGroupsRequest

from consumers.replay.places import Place, stretch_of
from consumers.replay.source import still_needed
from consumers.redis import connected
from infra.settings import OWN_TOPICS, Settings, StreamrecError
from streams.generations import Filed, Generation, RefusedRedis, generation_of, live_generation, new_generation, open_generation, read_meta
from streams.keys import Keys, literal
from streams.tasks import cancelled

SCAN_COUNT = 2_000
#: A command that was killed holds its lease for as long.
LEASE_S = 10.0
#: Workers that were killed are members of their group for a session.
GONE_S = 30.0
STEP_S = 0.25
NO_SUCH_GROUP, GROUP_NOT_EMPTY = 69, 68


class ShadowError(StreamrecError):
    """This cannot be done with that generation."""


class Busy(ShadowError):
    """Another command is changing the generation."""


class Known(msgspec.Struct, frozen=True):
    """A generation, for people. `position` and `until`: events of all partitions, counted from its start."""

    name: str
    live: bool
    meta: Generation
    position: int
    until: int | None
    busy: bool

    @property
    def state(self) -> str:
        """In a word."""
        if self.live:
            return "live"
        if self.meta.dropped:
            return "being removed"
        if self.busy:
            return "at work"
        return "whole" if self.until is not None and self.position >= self.until else "stopped"


@contextlib.asynccontextmanager
async def leased(client: Any, keys: Keys) -> AsyncIterator[None]:
    """Held by one command at a time; raises `Busy`. One that was killed is waited for. A lease that is lost ends the command."""
    lock = client.lock(keys.lease, timeout=LEASE_S, blocking_timeout=LEASE_S + 2.0, sleep=STEP_S, thread_local=False)
    if not await lock.acquire():
        raise Busy(f"another command is at work on generation {keys.generation}; wait for it, or end it")
    mine = asyncio.current_task()

    async def keep() -> None:
        try:
            while True:
                await asyncio.sleep(LEASE_S / 4)
                await lock.reacquire()
        except redis.exceptions.RedisError:
            assert mine is not None
            mine.cancel()
            raise

    keeping = asyncio.ensure_future(keep())
    try:
        yield
    except asyncio.CancelledError:
        if keeping.done():
            raise Busy(f"the lease of generation {keys.generation} is lost: Redis was away or emptied, or another command has taken it") from None
        raise
    finally:
        await cancelled(keeping)
        with contextlib.suppress(redis.exceptions.RedisError):
            await lock.release()


async def make(client: Any, settings: Settings, name: str, generation: Generation) -> None:
    """Begin a shadow; raises `ShadowError` where one of that name is there."""
    await open_generation(client, settings, None)  # there is a live one from now on
    if not await client.set(Keys(settings.prefix, name).meta, generation.bytes(), nx=True):
        raise ShadowError(f"there is a generation {name} already; without --from, --to and --settings its replay goes on, `streamrec shadows"
                          f" drop {name}` removes it")


def planned(settings: Settings, name: str, own: dict[str, Any], start: list[int], until: list[int], speed: float, filed: Filed | None = None) -> Generation:
    """A shadow with settings of its own that reads this stretch, some of it perhaps from files; raises SettingsError."""
    return new_generation(settings.with_own(name, own), own=own, start=start, until=until, speed=speed, filed=filed)


async def found(client: Any, prefix: str, name: str) -> Generation | None:
    """What there is of a generation; None: nothing."""
    value = await client.get(Keys(prefix, name).meta)
    return None if value is None else read_meta(value, name)


async def go_on(client: Any, settings: Settings, name: str, end: Place | None, speed: float | None) -> None:
    """What a replay that goes on does otherwise than before. The caller holds the lease."""
    if await live_generation(client, settings.prefix) == name:
        raise ShadowError(f"generation {name} is live: its workers read the log; a replay is for another one")
    meta = await generation_of(client, settings.prefix, name)
    if meta.dropped:
        raise ShadowError(f"generation {name} is being removed; `streamrec shadows drop {name}` goes on with it")
    if meta.until is None and end is None:
        raise ShadowError(f"generation {name} was live, or about to be, and has no end up to which it is to be read: say --to latest, or "
                          f"`streamrec promote {name}`")
    said: dict[str, Any] = {} if speed is None else {"speed": speed}
    if end is not None:
        if meta.filed is not None and meta.filed.by_time and end != Place():
            raise ShadowError(f"generation {name} was begun with a stretch of event time; it can go on with all that has come since (--to latest), and nowhere else")
        at = await checkpoints(client, settings, name, meta)
        begins, ends = await stretch_of(settings, Place(earliest=True), end, await still_needed(settings, meta.filed, at))
        # an empty partition begins where it ends, and a checkpoint gets there with the next event only
        said["until"] = [min(reached, last) if first == last else last for reached, first, last in zip(at, begins, ends, strict=True)]
    if said:
        await change(client, settings, name, **said)


async def change(client: Any, settings: Settings, name: str, **said: Any) -> None:
    """Change what is said of a generation. The caller holds its lease."""
    meta = await generation_of(client, settings.prefix, name)
    await client.set(Keys(settings.prefix, name).meta, msgspec.structs.replace(meta, **said).bytes())


async def checkpoints(client: Any, settings: Settings, name: str, generation: Generation) -> list[int]:
    """Up to where it has absorbed, by partition."""
    keys, n = Keys(settings.prefix, name), generation.partitions or settings.partitions
    values = await client.mget([keys.checkpoint(p) for p in range(n)])
    start = generation.start or [0] * n
    return [start[p] if value is None else msgspec.json.decode(value)["offset"] for p, value in enumerate(values)]


async def known(settings: Settings) -> list[Known]:
    """All generations, the live one first."""
    async with connected(settings) as client:
        live = await live_generation(client, settings.prefix)
        pattern = literal(f"{settings.prefix}g") + "*:meta"
        names = [key.decode()[len(settings.prefix) + 1 : -len(":meta")] async for key in client.scan_iter(match=pattern, count=SCAN_COUNT)]
        listed = []
        for name in sorted({name for name in names if ":" not in name}, key=lambda name: (name != live, name)):
            try:
                meta = await generation_of(client, settings.prefix, name)
            except RefusedRedis:  # gone since, or another system's under a longer prefix
                continue
            at = await checkpoints(client, settings, name, meta)
            start = meta.start or [0] * len(at)
            until = None if meta.until is None else sum(meta.until) - sum(start)
            busy = bool(await client.exists(Keys(settings.prefix, name).lease))
            listed.append(Known(name, name == live, meta, sum(at) - sum(start), until, busy))
        return listed


async def drop(settings: Settings, name: str) -> int:
    """Remove a generation: keys, topics, group. Returns the number of keys; raises `ShadowError` for the live one."""
    keys = Keys(settings.prefix, name, is_live=False)
    async with connected(settings) as client, leased(client, keys):
        async with client.pipeline(transaction=True) as pipe:
            live = await live_generation(client, settings.prefix)
            await pipe.watch(keys.live, keys.meta)
            if live == name or await pipe.get(keys.live) != (live or "").encode():
                raise ShadowError(f"generation {name} is live; make another one live first (`streamrec promote`, `streamrec rollback`)")
            meta = await generation_of(client, settings.prefix, name)
            pipe.multi()
            pipe.set(keys.meta, msgspec.structs.replace(meta, dropped=True).bytes())
            try:
                await pipe.execute()
            except redis.exceptions.WatchError:
                raise Busy(f"somebody else has changed generation {name} just now; look again") from None
        n = await remove(client, keys, keep={keys.meta.encode(), keys.lease.encode()})
        await _drop_in_kafka(settings.with_own(name, {}))
        deadline = time.monotonic() + GONE_S
        # a worker that nobody has ended signs on until it notices that its fence is gone
        while (again := await remove(client, keys, keep={keys.meta.encode(), keys.lease.encode()})) and time.monotonic() < deadline:
            n += again
            await asyncio.sleep(STEP_S)
        await client.unlink(keys.meta)
        return n + 1


async def remove(client: Any, keys: Keys, keep: Iterable[bytes] = (), *, only: Iterable[str] = ("",)) -> int:
    """Remove what lies under a generation, of that only what begins with one of `only`; returns the number of keys."""
    n, kept = 0, set(keep)
    for begins in only:
        some: list[bytes] = []
        async for key in client.scan_iter(match=literal(keys.everything + begins) + "*", count=SCAN_COUNT):
            if key not in kept:
                some.append(key)
            if len(some) == SCAN_COUNT:
                n += await client.unlink(*some)
                some = []
        if some:
            n += await client.unlink(*some)
    return n


async def _drop_in_kafka(settings: Settings) -> None:
    """Remove its topics and its group; those of the first generation are the ones that every system has."""
    admin = AIOKafkaAdminClient(**settings.kafka_client_args())
    await admin.start()
    try:
        there = set(await admin.list_topics())
        topics = [name for name in map(settings.topic, OWN_TOPICS) if name in there]
        if topics:
            for name, code, *_ in (await admin.delete_topics(topics)).topic_error_codes:
                if code and for_code(code) is not UnknownTopicOrPartitionError:
                    raise ShadowError(f"topic {name} cannot be removed: {for_code(code).__name__}; remove it by hand, then again")
        deadline = time.monotonic() + GONE_S
        while (code := await _delete_group(admin, settings.group_id)) == GROUP_NOT_EMPTY and time.monotonic() < deadline:
            await asyncio.sleep(STEP_S)
        if code not in (0, NO_SUCH_GROUP):
            why = "workers of it run still, end them" if code == GROUP_NOT_EMPTY else for_code(code).__name__
            raise ShadowError(f"the consumer group {settings.group_id} cannot be removed: {why}; then again")
    finally:
        await admin.close()


async def _delete_group(admin: Any, group: str) -> int:
    try:
        coordinator = await admin.find_coordinator(group)
        answer = await admin._send_request(DeleteGroupsRequest([group]), coordinator)  # the client has no method of its own for it
    except for_code(NO_SUCH_GROUP):
        return NO_SUCH_GROUP
    return int(answer.results[0][1])


