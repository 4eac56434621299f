"""`streamrec dlq`: what was rejected is counted and shown; a corrected event comes once, whoever is killed in between."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from consumers.redrive import HEADER
from infra.settings import Settings
from infra.stack import WorkerProcess
from models.user_row import USER_ROW
from streams.outbox import dead_letter
from streams.partitioner import partition_of
from tests.live.command import environment, streamrec
from tests.live.equality import Redis, wait_drained
from tests.live.reading import read_all

STEP_S = 60.0
#: The real thing, but it kills itself at a step: before or after it, or while what it has sent is on its way.
DYING = """
import asyncio, os, signal, sys
from consumers import redrive as room
from infra.settings import Settings
(step, _, nth), when, *keys = sys.argv[1].partition(":"), *sys.argv[2:]
method, calls = getattr(room._Redrive, step), []
async def dying(self, *args):
    calls.append(1)
    last = len(calls) == int(nth or 1)
    if last and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if last and when == "during":
        await asyncio.sleep(0.003)
        os.kill(os.getpid(), signal.SIGKILL)
    if last and when == "pause":
        print("here", flush=True)
        await asyncio.sleep(60)
    done = await method(self, *args)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
setattr(room._Redrive, step, dying)
asyncio.run(room.redrive(Settings.load(), dict.fromkeys(keys)))
"""


def event(number: int, **changes: Any) -> bytes:
    good = {"event_id": f"e{number}", "user_id": f"u{number % 7}", "item_id": f"i{number % 5}", "event_type": "view", "timestamp": time.time_ns() // 1_000_000}
    return json.dumps(good | changes).encode()


async def produce(settings: Settings, name: str, messages: Iterable[tuple[bytes | None, bytes | None]]) -> None:
    producer = AIOKafkaProducer(**settings.kafka_client_args())
    await producer.start()
    for key, value in messages:
        await producer.send(settings.topic(name), value, key=key)
    await producer.stop()


def marks(settings: Settings, name: str = "events") -> Counter[str]:
    """How often each letter's key stands in a header of the log."""
    return Counter(value.decode().partition("@")[0] for record in asyncio.run(read_all(settings, name)) for header, value in record.headers if header == HEADER)


def counted(settings: Settings) -> int:
    """Events in all user rows."""
    state = Redis(settings)
    return sum(int(np.frombuffer(row, USER_ROW)[0]["counts"].sum()) for p in range(settings.partitions) for row in state.user_rows(p).values())


