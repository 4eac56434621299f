"""Generations of state: which there are, which of them is live, and how another one becomes it.

A generation is a name under which lie rows, checkpoints, owners and what was learned (`g<name>:` in Redis), the topics
`interactions` and `lessons`, and a consumer group. `events`, `items` and `models` belong to all. The key `live` names the
one whose lists readers see; any other is a shadow: the same workers, which write their lists under its own keys, send no
dead letters and move no events.

A switch is one write of `live`, from `old` to `old>new`. Every fenced write relies on `live`, so from there on neither
generation changes. Whoever meets `old>new` next - the command that wrote it, a worker that starts - carries on from what
stands still then (`finish_switch`), so that nothing is lost if the command dies between the two.
"""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import redis.exceptions

from infra.settings import FIRST_GENERATION, Settings, StreamrecError
from streams.keys import SWITCH, Keys
from streams.patience import RedisRefuses
from streams.row_versions import RowVersions, merged, read_versions

#: 2: what there is in files is read from there; who does not know that would begin behind it.
VERSION = 2
#: What rows are built by: with other values the same bytes mean something else.
BUILT_BY = ("partitions", "popularity_half_life_s", "covisitation_half_life_s")


class RefusedRedis(StreamrecError):
    """This Redis cannot hold the state: wrong eviction policy, a newer version's data, other partition counts."""


class LiveMoved(StreamrecError):
    """Another generation is live than when the worker began: it starts again, as a worker of the one that is."""


class Filed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of its log a generation reads from an event log in files: of each partition what lies below an offset (`ends`), of that all
    events, or those of an event time in [first_ms, next_ms)."""

    folder: str
    ends: list[int]
    by_time: bool = False
    first_ms: int | None = None
    next_ms: int | None = None


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `meta` says of a generation."""

    v: int = 0
    partitions: int | None = None
    popularity_half_life_s: int | None = None
    covisitation_half_life_s: int | None = None
    own: dict[str, Any] = {}  # settings of its own, above the environment's
    start: list[int] = []  # offset at which a partition without a checkpoint begins; none: at the log's beginning
    until: list[int] | None = None  # offset up to which it reads; None: to the end and on
    filed: Filed | None = None  # None: all of it lies in Kafka
    speed: float = 0.0  # times as fast as events came; 0: as fast as it can
    created_ms: int = 0
    before: str = ""  # the one that was live before it
    dropped: bool = False  # being removed
    restoring: str = ""  # the backup that is being put back: until that is whole no worker may build on it

    def bytes(self) -> bytes:
        """As it lies in Redis."""
        return msgspec.json.encode(msgspec.structs.replace(self, v=VERSION if self.filed else 1))


