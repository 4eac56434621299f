"""Logs that every worker reads whole, deleted and made anew beneath running workers, or shorter than what they have read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from infra.settings import Settings
from infra.stack import WorkerProcess
from streams.keys import Keys
from tests.live.equality import check_equal, wait_drained
from tests.live.learned import delete_topic, kept, learned_from
from tests.live.load import Events, Load, send
from tests.live.pages import metric
from tests.live.test_false_claims import produce

STEP_S = 60.0


def kept_topic(settings: Settings) -> str:
    """Id of the topic that what is kept was learned from."""
    client, keys = redis.from_url(settings.redis_url), Keys(settings.prefix)
    return str(json.loads(client.get(keys.learned_checkpoint) or b"{}").get("topic"))


def all_kept(settings: Settings) -> bool:
    return kept(settings)[0] == learned_from(settings).position


def test_running_workers_learn_anew(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events = Events(settings, seed=41, users=60)
    workers = [start_worker(settings), start_worker(settings)]
    with Load(settings, events, rate=300) as load:
        wait_until(lambda: load.sent > 1_200, STEP_S, "a live stream")
        load.stop()
    check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "all lessons are kept")
    before = kept_topic(settings)
    delete_topic(settings, "lessons", anew=True)
    for worker in workers:
        wait_until(lambda worker=worker: "Learning anew" in worker.log, 20.0, "both notice")
    send(settings, events, 300)
    check_equal(settings)
    wait_until(lambda: kept_topic(settings) != before and all_kept(settings), STEP_S, "the new lessons are kept, though fewer")
    assert kept(settings)[1] == learned_from(settings).dump()
    assert all(worker.alive and worker.log.count("Learning anew") == 1 for worker in workers)
    assert [metric(worker, "streamrec_logs_anew_total", topic="lessons") for worker in workers] == [1, 1]

    # the one that did not keep is as far: it goes on where the other stood
    workers[0].kill()
    send(settings, events, 300)
    check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "kept by the other")
    assert kept(settings)[1] == learned_from(settings).dump()


def item_topics(settings: Settings) -> list[str]:
    """Ids of the topic that kept item rows were made from, by partition; "" where none are kept."""
    client, keys = redis.from_url(settings.redis_url), Keys(settings.prefix)
    return [str(json.loads(client.get(keys.items_checkpoint(p)) or b"{}").get("topic", "")) for p in range(settings.partitions)]


def test_a_log_that_has_grown_past_the_state_is_known_for_another(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    """No worker is there while the topic goes, and the new one is longer than what is kept."""
    settings = namespace()
    events = Events(settings, seed=42, users=60)
    worker = start_worker(settings)
    send(settings, events, 100)
    check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "kept")
    before, offset = kept_topic(settings), kept(settings)[0]
    worker.kill()
    delete_topic(settings, "lessons", anew=True)
    asyncio.run(produce(settings, [("lessons", 0, b"no message")] * (offset + 10)))
    again = start_worker(settings)
    wait_until(lambda: "Learning anew" in again.log, STEP_S, "it is said")
    send(settings, events, 100)
    check_equal(settings)
    wait_until(lambda: kept_topic(settings) != before and all_kept(settings), STEP_S, "the new ones are kept")
    assert kept(settings)[1] == learned_from(settings).dump()


def test_workers_stop_where_interactions_are_made_anew(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events = Events(settings, seed=43, users=60)
    worker = start_worker(settings)
    send(settings, events, 400)
    check_equal(settings)
    # without rows that name their topic there is nothing that the second worker could miss
    wait_until(lambda: all(item_topics(settings)), STEP_S, "item rows are kept")
    delete_topic(settings, "interactions", anew=True)
    wait_until(lambda: not worker.alive, 20.0, "it stops")
    assert "interactions was deleted and made anew" in worker.log and "Rebuild" in worker.log
    assert "Traceback" not in worker.log
    again = start_worker(settings)
    wait_until(lambda: not again.alive, STEP_S, "and does not start on state of another log")
    assert "Rebuild" in again.log


@pytest.mark.parametrize("name", ["lessons", "interactions"])
def test_a_topic_that_is_gone_is_said(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                      wait_until: Callable[..., Any], name: str) -> None:
    settings = namespace()
    worker = start_worker(settings)
    send(settings, Events(settings, seed=44, users=20), 100)
    check_equal(settings)
    delete_topic(settings, name)
    wait_until(lambda: not worker.alive, 30.0, "it stops, so that a start makes the topic anew")
    assert f"{name} was deleted" in worker.log


def test_lessons_that_retention_took_are_said(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events = Events(settings, seed=45, users=60)
    worker = start_worker(settings)
    send(settings, events, 200)
    check_equal(settings)
    wait_until(lambda: all_kept(settings), STEP_S, "kept")
    client, keys = redis.from_url(settings.redis_url), Keys(settings.prefix)
    old = {key: client.get(key) for key in client.scan_iter(f"{settings.prefix}*learned*")}
    offset = kept(settings)[0]
    for _ in range(4):
        send(settings, events, 100)
        wait_drained(settings)
    end = learned_from(settings).position
    assert end >= offset + 4
    wait_until(lambda: all_kept(settings), STEP_S, "kept")
    worker.kill()
    for key in client.scan_iter(f"{settings.prefix}*learned*"):  # nobody had kept anything for long
        client.delete(key)
    for key, value in old.items():
        client.set(key, value)
    assert kept(settings)[0] == offset and json.loads(client.get(keys.learned_checkpoint))["offset"] == offset

    async def delete() -> None:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        await admin.delete_records({TopicPartition(settings.topic("lessons"), 0): RecordsToDelete(before_offset=end - 2)})
        await admin.close()

    asyncio.run(delete())
    again = start_worker(settings)
    wait_until(lambda: "what they taught is lost" in again.log, STEP_S, "it is said")
    assert f"offsets {offset} to {end - 3} are gone" in again.log
    wait_until(lambda: metric(again, "streamrec_messages_skipped_total", topic="lessons", reason="gone") == end - 2 - offset, 20.0, "and counted")
    send(settings, events, 100)
    check_equal(settings)
    assert again.alive
