"""The stage: servers, a prefix with nothing under it, two workers - and the end of all that, whatever happened.

In: settings under the demo's prefix, perhaps a local stack. Out: running workers; on leaving, no process that was started
here runs on (with `keep` the servers do, after a demo that came to its end).
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from infra.only_one import only_one
from infra.settings import Settings, StreamrecError
from infra.stack import LocalStack, WorkerProcess, missing_requirements
from infra.stack.process import StackError
from infra.topics import REQUEST_TIMEOUT_MS, ensure_topics, partition_counts, plan

N_WORKERS = 2
READY_DEADLINE_S = 120.0  # where the kernels have to be compiled first
SHARED_DEADLINE_S = 30.0  # a rebalance takes one to three seconds
GONE_DEADLINE_S = 30.0  # deleting a topic; a dead worker's sign of life expires after 10 s
POLL_S = 0.1
KEY_CHUNK = 5_000
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(StreamrecError):
    """The demo cannot go on."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two demos would delete each other's topics."""
    with only_one(folder / "lock", lambda who: DemoError(f"another demo is running in {folder} ({who}); wait for it, or end it")):
        yield


@contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: through every `finally`."""
    if threading.current_thread() is not threading.main_thread():  # signals belong to it
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        signal.raise_signal(signal.SIGINT)  # asyncio takes it while it runs, Python otherwise

    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script that runs us with & has it ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clear_undisturbed() -> None:
    """From here to the end of `orderly_end` signals are ignored: a second Ctrl-C must not leave a server behind.

    What follows is bounded: workers are forced after 10 s, servers after 20.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def servers(stack: LocalStack | None, keep: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Kafka and Redis: what runs is used and left, what is started here is ended here, unless `keep` and all went well."""
    if stack is None or stack.running:
        yield
        return
    if missing := missing_requirements():
        raise StackError(missing)
    say(f"starting Kafka and Redis in {stack.home}")
    stack.start()
    stay = False
    try:
        yield
        stay = keep
    finally:
        clear_undisturbed()
        if not stay:
            stack.stop()


@contextmanager
def workers(settings: Settings, folder: Path) -> Iterator[list[WorkerProcess]]:
    """Two workers, as `streamrec worker` starts them; on leaving they stop in order, at once and together."""
    started: list[WorkerProcess] = []
    try:
        for number in range(1, N_WORKERS + 1):
            log_file = folder / f"worker{number}.log"
            log_file.unlink(missing_ok=True)
            started.append(WorkerProcess(settings, log_file=log_file))
        yield started
    finally:
        clear_undisturbed()
        threads = [threading.Thread(target=worker.stop) for worker in started]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def wait_shared(settings: Settings, running: list[WorkerProcess]) -> list[int]:
    """Wait until all workers are ready and have their share of the partitions; returns the ports of their pages."""
    for worker in running:
        worker.wait_ready(READY_DEADLINE_S)
    deadline = time.monotonic() + SHARED_DEADLINE_S
    while True:
        entries = [worker.state() or {} for worker in running]
        owned = [set(entry.get("partitions", ())) for entry in entries]
        if all(owned) and sum(map(len, owned)) == settings.partitions:
            return [int(entry["web_port"]) for entry in entries]
        if time.monotonic() > deadline:
            raise DemoError(f"the workers have not shared the {settings.partitions} partitions among themselves within "
                            f"{SHARED_DEADLINE_S:.0f} s, they say {[sorted(some) for some in owned]}; their logs: "
                            + ", ".join(str(worker.log_file) for worker in running))
        time.sleep(POLL_S)


def check_alive(running: list[WorkerProcess]) -> None:
    """Raises DemoError when a worker has ended."""
    for worker in running:
        if not worker.alive:
            said = worker.log.strip().rpartition("\n")[2]
            raise DemoError(f"a worker ended with code {worker.exit_code}; its log ({worker.log_file}) ends: {said}. Whoever runs workers starts them again, "
                            "and nothing is lost; the demo does not. If this machine's disk or processors are busy with something else, call it again")


def begin_afresh(settings: Settings) -> None:
    """Remove what an earlier demo left under the prefix: topics and keys. Raises DemoError while workers run there."""
    with redis.from_url(settings.redis_url, **settings.redis_client_args()) as client:
        _wait_workers_gone(settings, client)
        asyncio.run(_recreate_topics(settings))
        keys = list(client.scan_iter(match=settings.key("*"), count=KEY_CHUNK))
        for start in range(0, len(keys), KEY_CHUNK):
            client.unlink(*keys[start : start + KEY_CHUNK])


def _wait_workers_gone(settings: Settings, client: redis.Redis) -> None:
    deadline = time.monotonic() + GONE_DEADLINE_S / 2
    while signs := list(client.scan_iter(match=settings.key("workers:*"), count=KEY_CHUNK)):
        if time.monotonic() > deadline:
            names = ", ".join(sorted(sign.decode().rpartition(":")[2] for sign in signs))
            raise DemoError(f"workers run under the prefix {settings.prefix} ({names}); end them, the demo starts its own")
        time.sleep(POLL_S)


async def _recreate_topics(settings: Settings) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import UnknownTopicOrPartitionError, for_code

    names = [topic.name for topic in plan(settings)]
    admin = AIOKafkaAdminClient(request_timeout_ms=REQUEST_TIMEOUT_MS, **settings.kafka_client_args())
    try:
        await admin.start()
        old = list(await partition_counts(admin, names))
        if old:
            response = await admin.delete_topics(old)
            for name, code, *_ in response.topic_error_codes:
                if code and for_code(code) is not UnknownTopicOrPartitionError:
                    raise DemoError(f"topic {name} of an earlier demo cannot be deleted: {for_code(code).__name__}; "
                                    "delete it by hand, or give another STREAMREC_PREFIX")
        deadline = time.monotonic() + GONE_DEADLINE_S
        while await partition_counts(admin, names):
            if time.monotonic() > deadline:
                raise DemoError(f"topics {', '.join(names)} were deleted but are still there after {GONE_DEADLINE_S:.0f} s; "
                                "look at the broker's log, then try again")
            await asyncio.sleep(POLL_S)
    finally:
        await admin.close()
    await ensure_topics(settings)
