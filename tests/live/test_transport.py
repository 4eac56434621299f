"""Workers as processes against a real group: nothing is lost and nothing skipped, whoever dies, stops or comes back."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from infra.settings import Settings

PARTITIONS = 4
JOIN_S = 20.0  # imports and a join take about 1 s; two cores may be busy with other tests
STOP_S = 6.0  # the promise is 5 s from SIGTERM
SESSION_MS = 3_000  # the least that keeps a busy machine's heartbeats alive; a kill is noticed after this
ROOT = Path(__file__).parents[2]


class Worker:
    """One transport_worker process, and what it said so far."""

    def __init__(self, settings: Settings, folder: Path, log: Path) -> None:
        chosen = {"kafka_bootstrap": settings.kafka_bootstrap, "prefix": settings.prefix, "partitions": settings.partitions,
                  "session_timeout_ms": SESSION_MS}
        self.out, self.err = log.with_suffix(".out"), log.with_suffix(".err")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.live.transport_worker", str(folder), json.dumps(chosen)], cwd=ROOT,
            stdout=self.out.open("w"), stderr=self.err.open("w"), env={**os.environ, "PYTHONPATH": str(ROOT)})

    def said(self, do: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.out.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if do in (None, line["do"])]

    def has(self, partitions: set[int]) -> bool:
        last = [line for line in self.said() if line["do"] in ("assign", "revoke")][-1:]
        return bool(last) and last[0]["do"] == "assign" and {int(p) for p in last[0]["offsets"]} == partitions

    def owned(self) -> set[int]:
        last = [line for line in self.said() if line["do"] in ("assign", "revoke")][-1:]
        return {int(p) for p in last[0]["offsets"]} if last and last[0]["do"] == "assign" else set()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[[Settings], Worker]]:
    """Starts workers over one folder, so that they share checkpoints; none outlives the test."""
    folder = tmp_path / "host"
    folder.mkdir()
    started: list[Worker] = []

    def start(settings: Settings) -> Worker:
        started.append(Worker(settings, folder, tmp_path / f"worker{len(started)}"))
        return started[-1]

    yield start
    for number, worker in enumerate(started):
        if worker.process.poll() is None:
            worker.kill()
        print(f"--- worker {number}, exit {worker.process.returncode}\n{worker.err.read_text()[-4000:]}")


def produce(settings: Settings, values: list[str]) -> None:
    """Value i goes to partition i mod PARTITIONS."""
    async def send() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        sent = [await producer.send(settings.topic("events"), value.encode(), partition=number % PARTITIONS)
                for number, value in enumerate(values)]
        await asyncio.gather(*sent)
        await producer.stop()
    asyncio.run(send())


def values_of(workers: list[Worker]) -> collections.Counter[str]:
    return collections.Counter(value for worker in workers for line in worker.said("absorb") for value in line["values"])


def check_order(worker: Worker) -> None:
    """Reading starts exactly where assign or reseek said, and each batch where the one before ended."""
    place: dict[int, int] = {}
    epochs: dict[int, int] = {}
    for line in worker.said():
        if line["do"] in ("assign", "reseek"):
            place |= {int(p): offset for p, offset in line["offsets"].items()}
            epochs |= {int(p): epoch for p, epoch in line.get("epochs", {}).items()}
        elif line["do"] == "revoke":
            place = {p: offset for p, offset in place.items() if p not in line["partitions"]}
        elif line["do"] == "absorb":
            assert line["start"] == place[line["partition"]], line
            assert line["epoch"] >= epochs.get(line["partition"], 0), line
            place[line["partition"]] = line["next"]


EVERY = set(range(PARTITIONS))


def test_nothing_is_lost_when_workers_come_stop_and_die(namespace: Any, workers: Any, wait_until: Any) -> None:
    settings = namespace(partitions=PARTITIONS)
    first = workers(settings)
    wait_until(lambda: first.has(EVERY), JOIN_S, "the first worker has all partitions")
    values = [f"a{n}" for n in range(400)]
    produce(settings, values)
    second = workers(settings)
    wait_until(lambda: first.owned() and second.owned() and first.owned() | second.owned() == EVERY
               and not first.owned() & second.owned(), JOIN_S, "both share the partitions")
    produce(settings, more := [f"b{n}" for n in range(400)])
    values += more
    assert first.stop() == 0
    wait_until(lambda: second.has(EVERY), JOIN_S, "the second has all after the first stopped")
    produce(settings, more := [f"c{n}" for n in range(400)])
    values += more
    third = workers(settings)
    wait_until(lambda: third.owned() and second.owned() and third.owned() | second.owned() == EVERY, JOIN_S, "a third joins")
    produce(settings, more := [f"d{n}" for n in range(400)])
    values += more
    second.kill()
    wait_until(lambda: third.has(EVERY), SESSION_MS / 1000 + JOIN_S, "the third has all after the second was killed")
    produce(settings, more := [f"e{n}" for n in range(400)])
    values += more
    everyone = [first, second, third]
    wait_until(lambda: values_of(everyone).keys() >= set(values), JOIN_S, "every event was absorbed by somebody")
    assert third.stop() == 0
    for worker in everyone:
        check_order(worker)
    assert values_of(everyone).keys() == set(values)
    # a worker that stops hands over exactly; only the killed one leaves events to be read again
    again = {value for value, times in values_of(everyone).items() if times > 1}
    assert not again & {value for value in values if value[0] in "ac"}


def test_reseek_drops_what_was_fetched_and_reads_again_without_a_rebalance(namespace: Any, workers: Any, wait_until: Any,
                                                                          tmp_path: Path) -> None:
    settings = namespace(partitions=PARTITIONS)
    worker = workers(settings)
    wait_until(lambda: worker.has(EVERY), JOIN_S, "the worker has all partitions")
    produce(settings, values := [f"v{n}" for n in range(40_000)])
    wait_until(lambda: len(worker.said("absorb")) >= 4, JOIN_S, "it absorbs")
    (tmp_path / "host" / "slow").touch()  # so that batches are queued when the seek comes
    (tmp_path / "host" / "reseek").write_text(json.dumps({"0": 100, "2": 0}))
    wait_until(lambda: worker.said("reseek"), JOIN_S, "it seeks")
    (tmp_path / "host" / "slow").unlink()
    wait_until(lambda: {line["partition"] for line in worker.said("absorb") if line["next"] == 10_000} == EVERY
               and any(line["epoch"] == worker.said("reseek")[0]["epochs"]["0"] for line in worker.said("absorb")
                       if line["partition"] == 0 and line["next"] == 10_000), JOIN_S, "all is read to the end after the seek")
    check_order(worker)
    counts = values_of([worker])
    assert counts.keys() == set(values)
    assert len(worker.said("assign")) == 1, "without a rebalance"
    wish = worker.said("reseek")[0]
    assert all(wish["epochs"][p] > wish["before"][p] for p in ("0", "2")), "stale from the call on, before any await"
    after = [line for line in worker.said("absorb") if line["partition"] == 0 and line["epoch"] >= wish["epochs"]["0"]]
    assert after[0]["start"] == 100
    assert worker.stop() == 0


def test_an_error_in_absorb_ends_the_process(namespace: Any, workers: Any, wait_until: Any, tmp_path: Path) -> None:
    settings = namespace(partitions=PARTITIONS)
    worker = workers(settings)
    wait_until(lambda: worker.has(EVERY), JOIN_S, "the worker has all partitions")
    (tmp_path / "host" / "fail").touch()
    produce(settings, ["x"])
    assert worker.process.wait(JOIN_S) == 1
    assert "absorb was told to fail" in worker.err.read_text()
    (tmp_path / "host" / "fail").unlink()
    again = workers(settings)
    wait_until(lambda: values_of([again])["x"] == 1, JOIN_S, "its successor reads the event again")


def test_assign_may_wait_for_redis_and_a_rebalance_meanwhile(namespace: Any, workers: Any, wait_until: Any, tmp_path: Path) -> None:
    settings = namespace(partitions=PARTITIONS)
    produce(settings, values := [f"v{n}" for n in range(100)])
    away = tmp_path / "host" / "away"
    away.touch()
    first = workers(settings)
    wait_until(lambda: first.said("assigning"), JOIN_S, "the first waits for its checkpoints")
    second = workers(settings)
    wait_until(lambda: second.said("assigning") and len(first.said("assigning")) >= 2, JOIN_S, "both wait")
    assert not values_of([first, second])
    away.unlink()
    wait_until(lambda: first.owned() | second.owned() == EVERY, JOIN_S, "both have theirs")
    wait_until(lambda: values_of([first, second]).keys() == set(values), JOIN_S, "all is absorbed")
    check_order(first)
    check_order(second)
    away.touch()
    third = workers(settings)
    wait_until(lambda: third.said("assigning"), JOIN_S, "a third waits")
    assert third.stop() == 0, "also while it waits a worker stops when told"


def test_a_checkpoint_outside_the_log(namespace: Any, workers: Any, wait_until: Any, tmp_path: Path) -> None:
    settings = namespace(partitions=PARTITIONS)
    produce(settings, [f"v{n}" for n in range(400)])

    async def delete_head() -> None:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        await admin.delete_records({TopicPartition(settings.topic("events"), 1): RecordsToDelete(before_offset=40)})
        await admin.close()

    asyncio.run(delete_head())
    (tmp_path / "host" / "checkpoint1").write_text("7")
    worker = workers(settings)
    wait_until(lambda: any(line["partition"] == 1 and line["next"] == 100 for line in worker.said("absorb")), JOIN_S, "it reads")
    assert next(line for line in worker.said("absorb") if line["partition"] == 1)["start"] == 40
    assert "the log begins at offset 40, so the events from 7 on are gone" in worker.err.read_text()
    assert worker.stop() == 0
    (tmp_path / "host" / "checkpoint2").write_text("5000")
    refused = workers(settings)
    assert refused.process.wait(JOIN_S) == 1
    assert "is 5000, but its log ends at 100" in refused.err.read_text()


def test_kafka_away_for_a_while(own_stack: Any, namespace: Any, workers: Any, wait_until: Any) -> None:
    stack = own_stack()
    settings = namespace(stack=stack, partitions=PARTITIONS)
    worker = workers(settings)
    wait_until(lambda: worker.has(EVERY), JOIN_S, "the worker has all partitions")
    produce(settings, ["before"])
    wait_until(lambda: values_of([worker])["before"], JOIN_S, "it reads")
    stack.kafka.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.process.wait(SESSION_MS / 1000 + 2)  # longer than its session
    stack.kafka.start()
    produce(settings, ["after"])
    wait_until(lambda: values_of([worker])["after"], 3 * JOIN_S, "it goes on by itself")
    check_order(worker)
    assert worker.stop() == 0