def new_generation(settings: Settings, **said: Any) -> Generation:
    """One that is built by these settings."""
    built_by = {name: getattr(settings, name) for name in BUILT_BY}
    return Generation(v=VERSION, created_ms=time.time_ns() // 1_000_000, **built_by, **said)


def read_meta(value: bytes, name: str) -> Generation:
    """What `meta` says; raises `RefusedRedis`."""
    try:
        version = int(json.loads(value).get("v", 0))
        if version > VERSION:
            raise RefusedRedis(f"the state in Redis has version {version}, this worker reads {VERSION}: upgrade it")
        return msgspec.json.decode(value, type=Generation)
    except (ValueError, TypeError, AttributeError, RecursionError):  # msgspec's are ValueErrors
        raise RefusedRedis(
            f"what Redis says of generation {name} is {value[:60]!r}, which no worker has written: something else writes to"
            " our keys; use a prefix of your own, or rebuild (docs/operations.md)"
        ) from None


def no_such(name: str) -> RefusedRedis:
    """There is no such generation."""
    return RefusedRedis(f"there is no generation {name}: `streamrec shadows list` shows which there are, `streamrec replay --shadow"
                        f" {name}` makes it")


def refuse_unfinished(generation: Generation, name: str) -> None:
    """Raises `RefusedRedis` where not all of it is there: it is being removed, or put back from a backup."""
    if generation.dropped:
        raise no_such(name)
    if generation.restoring:
        raise RefusedRedis(f"generation {name} is being restored from a backup, and not all of it is there yet: wait for `streamrec restore`, or give"
                           " it again where it was killed")


async def generation_of(client: Any, prefix: str, name: str) -> Generation:
    """What there is of a generation; raises `RefusedRedis` where there is nothing."""
    value = await client.get(Keys(prefix, name).meta)
    if value is None:
        raise no_such(name)
    return read_meta(value, name)


async def live_generation(client: Any, prefix: str) -> str | None:
    """Name of the one that is live, None where Redis knows of none; finishes a switch that somebody has begun."""
    key = Keys(prefix).live
    while (value := await client.get(key)) is not None:
        old, _, new = value.decode().partition(SWITCH)
        if not new:
            return str(old)
        await finish_switch(client, prefix, old, new)
    return None


async def begin_switch(client: Any, prefix: str, old: str, new: str) -> None:
    """Make `new` live instead of `old`; raises `LiveMoved` where that is not live any more. What follows is `finish_switch`."""
    keys = Keys(prefix, new)
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(keys.live, keys.meta)
        found, meta = await pipe.get(keys.live), await pipe.get(keys.meta)
        if found != old.encode():
            raise LiveMoved(f"generation {(found or b'none').decode()} is live, not {old}: somebody else was faster")
        if meta is None:
            raise no_such(new)
        refuse_unfinished(read_meta(meta, new), new)
        pipe.multi()
        pipe.set(keys.live, old + SWITCH + new)
        try:
            await pipe.execute()
        except redis.exceptions.WatchError:
            raise LiveMoved(f"another operator was faster: {new} is not made live; `streamrec shadows list` tells what is") from None


async def finish_switch(client: Any, prefix: str, old: str, new: str) -> None:
    """What a switch needs besides `live`, all at once, and once, whoever does it.

    The new one goes on from the lower of both low-water marks: what the old one has read and not yet answered with a dead
    letter or a moved event it reads again, which changes no row that has absorbed it. It publishes nothing before it has passed
    what the old one has shown, and then every list.
    """
    before, after = Keys(prefix, old, is_live=False), Keys(prefix, new, is_live=False)
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(after.live)
        if await pipe.get(after.live) != (old + SWITCH + new).encode():
            return
        meta = read_meta(await pipe.get(after.meta) or b"", new)
        partitions = range(meta.partitions or 0)
        marks = [await pipe.mget([name(p) for p in partitions]) for keys in (before, after) for name in (keys.checkpoint, keys.shown)]
        pipe.multi()
        for p, (left, shown_before, reached, shown) in enumerate(zip(*marks, strict=True)):
            pipe.set(after.shown(p), max(int(shown_before or -1), int(shown or -1)))
            pipe.set(after.relist(p), 1)
            if reached is not None:
                checkpoint = json.loads(reached)
                # the old one has answered nothing where it has no mark
                last = json.loads(left or b"{}")
                offset, origins = last.get("offset", 0), last.get("origins", [-1] * len(partitions))
                if offset < checkpoint["offset"]:  # copies that were moved behind it are to be met again too
                    checkpoint |= {"offset": max(meta.start[p] if meta.start else 0, offset), "origins": origins}
                pipe.set(after.checkpoint(p), json.dumps(checkpoint))
        pipe.set(after.meta, msgspec.structs.replace(meta, before=old, until=None, speed=0.0, filed=None).bytes())
        pipe.set(after.live, new)
        try:
            await pipe.execute()
        except redis.exceptions.WatchError:
            pass  # somebody else has finished it


async def open_generation(client: Any, settings: Settings, known: tuple[Keys, Generation] | None) -> tuple[Keys, Generation]:
    """The generation that the settings name, or the live one; `known`: as it was found before, so that a worker can put back what
    a flushed Redis has forgotten. Raises `RefusedRedis`, and `LiveMoved` where another one is live than before."""
    prefix = settings.prefix
    live = await live_generation(client, prefix)
    if live is None:
        if settings.generation not in ("", FIRST_GENERATION) and not (known and known[0].is_live):
            raise no_such(settings.generation)
        await client.set(Keys(prefix).live, known[0].generation if known else FIRST_GENERATION, nx=True)
        live = await live_generation(client, prefix)
        if live is None:
            raise RedisRefuses("Redis was flushed just now")
    keys = Keys(prefix, settings.generation or live, is_live=live == (settings.generation or live))
    if known and known[0] != keys:
        raise LiveMoved(f"generation {live} is live now: this worker of {known[0].generation} starts again")
    if keys.is_live:
        await client.set(keys.meta, (known[1] if known else new_generation(settings)).bytes(), nx=True)
    found = await generation_of(client, prefix, keys.generation)
    refuse_unfinished(found, keys.generation)
    refuse_newer(await client.get(keys.rows), keys.generation)
    applied = settings.with_own(keys.generation, found.own)
    for name in BUILT_BY:
        said, ours = getattr(found, name), getattr(applied, name)
        if said is not None and said != ours:
            raise RefusedRedis(
                f"the state in Redis was built with {name}={said}, the settings say {ours}: set STREAMREC_{name.upper()}={said}, or"
                " build new state from the log (docs/operations.md, Rebuild)"
            )
    return keys, found


def refuse_newer(value: bytes | None, name: str) -> RowVersions:
    """The newest versions of rows that lie there, by the key `rows`; raises `RefusedRedis` where this worker knows only older ones."""
    try:
        found = read_versions(value)
    except ValueError:
        raise RefusedRedis(f"what Redis says of the rows of generation {name} is {(value or b'')[:60]!r}, which no worker has written: something else"
                           " writes to our keys; use a prefix of your own, or rebuild (docs/operations.md)") from None
    for kind, theirs, ours in found.beyond():
        raise RefusedRedis(f"workers of a newer version have written generation {name}: {kind} rows of version {theirs}, this worker writes {ours}."
                           " Upgrade it; what they have written it has not touched")
    return found


async def admitted(client: Any, keys: Keys) -> bool:
    """Whether a worker that has just taken fences may build on what lies there; False where Redis was emptied in between. From here
    on rows of our versions may lie there: that is noted. Raises `RefusedRedis`."""
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(keys.meta, keys.rows)
        meta, rows = await pipe.mget(keys.meta, keys.rows)
        if meta is None:
            return False
        refuse_unfinished(read_meta(meta, keys.generation), keys.generation)
        noted = merged(refuse_newer(rows, keys.generation))
        if noted == rows:
            return True
        pipe.multi()
        pipe.set(keys.rows, noted)
        try:
            await pipe.execute()
            return True
        except redis.exceptions.WatchError:  # somebody else was faster
            return False
