"""The list that the judge scores is the list that applications read: in process and back from Redis, for the same log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import redis

from infra.settings import Settings
from streams.shared_logs import Message
from tests.live.equality import lockstep
from tests.live.load import Events, send
from tests.live.parts import LogReader, world

SAID = ("items", "scores", "channels", "why", "as_of")


def test_a_list_in_process_is_the_one_in_redis(namespace: Callable[..., Settings]) -> None:
    settings = namespace(list_size=50)
    events = Events(settings, seed=31, users=40)
    send(settings, events, 1_500)

    async def run() -> tuple[dict[int, list[Any]], bytes, dict[str, bytes], int]:
        lessons = LogReader(settings, "lessons")
        await lessons.start()
        async with world(settings) as w:
            try:
                parts = await w.parts()
                await parts.drain()
                await lessons.refresh()
                records = lessons.records[0]
                await parts.worker.lessons.learn([Message(0, record.offset, record.value) for record in records])
                state = parts.state
                state.refresher.renew_popularity()
                for p, slots in enumerate(state.users.table.slots):
                    state.users.ask(p, list(slots.values()))
                await parts.publish()
                client = redis.from_url(settings.redis_url)
                keys = parts.worker.store.keys
                lists = {user: client.get(keys.list_of(user)) for slots in state.users.table.slots for user in slots}
                return dict(await w.log()), state.learner.dump(), lists, state.learner.n_taught
            finally:
                await lessons.stop()

    log, learned, published, n_taught = asyncio.run(run())
    assert n_taught > 500 and len(published) == 40, "there was something to learn from, and everybody has a list"
    engine = lockstep(settings, log)
    # in which order lessons stand is the worker's affair; what was learned from them is not
    engine.state.learner.load(learned, 0, [-1] * settings.partitions)
    for user, body in engine.lists(published).items():
        in_process, read = json.loads(body), json.loads(published[user])
        assert {name: in_process[name] for name in SAID} == {name: read[name] for name in SAID}, user
