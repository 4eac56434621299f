"""A shadow goes live: it catches up, `live` is switched, its lists follow. Rolling back is the same, for the one that was live before.

Nothing here needs to be finished by the process that began it: before the switch nothing has happened, and after it the live workers
start again as those of the new generation and write its lists, whether anybody watches or not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from consumers.replay.running import Progress, Tell, catch_up
from consumers.redis import connected
from consumers.replay.shadows import Known, ShadowError, change, checkpoints, known, leased, remove
from infra.settings import Settings
from infra.topics import ensure_topics
from streams.generations import begin_switch, generation_of, live_generation
from streams.keys import Keys
from streams.store import at_generation

LOOK_S = 0.25
#: Lists that are written again a second, at least.
LISTS_A_S = 8_000
#: After this without a worker somebody should be told; a worker that starts again takes some seconds.
NO_WORKER_S = 30.0
#: Public keys of a shadow, of no use once it is live.
PUBLIC = ("rec:", "similar:", "emb:", "popular:", "hidden:", "workers:")


class Plan(msgspec.Struct, frozen=True):
    """What a promotion would do. `behind`: events it has to read first; `rows`: users whose lists it would write."""

    old: str
    new: str
    own: dict[str, Any]
    behind: int
    rows: int
    seconds: float


async def plan(settings: Settings, new: str) -> Plan:
    """For `--dry-run`; raises `ShadowError`."""
    from consumers.replay.running import Log

    listed = await known(settings)
    one = _one(listed, new)
    async with connected(settings) as client, Log(settings) as log:
        at = await checkpoints(client, settings, new, one.meta)
        behind = sum(await log.ends("events")) - sum(at)
        keys, n = Keys(settings.prefix, new), 0
        async for key in client.scan_iter(match=f"{keys.everything}{{*}}:u:*".replace("[", "\\["), count=2_000):
            n += key.startswith(keys.everything.encode())
    return Plan(next(one.name for one in listed if one.live), new, one.meta.own, max(0, behind), n, round(n / LISTS_A_S, 1))


async def promote(settings: Settings, new: str, n_workers: int, tell: Tell, say: Callable[[str], None]) -> str:
    """Make a generation live; returns the name of the one that was. One that is live already is seen to its end. Raises `ShadowError`."""
    keys = Keys(settings.prefix, new, is_live=False)
    async with connected(settings) as client, leased(client, keys):
        old = await live_generation(client, settings.prefix)
        meta = await generation_of(client, settings.prefix, new)
        if old == new:
            say(f"generation {new} is live already; seeing to its lists")
            old = meta.before
        else:
            _one(await known(settings), new)
            if old is None:
                raise ShadowError("no generation is live: no worker has run yet, and Redis knows of none")
            # to the end and on, as fast as it can: kept, for all its workers
            await change(client, settings, new, until=None, speed=0.0)
            own = await at_generation(settings.with_own(new, {}))
            await ensure_topics(own)
            say(f"generation {new} catches up with the log")
            await catch_up(client, own, meta, n_workers, tell)
            await begin_switch(client, settings.prefix, old, new)
            await live_generation(client, settings.prefix)  # finishes it
            say(f"generation {new} is live; its lists follow")
        if await _lists_follow(client, settings, new, meta.partitions or settings.partitions, tell):
            await remove(client, keys, only=PUBLIC)
        else:
            say("no worker of it has written its lists yet; they follow as soon as one runs (`streamrec worker`)")
        return str(old)


async def rollback(settings: Settings, n_workers: int, tell: Tell, say: Callable[[str], None]) -> tuple[str, str]:
    """Make the one live that was before; returns the names of both. Raises `ShadowError` where there is none."""
    async with connected(settings) as client:
        live = await live_generation(client, settings.prefix)
        before = (await generation_of(client, settings.prefix, live)).before if live is not None else ""
        if not before or not await client.exists(Keys(settings.prefix, before).meta):
            raise ShadowError(f"there is nothing to go back to: {'generation ' + before + ' was dropped' if before else 'no other generation was live'}")
    return await promote(settings, before, n_workers, tell, say), before


async def _lists_follow(client: Any, settings: Settings, new: str, n: int, tell: Tell) -> bool:
    """Wait until every partition's lists are the new one's; False where no worker sees to it."""
    keys, last, last_s = Keys(settings.prefix, new), n + 1, time.monotonic()
    while left := await client.exists(*(keys.relist(p) for p in range(n))):
        if left < last:
            last, last_s = left, time.monotonic()
        tell(Progress(n - left, n, 0.0, "partitions' lists"))
        if time.monotonic() - last_s > NO_WORKER_S and not [key async for key in client.scan_iter(match=f"{keys.prefix}workers:*", count=2_000)]:
            return False
        await asyncio.sleep(LOOK_S)
    return True


def _one(listed: list[Known], name: str) -> Known:
    for one in listed:
        if one.name == name:
            if one.meta.dropped:
                raise ShadowError(f"generation {name} is being removed; `streamrec shadows drop {name}` goes on with it")
            return one
    there = ", ".join(one.name for one in listed)
    raise ShadowError(f"there is no generation {name}; there {'is' if len(listed) == 1 else 'are'} {there or 'none'}")
