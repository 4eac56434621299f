"""Real Kafka and Redis for tests, and workers as subprocesses; nothing outlives the test run, not even when it is killed.

stack                        one Kafka and one Redis for the whole run, on free ports, in a folder of its own
namespace(**settings)        Settings with a prefix of their own and topics created; `stack=` names another stack
start_worker(settings)       a WorkerProcess; ended after the test
own_stack(), own_redis()     servers of this test alone, which it may kill, flush and restart
redis_client(settings)       a client, closed after the test

Some ask for others only to end before them: workers first, then topics and keys, then servers.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from infra.settings import Settings, stack_home
from infra.stack import LocalStack, RedisServer, WorkerProcess
from infra.topics import ensure_topics, plan

DELETE_CHUNK = 1000
LOG_TAIL = 4_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is live."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def jars_home() -> Path:
    """Where `make setup` has put Kafka's jars; resolved here otherwise."""
    return stack_home()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, jars_home: Path) -> Iterator[LocalStack]:
    """One Kafka and one Redis for the whole run. Share it: stop, flush or fill it never; take `own_stack` for that."""
    with LocalStack(tmp_path_factory.mktemp("stack"), jars_home=jars_home, die_with_parent=True) as started:
        yield started


@pytest.fixture
def own_stack(tmp_path: Path, jars_home: Path) -> Iterator[Callable[[], LocalStack]]:
    """Starts a Kafka and a Redis of this test alone (about 5 s)."""
    started: list[LocalStack] = []

    def start() -> LocalStack:
        one = LocalStack(tmp_path / f"stack{len(started)}", jars_home=jars_home, die_with_parent=True)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.stop(wipe=True)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[[], RedisServer]]:
    """Starts a Redis of this test alone (30 ms); use it as `namespace(redis_url=server.url)`."""
    started: list[RedisServer] = []

    def start() -> RedisServer:
        one = RedisServer(tmp_path / f"redis{len(started)}", die_with_parent=True)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def namespace(request: pytest.FixtureRequest, own_stack: object, own_redis: object) -> Iterator[Callable[..., Settings]]:
    """Makes settings with a prefix nobody else uses, their topics created; topics and keys go after the test."""
    made: list[Settings] = []

    def make(stack: LocalStack | None = None, **overrides: Any) -> Settings:
        servers = stack or request.getfixturevalue("stack")
        settings: Settings = servers.settings(**{"prefix": f"t{uuid.uuid4().hex[:8]}.", "partitions": 4, **overrides})
        asyncio.run(ensure_topics(settings))
        made.append(settings)
        return settings

    yield make
    for settings in made:
        _remove(settings)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What workers said stands with the failure of a test."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder is not None:
        for log in sorted(folder.glob("worker*.log")):
            report.sections.append((log.name, log.read_text(errors="replace")[-LOG_TAIL:]))
    return report


@pytest.fixture
def start_worker(tmp_path: Path, namespace: object) -> Iterator[Callable[..., WorkerProcess]]:
    """start_worker(settings, env={...}): a worker subprocess; `.wait_ready()`, `.kill()`, `.pause()`, `.log`."""
    started: list[WorkerProcess] = []
    numbers = itertools.count(1)

    def start(settings: Settings, **options: Any) -> WorkerProcess:
        worker = WorkerProcess(settings, log_file=tmp_path / f"worker{next(numbers)}.log", **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.alive:
            worker.kill()  # what a test wants of an orderly end, it asks for itself


@pytest.fixture
def redis_client() -> Iterator[Callable[[Settings], redis.Redis]]:
    """redis_client(settings): a client that returns bytes."""
    clients: list[redis.Redis] = []

    def connect(settings: Settings) -> redis.Redis:
        clients.append(redis.from_url(settings.redis_url, **settings.redis_client_args()))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def _remove(settings: Settings) -> None:
    """Best effort, and short: the servers end with the run, this only keeps them small while it lasts."""
    from aiokafka.admin import AIOKafkaAdminClient

    async def delete_topics() -> None:
        admin = AIOKafkaAdminClient(request_timeout_ms=5_000, **settings.kafka_client_args())
        try:
            await admin.start()
            await admin.delete_topics([topic.name for topic in plan(settings)])
        finally:
            await admin.close()

    try:
        asyncio.run(delete_topics())
    except Exception:  # noqa: BLE001 - the test may have ended its broker
        pass
    try:
        with redis.from_url(settings.redis_url, socket_timeout=5.0) as client:
            keys = list(client.scan_iter(match=settings.key("*"), count=DELETE_CHUNK))
            for start in range(0, len(keys), DELETE_CHUNK):
                client.unlink(*keys[start:start + DELETE_CHUNK])
    except redis.RedisError:
        pass
