"""Hidden, expired, deleted and seen items: from a second after the message nothing is published with them, then they are gone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from consumers.trainer.surroundings import read_items
from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.partitioner import partition_of
from tests.live.command import streamrec
from tests.live.equality import Redis, check_equal
from tests.live.load import Events, Load, send
from tests.live.reading import read_all

STEP_S = 60.0
PROMISE_S = 1.0  # what is published later than this after the message does not hold the item


def say(settings: Settings, items: dict[str, dict[str, Any] | None]) -> float:
    """Put messages on the items topic; returns when Kafka had them (monotonic)."""
    async def run() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        for item, attributes in items.items():
            value = json.dumps(attributes).encode() if attributes else None
            await producer.send_and_wait(settings.topic("items"), value, key=item.encode())
        await producer.stop()

    asyncio.run(run())
    return time.monotonic()


def tell(settings: Settings, events: list[tuple[str, str, str]]) -> None:
    """(user, item, type) events, now."""
    async def run() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        for n, (user, item, kind) in enumerate(events):
            event = {"event_id": f"t{time.time_ns()}-{n}", "user_id": user, "item_id": item, "event_type": kind,
                     "timestamp": time.time_ns() // 1_000_000}
            await producer.send_and_wait(settings.topic("events"), json.dumps(event).encode(), key=user.encode(),
                                         partition=partition_of(user, settings.partitions))
        await producer.stop()

    asyncio.run(run())


class Shelf:
    """All public lists of a system, and which of them name an item."""

    def __init__(self, settings: Settings) -> None:
        self._state = Redis(settings)
        self._settings = settings

    def naming(self, item: str) -> dict[str, int]:
        """Lists with this item, with the time at which they were made."""
        found = {}
        for kind in ("rec:", "similar:", "popular:"):
            for name, body in self._state.all_under(self._settings.key(kind)).items():
                entry = json.loads(body)
                if item in entry["items"]:
                    found[kind + name] = entry["generated_at"]
        return found

    def hidden(self) -> list[str]:
        return list(json.loads(self._state.client.get(self._state.keys.hidden) or b'{"items":[]}')["items"])

    def of(self, user: str) -> list[str]:
        return list(self._state.lists()[user]["items"])


def test_hidden_expired_deleted_and_back(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                         wait_until: Callable[..., Any]) -> None:
    settings = namespace(max_users=64, session_timeout_ms=2_000)  # most rows have to be loaded for the sweep
    events, shelf = Events(settings, seed=9, users=400), Shelf(settings)
    say(settings, {item: {"item_id": item} for item in events.items})  # known from the start: every list names all of them
    send(settings, events, 4_000)
    workers = [start_worker(settings), start_worker(settings)]
    check_equal(settings)
    wait_until(lambda: shelf.naming("i0").keys() >= {"popular:all"} and len(shelf.naming("i0")) > 300, STEP_S, "lists everywhere")

    with Load(settings, events, rate=300):

        def goes(item: str, since: float, *, kill: bool = False) -> None:
            """From `PROMISE_S` after the message on no list is made with the item, and in the end it is in none."""
            wait_until(lambda: time.monotonic() > since + PROMISE_S, STEP_S, "a second")
            old = shelf.naming(item)
            if kill:
                workers.pop(0).kill()
                workers.append(start_worker(settings))

            def gone() -> bool:
                found = shelf.naming(item)
                new = {name: made for name, made in found.items() if old.get(name) != made}
                assert not new, f"published with {item} although it was hidden: {new}"
                return not found

            wait_until(gone, STEP_S, f"no list names {item}")
            wait_until(lambda: item in shelf.hidden(), STEP_S, "readers are told")

        goes("i0", say(settings, {"i0": {"item_id": "i0", "hidden": True}}))
        goes("i1", say(settings, {"i1": None}))
        expiry = 2.0
        said = say(settings, {"i2": {"item_id": "i2", "expires_at": time.time_ns() // 1_000_000 + int(expiry * 1000)}})
        assert "i2" not in shelf.hidden() and shelf.naming("i2")
        goes("i2", said + expiry)
        goes("i3", say(settings, {"i3": {"item_id": "i3", "hidden": True}}), kill=True)

        say(settings, {"i0": {"item_id": "i0", "hidden": False}})
        wait_until(lambda: "i0" not in shelf.hidden() and len(shelf.naming("i0")) > 100, STEP_S, "it is back")
        assert {"i1", "i2", "i3"} <= set(shelf.hidden())
    check_equal(settings)
    assert all(worker.alive for worker in workers)


def test_seen_items_stay_or_go_by_type(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                       wait_until: Callable[..., Any]) -> None:
    groceries, films = namespace(), namespace(seen_types="purchase")
    for settings in (groceries, films):
        send(settings, Events(settings, seed=10, users=20), 400)
        start_worker(settings)
    for settings, stays in ((groceries, True), (films, False)):
        check_equal(settings)
        tell(settings, [("me", "i1", "purchase"), ("me", "i2", "view"), ("me", "i3", "view"), ("me", "i3", "dislike"), ("me", "i4", "remove"),
                        ("me", "i5", "impression")])
        check_equal(settings)
        mine = Shelf(settings).of("me")
        assert ("i1" in mine) == stays
        assert {"i2", "i5"} <= set(mine) and not {"i3", "i4"} & set(mine)
        tell(settings, [("me", "i3", "purchase")])  # a change of mind
        check_equal(settings)
        assert ("i3" in Shelf(settings).of("me")) == stays


def test_by_command(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events, shelf = Events(settings, seed=11, users=30), Shelf(settings)
    said = {"item_id": "i0", "title": "The first", "ours": {"shelf": 7}}
    say(settings, {**{item: {"item_id": item} for item in events.items}, "i0": said})
    send(settings, events, 300)
    alone = streamrec(settings, "hide", "i0", "--wait", "0.5")
    assert alone.returncode == 1 and "no worker has told readers" in alone.stderr
    assert streamrec(settings, "hide", "i0", "").returncode == 1, "an empty id"
    start_worker(settings)
    done = streamrec(settings, "hide", "i0", "i1")
    assert done.returncode == 0 and "i0, i1 are hidden" in done.stdout, done.stderr
    assert {"i0", "i1"} <= set(shelf.hidden())
    wait_until(lambda: not shelf.naming("i0") and not shelf.naming("i1") and shelf.naming("i2"), STEP_S, "no list names them")
    assert asyncio.run(read_items(settings)).keys().isdisjoint({"i0", "i1"})

    assert streamrec(settings, "hide", "--undo", "i0").returncode == 0
    send(settings, events, 30)
    wait_until(lambda: shelf.naming("i0"), STEP_S, "it is back")
    last = [json.loads(record.value) for record in asyncio.run(read_all(settings, "items")) if record.key == b"i0"][-1]
    assert last == {**said, "hidden": False}, "what was said of it stays, unknown fields too"
    # what no worker would take is not sent again with it; an expiry that has passed goes with --undo
    say(settings, {"i2": {"item_id": "i2", "title": "The last good word"}, "i3": {"item_id": "i3", "expires_at": 1_700_000_000_000}})
    say(settings, {"i2": {"item_id": "i2", "expires_at": "soon"}})
    assert streamrec(settings, "hide", "i2").returncode == 0 and streamrec(settings, "hide", "--undo", "i3").returncode == 0
    words = {record.key: json.loads(record.value or b"null") for record in asyncio.run(read_all(settings, "items"))}
    assert words[b"i2"] == {"item_id": "i2", "title": "The last good word", "hidden": True} and words[b"i3"] == {"item_id": "i3", "hidden": False}
    assert streamrec(settings, "hide", "--delete", "i0").returncode == 0
    assert [record.value for record in asyncio.run(read_all(settings, "items")) if record.key == b"i0"][-1] is None
