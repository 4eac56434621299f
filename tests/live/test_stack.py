"""The local stack itself: data and ports survive restarts, `stop` leaves nothing, strangers are left alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from infra.settings import Settings
from infra.stack import LocalStack, RedisServer, StackError
from infra.topics import TopicError, ensure_topics


def test_topics_are_idempotent_and_guard_their_partition_count(stack: LocalStack, namespace: Callable[..., Settings]) -> None:
    settings = namespace(partitions=3)
    assert asyncio.run(ensure_topics(settings)) == []
    with pytest.raises(TopicError, match="has 3 partitions, the settings expect 5"):
        asyncio.run(ensure_topics(stack.settings(prefix=settings.prefix, partitions=5)))


def test_topics_keep_imported_history_and_carry_large_values(namespace: Callable[..., Settings]) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    settings = namespace()

    async def read(topic: str) -> dict[str, str]:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        try:
            [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic(topic))])
            return {entry[0]: entry[1] for entry in answer.resources[0][4]}
        finally:
            await admin.close()

    for topic, policy in (("events", "delete"), ("interactions", "delete"), ("items", "compact"), ("events.dlq", "compact")):
        config = asyncio.run(read(topic))
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert int(config["max.message.bytes"]) > 5_000_000
        assert config["cleanup.policy"] == policy
    assert asyncio.run(read("events"))["retention.ms"] == "-1"


def test_servers_come_back_with_port_and_data(own_stack: Callable[[], LocalStack]) -> None:
    stack = own_stack()
    settings = stack.settings(prefix="r.", partitions=2)
    asyncio.run(ensure_topics(settings))
    with redis.from_url(settings.redis_url) as client:
        client.set("kept", "yes")
        ports = stack.kafka.port, stack.redis.port
        for server in (stack.redis, stack.kafka):
            server.stop()
            assert not server.alive
            server.start()
        assert (stack.kafka.port, stack.redis.port) == ports
        assert client.get("kept") == b"yes"
    stack.kafka.kill()
    stack.kafka.start()
    assert asyncio.run(ensure_topics(settings)) == []
    found = LocalStack(stack.home)  # as another process sees it
    assert found.running and found.kafka.pid == stack.kafka.pid
    pids = [stack.kafka.pid, stack.redis.pid]
    found.stop()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids if pid)
    assert not stack.note_file.exists()
    again = LocalStack(stack.home)
    assert (again._port_of_before(again.kafka), again._port_of_before(again.redis)) == ports, "where workers wait for them"
    again.stop(wipe=True)
    assert again._port_of_before(again.redis) is None


def test_a_stranger_with_our_number_is_left_alone(own_redis: Callable[[], RedisServer], tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        try:
            server = RedisServer(tmp_path / "other")
            server.adopt({"port": 1, "pid": stranger.pid, "started_at": psutil.Process(stranger.pid).create_time()})
            assert not server.alive
            server.stop()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_taken_port_is_named(own_redis: Callable[[], RedisServer], tmp_path: Path) -> None:
    taken = own_redis().port
    with pytest.raises(StackError, match=f"port {taken} for redis is taken"):
        RedisServer(tmp_path / "second", port=taken).start()
