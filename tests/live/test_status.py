"""`streamrec status` and `streamrec top` on a running system: they agree with it, say what is wrong, work when parts are down, end cleanly."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from aiokafka import AIOKafkaProducer

from infra.settings import Settings
from infra.stack import LocalStack, WorkerProcess
from streams.partitioner import partition_of
from tests.live.pages import metric

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "infra.cli"]
END_S = 20.0  # a machine that has other things to do
N_USERS, N_EVENTS = 30, 400


def environment(settings: Settings) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}, **settings.environment(), "COLUMNS": "100"}


def status(settings: Settings, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "status", *args], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment(settings))


def told(settings: Settings) -> dict[str, Any]:
    return dict(json.loads(status(settings, "--json").stdout))


def send(settings: Settings) -> None:
    """Events of some users over some seconds, so that there are lists to judge by what comes next, and two that are rejected."""

    async def run() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        try:
            for k in range(N_EVENTS):
                user = f"u{k % N_USERS}"
                event = {"event_id": f"e{k}", "user_id": user, "item_id": f"i{k * 7 % 40}", "event_type": "purchase",
                         "timestamp": time.time_ns() // 1_000_000 - 10_000_000 + 1000 * k}
                await producer.send(settings.topic("events"), json.dumps(event).encode(), key=user.encode(),
                                    partition=partition_of(user, settings.partitions))
                await asyncio.sleep(0.01)
            for bad in (b"{", json.dumps({"user_id": "u1"}).encode()):
                await producer.send(settings.topic("events"), bad, key=b"u1", partition=0)
        finally:
            await producer.stop()

    asyncio.run(run())


def test_status_knows_the_whole_system(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                       wait_until: Callable[..., Any], own_stack: Callable[[], LocalStack]) -> None:
    stack = own_stack()
    settings = namespace(stack)
    nobody = status(settings)
    assert nobody.returncode == 1 and "no worker runs" in nobody.stdout and "no worker runs" in nobody.stderr
    workers = [start_worker(settings), start_worker(settings)]
    for worker in workers:
        worker.wait_ready()
    send(settings)

    def all_seen() -> dict[str, Any] | None:
        found = told(settings)
        done = found["lag_total"] == 0 and (found["recent"] or {}).get("events") == N_EVENTS and found["baskets"]
        return found if done and (found["dead_letters"] or {}).get("looked_at") == 2 else None

    found = wait_until(all_seen, 60.0, "status has seen what was sent")
    assert found["topics"][settings.topic("events")] == settings.partitions
    # a machine that has other things to do makes lists late, and then the last minute was not well
    assert all("of lists come later than" in problem for problem in found["problems"]), found["problems"]
    assert (found["lists"], found["rows"], found["items"], found["shadows"]) == (N_USERS, N_USERS, 40, [])
    assert sorted(entry["pid"] for entry in found["workers"]) == sorted(worker.pid for worker in workers)
    assert found["dead_letters"]["reasons"] == {"json": 1, "schema": 1} and found["recent"]["rejected"] == 2
    assert found["freshness"]["n"] >= N_USERS and 0 < found["freshness"]["p50_ms"] <= found["freshness"]["p99_ms"]
    assert found["drifts"] == 0 and found["model"]["version"] is None and found["redis"]["memory_bytes"] > 0
    # what the signs say is what the pages say
    of_pages = sum(metric(worker, "streamrec_baskets_total") for worker in workers)
    assert of_pages > 0 and abs(found["baskets"]["n"] - of_pages) / of_pages < 0.1  # older ones count a little less
    for of, rate in found["baskets"]["rates"].items():
        hits = sum(metric(worker, "streamrec_basket_hits_total", of=of) for worker in workers)
        assert abs(rate - hits / of_pages) < 0.05, of
    assert found["baskets"]["rates"]["repeat"] > 0

    wait_until(lambda: told(settings)["healthy"], 90.0, "status says that all is well")
    screen = status(settings)
    lines = screen.stdout.rstrip("\n").splitlines()
    assert screen.returncode == 0 and screen.stderr == "" and lines[0].startswith("well")
    assert len(lines) <= 24 and max(map(len, lines)) <= 100

    with redis.from_url(settings.redis_url) as client:
        client.set(settings.key("gtrial:meta"), b"{}")
        assert told(settings)["shadows"] == ["trial"] and "shadows: trial" in status(settings).stdout
        client.delete(settings.key("gtrial:meta"))

    stack.redis.kill()
    without = status(settings, "--json")
    assert without.returncode == 1 and not json.loads(without.stdout)["redis"]["up"] and json.loads(without.stdout)["kafka"]["up"]
    assert "Redis at" in without.stderr and "Kafka at" not in without.stderr and "Traceback" not in without.stderr
    stack.redis.start()
    wait_until(lambda: told(settings)["healthy"], 90.0, "well again")
    workers[0].pause()
    wait_until(lambda: [(entry["pid"], entry["partitions"]) for entry in told(settings)["workers"]] == [(workers[1].pid, list(range(4)))], 90.0,
               "a worker that sleeps is missed, and the other has all")
    workers[0].resume()
    stack.kafka.kill()
    without = status(settings, "--json")
    assert without.returncode == 1 and not json.loads(without.stdout)["kafka"]["up"] and json.loads(without.stdout)["lists"] == N_USERS
    assert "Kafka at" in without.stderr and "Traceback" not in without.stderr


def test_top_in_a_terminal_ends_by_a_key_and_leaves_it_as_it_was(namespace: Callable[..., Settings]) -> None:
    settings = namespace()
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen([*COMMAND, "top", "--interval", "0.5"], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT,
                               env={**environment(settings), "TERM": "xterm", "LINES": "24"})
    try:
        said = _read_until(master, b"no worker runs")
        assert b"\x1b[?1049h" in said  # a screen of its own
        assert termios.tcgetattr(slave)[3] & termios.ICANON == 0
        os.write(master, b"q")
        said = _read_until(master, b"\x1b[?1049l")
        assert process.wait(END_S) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def test_top_in_a_log_is_lines_and_ends_by_a_signal(namespace: Callable[..., Settings], tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    settings, log = namespace(), tmp_path / "top.log"
    for number in (signal.SIGINT, signal.SIGTERM):
        with log.open("wb") as out:
            process = subprocess.Popen([*COMMAND, "top", "--interval", "0.2"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT,
                                       env=environment(settings))
        try:
            wait_until(lambda: len(log.read_text().splitlines()) >= 3, END_S, "three looks are in the log")
            process.send_signal(number)
            assert process.wait(END_S) == 0
        finally:
            process.kill()
            process.wait()
        text = log.read_text()
        assert "\x1b" not in text and "Traceback" not in text
        assert all("NOT WELL, 0 workers, 0 events/s" in line and "no worker runs" in line for line in text.splitlines())


def _read_until(fd: int, wanted: bytes) -> bytes:
    said, deadline = b"", time.monotonic() + END_S
    while wanted not in said:
        assert time.monotonic() < deadline, said
        if select.select([fd], [], [], 0.2)[0]:
            said += os.read(fd, 65_536)
    return said