def test_rejected_corrected_and_absorbed_once(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    settings = namespace()
    worker = start_worker(settings)
    messages: list[tuple[bytes | None, bytes | None]] = [(f"u{n % 7}".encode(), event(n)) for n in range(40)]
    messages += [(f"u{n % 7}".encode(), event(n, event_type="stare")) for n in range(40, 46)]
    messages += [(f"u{n % 7}".encode(), event(n, event_type="rating", value=9)) for n in range(46, 50)] + [(b"u1", b"{")]
    asyncio.run(produce(settings, "events", messages))
    wait_drained(settings)
    report = json.loads(streamrec(settings, "dlq", "list", "--json").stdout)
    assert {reason: told["n"] for reason, told in report["reasons"].items()} == {"event_type": 6, "value": 4, "json": 1}
    assert "11 dead letters" in streamrec(settings, "dlq", "list").stdout
    assert json.loads(streamrec(settings, "dlq", "list", "--until", "1h", "--json").stdout)["letters"] == 0
    assert json.loads(streamrec(settings, "dlq", "list", "--since", "1h", "--json").stdout)["letters"] == 11

    shown = streamrec(settings, "dlq", "show", "--reason", "event_type", "--all", "--json")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(lines) == 6 and all(line["event"]["event_type"] == "stare" and line["redriven"] is None for line in lines)
    file = tmp_path / "letters.jsonl"
    file.write_text(shown.stdout)
    unchanged = streamrec(settings, "dlq", "redrive", str(file), "--json")
    assert unchanged.returncode == 1 and len(json.loads(unchanged.stdout)["refused"]) == 6, "what is not corrected is refused"
    file.write_text("".join(json.dumps(line | {"event": line["event"] | {"event_type": "click"}}) + "\n" for line in lines))
    done = streamrec(settings, "dlq", "redrive", str(file), "--json")
    assert done.returncode == 0 and len(json.loads(done.stdout)["sent"]) == 6, done.stdout + done.stderr
    wait_drained(settings)
    assert counted(settings) == 46

    n_records = len(asyncio.run(read_all(settings)))
    again = json.loads(streamrec(settings, "dlq", "redrive", str(file), "--json").stdout)
    assert not again["sent"] and again["already"] == json.loads(done.stdout)["sent"]
    assert len(asyncio.run(read_all(settings))) == n_records
    assert json.loads(streamrec(settings, "dlq", "list", "--json").stdout)["redriven"] == 6
    worker.stop()
    # what has become right by a setting goes back as it was
    wider = settings.__class__(**{**settings.public(), "rating_scale": "1,5,10", "redis_url": settings.redis_url})
    done = streamrec(wider, "dlq", "redrive", "--reason", "value", "--json")
    assert len(json.loads(done.stdout)["sent"]) == 4, done.stdout + done.stderr

    # a worker that reads the log again writes its letters again: what was redriven is known all the same
    state = Redis(settings)
    state.client.delete(*state.client.scan_iter(match=f"{settings.prefix}g1:*"))
    start_worker(wider)
    wait_drained(wider)
    assert counted(settings) == 50
    again = json.loads(streamrec(settings, "dlq", "redrive", str(file), "--json").stdout)
    assert not again["sent"] and len(again["already"]) == 6


@pytest.fixture
def letters(namespace: Callable[..., Settings]) -> tuple[Settings, list[str]]:
    """Letters of events that are right by now, and of one item; their keys."""
    settings = namespace()
    made = []
    for n in range(12):
        record = SimpleNamespace(offset=n, timestamp=1_763_778_821_000 + n, value=event(n), headers=(), key=None)
        made.append(dead_letter(settings.topic("events.dlq"), settings.topic("events"), partition_of(f"u{n % 7}", settings.partitions), record, "value", "x"))
    item = SimpleNamespace(offset=0, timestamp=1_763_778_821_000, value=b'{"item_id":"i1","title":"T"}', headers=(), key=None)
    made.append(dead_letter(settings.topic("events.dlq"), settings.topic("items"), 0, item, "schema", "x"))
    asyncio.run(produce(settings, "events.dlq", [(message.key, message.value) for message in made]))
    return settings, [(message.key or b"").decode() for message in made]


@pytest.mark.parametrize(("step", "when"), [("_note", "after"), ("_send", "before"), ("_acknowledged:2", "during"), ("_send", "after"), ("_note:2", "after")])
def test_killed_between_what_it_sends_and_what_it_notes(letters: tuple[Settings, list[str]], step: str, when: str) -> None:
    settings, keys = letters
    died = subprocess.run([sys.executable, "-c", DYING, step, when, *keys], env=environment(settings), capture_output=True, text=True, timeout=STEP_S)
    assert died.returncode == -9, died.stderr
    before = marks(settings)
    if when != "during":
        assert len(before) == (12 if (step, when) in (("_send", "after"), ("_note:2", "after")) else 0)
    for _ in range(2):
        done = streamrec(settings, "dlq", "redrive", *keys, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
    assert not json.loads(done.stdout)["sent"]
    assert marks(settings) == Counter(keys[:12]), "each once"
    assert marks(settings, "items") == Counter(keys[12:])
    places = {f"{record.topic}/{record.partition}/{record.offset}" for name in ("events", "items") for record in asyncio.run(read_all(settings, name))}
    assert set(json.loads(done.stdout)["already"].values()) == places


def test_of_two_one_is_told(letters: tuple[Settings, list[str]]) -> None:
    settings, keys = letters
    first = subprocess.Popen([sys.executable, "-c", DYING, "_send", "pause", *keys], env=environment(settings), stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "here\n"
        second = streamrec(settings, "dlq", "redrive", *keys)
        assert second.returncode == 1 and "another process is redriving" in second.stderr
    finally:
        first.kill()
        first.wait()
    assert streamrec(settings, "dlq", "redrive", *keys).returncode == 0
    assert marks(settings) == Counter(keys[:12])
    missing = streamrec(settings, "dlq", "redrive", "events/0/999")
    assert missing.returncode == 1 and "no dead letter" in missing.stderr
